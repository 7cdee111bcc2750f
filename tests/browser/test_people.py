"""Signing in, changing the person and locking, as a tablet's user meets them: by touch, by keyboard, and without scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import pins, setup
from edge.config import Config, Policy, Web
from edge.records import Outcome, Role
from edge.state import accounts, sessions
from edge.state.store import now, open_store, transaction
from tests.clinic import film, serving
from tests.people import PIN
from tests.screens import opened, wrong

pytestmark = pytest.mark.browser

SECRET = pins.hashed(PIN)
"""As dear as on a box: what is measured here is what people wait for."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A box with three people and one film."""
    config = Config(state=str(tmp_path_factory.mktemp("box")), web=Web(port=0), policy=Policy(impression_first=False))
    with closing(open_store(Path(config.state))) as store:
        number = film(config, store, Outcome.ROUTINE, "DIALLO^Mariama", minutes=12)
        with transaction(store):
            for name, role in (("Amina", Role.CLINICIAN), ("Binta", Role.CLINICIAN), ("Grace", Role.LEAD)):
                accounts.add(store, name, role, "en", SECRET, now())
    with serving(config) as pages:
        yield SimpleNamespace(config=config, url=pages.url, number=number)


def enter(page: Any, name: str) -> None:
    page.fill("#typed", name)
    page.fill("#pin", PIN)
    page.keyboard.press("Enter")
    page.wait_for_selector(f".me bdi:text-is('{name}')")


def test_people_sign_in_and_change_by_touch_within_a_second_of_the_box(browser: Any, box: Any) -> None:
    with opened(browser, has_touch=True) as page:
        page.goto(f"{box.url}/films/{box.number}")
        for name in ("Amina", "Binta"):
            page.wait_for_selector("#typed")
            enter(page, name)
            assert page.url.endswith(f"/films/{box.number}")
            if name == "Amina":
                page.tap(".me summary")
                page.tap("text=Change person")
                page.tap("text=Somebody else")
        # what is measured is what a person waits for; what they do between is three touches and a PIN
        page.tap(".me summary")
        waited, started = 0.0, time.monotonic()
        page.tap("text=Change person")
        page.wait_for_selector("text=Who are you?")
        waited += time.monotonic() - started
        page.tap("label:has-text('Amina')")
        page.fill("#pin", PIN)
        started = time.monotonic()
        page.tap(".sign button")
        page.wait_for_selector(".me bdi:text-is('Amina')")
        waited += time.monotonic() - started
        print(f"\nchanging the person: {waited:.2f} s of waiting")
        assert "DIALLO" in page.inner_text("h1")


def test_the_screen_locks_and_the_page_is_still_there(browser: Any, box: Any) -> None:
    with opened(browser) as page:
        page.clock.install()
        page.goto(f"{box.url}/films/{box.number}")
        enter(page, "Amina")
        page.click("summary:has-text('Choose another outcome')")
        page.check("input[value=soon]")
        page.clock.run_for(timedelta(minutes=box.config.people.lock_minutes, seconds=2) / timedelta(milliseconds=1))
        page.wait_for_selector("#lock[open]")
        assert not page.locator("h1").is_visible() and not page.locator("text=DIALLO").first.is_visible()
        page.keyboard.press("Escape")
        assert page.locator("#lock[open]").count() == 1
        page.fill("#unlock", "000000")
        page.keyboard.press("Enter")
        page.wait_for_selector("#lock .wrong:not([hidden])")
        page.fill("#unlock", PIN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#lock:not([open])", state="attached")
        assert page.is_checked("input[value=soon]") and "DIALLO" in page.inner_text("h1")
        page.errors.clear()  # the wrong PIN, and what the page asked for while it was locked


def test_without_scripts_the_box_locks_too(browser: Any, box: Any) -> None:
    with opened(browser, java_script_enabled=False) as page:
        page.goto(f"{box.url}/films/{box.number}")
        enter(page, "Amina")
        until = timedelta(minutes=box.config.people.lock_minutes, seconds=1)
        refresh = page.get_attribute("meta[http-equiv=refresh]", "content")
        assert refresh.startswith(f"{until.seconds};"), "the page asks again by itself when its time is over"
        (token,) = (one["value"] for one in page.context.cookies() if one["name"] == "signed_in")
        with closing(open_store(Path(box.config.state))) as store, transaction(store):
            sessions.seen(store, sessions.get(store, token), now() - until)
        page.reload()
        page.wait_for_selector("h1:has-text('The screen is locked')")
        assert "DIALLO" not in page.content() and page.locator(".person").inner_text() == "Amina"
        page.fill("#pin", PIN)
        page.click(".sign button")
        page.wait_for_selector("h1:has-text('DIALLO')")


@pytest.mark.parametrize("size", ["10-portrait", "10-landscape"])
def test_the_pages_of_signing_in_are_accessible(browser: Any, box: Any, size: str) -> None:
    code = setup.renew(box.config)
    with opened(browser, size=size) as page:

        def look(name: str) -> None:
            assert wrong(page) == [], name

        page.goto(f"{box.url}/setup")
        look("setup")
        page.fill("#code", "AAAAA-AAAAA")
        for field, value in (("#name", "Grace"), ("#new", PIN), ("#again", PIN)):
            page.fill(field, value)
        page.keyboard.press("Enter")
        page.wait_for_selector("#code-error")
        look("setup, wrong")
        for field, value in (("#code", code), ("#new", PIN), ("#again", PIN)):
            page.fill(field, value)
        page.keyboard.press("Enter")
        page.wait_for_selector(".me bdi:text-is('Grace')")
        page.goto(f"{box.url}/people")
        page.locator("summary").first.click()
        look("people")
        page.fill("#name", f"Fatou {size}")
        page.check("input[value=clinician]")
        page.click("text=Add the person")
        page.wait_for_selector(".once")
        look("people, a new one")
        given = page.inner_text(".once").replace(" ", "")
        page.click("text=Lock")
        page.wait_for_selector("h1:has-text('The screen is locked')")
        look("locked")
        page.click("text=Somebody else")
        page.wait_for_selector("#typed")
        look("sign in")
        page.fill("#typed", f"Fatou {size}")
        page.fill("#pin", "000000")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong")
        look("sign in, wrong")
        page.fill("#pin", given)
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Choose your own PIN')")
        look("own PIN")
        page.goto(f"{box.url}/sign-in?switch=1")
        assert page.locator("[name=name][type=radio]").count() == 2
        look("change person")
        page.evaluate("dispatchEvent(new Event('signed-out'))")
        look("locked, over the page")
        page.errors.clear()  # the answers 422 that were asked for
