"""What a tablet shows while its box is away: the last worklist and the open film, marked as old; and nothing of anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edge.config import Config, Policy, Web
from edge.records import Outcome
from edge.state.store import open_store
from tests.box import free_port
from tests.browser.test_trust import tablet, trusting
from tests.clinic import film
from tests.people import cookies
from web.serve import pages

pytestmark = [pytest.mark.browser, pytest.mark.peer]

KEPT = "caches.open('kept').then(c => c.keys()).then(all => all.map(r => new URL(r.url).pathname).sort())"


class Restartable:
    """A box's pages that can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(
            state=str(folder / "state"),
            web=Web(port=free_port(), join_port="none"),
            policy=Policy(impression_first=False),
        )
        self.url = f"https://127.0.0.1:{self.config.web.port}"
        self._running = ExitStack()

    def start(self) -> None:
        self._running.enter_context(pages(self.config))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Any]:
    made = Restartable(tmp_path)
    with closing(open_store(Path(made.config.state))) as store:
        made.films = [
            film(made.config, store, Outcome.SOON, f"DIALLO^Mariama{n}", minutes=n, probability=0.6) for n in (9, 5)
        ]
    made.start()
    yield made
    made.stop()


@pytest.fixture
def page(browser: Any, box: Any, tmp_path: Path) -> Iterator[Any]:
    """A tablet that has joined, on which a person is signed in and the worker is at work."""
    with tablet(browser, env=trusting(tmp_path / "home", Path(box.config.state) / "trust/ca.crt")) as page:
        page.goto(f"{box.url}/health")
        person(page, box, "Amina")
        page.goto(box.url)
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.wait_for_function("navigator.serviceWorker.controller?.state === 'activated'")
        page.goto(box.url)
        page.wait_for_function(f"{KEPT}.then(kept => kept.includes('/'))")
        yield page


def person(page: Any, box: Any, name: str) -> None:
    held = cookies(Path(box.config.state), name)
    page.context.add_cookies([{"name": key, "value": value, "url": box.url} for key, value in held.items()])


def test_the_pages_are_an_app(page: Any, box: Any) -> None:
    devtools = page.context.new_cdp_session(page)
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["errors"] == [] and manifest["url"] == f"{box.url}/manifest.webmanifest"
    found = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [one["errorId"] for one in found] == ["in-incognito"]  # what Playwright's contexts are, and nothing else


def test_the_last_list_and_the_open_film_are_shown_as_what_they_are(page: Any, box: Any) -> None:
    page.goto(f"{box.url}/films/{box.films[0]}")
    page.wait_for_selector(".viewer.ready")
    page.wait_for_function(f"{KEPT}.then(kept => kept.includes('/films/{box.films[0]}/film.png'))")
    assert page.locator(".asof").is_hidden()
    box.stop()
    page.reload()
    page.wait_for_selector(".viewer.ready")
    assert "The box does not answer. This is as it was at" in page.inner_text(".asof")
    page.goto(f"{box.url}/films/{box.films[1]}")
    assert "The box does not answer" in page.inner_text("h1")
    assert "DIALLO" not in page.content()
    page.goto(box.url)
    assert page.locator("#rows li").count() == 2
    assert page.locator(".asof").is_visible()
    page.wait_for_selector("#stale:not([hidden])")
    box.start()
    page.wait_for_selector(".asof", state="hidden")
    page.wait_for_selector("#stale", state="hidden")


def test_the_list_that_is_kept_is_the_last_that_was_shown(page: Any, box: Any) -> None:
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, Outcome.IMMEDIATE, "TRAORE^Awa", minutes=1)
    page.wait_for_selector(f"#film-{number}")
    page.wait_for_function("caches.match('/worklist').then(kept => kept.text()).then(text => text.includes('TRAORE'))")
    box.stop()
    page.reload()
    assert page.locator(f"#film-{number}").is_visible() and page.locator(".asof").is_visible()


def test_only_the_film_that_is_open_is_kept(page: Any, box: Any) -> None:
    for number in box.films:
        page.goto(f"{box.url}/films/{number}")
        page.wait_for_selector(".viewer.ready")
    page.wait_for_function(f"{KEPT}.then(kept => kept.includes('/films/{box.films[1]}/film.png'))")
    assert not [path for path in page.evaluate(KEPT) if path.startswith(f"/films/{box.films[0]}")]
    page.goto(box.url)
    page.wait_for_function(f"{KEPT}.then(kept => !kept.some(path => path.startsWith('/films/')))")


@pytest.mark.parametrize("how", ["sign-out", "lock", "another"])
def test_nothing_is_kept_of_anybody_else(page: Any, box: Any, how: str) -> None:
    if how == "another":
        person(page, box, "Brahim")
        page.goto(f"{box.url}/status")
        page.wait_for_function(f"{KEPT}.then(kept => kept.length === 1)")  # who it is, and nothing else
    else:
        if how == "sign-out":
            page.click(".me summary")
        page.click(f"form[action='/{how}'] button")
        page.wait_for_url(lambda url: "/sign-in" in url)
        page.wait_for_function(f"{KEPT}.then(kept => kept.length === 0)")
    box.stop()
    page.goto(box.url)
    assert "The box does not answer" in page.inner_text("h1") and "DIALLO" not in page.content()


def test_a_tablet_that_nobody_has_touched_shows_nothing(page: Any, box: Any) -> None:
    page.evaluate(
        """caches.open('kept').then(async cache => {
            const { tag, at } = await (await cache.match('/person')).json();
            await cache.put('/person', new Response(JSON.stringify({ tag, at: at - 3600000 })));
        })"""
    )
    box.stop()
    page.goto(box.url)
    assert "DIALLO" not in page.content()
    assert page.evaluate(KEPT) == []
