"""Every page in every language: readable by everyone, for fingers, without dragging, on paper, and on a phone's camera."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Config
from edge.records import Role
from tests.browser.test_clinic import RULES, browser  # noqa: F401  a fixture
from tests.clinic import LONG, every_page, fill, serving
from tests.conftest import peer
from web.languages import LANGUAGES

pytestmark = pytest.mark.browser

TABLETS = ((600, 960), (960, 600), (800, 1280), (1280, 800), (1024, 1366), (1366, 1024))
"""8, 10 and 12 inches, in CSS pixels."""
FINGER = 48
SMALL = """least => [...document.querySelectorAll('a, button, input, select, summary, label')]
  .filter(e => {
    const box = e.getBoundingClientRect();
    const whole = getComputedStyle(e, '::after').position === 'absolute'; // the whole row is touched
    const inside = e.matches('input') && e.closest('label'); // then the label is touched
    const plain = e.matches('label') && !e.querySelector('input:not(.unseen)');
    return !inside && !plain && !e.matches('.unseen')
      && e.checkVisibility({ visibilityProperty: true }) && box.width > 1 && box.bottom > 0 && !whole
      && (Math.round(box.height) < least || Math.round(box.width) < least);
  }).map(e => e.outerHTML)"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = Config(state=str(tmp_path_factory.mktemp("box")))
    filled = fill(config)
    with serving(config) as pages:
        yield SimpleNamespace(pages=pages, filled=filled, paths=every_page(pages.app, filled))


def opened(browser: Any, box: Any, code: str = "en", role: Role = Role.LEAD, **options: Any) -> Any:  # noqa: F811
    """A tablet's page on which a person of that language is signed in."""
    context = browser.new_context(ignore_https_errors=True, service_workers="block", **options)
    context.add_cookies(box.pages.cookies(f"{role} {code}", role, code))
    return context.new_page()


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_page_is_for_everyone_in_every_language(browser: Any, box: Any, code: str) -> None:  # noqa: F811
    """In each language a page is seen on another tablet, so that most are seen on all six; build/screenshots shows the rest."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, wrong = opened(browser, box, code), {}
    for number, (name, path) in enumerate(box.paths.items()):
        if code not in ("en", "ar") and name.startswith("film-") and name != "film-sealed":
            continue  # what differs there is the film, not the words
        width, height = TABLETS[(number + list(LANGUAGES).index(code)) % len(TABLETS)]
        page.set_viewport_size({"width": width, "height": height})
        page.goto(box.pages.url + path)
        found = axe.run(page, options=RULES)
        if found.violations_count:
            wrong[name] = found.generate_report()
        if small := page.evaluate(SMALL, FINGER):
            wrong[f"{name}: too small for a finger"] = small
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong[f"{name}: wider than {width}"] = ""
    page.context.close()
    assert wrong == {}


def test_who_a_page_is_about_is_said_on_every_page_about_a_patient(browser: Any, box: Any) -> None:  # noqa: F811
    page = opened(browser, box, role=Role.CLINICIAN)
    number = box.filled.films["decided"]
    for part in ("", "/sheet", "/slip"):
        page.goto(f"{box.pages.url}/films/{number}{part}")
        said = page.inner_text("main")
        assert all(word in said for word in ("SOW, Fatou", "female", "34 years", "CL-00419")), part
    page.goto(f"{box.pages.url}/films/{number}")
    page.mouse.wheel(0, 5000)
    banner = page.locator("#identity").bounding_box()
    assert banner["y"] >= 0, "it stays in sight"
    page.context.close()


def test_a_film_is_read_decided_and_handed_over_by_keyboard_alone(browser: Any, box: Any) -> None:  # noqa: F811
    page = opened(browser, box, role=Role.CLINICIAN)
    number = box.filled.films["routine"]

    def reach(selector: str) -> None:
        for _ in range(90):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"{selector} is not reached by the Tab key")

    page.goto(box.pages.url)
    reach(f"#open-{number}")
    page.keyboard.press("Enter")
    page.wait_for_selector(".viewer.ready")
    reach("cxr-view")
    page.keyboard.press("i")
    assert page.get_attribute("[data-do=invert]", "aria-pressed") == "true"
    page.keyboard.press("Home")
    page.evaluate("document.activeElement.blur()")
    reach("[name=choice][value=normal]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#decide")
    reach("#decide details summary")
    page.keyboard.press("Enter")
    reach(".change [name=outcome]")
    page.keyboard.press("Space")
    reach(".change [name=reason]")
    page.keyboard.press("Space")
    reach(".change > button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#undo")
    reach("#undo a[href*='/sheet']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".paper")
    page.context.close()


@pytest.mark.peer
@pytest.mark.parametrize("code", ["en", "ar"])
def test_a_phone_reads_the_sheets_square_and_the_box_knows_the_sheet(
    browser: Any,  # noqa: F811
    box: Any,
    tmp_path: Path,
    code: str,
) -> None:
    zbarimg = peer("zbarimg", "zbar-tools")
    page = opened(browser, box, code, Role.CLINICIAN, color_scheme="light")
    page.goto(f"{box.pages.url}/films/{box.filled.films['decided']}/sheet")
    page.locator(".qr").screenshot(path=tmp_path / "square.png")
    asked = [zbarimg, "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", str(tmp_path / "square.png")]
    read = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert "Decision support, not a diagnosis." in read and "SOW" not in read
    verification = read.split("code ")[1].strip()
    assert verification == page.inner_text(".code").strip()
    page.goto(f"{box.pages.url}/verify?code={verification}")
    assert page.locator(".result").inner_text().startswith("✓")
    page.goto(f"{box.pages.url}/verify?code={verification[:-1]}{'0' if verification[-1] != '0' else '1'}")
    assert page.locator(".result").inner_text().startswith("✗")
    page.context.close()


@pytest.mark.parametrize("paper", ["A5", "A4"])
@pytest.mark.parametrize("code", LANGUAGES)
def test_a_sheet_and_a_slip_are_one_page_of_a5_or_a4(browser: Any, box: Any, paper: str, code: str) -> None:  # noqa: F811
    page = opened(browser, box, code, Role.CLINICIAN)
    for part in ("sheet", "slip"):
        page.goto(f"{box.pages.url}/films/{box.filled.films['decided']}/{part}")
        printed = page.pdf(format=paper)
        assert printed.count(b"/Type /Page\n") == 1, part
    page.context.close()


def test_a_name_of_300_characters_is_shown_whole_and_breaks_nothing(browser: Any, box: Any) -> None:  # noqa: F811
    page = opened(browser, box, role=Role.CLINICIAN, viewport={"width": 600, "height": 960})
    for part in ("", "/sheet", "/slip"):
        page.goto(f"{box.pages.url}/films/{box.filled.films['long-name']}{part}")
        assert LONG.strip() in page.inner_text("main"), part
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_letters_come_from_the_box(browser: Any, box: Any) -> None:  # noqa: F811
    page = opened(browser, box, "ar", Role.CLINICIAN)
    page.goto(box.pages.url)
    loaded = page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status === 'loaded').map(f => f.family))"
    )
    assert {"Noto Sans", "Noto Sans Arabic"} <= {family.strip('"') for family in loaded}
    page.context.close()
