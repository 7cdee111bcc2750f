"""The clinic's pages as a person meets them: the real server, Debian's Chromium, a box filled by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Config, Policy, Web, Worker
from edge.records import Outcome, Reason
from edge.state.objects import Objects
from edge.state.store import open_store, transaction
from tests.clinic import LONG, decide, film, serving
from tests.people import cookies

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP clinic.test 127.0.0.1",  # by name, as on a clinic's network
]
CARD = """# A demonstrator

**Not** for clinical use.

- one
- two

| figure | value |
| --- | --- |
| AUROC | 0.9 |
"""
SIZES = {"portrait": (800, 1280), "landscape": (1280, 800)}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright: pip install playwright axe-playwright-python")
    if not CHROMIUM.exists():
        _missing("Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A box in service: two assessed films, one without age, one refused, one waiting, two in conflict."""
    folder = tmp_path_factory.mktemp("box")
    (folder / "card.md").write_text(CARD)
    config = Config(
        state=str(folder / "state"),
        web=Web(port=0, names=("clinic.test",)),
        worker=Worker(bundle=str(folder)),
        policy=Policy(impression_first=False),
    )
    with closing(open_store(Path(config.state))) as store:
        films = SimpleNamespace(
            immediate=film(config, store, Outcome.IMMEDIATE, "DIALLO^Mariama", minutes=12, probability=0.86),
            routine=film(config, store, Outcome.ROUTINE, "OKAFOR^Chinedu", minutes=41, probability=0.04),
            soon=film(config, store, Outcome.SOON, "حسن^ليلى", minutes=305, probability=0.43),
            no_age=film(config, store, Outcome.COULD_NOT_ASSESS, "MWANGI^Joseph", 25, reason=Reason.AGE_UNKNOWN),
            lateral=film(
                config, store, Outcome.COULD_NOT_ASSESS, "<script>alert(1)</script>", 9, reason=Reason.NOT_FRONTAL
            ),
            long=film(config, store, Outcome.ROUTINE, LONG, minutes=3, probability=0.2),
            waiting=film(config, store, None, "", minutes=1),
            twin=film(config, store, Outcome.ROUTINE, "KAMAU^Grace", minutes=7, probability=0.1, uid="1.2.3.4"),
            other=film(config, store, Outcome.ROUTINE, "KAMAU^Grace", minutes=6, probability=0.1, uid="1.2.3.4"),
        )
    with serving(config) as pages:
        yield SimpleNamespace(config=config, port=pages.port, url=pages.url, films=films, pages=pages)


@pytest.fixture
def page(browser: Any, box: Any) -> Iterator[Any]:
    """A tablet's page; it fails the test when the page asks for anything outside the box, or logs an error."""
    with opened(browser, config=box.config) as page:
        yield page


@contextmanager
def opened(browser: Any, size: str = "landscape", config: Config | None = None, **options: Any) -> Iterator[Any]:
    """A page of a tablet; where the box's settings are given, with a clinician signed in on it."""
    width, height = SIZES[size]
    # trust is not the point here (test_trust.py), nor is what a tablet keeps (test_away.py)
    options = {"ignore_https_errors": True, "service_workers": "block", **options}
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    if config:
        held = cookies(Path(config.state)).items()
        hosts = ("127.0.0.1", "clinic.test")
        context.add_cookies(
            [{"name": name, "value": value, "domain": host, "path": "/"} for name, value in held for host in hosts]
        )
    asked, said = [], []
    context.on("request", lambda request: asked.append(request.url))
    context.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(str(error)))
    page.errors = said
    yield page
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith(("https://127.0.0.1:", "https://clinic.test:"))] == []
    assert said == []


def paths(films: Any) -> dict[str, str]:
    return {
        "worklist": "/",
        "film": f"/films/{films.immediate}",
        "no-age": f"/films/{films.no_age}",
        "refused": f"/films/{films.lateral}",
        "waiting": f"/films/{films.waiting}",
        "long-name": f"/films/{films.long}",
        "twin": f"/films/{films.twin}",
        "arabic": f"/films/{films.soon}",
        "model": "/model",
        "register": "/register",
        "records": f"/ledger?film={films.immediate}",
        "nothing": "/films/999",
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_accessible(browser: Any, box: Any, size: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    pictures = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    for name, path in paths(box.films).items():
        with opened(browser, size, box.config) as page:
            page.goto(box.url + path)
            page.screenshot(path=pictures / f"{name}-{size}.png", full_page=True)
            if name == "nothing":
                page.errors.clear()  # the 404 itself
            if page.locator("[name=map]").count():
                page.check("[name=map]")
                page.screenshot(path=pictures / f"{name}-map-{size}.png")
            found = axe.run(page, options=RULES)
            assert found.violations_count == 0, f"{name}: {found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                f"{name} is wider than the tablet"
            )
            small = page.evaluate(
                """[...document.querySelectorAll('a, button, input:not(label input), summary, label:has(input)')].filter(e => {
                    const box = e.getBoundingClientRect();
                    const after = getComputedStyle(e, '::after');
                    return box.width > 1 && box.top >= 0 && after.position !== 'absolute' && Math.round(box.height) < 48;
                }).map(e => e.outerHTML)"""
            )
            assert small == [], f"{name}: too small for a finger"


def test_a_new_film_appears_within_two_seconds_and_the_focus_stays(page: Any, box: Any) -> None:
    page.goto(box.url)
    link = f"#open-{box.films.routine}"
    page.focus(link)
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, Outcome.SOON, "TRAORE^Awa", minutes=600)
    page.wait_for_selector(f"#film-{number}", timeout=2000)
    assert page.locator("#rows li").first.get_attribute("id") == f"film-{number}"
    assert page.evaluate("'#' + document.activeElement.id") == link
    positions = page.locator(".position").all_inner_texts()
    assert [int(text.split()[-1]) for text in positions] == list(range(1, len(positions) + 1))


def test_a_waiting_film_page_completes_by_itself(page: Any, box: Any) -> None:
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, None, "")
        page.goto(f"{box.url}/films/{number}")
        assert "being prepared" in page.inner_text("#picture")
        with transaction(store):
            decide(Objects(Path(box.config.state)), store, number, Outcome.ROUTINE, "SOW^Fatou", 0.1, None)
    page.wait_for_selector("#picture .viewer.ready", timeout=3000)
    page.wait_for_selector("#answer .outcome.routine", timeout=3000)
    assert "SOW, Fatou" in page.inner_text("h1")


def test_a_lost_connection_is_said(browser: Any, tmp_path: Path) -> None:
    config = Config(state=str(tmp_path), web=Web(port=0))
    with opened(browser, config=config) as page:
        with serving(config) as pages:
            page.goto(f"{pages.url}/")
            page.wait_for_timeout(1500)
            assert not page.locator("#stale").is_visible()
        page.wait_for_selector("#stale:not([hidden])", timeout=10000)
        page.errors.clear()  # the refused connections


def test_the_age_is_entered_by_the_boxs_network_name(page: Any, box: Any) -> None:
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, Outcome.COULD_NOT_ASSESS, "SECK^Omar", 2, reason=Reason.AGE_UNKNOWN)
    page.goto(f"https://clinic.test:{box.port}/films/{number}")
    page.click(".age button")
    assert page.locator(".age .wrong").count() == 1
    assert page.evaluate("document.activeElement.id") == "years"
    page.fill("#years", "34,5")
    page.click(".age button")
    page.wait_for_selector("text=The age was entered")
    assert page.url.endswith(f"/films/{number}")
    page.errors.clear()  # the 422 that was asked for


def test_everything_but_the_adjustments_works_without_javascript(browser: Any, box: Any) -> None:
    with opened(browser, config=box.config, java_script_enabled=False) as page:
        page.goto(box.url)
        assert page.locator("meta[http-equiv=refresh]").count() == 1
        page.click(f"#open-{box.films.immediate}")
        page.wait_for_selector("img.preview")
        assert not page.locator(".controls").is_visible()
