"""The clinic's pages as a person meets them: the real server, Debian's Chromium, a box filled by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Config, Policy, Web
from edge.records import Outcome, Reason
from edge.state import acceptances, audit
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from tests.clinic import DEVICE, LONG, decide, film, serving
from tests.screens import opened

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A box in service: two assessed films, one without age, one refused, one waiting, two in conflict."""
    state = str(tmp_path_factory.mktemp("box"))
    config = Config(state=state, web=Web(port=0, names=("clinic.test",)), policy=Policy(impression_first=False))
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
    with opened(browser, box.config) as page:
        yield page


def test_a_new_film_appears_by_itself_and_the_focus_stays(page: Any, box: Any) -> None:
    page.goto(box.url)
    link = f"#open-{box.films.routine}"
    page.focus(link)
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, Outcome.SOON, "TRAORE^Awa", minutes=600)
    page.wait_for_selector(f"#film-{number}")
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
    page.wait_for_selector("#picture .viewer.ready")
    page.wait_for_selector("#answer .outcome.routine")
    assert "SOW, Fatou" in page.inner_text("h1")


TONES = """
  window.tones = [];
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (at) { window.tones.push(this.frequency.value); start.call(this, at); };
"""


def test_an_immediate_film_calls_by_sight_and_sound_until_somebody_knows(browser: Any, tmp_path: Path) -> None:
    config = Config(state=str(tmp_path), web=Web(port=0), policy=Policy(impression_first=False))
    with closing(open_store(tmp_path)) as store, serving(config) as pages:
        with transaction(store):
            acceptances.sign(store, DEVICE, "balanced", "Dr Ba", now())
        with opened(browser, config) as other, opened(browser, config, has_touch=True) as page:
            page.add_init_script(TONES)
            for shown, path in ((page, "/status"), (other, "/model")):
                shown.goto(f"{pages.url}{path}")
            page.tap("h1")  # a browser is silent until it was touched
            film(config, store, Outcome.IMMEDIATE, "TRAORE^Awa", probability=0.9)
            for shown in (page, other):
                shown.wait_for_selector(".alert:has-text('TRAORE, Awa')")
            page.wait_for_function("tones.length >= 6")
            assert page.evaluate("tones.slice(0, 3).every((tone, at, all) => !at || tone > all[at - 1])"), "they rise"
            page.tap(".alert button:not(.strong)")
            for shown in (page, other):
                shown.wait_for_selector(".alert", state="detached")
        known = audit.latest(store, audit.Event.ALERT_ACKNOWLEDGED)
        assert known is not None and known.actor == "Amina"


def test_a_lost_connection_is_said(browser: Any, tmp_path: Path) -> None:
    config = Config(state=str(tmp_path), web=Web(port=0))
    with opened(browser, config) as page:
        with serving(config) as pages:
            with page.expect_response("**/worklist*"):
                page.goto(f"{pages.url}/")
            assert not page.locator("#stale").is_visible()
        page.wait_for_selector("#stale:not([hidden])")
        page.errors.clear()  # the refused connections


def test_the_age_is_entered_by_the_boxs_network_name(page: Any, box: Any) -> None:
    with closing(open_store(Path(box.config.state))) as store:
        number = film(box.config, store, Outcome.COULD_NOT_ASSESS, "SECK^Omar", 2, reason=Reason.AGE_UNKNOWN)
    page.goto(f"https://clinic.test:{box.port}/films/{number}")
    page.click(".age button")
    page.wait_for_selector(".age .wrong")
    page.wait_for_function("document.activeElement.id === 'years'")
    page.fill("#years", "34,5")
    page.click(".age button")
    page.wait_for_selector("text=The age was entered")
    assert page.url.endswith(f"/films/{number}")
    page.errors.clear()  # the 422 that was asked for


def test_everything_but_the_adjustments_works_without_javascript(browser: Any, box: Any) -> None:
    with opened(browser, box.config, java_script_enabled=False) as page:
        page.goto(box.url)
        assert page.locator("meta[http-equiv=refresh]").count() == 1
        page.click(f"#open-{box.films.immediate}")
        page.wait_for_selector("img.preview")
        assert not page.locator(".controls").is_visible()
