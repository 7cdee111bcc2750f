"""The walk: a real box over TLS that ranks, films sent by storescu, a person who works on a tablet by touch, in six languages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge import samples, setup
from edge.records import Film, Outcome, ReadKind
from edge.state import acceptances, reads
from edge.state.store import now, open_store, transaction
from models import phantom
from tests.box import Box, until
from tests.conftest import peer
from tests.people import PIN
from web.languages import LANGUAGES

pytestmark = [pytest.mark.browser, pytest.mark.peer]

LEAD = "Grace Mensah"
CUT = "pt"
"""The language in the middle of which the power goes."""


@contextmanager
def tablet(browser: Any) -> Iterator[Any]:
    """A tablet of its own; it fails the test when a page breaks or asks for anything outside the box."""
    # whether a tablet may trust the box is test_trust.py
    context = browser.new_context(viewport={"width": 800, "height": 1280}, has_touch=True, ignore_https_errors=True)
    asked, broken = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: broken.append(str(error)))
    yield page
    context.close()
    assert [url for url in asked if not url.startswith("https://127.0.0.1:")] == []
    assert broken == []


def send(box: Box, folder: Path) -> list[Film]:
    """A film for each language, sent by storescu as an X-ray unit would; gives them with their outcomes.

    Every second one is a child's with an opacity: the model takes that for immediate, and the adults for routine.
    """
    storescu = peer("storescu", "dcmtk")
    for seed, code in enumerate(LANGUAGES):
        path = folder / f"{code}.dcm"
        ill = seed % 2 == 1
        gray = phantom.chest(20 + seed, opacity=ill)
        film = samples.film(gray, f"Walk^{code.upper()}", "004Y" if ill else "044Y", "F")
        film.save_as(path, enforce_file_format=True)
        subprocess.run([storescu, "-aec", "OUTPOST", "127.0.0.1", str(box.port), str(path)], check=True)
    films = box.decided(len(LANGUAGES))
    accept(box, films)
    return films


def accept(box: Box, films: list[Film]) -> None:
    """Put the site's signature under the model, so that it ranks; how a lead does that is tests/integration/test_commission.py."""
    (device,) = {film.decision.device_uid for film in films if film.decision}
    with closing(open_store(Path(box.config.state))) as store, transaction(store):
        acceptances.sign(store, device, "balanced", "Dr Ba", now())


def ranked(films: dict[str, Film]) -> list[int]:
    """The films' numbers as promised: the most urgent first, then by arrival."""
    by = {Outcome.IMMEDIATE: 0, Outcome.SOON: 1, Outcome.ROUTINE: 2}
    urgent = [(by[film.decision.outcome], film.arrival.id) for film in films.values() if film.decision]
    return [number for _, number in sorted(urgent)]


def set_up(page: Any, box: Box) -> None:
    """The first start: the code from the box's screen makes the lead, who is then signed in."""
    page.goto(box.url)
    page.wait_for_url("**/setup")
    page.fill("#code", setup.file(box.config).read_text().strip())
    page.fill("#name", LEAD)
    page.fill("#new", PIN)
    page.fill("#again", PIN)
    page.tap(".sign button")
    page.wait_for_selector(".me")


def sign_in(page: Any, box: Box) -> None:
    """On a tablet that knows nobody."""
    page.goto(box.url)
    page.fill("#typed", LEAD)
    page.fill("#pin", PIN)
    page.tap(".sign button")
    page.wait_for_selector(".me")


def speak(page: Any, code: str) -> None:
    """Choose the language at the foot of the page."""
    page.tap(f".foot button[value={code}]")
    page.wait_for_selector(f"html[lang={code}]", state="attached")
    assert page.get_attribute("html", "dir") == LANGUAGES[code].direction


def acts(box: Box, number: int) -> list[ReadKind]:
    """What people said of a film, as the box keeps it."""
    with closing(open_store(Path(box.config.state))) as store:
        return [act.kind for act in reads.of_film(store, number)]


def test_setup_to_ledger_by_touch_in_every_language(browser: Any, tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        films = {film.header.PatientName.split("^")[1].lower(): film for film in send(box, tmp_path)}
        left = ranked(films)
        assert left != sorted(left), "the AI changes the order, or nothing is shown of ranking"
        with tablet(browser) as page:
            set_up(page, box)
        for code in LANGUAGES:
            with tablet(browser) as page:
                sign_in(page, box)
                speak(page, code)
                film = films[code]
                assert film.decision is not None and film.decision.refusal is None
                number, name = film.arrival.id, f"WALK, {code.upper()}"
                listed = page.locator("#rows .row").evaluate_all("rows => rows.map(row => Number(row.id.slice(5)))")
                assert listed == left and page.locator("#summary [role=note]").count() == 0, "the list ranks"
                page.tap(f"#open-{number}")
                page.wait_for_selector(".viewer.ready")
                assert page.inner_text("#identity h1").upper() == name
                assert page.locator("#findings .scale, #decide, [name=map]").count() == 0, "nothing of the AI's yet"
                page.tap("button[name=choice][value=consolidation]")
                page.wait_for_selector("#decide")
                assert page.locator("#findings .scale").count() == len(film.decision.findings)
                if code == CUT:
                    box.kill()
                    box.start()
                    until(lambda: answers(box), "the pages are there again")
                    page.reload()
                    page.wait_for_selector("#decide")
                page.tap("#decide details:has(.change) > summary")
                outcome = page.locator(".change [name=outcome]").first.get_attribute("value")
                page.tap(f".change label:has([value={outcome}])")
                page.tap(".change label:has([value=missed])")
                page.tap(".change > button")
                page.wait_for_selector("#undo")
                assert acts(box, number) == [ReadKind.IMPRESSION, ReadKind.OVERRIDE]
                assert page.locator(f"#film-{number}").count() == 0, "the film has moved on"
                left.remove(number)
                page.tap("#undo a[href*='/sheet']")
                page.wait_for_selector(".paper .qr")
                assert name in page.inner_text(".paper h1").upper() and LEAD in page.inner_text(".paper")
                assert page.get_attribute("html", "lang") == code
                page.tap(".tools a[href*='/films/']")
                page.tap("a[href*='/ledger?film']")
                page.wait_for_selector(".ledger")
                assert LEAD in page.inner_text("main")
    for code, film in films.items():
        assert acts(box, film.arrival.id) == [ReadKind.IMPRESSION, ReadKind.OVERRIDE], code


def answers(box: Box) -> bool:
    """Whether the box's pages can be asked."""
    try:
        return "<html" in box.page("/sign-in")
    except OSError:
        return False
