"""The hub's pages in Debian's Chromium: for everyone in every language, by keyboard alone, and the film as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import request

from edge import cards
from edge.records import Outcome
from tests import reading
from tests.box import until
from tests.reading import Hub
from tests.screens import OPEN, TABLETS, launch, wrong
from web.hub import accounts, drafts, store
from web.hub.accounts import Role
from web.hub.config import Config, Policy
from web.languages import COOKIE, LANGUAGES

pytestmark = pytest.mark.browser

LAPTOP, DESK, PHONE = (1366, 768), (1920, 1080), (390, 844)
SIZES = [LAPTOP, DESK, PHONE, TABLETS["10-portrait"], TABLETS["8-landscape"]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    made = reading.made(Config(state=str(tmp_path_factory.mktemp("hub")), policy=Policy(second_share=0)))
    reading.fill(made)
    with reading.serving(made) as served:
        yield served


def opened(
    browser: Any, hub: Hub, name: str = "", role: Role = Role.READER, code: str = "en", size: Any = LAPTOP
) -> Any:
    """A browser's page in which a person of that language is signed in, or nobody."""
    context = browser.new_context(
        ignore_https_errors=True, reduced_motion="reduce", viewport={"width": size[0], "height": size[1]}
    )
    context.add_cookies([{"name": COOKIE, "value": code, "url": hub.url}])
    if name:
        context.add_cookies(hub.cookies(name, role, code))
    page = context.new_page()
    page.goto(hub.url)
    return page


def ready(page: Any) -> None:
    """The film on the page is as sharp as a read needs."""
    page.wait_for_selector(".viewer.ready:not(.rough)", timeout=60_000)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_page_is_for_everyone_in_every_language(
    browser: Any, hub: Hub, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time on another screen, so that every page is seen on all of them."""
    pytest.importorskip("axe_playwright_python")
    monkeypatch.setattr(drafts, "UNDO_SECONDS", 600.0)  # axe takes its time
    told, number = {}, list(LANGUAGES).index(code)

    def look(page: Any, name: str) -> None:
        nonlocal number
        width, height = SIZES[number % len(SIZES)]
        number += 1
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(OPEN)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if found := wrong(page):
            told[f"{name} {width}×{height}"] = found

    stranger = opened(browser, hub, code=code)
    look(stranger, "sign-in")
    stranger.context.close()
    page = opened(browser, hub, f"Reader {code}", Role.LEAD, code)
    for path in (*reading.pages(hub.app), "/no-such-page"):
        page.goto(hub.url + path)
        look(page, path)
    page.goto(hub.url)
    page.click("#next")
    ready(page)
    look(page, "read")
    page.keyboard.press("n")
    page.wait_for_selector("#ai .outcome")
    look(page, "sealed")
    page.click(".priors a")
    page.wait_for_selector(".viewer.ready:not(.rough) >> nth=1")
    look(page, "beside an earlier film")
    page.check("#picture .viewer:not([data-earlier]) [name=map]")
    assert page.locator("#ai .heat").count() == 0, "the map belongs to the film"
    own = page.get_attribute(".viewer:not([data-earlier]) cxr-view", "data-enough")
    assert own != page.get_attribute("[data-earlier] cxr-view", "data-enough")
    assert page.input_value("[name=seen]") == own, "an earlier film says nothing of how much of this one was seen"
    page.keyboard.press("Enter")
    page.wait_for_selector("#undo")
    look(page, "undo")
    page.click("#undo button")
    page.wait_for_selector("#undo", state="detached")
    page.click("form.links button")
    page.wait_for_selector("#rows")
    page.context.close()
    assert told == {}


def test_films_are_read_by_keyboard_alone(browser: Any, hub: Hub) -> None:
    films = [hub.film(Outcome.IMMEDIATE, waited=100_000 - one, stream=reading.stream(1)) for one in range(3)]
    page = opened(browser, hub, "Keys")
    page.keyboard.press("n")
    page.wait_for_url(f"**/read/{hub.task(films[0])}")
    ready(page)
    page.keyboard.press("n")  # normal: sealed at once
    page.wait_for_selector("#ai .outcome")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/read/{hub.task(films[1])}")
    ready(page)
    for key in ("2", "4", "z", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#ai .outcome")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/read/{hub.task(films[2])}")
    assert "Fluid in the chest, Heart too large" in page.inner_text("#undo")
    page.keyboard.press("0")
    page.keyboard.press("1")  # takes the place of what stands alone
    assert page.locator("[name=codes]:checked").evaluate_all("all => all.map(one => one.value)") == ["consolidation"]
    assert page.locator("[name=outcome]:checked").count() == 0, "what is urgent is not said by what was taken back"
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong")
    assert "how urgent" in page.inner_text("#wrong")
    page.context.close()
    with hub.held.store.transaction(reading.PROGRAMME) as db:
        gone = drafts.flush(db, hub.held.rules, store.now() + 11)
    said = [(one.finding.outcome, one.finding.codes) for one in gone if one.reader == "Keys"]
    assert said == [("routine", ("normal",)), ("immediate", ("effusion", "heart"))]


def test_a_film_that_comes_is_seen_in_an_open_queue_which_keeps_its_focus(browser: Any, hub: Hub) -> None:
    page = opened(browser, hub)
    page.context.add_cookies(hub.cookies("Waiting"))
    page.clock.install()
    page.goto(hub.url)
    assert page.evaluate("document.activeElement.id") == "next"
    before = page.locator("#rows li").count()
    hub.film(Outcome.ROUTINE, waited=10, stream=reading.stream(1))
    page.clock.run_for(31_000)
    page.wait_for_selector(f"#rows li:nth-child({before + 1})")
    assert page.evaluate("document.activeElement.id") == "next"
    page.context.close()


def test_how_urgent_an_uncertain_film_is_stays_as_it_was_sealed(browser: Any, hub: Hub) -> None:
    film = hub.film(Outcome.IMMEDIATE, waited=500_000, stream=reading.stream(1))
    page = opened(browser, hub, "Unsure")
    page.keyboard.press("n")
    page.wait_for_url(f"**/read/{hub.task(film)}")
    for key in ("0", "z", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#ai .outcome")
    page.reload()
    assert page.locator("[name=outcome]:checked").get_attribute("value") == "immediate"
    page.click("form.links button")
    page.wait_for_selector("#rows")
    page.context.close()


def test_a_read_that_is_refused_leaves_film_and_form_as_they_are(browser: Any, hub: Hub) -> None:
    hub.film(Outcome.IMMEDIATE, waited=200_000, stream=reading.stream(1))
    page = opened(browser, hub, "Careful")
    page.keyboard.press("n")
    ready(page)
    page.evaluate("document.querySelector('cxr-view').mine = true")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong")
    assert "how urgent" in page.inner_text("#wrong")
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ai .outcome")
    assert page.locator("#wrong").count() == 0
    page.uncheck("[name=codes][value=effusion]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong")
    assert page.evaluate("document.querySelector('cxr-view').mine"), "the film was not loaded again"
    page.check("[name=codes][value=effusion]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#undo")
    page.context.close()


def test_a_film_that_still_comes_says_so_and_is_refined_in_place(browser: Any, hub: Hub) -> None:
    stream = reading.stream(1)
    film = hub.film(Outcome.IMMEDIATE, waited=300_000, stream=stream, have=32 * 1024)
    page = opened(browser, hub, "Patient")
    page.keyboard.press("n")
    page.wait_for_selector(".viewer.ready.rough", timeout=60_000)
    assert "not for a final read" in page.inner_text(".quality")
    page.keyboard.press("n")
    page.wait_for_selector("#ai .outcome")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong")
    assert "too rough" in page.inner_text("#wrong")
    with hub.held.store.reading(reading.PROGRAMME) as db:
        rows = db.rows("SELECT body FROM answer WHERE programme = :programme AND site = 'north'")
    enough = int(page.get_attribute("cxr-view", "data-enough"))
    assert f'"upto":{enough}' in rows[-1]["body"], "the clinic is asked for as much as a read needs"
    hub.more(film, stream, enough)
    ready(page)
    assert page.locator(".quality").is_hidden()
    hub.more(film, stream, len(stream))
    page.click("[data-do=whole]")
    page.wait_for_selector(".viewer.exact", timeout=60_000)
    import imagecodecs

    sum_of = page.evaluate("document.querySelector('cxr-view').film.values.reduce((sum, one) => sum + one, 0)")
    assert sum_of == int(imagecodecs.htj2k_decode(stream).astype(np.int64).sum())
    page.keyboard.press("Enter")
    page.wait_for_url("**/read/*")
    page.context.close()


def test_the_receipt_of_the_clinic_is_seen(browser: Any, hub: Hub) -> None:
    film = hub.film(Outcome.IMMEDIATE, waited=400_000, stream=reading.stream(1))
    page = opened(browser, hub, "Curious")
    page.keyboard.press("n")
    ready(page)
    page.keyboard.press("n")
    page.wait_for_selector("#ai .outcome")
    page.keyboard.press("Enter")
    page.wait_for_selector("#undo")
    with hub.held.store.transaction(reading.PROGRAMME) as db:
        (review,) = [one for one in drafts.flush(db, hub.held.rules, store.now() + 11) if one.case == film]
        case = reading.films.case(db, film)
    assert case is not None
    page.goto(f"{hub.url}/reads")
    assert "Not seen in the clinic yet" in page.inner_text("#rows")
    hub.says("north", cards.Seen(case=case.result.case, read=review.digest))
    page.reload()
    assert "Seen in the clinic at" in page.inner_text("#rows")
    page.context.close()


def test_one_signs_in_with_an_authenticator_app_by_keyboard(browser: Any, hub: Hub) -> None:
    hub.person("Dr Sign")
    page = opened(browser, hub)
    page.keyboard.press("Tab")
    page.focus("#name")
    page.keyboard.type("dr sign")
    page.keyboard.press("Tab")
    page.keyboard.type(reading.PIN)
    page.keyboard.press("Tab")
    page.keyboard.type(reading.code())
    page.keyboard.press("Enter")
    page.wait_for_selector("#queue")
    with hub.held.store.reading() as db:
        account = accounts.get(db, "Dr Sign")
    assert account is not None and account.totp_step > 0
    page.context.close()


def test_a_film_costs_its_page_and_its_bytes_once_the_queue_was_open(browser: Any, hub: Hub) -> None:
    """On a link of 600 ms each thing that is asked for anew is seen: viewer and decoder come with the queue, once."""
    stream = reading.stream(3, (600, 500))
    for _ in range(2):
        hub.film(Outcome.IMMEDIATE, waited=10**6, stream=stream, shape=(600, 500))
    asked: list[str] = []
    hub.app.before_request_funcs.setdefault(None, []).append(lambda: asked.append(request.path))
    chromium = launch(browser.browser_type, reading.trusted(hub.config))
    context = chromium.new_context()
    context.add_cookies(hub.cookies("Dr Far"))
    page = context.new_page()
    page.goto(hub.url)
    until(lambda: "/static/hub/openjphjs.wasm" in asked, "the decoder comes with the queue")
    page.keyboard.press("n")
    ready(page)
    here, before = page.url, len(asked)
    page.keyboard.press("n")
    page.wait_for_selector("#ai .outcome")
    page.keyboard.press("Enter")
    page.wait_for_function("before => location.href !== before && document.querySelector('#read')", arg=here)
    ready(page)
    chromium.close()
    loaded = [path for path in asked if path.endswith((".js", ".wasm", ".css"))]
    assert sorted(loaded) == sorted(set(loaded)), "everything is loaded once"
    assert [path.rpartition("/")[2] for path in asked[before:]][1:] == ["send", page.url.rpartition("/")[2], "film"]


def test_what_the_pages_of_a_reader_load_fits_a_slow_link() -> None:
    """At most 250 kB of scripts, styles and decoder, compressed; a tablet's pages load none of the decoder."""
    import gzip

    static = Path(reading.server.__file__).parent / "static"
    files = [*static.glob("hub/*.js"), *static.glob("hub/*.wasm"), *static.glob("hub/*.css")]
    files += [static / name for name in ("cxr-view.js", "cxr-view.css", "forms.js", "style.css", "fonts.css")]
    assert sum(len(gzip.compress(file.read_bytes(), 9)) for file in files) <= 250_000
