"""The box is killed and started again while two tablets work: they recover by themselves, and no act is lost or done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.records import ReadKind
from edge.state import audit, reads
from edge.state.audit import Event
from edge.state.store import open_store
from tests.box import PATIENCE, Box, until
from tests.browser.test_trust import tablet, trusting
from tests.fault.test_kill import deliver, small_film
from tests.people import cookies

pytestmark = [pytest.mark.browser, pytest.mark.peer]

PEOPLE = ("Amina", "Brahim")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A real box with two films, assessed, and both people's accounts."""
    made = Box(tmp_path)
    with made:
        for number in range(2):
            assert deliver(made, small_film(tmp_path, number)[1])
        made.decided(2)
    yield made
    if made.process.poll() is None:
        made.kill()


@pytest.fixture
def tablets(browser: Any, box: Box, tmp_path: Path) -> Iterator[list[Any]]:
    """Two tablets that have joined, each with a person."""
    state = Path(box.config.state)
    with tablet(browser, env=trusting(tmp_path / "home", state / "trust/ca.crt")) as first:
        pages = [first, first.context.browser.new_context().new_page()]
        for page, name in zip(pages, PEOPLE, strict=True):
            page.set_default_timeout(PATIENCE * 1000)
            page.context.add_cookies(
                [{"name": key, "value": value, "url": box.url} for key, value in cookies(state, name).items()]
            )
        yield pages


def start(box: Box, *killer: str) -> None:
    """Start the box, to be killed around the commit of a person's act where that is asked for."""
    box.start(*killer)
    until(lambda: box.process.poll() is not None or serves(box), "the pages are served")


def serves(box: Box) -> bool:
    try:
        return "ok" in box.page("/health")
    except OSError:
        return False


def dies(box: Box) -> None:
    box.process.wait(PATIENCE)
    assert box.process.returncode == -9


def waits(page: Any) -> None:
    """The page says that the act is not saved yet."""
    page.wait_for_selector("#unsaved:not([hidden])")


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_tablets_lose_nothing_and_do_nothing_twice(box: Box, tablets: list[Any], when: str) -> None:
    start(box, when, "1", "read")
    for number, page in enumerate(tablets, 1):
        page.goto(f"{box.url}/films/{number}")
    first, second = tablets
    first.click("button[name=choice] >> nth=0")
    dies(box)  # around the very commit of that act
    second.click("button[name=choice] >> nth=1")
    for page in tablets:
        waits(page)
    start(box, when, "1", "read")
    dies(box)  # again, around the commit of whatever was sent again
    start(box)
    for page in tablets:
        page.wait_for_selector("#decide button[value=refer]")
    box.kill()
    for page in tablets:
        page.click("#decide button[value=refer]")
    for page in tablets:
        waits(page)
    start(box)
    for page in tablets:
        page.wait_for_selector("#live")
        page.wait_for_selector("#stale", state="hidden")
    box.kill()
    for page in tablets:
        page.wait_for_selector("#stale:not([hidden])")
    start(box)
    for page in tablets:
        page.wait_for_selector("#stale", state="hidden")
    with closing(open_store(Path(box.config.state))) as store:
        assert audit.verify(store) is None
        written = Counter((record.event, record.arrival_id) for record in audit.records(store))
        for number, reader in enumerate(PEOPLE, 1):
            acts = reads.of_film(store, number)
            assert [(act.kind, act.reader) for act in acts] == [(ReadKind.IMPRESSION, reader), (ReadKind.REFER, reader)]
            assert [written[event, number] for event in (Event.SEALED, Event.REVEALED, Event.REFERRED)] == [1, 1, 1]
