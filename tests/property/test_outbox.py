"""The outbox as a state machine: whatever peers do, nothing is lost, nothing is sent twice, nobody is stormed."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.config import Config, FolderSink
from edge.records import Delivery, Outcome, ReadKind, Receipt, Sha256, Trouble, Urgency
from edge.state import arrivals, audit, outbox, reads
from edge.state.outbox import FIRST, PEER_CAP, RESULT_CAP, RESULT_FIRST, back_off
from edge.state.store import open_store, transaction

SINKS = ("PACS", "EHR")
CONFIG = Config(sinks=tuple(FolderSink(name=name, path="/nowhere") for name in SINKS))


@given(st.integers(1, 10_000), st.text(max_size=20))
def test_waits_grow_to_the_cap_and_never_beyond(times: int, key: str) -> None:
    wait = back_off(times, FIRST, PEER_CAP, key)
    assert FIRST * 0.75 <= wait <= PEER_CAP
    assert wait == back_off(times, FIRST, PEER_CAP, key)  # a reboot changes nothing
    assert back_off(times + 2, FIRST, PEER_CAP, key) >= min(wait, PEER_CAP * 0.75)


class Outbox(RuleBasedStateMachine):
    """Films are assessed and read; two peers take, refuse, fail, hang, commit; the box is cut off; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(Path(self.folder.name))
        self.store.execute("PRAGMA synchronous=OFF")  # speed only: no power cut here
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.films: list[int] = []
        self.wanted: set[tuple[str, int, int]] = set()
        self.got: list[tuple[str, int, int]] = []
        self.asked: dict[str, list[datetime]] = {name: [] for name in SINKS}
        self.held: dict[str, Delivery] = {}
        self.awaited: set[tuple[str, int, int]] = set()

    @rule(outcome=st.sampled_from(list(Outcome)))
    def assess(self, outcome: Outcome) -> None:
        number = len(self.films) + 1
        with transaction(self.store):
            film, _ = arrivals.add(self.store, f"1.{number}", Sha256(f"{number:064}"), "t", self.now, Urgency.ROUTINE)
            for _ in range(2):  # a second time changes nothing
                outbox.of_result(self.store, CONFIG, film, 1, outcome, self.now)
        self.films.append(film)
        self.wanted |= {(name, film, 0) for name in SINKS}

    @precondition(lambda self: self.films)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        film = data.draw(st.sampled_from(self.films))
        with transaction(self.store):
            request = f"{film} {self.now}"
            act, _ = reads.add(self.store, film, 1, ReadKind.CONFIRM, "Amina", self.now, request)
            outbox.of_read(self.store, CONFIG, act)
        self.wanted |= {(name, film, act.id) for name in SINKS}

    @rule(
        trouble=st.sampled_from([None, None, *Trouble]),
        well=st.booleans(),
        awaits=st.booleans(),
        cut=st.sampled_from([False, False, False, True]),
    )
    def attempt(self, trouble: Trouble | None, well: bool, awaits: bool, cut: bool) -> None:
        delivery = self._claim()
        if delivery is None or cut:
            return
        receipt = Receipt(trouble, "because", ("1.2.3",), awaits)
        with transaction(self.store):
            outbox.settle(self.store, delivery, receipt, self.now, well)
        if trouble in (None, Trouble.WARNED):
            if awaits:
                self.held[delivery.transaction_uid] = delivery
                self.awaited.add((delivery.sink, delivery.arrival_id, delivery.read_id or 0))
            else:
                self._arrived(delivery)

    @precondition(lambda self: self.held)
    @rule(missing=st.sampled_from(["", "1.2 (0112)"]))
    def answer(self, missing: str) -> None:
        uid, delivery = self.held.popitem()
        with transaction(self.store):
            if outbox.commit(self.store, uid, ("1.2.3",), missing, self.now) and not missing:
                self._arrived(delivery)
            assert missing or not outbox.commit(self.store, uid, ("1.2.3",), "", self.now)  # only once

    @rule(seconds=st.sampled_from([1, 5, 60, 900, 7200]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def _claim(self) -> Delivery | None:
        with transaction(self.store):
            delivery = outbox.claim(self.store, SINKS, self.now)
        if delivery is not None:
            self.asked[delivery.sink].append(self.now)
        return delivery

    def _arrived(self, delivery: Delivery) -> None:
        self.got.append((delivery.sink, delivery.arrival_id, delivery.read_id or 0))

    @invariant()
    def nothing_arrives_twice(self) -> None:
        assert len(self.got) == len(set(self.got))

    @invariant()
    def what_is_unsent_is_counted(self) -> None:
        ways = {way.sink: way for way in outbox.ways(self.store, CONFIG)}
        for name in SINKS:
            got = {(film, read) for sink, film, read in self.got if sink == name}
            # a refused result is not sent after a later one of its film
            open_ = {
                (film, read)
                for sink, film, read in self.wanted
                if sink == name and (film, read) not in got and not any(f == film and r > read for f, r in got)
            }
            assert ways[name].waiting >= len(open_)
            assert (ways[name].next_at is None) == (ways[name].waiting == 0)
        waits = outbox.unsent(self.store)
        count, oldest = len(waits), min(waits.values(), default=None)
        assert (count == 0) == (oldest is None) == all(way.waiting == 0 for way in ways.values())

    @invariant()
    def the_ledger_has_each_export_once(self) -> None:
        exported = [record for record in audit.records(self.store) if record.event is audit.Event.EXPORTED]
        assert len(exported) == len(self.got)

    def teardown(self) -> None:
        """Once the peers are well everything arrives, each once, what is final after what is preliminary."""
        for _ in range(3 * len(self.wanted) + 3):
            self.now += RESULT_CAP
            while (delivery := self._claim()) is not None:
                with transaction(self.store):
                    outbox.settle(self.store, delivery, Receipt(), self.now)
                self._arrived(delivery)
        assert outbox.unsent(self.store) == {}
        assert len(self.got) == len(set(self.got))
        for sink, film, read in self.wanted - set(self.got):  # refused, and then overtaken
            assert any((s, f) == (sink, film) and r > read for s, f, r in self.got)
        for sink, film in {(sink, film) for sink, film, _ in self.got}:
            # what was sent once and is not committed to may go again: it is a DICOM object, which a later one does not replace
            order = [r for s, f, r in self.got if (s, f) == (sink, film) and (s, f, r) not in self.awaited]
            assert order == sorted(order)
        self.store.close()
        self.folder.cleanup()


TestOutbox = Outbox.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def filled(folder: Path, films: int) -> tuple[sqlite3.Connection, datetime]:
    store = open_store(folder)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    with transaction(store):
        for number in range(1, films + 1):
            arrivals.add(store, f"1.{number}", Sha256(f"{number:064}"), "t", at, Urgency.ROUTINE)
            outbox.of_result(store, CONFIG, number, 1, Outcome.ROUTINE, at)
    return store, at


def attempts(state: Path, films: int, days: int, answer: Callable[[Delivery], Receipt]) -> int:
    """How often a peer is asked in so many days when it answers like this, with everything due taken at once."""
    store, at = filled(state, films)
    end, asked = at + timedelta(days=days), 0
    while at < end:
        with transaction(store):
            delivery = outbox.claim(store, ["PACS"], at)
        if delivery is None:
            at += timedelta(seconds=1 if at < end - timedelta(hours=23) else 60)
            continue
        asked += 1
        with transaction(store):
            outbox.settle(store, delivery, answer(delivery), at)
    store.close()
    return asked


def test_a_peer_that_is_away_is_asked_less_and_less_often(state: Path) -> None:
    """500 films wait for a day: a hundred or so attempts, one film each, not thousands."""
    asked = attempts(state, 500, 1, lambda _: Receipt(Trouble.UNREACHABLE))
    assert 24 * 4 <= asked <= 24 * 6 + 12


def test_a_peer_that_refuses_everything_is_asked_less_and_less_often(state: Path) -> None:
    asked = attempts(state, 500, 1, lambda _: Receipt(Trouble.REJECTED))
    assert 24 * 4 <= asked <= 24 * 6 + 12


def test_one_bad_film_delays_no_other(state: Path) -> None:
    """49 of 50 arrive at once; the bad one is asked about ten times a day."""
    asked = attempts(state, 50, 1, lambda one: Receipt(Trouble.REJECTED if one.arrival_id == 7 else None))
    assert 49 + 8 <= asked <= 49 + 16


def test_the_most_urgent_goes_first_and_a_film_that_takes_the_peer_down_lets_others_pass(state: Path) -> None:
    store = open_store(state)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    with transaction(store):
        for number, outcome in enumerate((Outcome.ROUTINE, Outcome.COULD_NOT_ASSESS, Outcome.IMMEDIATE), 1):
            arrivals.add(store, f"1.{number}", Sha256(f"{number:064}"), "t", at, Urgency.ROUTINE)
            outbox.of_result(store, CONFIG, number, 1, outcome, at)
    tried = []
    for _ in range(12):
        at += PEER_CAP
        with transaction(store):
            delivery = outbox.claim(store, ["PACS"], at)
            assert delivery is not None
            outbox.settle(store, delivery, Receipt(Trouble.CLOSED), at)
        tried.append(delivery.arrival_id)
    assert tried == [3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1]
    store.close()


def test_a_clock_that_was_wrong_holds_nothing_back(state: Path) -> None:
    """A box without a battery-backed clock wrote moments of the far future."""
    store, at = filled(state, 1)
    with transaction(store):
        later = at + timedelta(days=4000)
        delivery = outbox.claim(store, ["PACS"], later)
        assert delivery is not None
        outbox.settle(store, delivery, Receipt(Trouble.UNREACHABLE), later)
        assert outbox.claim(store, ["PACS"], at) is not None
    store.close()


def test_a_sink_that_left_the_settings_is_named(state: Path) -> None:
    store, _ = filled(state, 2)
    (way,) = outbox.ways(store, Config(sinks=CONFIG.sinks[:1]))[1:]
    assert (way.sink, way.trouble, way.waiting, way.next_at) == ("EHR", Trouble.NOT_CONFIGURED, 2, None)
    assert RESULT_FIRST < RESULT_CAP
    store.close()
