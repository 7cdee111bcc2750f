"""Every page in every language: readable by everyone, for fingers, without dragging, on paper, and on a phone's camera."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.records import Role
from tests.clinic import LONG
from tests.conftest import peer
from tests.screens import TABLETS, Clinic, clinics, visits, wrong
from web.languages import LANGUAGES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Clinic]]:
    with clinics(tmp_path_factory.mktemp("clinics")) as shown:
        yield shown


@pytest.fixture
def box(boxes: list[Clinic]) -> Clinic:
    return boxes[0]


def opened(browser: Any, box: Clinic, code: str = "en", role: Role = Role.LEAD, **options: Any) -> Any:
    """A tablet's page on which a person of that language is signed in."""
    context = browser.new_context(ignore_https_errors=True, service_workers="block", **options)
    context.add_cookies(box.pages.cookies(f"{role} {code}", role, code))
    return context.new_page()


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_page_is_for_everyone_in_every_language(browser: Any, boxes: list[Clinic], code: str) -> None:
    """Every page in every language, each time on another tablet, so that each is seen on all six; `build/screenshots --axe` looks
    at the whole product of the three."""
    pytest.importorskip("axe_playwright_python")
    failed, sizes = {}, list(TABLETS.values())
    for number, (held, name, screen) in enumerate(visits(browser, boxes, code)):
        width, height = sizes[(number + list(LANGUAGES).index(code)) % len(sizes)]
        held.page.set_viewport_size({"width": width, "height": height})
        held.visit(screen)
        if told := wrong(held.page, screen.part):
            failed[f"{name} {width}×{height}"] = told
    assert failed == {}


def test_who_a_page_is_about_is_said_on_every_page_about_a_patient(browser: Any, box: Clinic) -> None:
    page = opened(browser, box, role=Role.CLINICIAN)
    number = box.filled.films["decided"]
    for part in (f"films/{number}", f"films/{number}/sheet", f"films/{number}/slip", f"ledger?film={number}"):
        page.goto(f"{box.pages.url}/{part}")
        said = page.inner_text("main")
        assert all(word in said for word in ("SOW, Fatou", "female", "34 years", "CL-00419")), part
    page.goto(f"{box.pages.url}/films/{number}")
    page.mouse.wheel(0, 5000)
    banner = page.locator("#identity").bounding_box()
    assert banner["y"] >= 0, "it stays in sight"
    page.context.close()


def test_a_film_is_read_decided_and_handed_over_by_keyboard_alone(browser: Any, box: Clinic) -> None:
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
    browser: Any,
    box: Clinic,
    tmp_path: Path,
    code: str,
) -> None:
    zbarimg = peer("zbarimg", "zbar-tools")
    page = opened(browser, box, code, Role.CLINICIAN, color_scheme="light")
    page.goto(f"{box.pages.url}/films/{box.filled.films['decided']}/sheet")
    # the whole page at one moment: what its scripts show moves the square
    page.screenshot(path=tmp_path / "square.png", full_page=True)
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
def test_a_sheet_and_a_slip_are_one_page_of_a5_or_a4_in_black_and_white(
    browser: Any, box: Clinic, paper: str, code: str
) -> None:
    page = opened(browser, box, code, Role.CLINICIAN)
    for part in ("sheet", "slip"):
        page.goto(f"{box.pages.url}/films/{box.filled.films['decided']}/{part}")
        printed = page.pdf(format=paper)
        assert printed.count(b"/Type /Page\n") == 1, part
        page.emulate_media(media="print")
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            seen = np.asarray(picture.convert("RGB"), np.int16)
        assert np.ptp(seen, axis=-1).max() < 8 and seen.min() < 64, "it is readable without any colour, and not empty"
    page.context.close()


def test_a_name_of_300_characters_is_shown_whole_and_breaks_nothing(browser: Any, box: Clinic) -> None:
    page = opened(browser, box, role=Role.CLINICIAN, viewport={"width": 600, "height": 960})
    for part in ("", "/sheet", "/slip"):
        page.goto(f"{box.pages.url}/films/{box.filled.films['long-name']}{part}")
        assert LONG.strip() in page.inner_text("main"), part
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_letters_come_from_the_box(browser: Any, box: Clinic) -> None:
    page = opened(browser, box, "ar", Role.CLINICIAN)
    page.goto(box.pages.url)
    loaded = page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status === 'loaded').map(f => f.family))"
    )
    assert {"Noto Sans", "Noto Sans Arabic"} <= {family.strip('"') for family in loaded}
    page.context.close()
