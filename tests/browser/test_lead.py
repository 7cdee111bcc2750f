"""What a lead does besides reading: ends an alarm about changed films, runs a trial, sees whether all are served alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge import surveillance
from edge.records import Role
from edge.state import audit, notices, trials
from edge.state.audit import Event
from edge.state.store import open_store, transaction
from edge.validity.verdict import Verdict
from tests.clinic import ALARM, CHARTS, film, watched
from tests.people import PIN, person
from tests.screens import Clinic, clinics, opened, wrong

pytestmark = pytest.mark.browser


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[Clinic]]:
    """With a film in every state; in its first days; new."""
    with clinics(tmp_path) as shown:
        yield shown


def test_a_lead_ends_an_alarm_with_the_pin_and_the_watch_learns_anew(browser: Any, boxes: list[Clinic]) -> None:
    box, begun, new = boxes
    for quiet, said in ((new, "No day of films has ended yet"), (begun, "Too few films to say: 27 more days")):
        with opened(browser, quiet.pages.config) as page:
            page.goto(f"{quiet.pages.url}/drift")
            assert said in page.inner_text("main") and page.locator(".age, main svg").count() == 0
    state = Path(box.pages.config.state)
    with opened(browser, box.pages.config, has_touch=True) as page, closing(open_store(state)) as store:
        page.goto(box.pages.url)
        assert "no longer such as they were" in page.inner_text("#summary")
        page.tap("nav summary")
        page.tap("text=Changed films")
        assert "another X-ray unit" in page.inner_text("main .sum")
        assert page.locator(".share").first.inner_text().splitlines()[0] == "How grainy they are", (
            "what moved comes first"
        )
        assert wrong(page) == []
        page.fill("#pin", "000000")
        page.tap(".age button")
        assert page.inner_text(".age .wrong") == "That PIN is wrong. Try again."
        assert surveillance.current(store).alarm == ALARM
        assert wrong(page) == []
        page.fill("#pin", PIN)
        page.tap(".age button")
        page.wait_for_selector("text=No day of films has ended yet")
        assert surveillance.current(store) is None and notices.current(store) == []
        ended = audit.latest(store, Event.DRIFT_ENDED)
        assert (ended.actor, ended.detail["why"]) == ("Amina", "usual now")
        page.errors.clear()  # the 422 that was asked for


def test_an_old_page_ends_no_other_alarm_and_a_technician_none(browser: Any, boxes: list[Clinic]) -> None:
    box, *_ = boxes
    state, replaced = Path(box.pages.config.state), replace(ALARM, found=ALARM.found + timedelta(days=1))
    with opened(browser, box.pages.config) as page, closing(open_store(state)) as store:
        page.goto(f"{box.pages.url}/status")
        assert "The box needs help" not in page.inner_text("main"), "it says what to do, not where that is said"
        page.goto(f"{box.pages.url}/drift")
        with transaction(store):
            watched(store, Verdict(46, 1380, 0, 0, (replaced,), CHARTS))
        page.fill("#pin", PIN)
        page.click(".age button")
        page.wait_for_selector(f"input[name=found][value='{replaced.found}']", state="attached")
        assert surveillance.current(store).alarm == replaced
    with opened(browser) as page:
        page.context.add_cookies(box.pages.cookies("Tariq", Role.TECHNICIAN))
        page.goto(f"{box.pages.url}/drift")
        assert page.locator("main svg").count() == len(CHARTS) and page.locator(".age").count() == 0
        answer = page.request.post(
            f"{box.pages.url}/drift/restart", form={"pin": PIN}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status == 403


def test_a_trial_is_registered_runs_unseen_and_shows_what_came_of_it(browser: Any, boxes: list[Clinic]) -> None:
    _full, box, new = boxes
    with opened(browser, new.pages.config) as page:
        page.goto(f"{new.pages.url}/trial")
        assert "Accept one first" in page.inner_text("main") and page.locator(".age").count() == 0
    state = Path(box.pages.config.state)
    with opened(browser, box.pages.config, has_touch=True) as page, closing(open_store(state)) as store:
        page.goto(f"{box.pages.url}/trial")
        assert "It is running" in page.inner_text("main")
        assert page.locator(".share, details.group").count() == 0, "nothing of the two arms while it runs"
        page.fill("#pin-end", "000000")
        page.tap("text=End the trial now")
        page.wait_for_selector(".wrong")
        assert trials.running(store) is not None
        page.fill("#pin-end", PIN)
        page.tap("text=End the trial now")
        page.wait_for_selector("main details.group")
        assert page.locator("main details.group").count() == 2 and "Too few films to tell" in page.inner_text(".sum")
        assert wrong(page) == []
        page.fill("#title", "A second one")
        page.fill("#size", "40")
        page.fill("#pin", PIN)
        page.tap("text=Begin the trial")
        page.wait_for_selector("text=It is running")
        assert trials.running(store).protocol.title == "A second one"
        page.errors.clear()  # the 422 that was asked for


def test_fairness_tells_only_what_enough_films_show(browser: Any, boxes: list[Clinic]) -> None:
    box, begun, new = boxes
    for few in (begun, new):
        with opened(browser, few.pages.config) as page:
            page.goto(f"{few.pages.url}/fairness")
            assert "Fewer than five films" in page.inner_text(".sum") and page.locator(".share").count() == 0
    state = Path(box.pages.config.state)
    with opened(browser, box.pages.config) as page, closing(open_store(state)) as store:
        page.goto(f"{box.pages.url}/fairness")
        count = int(page.inner_text(".sum").split()[0])
        for measure, shown in (
            (1, ["female"]),
            (2, ["female", "male"]),
        ):  # alone, they would tell of the only other film
            picture = page.locator(f"[aria-labelledby=measure-{measure}]").locator("details").first
            picture.locator("summary").click()
            assert picture.locator(".share b").all_inner_texts() == shown
        assert wrong(page) == []
        film(box.pages.config, store, None, "LATE^Film", 1)
        page.click("text=Last 90 days")
        page.wait_for_selector(f".sum:has-text('{count + 1} films came')")


def test_the_menus_are_for_fingers_for_keys_and_for_tablets_without_scripts(browser: Any, boxes: list[Clinic]) -> None:
    box, *_ = boxes
    with opened(browser, box.pages.config, "8-portrait", has_touch=True) as page:
        page.goto(box.pages.url)
        assert page.locator("header.top").bounding_box()["height"] < 3 * 48, "the list is what is seen"
        for summary in ("nav summary", ".me summary"):
            page.tap(summary)
            assert page.locator(".top details[open]").count() == 1, "one at a time"
            assert wrong(page, ".top") == []
        page.tap("h1")
        assert page.locator(".top details[open]").count() == 0
        page.focus("nav summary")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent.trim()") == "Register a patient"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.matches('nav summary')")
        assert page.locator(".top details[open]").count() == 0
    person(Path(box.pages.config.state))
    with opened(browser, box.pages.config, java_script_enabled=False) as page:
        page.goto(box.pages.url)
        page.click("nav summary")
        page.click("nav >> text=The box")
        assert page.url.endswith("/status")
