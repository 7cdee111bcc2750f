"""Over a bad link: a film goes in at the clinic, is read at the hub in one browser, and the read is on the tablet in another.

Nothing that says who anybody is comes to lie at the hub: not in its database, nor its log, nor its pictures.
"""

from __future__ import annotations

import base64
import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge import box, intake, sending
from edge.netem import NEAR, Profile
from edge.records import Outcome
from edge.state import results, sync
from edge.state.store import open_store
from models import phantom
from tests import seeds
from tests.box import until
from tests.conftest import needs_bad_link
from tests.screens import wrong
from web.demo import accept_for_demonstration, people_for_demonstration
from web.hub import tasks, totp
from web.hub.demo import PROGRAMME, READER, Joined, joined
from web.hub.records import Reader
from web.hub.store import now
from web.serve import pages

pytestmark = [pytest.mark.browser, pytest.mark.peer, needs_bad_link]

LINK = Profile(rate=512_000, delay=0.15, loss=0.05, queue=64_000, up=20, down=3)
"""Bad enough to be cut off in the middle, good enough for a test."""
FILMS = {"routine": ("044Y", 29), "child": ("004Y", 23), "second": ("044Y", 27)}
"""Age and phantom, in the order in which they are sent: the child's has an opacity and is immediate, the others are routine."""


def send(both: Joined, port: int, folder: Path) -> tuple[dict[str, int], list[seeds.Person]]:
    """Send the films while the link is down; gives their numbers once all have an outcome, and who is on them."""
    people = []
    for seed, (name, (age, number)) in enumerate(FILMS.items()):
        draw = random.Random(seed)
        people.append(seeds.person(draw, list(seeds.SCRIPTS)[seed]))
        film = seeds.film(people[-1], phantom.chest(number, (1250, 1000), opacity=name == "child"), draw)
        film.PatientAge = age
        path = folder / f"{name}.dcm"
        film.save_as(path, enforce_file_format=True)
        sending.send("127.0.0.1", port, both.config.intake.ae_title, path)
    with closing(open_store(Path(both.config.state))) as store:
        until(lambda: sum(film.decision is not None for film in results.films(store)) == len(FILMS), "all are assessed")
        numbers = sorted(film.arrival.id for film in results.films(store))
    return dict(zip(FILMS, numbers, strict=True)), people


def leaks(folder: Path, people: list[seeds.Person]) -> dict[str, set[str]]:
    """By file, what says who somebody is in all that lies in a folder, raw as it is on the disk."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.name: set().union(*(seeds.hunt(path.read_bytes(), who) for who in people)) for path in files}
    return {name: some for name, some in found.items() if some}


def sign_in_at_hub(page: Any, both: Joined) -> None:
    """As a teleradiologist does, with the code of an app."""
    page.goto(both.url)
    page.fill("[name=name]", READER)
    page.fill("[name=secret]", both.phrase)
    page.fill("[name=code]", totp.code(base64.b32decode(both.secret), int(time.time() // totp.STEP_SECONDS)))
    page.keyboard.press("Enter")
    page.wait_for_selector("#queue")


def test_a_film_is_read_far_away_and_the_read_comes_back(browser: Any, tmp_path: Path) -> None:
    with joined(tmp_path, LINK) as both:
        accept_for_demonstration(both.config)
        pin = people_for_demonstration(both.config)
        with (
            box.service(intake.run, both.config) as dicom,
            pages(both.config) as shown,
            box.worker(both.config),
            box.courier(both.config, both.link.command(NEAR)),
        ):
            both.link.cut()
            numbers, people = send(both, dicom, tmp_path)
            tablet = browser.new_context(ignore_https_errors=True, has_touch=True).new_page()
            tablet.goto(shown.split()[1])
            tablet.fill("#typed", "Lead")
            tablet.fill("#pin", pin)
            tablet.tap(".sign button")
            tablet.wait_for_selector(".me")
            assert tablet.locator("#returned").count() == 0

            desk = browser.new_context(ignore_https_errors=True).new_page()
            sign_in_at_hub(desk, both)
            assert desk.locator("#rows .row").count() == 0, "nothing comes over a link that is down"
            both.link.restore()

            def queue() -> list[Outcome]:
                with both.hub.store.reading(PROGRAMME) as db:
                    return [
                        one.case.result.outcome
                        for one in tasks.queue(db, Reader(programme=PROGRAMME, name="nobody"), now())
                    ]

            until(lambda: len(queue()) == len(FILMS), "all results are at the hub")
            assert queue() == [Outcome.IMMEDIATE, Outcome.ROUTINE, Outcome.ROUTINE], "the child's came second"
            desk.reload()
            desk.click("#next")
            desk.wait_for_selector(".viewer.ready", timeout=120_000)
            assert wrong(desk) == []
            desk.keyboard.press("2")
            desk.keyboard.press("4")
            desk.keyboard.press("z")
            desk.keyboard.press("Enter")
            desk.wait_for_selector("#ai .outcome")
            desk.keyboard.press("Enter")
            desk.wait_for_selector("#undo")

            with closing(open_store(Path(both.config.state))) as store:
                until(lambda: bool(sync.returned(store, numbers["child"])), "the read is at the box")
            tablet.reload()
            tablet.tap(f"#returned-{numbers['child']}")
            tablet.wait_for_selector(".returned")
            assert READER not in tablet.inner_text(".returned"), "the clinic says first what it sees"
            tablet.tap("button[name=choice][value=consolidation]")
            tablet.wait_for_selector("#decide")
            said = tablet.inner_text(".returned")
            assert READER in said
            assert "Heart too large" in said

            def receipt() -> bool:
                with both.hub.store.reading(PROGRAMME) as db:
                    return any(review.seen_at is not None for film in (1, 2, 3) for review in tasks.reviews(db, film))

            until(receipt, "the hub knows that the read was seen")
            assert both.link.count()[0].lost > 0, "the link was bad"
            assert leaks(tmp_path / "box", people) != {}, "the hunt finds people where they are"
            assert leaks(tmp_path / "hub", people) == {}
