"""What a hub remembers, the same on each backing: SQLite with files, and Debian's PostgreSQL with an S3 bucket (moto's)."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from edge import cards
from edge.cards import What
from edge.errors import Misconfigured, Transient
from edge.records import Concern, Outcome, Urgency
from tests import hub as hubs
from tests.hub import EPOCH, PROGRAMME, SITE, Sender, image, result
from tests.postgresql import Postgresql, postgresql
from tests.reading import STATUS
from web.hub import answers, films, inbox, ledger, old, packets, rollouts, serve, sites, tasks
from web.hub.config import Database, Policy
from web.hub.here import Hub
from web.hub.objects import Took
from web.hub.records import Finding, Reader, TaskKind

T = 1_800_000_000.0
"""A moment by the hub's clock."""
LEASE = 900.0
GOOD = sites.CodeState.GOOD
ALL = frozenset(TaskKind)
ANNA, BEN, CARO = (Reader(programme=PROGRAMME, name=name, kinds=ALL) for name in ("anna", "ben", "caro"))
NORMAL = Finding(outcome=Outcome.ROUTINE, codes=("normal",))
MASS = Finding(outcome=Outcome.SOON, codes=("mass",))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with hubs.s3() as endpoint:
        yield endpoint


class Backing:
    """Opens hubs of one backing; each call of `new` is an empty one."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder, self.request = kind, folder, request
        self._number = 0

    def new(self, policy: Policy | None = None) -> Hub:
        """An empty hub."""
        self._number += 1
        folder = self.folder / str(self._number)
        other: dict[str, object] = {}
        if self.kind == "postgresql":
            server, endpoint = self.request.getfixturevalue("server"), self.request.getfixturevalue("bucket")
            other["database"] = Database(postgresql=server.database())
            other["store"] = hubs.make_bucket(endpoint, f"b{abs(hash(folder))}")
        self.config = hubs.settings(folder, policy, **other)
        return self.again()

    def again(self) -> Hub:
        """The same hub once more, as another worker."""
        return self._keep.enter_context(hubs.opened(self.config))

    def __enter__(self) -> Backing:
        self._keep = ExitStack().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._keep.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def backing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backing]:
    for name, value in hubs.KEYS.items():
        monkeypatch.setenv(name, value)
    with Backing(request.param, tmp_path, request) as made:
        yield made


@pytest.fixture
def hub(backing: Backing) -> Hub:
    return backing.new()


@pytest.fixture
def box(hub: Hub) -> Sender:
    return Sender(hub)


def claim(hub: Hub, reader: Reader, at: float = T, task: int | None = None) -> str | None:
    """The case that a reader gets."""
    with hub.store.transaction(reader.programme) as db:
        taken = tasks.claim(db, reader, LEASE, at, task)
        return None if taken is None else case_of(hub, taken.case, reader.programme)


def case_of(hub: Hub, number: int, programme: str = PROGRAMME) -> str:
    with hub.store.reading(programme) as db:
        case = films.case(db, number)
    assert case is not None
    return case.result.case.removeprefix("2.25.")


def read(hub: Hub, reader: Reader, finding: Finding = NORMAL, at: float = T, key: str = "k") -> tasks.Review:
    """Claim the next and finish it."""
    with hub.store.transaction(reader.programme) as db:
        taken = tasks.claim(db, reader, LEASE, at)
        assert taken is not None
        review = tasks.finish(db, reader, f"Dr {reader.name}", taken.id, finding, key, hub.rules, at)
    assert review is not None
    return review


def queue(hub: Hub, reader: Reader, at: float = T) -> list[str]:
    with hub.store.reading(reader.programme) as db:
        return [one.case.result.case.removeprefix("2.25.") for one in tasks.queue(db, reader, at)]


# --- what boxes send


@how(max_examples=25)
@given(data=st.data())
def test_events_in_any_order_and_number_are_here_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Property, on SQLite: whatever the link does, what is acknowledged is what arrived."""
    with hubs.opened(hubs.settings(tmp_path_factory.mktemp("hub"))) as hub:
        box = Sender(hub)
        sent = [box.waited(result(number % 4 + 1, run=number)) for number in range(1, 9)]
        came: set[int] = set()
        for parcel in data.draw(st.lists(st.lists(st.sampled_from(sent), max_size=6), max_size=8)):
            box.take(*parcel, at=T)
            came |= {one.event.seq for one in parcel}
            with hub.store.reading(PROGRAMME) as db:
                had = inbox.had(db, SITE.name).get(EPOCH, cards.Had(upto=0))
            told = {*range(1, had.upto + 1)} | {seq for first, last in had.beyond for seq in range(first, last + 1)}
            assert told == came and had.upto + 1 not in came
        with hub.store.reading(PROGRAMME) as db:
            rows = db.rows("SELECT case_uid, run FROM film WHERE programme = :programme")
        latest = {one.event.body.case: 0 for one in sent if one.event.seq in came}  # type: ignore[union-attr]
        for one in sent:
            if one.event.seq in came:
                latest[one.event.body.case] = max(latest[one.event.body.case], one.event.body.run)  # type: ignore[union-attr]
        assert {row["case_uid"]: row["run"] for row in rows} == latest


def test_events_are_kept_once_and_what_is_here_is_said_with_its_gaps(hub: Hub, box: Sender) -> None:
    sent = [box.waited(result(number)) for number in range(1, 10)]
    for part in (sent[:2], sent[1:3], sent[5:7], sent[8:], sent[:3]):
        assert box.take(*part, at=T) == {}
    with hub.store.reading(PROGRAMME) as db:
        assert inbox.had(db, SITE.name) == {EPOCH: cards.Had(upto=3, beyond=((6, 7), (9, 9)))}
        assert inbox.had(db, "elsewhere") == {}
    box.take(*sent[3:5], at=T)
    with hub.store.reading(PROGRAMME) as db:
        assert inbox.had(db, SITE.name) == {EPOCH: cards.Had(upto=7, beyond=((9, 9),))}
    assert sorted(queue(hub, ANNA)) == ["1", "2", "3", "4", "5", "6", "7", "9"]


def test_a_number_that_is_another_events_already_is_said_and_not_taken(hub: Hub, box: Sender) -> None:
    box.send(result(1), result(2), at=T)
    other = box.waited(result(3), seq=2)
    assert box.take(box.waited(result(1), seq=1), other, at=T) == {EPOCH: [2]}
    assert queue(hub, ANNA) == ["1", "2"]


def test_a_transaction_that_fails_leaves_nothing(hub: Hub, box: Sender) -> None:
    with suppress(ZeroDivisionError), hub.store.transaction(PROGRAMME) as db:
        inbox.receive(db, SITE, [box.waited(result(1))], hub.rules, T)
        raise ZeroDivisionError
    with hub.store.reading(PROGRAMME) as db:
        assert inbox.had(db, SITE.name) == {}
    assert queue(hub, ANNA) == []


def test_only_the_latest_run_of_a_film_counts_whichever_comes_first(hub: Hub, box: Sender) -> None:
    box.send(result(1, Outcome.IMMEDIATE, run=2), result(1, Outcome.ROUTINE, run=1), at=T)
    with hub.store.reading(PROGRAMME) as db:
        (entry,) = tasks.queue(db, ANNA, T)
    assert entry.case.result.run == 2 and entry.task.rank == 0


def test_pictures_and_what_the_clinic_said_come_in_any_order(hub: Hub, box: Sender) -> None:
    data = b"codestream"
    sha256 = hashlib.sha256(data).hexdigest()
    decided = hubs.asks("2.25.1")
    box.send(
        image(1, data, sha256),
        decided,
        cards.StaysHome(case="2.25.2", concern=Concern.TEXT_REMAINS),
        result(1, Outcome.ROUTINE),
        result(2, Outcome.SOON),
        cards.Void(),
        at=T,
    )
    with hub.store.reading(PROGRAMME) as db:
        asked, other = (one.case for one in tasks.queue(db, ANNA, T))
        assert films.at_clinic(db, asked) == (decided,)
        assert films.size(db, SITE.name, sha256) == (len(data), 0)
        assert films.size(db, "elsewhere", sha256) is None
        assert films.of_patient(db, SITE.name, asked.result.patient) == [asked, other] or films.of_patient(
            db, SITE.name, asked.result.patient
        ) == [other, asked]
    assert asked.asked and asked.picture is not None and asked.picture.sha256 == sha256 and asked.have == 0
    assert other.concern is Concern.TEXT_REMAINS and other.picture is None and not other.asked


def test_a_box_says_how_it_is_and_an_older_word_changes_nothing(hub: Hub, box: Sender) -> None:
    status = cards.Status(
        version="0.1.0",
        model="m 1",
        device_uid="2.25.7",
        accepted=True,
        drift="quiet",
        disk_free_mib=9,
        films=3,
        unsent=2,
        notices=(),
    )
    newer, older = box.waited(msgspec.structs.replace(status, unsent=1), seq=8), box.waited(status, seq=7)
    packet = cards.Packet(edges=EPOCH, day="2026-11-25", data=b"\x00new")
    box.take(newer, box.waited(packet, seq=10), at=T)
    box.take(older, box.waited(msgspec.structs.replace(packet, data=b"old"), seq=9), at=T + 1)
    box.take(box.waited(cards.Applied(order="a" * 64, result="taken"), seq=11), at=T + 2)
    with hub.store.reading(PROGRAMME) as db:
        (contact,) = sites.contacts(db)
        assert packets.days(db, SITE.name, "2026-11-01") == [packet]
        assert packets.results(db, "a" * 64) == {SITE.name: "taken"}
    assert contact.status is not None and contact.status.unsent == 1 and contact.heard_at == T + 1


# --- the queue


def test_what_cannot_wait_comes_first_then_whatever_is_due(hub: Hub, box: Sender) -> None:
    hour = 3600
    for number, hours, one in (
        (1, 30, result(1, Outcome.ROUTINE)),
        (2, 1, result(2, Outcome.SOON)),
        (3, 0, result(3, Outcome.IMMEDIATE)),
        (4, 2, result(4, Outcome.COULD_NOT_ASSESS)),
        (5, 10, result(5, Outcome.ROUTINE)),
        (6, 0, result(6, Outcome.ROUTINE, urgency=Urgency.STAT)),
        (7, 9, result(7, Outcome.IMMEDIATE, shadow=True)),
        (8, 1, result(8, Outcome.ROUTINE, urgency=Urgency.HIGH)),
    ):
        box.send(one, at=T, seconds=hours * hour)
        assert str(number) in queue(hub, ANNA)
    assert queue(hub, ANNA) == ["3", "6", "1", "4", "2", "8", "5", "7"]


def test_every_fifth_film_is_the_longest_overdue_so_that_none_waits_for_ever(hub: Hub, box: Sender) -> None:
    box.send(result(1, Outcome.ROUTINE), at=T, seconds=2 * 86400)
    box.send(*(result(number, Outcome.IMMEDIATE) for number in range(2, 9)), at=T)
    got = []
    for turn in range(8):
        got.append(case_of(hub, read(hub, ANNA, at=T + turn, key=str(turn)).case))
    assert got[tasks.EVERY - 1] == "1" and got[0] == "2"


def test_readers_get_only_what_they_may_read(hub: Hub, box: Sender) -> None:
    lake = msgspec.structs.replace(SITE, name="lake", language="fr", country="CD")
    box.send(result(1), at=T)
    Sender(hub, lake, "1" * 16).send(result(2), at=T)
    every = msgspec.structs.replace(ANNA)
    for changed, expected in (
        ({}, ["1", "2"]),
        ({"languages": ("fr",)}, ["2"]),
        ({"languages": ("fr", "en")}, ["1", "2"]),
        ({"sites": ("north",)}, ["1"]),
        ({"sites": ("north",), "languages": ("fr",)}, []),
        ({"countries": ("CD",)}, ["2"]),
        ({"countries": ("CD",), "sites": ("north",)}, []),
        ({"kinds": frozenset({TaskKind.SECOND})}, []),
        ({"kinds": frozenset()}, []),
    ):
        reader = msgspec.structs.replace(every, **changed)
        assert queue(hub, reader) == expected, changed
        with hub.store.reading(PROGRAMME) as db:
            numbers = {one.case.result.case: one.task.id for one in tasks.queue(db, ANNA, T)}
        for case, number in numbers.items():
            taken = claim(hub, reader, task=number)
            assert (taken is not None) == (case.removeprefix("2.25.") in expected), changed
            with hub.store.transaction(PROGRAMME) as db:
                tasks.release_all(db, reader)


def test_a_film_is_leased_to_one_and_free_again_when_they_are_silent(hub: Hub, box: Sender) -> None:
    box.send(result(1), result(2), at=T)
    first = claim(hub, ANNA)
    assert claim(hub, ANNA) == first  # asked again, the same
    second = claim(hub, BEN)
    assert {first, second} == {"1", "2"} and claim(hub, CARO) is None
    with hub.store.transaction(PROGRAMME) as db:
        held = tasks.holds(db, ANNA, T)
        assert held is not None and tasks.hold(db, ANNA, held.id, LEASE, T + LEASE - 1)
        assert not tasks.hold(db, BEN, held.id, LEASE, T) and not tasks.release(db, BEN, held.id)
    assert claim(hub, CARO, T + LEASE + 1) == second
    with hub.store.transaction(PROGRAMME) as db:
        assert tasks.release(db, ANNA, held.id)
        assert tasks.holds(db, ANNA, T + LEASE) is None
    assert claim(hub, BEN, T + LEASE + 1) == first


def test_many_readers_at_once_each_get_their_own(backing: Backing) -> None:
    hub = backing.new()
    box = Sender(hub)
    number = 60
    box.send(*(result(one) for one in range(1, number + 1)), at=T)
    hubs_at_work = [hub, backing.again()]  # two workers
    got: list[str | None] = []
    begin = threading.Barrier(6)

    def work(who: int) -> None:
        begin.wait()
        for turn in range(number // 6):
            reader = Reader(programme=PROGRAMME, name=f"reader {who} {turn}")
            got.append(claim(hubs_at_work[who % 2], reader))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(got) == Counter(str(one) for one in range(1, number + 1))


# --- reads


def test_a_read_is_recorded_once_and_told_to_the_clinic_in_the_same_moment(hub: Hub, box: Sender) -> None:
    box.send(result(1), at=T, seconds=600)
    review = read(hub, ANNA, at=T)
    with hub.store.transaction(PROGRAMME) as db:
        again = tasks.finish(db, ANNA, "Dr anna", review.task, MASS, "k", hub.rules, T + 5)
        assert again == review
        epoch, told = answers.after(db, SITE.name, "", 0, "")
    (answer,) = told
    assert (answer.epoch, answer.seq) == (epoch, 1)
    assert answer.body == cards.Read(
        case="2.25.1",
        read=review.digest,
        reader="Dr anna",
        outcome=Outcome.ROUTINE,
        codes=("normal",),
        advice=(),
        final=True,
        at="2027-01-15T08:00:00Z",
    )
    assert queue(hub, ANNA) == []
    box.send(cards.Seen(case="2.25.1", read=review.digest), at=T + 60)
    with hub.store.reading(PROGRAMME) as db:
        film = tasks.film(db, review.case, T)
        assert film is not None and [one.seen_at for one in film.reviews] == [T + 60] and film.case.read_at == T
        (turned,) = tasks.turnaround(db, T - 1)
        assert (turned.of, turned.count, turned.median) == (SITE.name, 1, 600.0)
        assert [one.of for one in tasks.turnaround(db, T - 1, "code")] == ["normal"]
        assert tasks.turnaround(db, T + 1) == []


def test_two_who_differ_lead_to_a_third(hub: Hub, box: Sender) -> None:
    box.send(result(1), at=T)
    first = read(hub, ANNA, msgspec.structs.replace(NORMAL, second=True))
    assert not first.final and queue(hub, ANNA) == []  # nobody is the second reader of their own read
    second = read(hub, BEN, MASS)
    assert second.kind is TaskKind.SECOND and not second.final
    assert queue(hub, ANNA) == queue(hub, BEN) == []
    third = read(hub, CARO, MASS)
    assert third.kind is TaskKind.ARBITRATION and third.final
    with hub.store.transaction(PROGRAMME) as db:
        finals = [one.body.final for one in answers.after(db, SITE.name, "", 0, "")[1]]  # type: ignore[union-attr]
    assert finals == [False, False, True]


def test_two_who_agree_are_final(hub: Hub, box: Sender) -> None:
    box.send(result(1), at=T)
    read(hub, ANNA, msgspec.structs.replace(MASS, second=True))
    assert read(hub, BEN, MASS).final
    assert queue(hub, CARO) == []


def test_a_read_after_the_lease_was_lost_is_kept_as_a_second_one(hub: Hub, box: Sender) -> None:
    box.send(result(1), at=T)
    with hub.store.transaction(PROGRAMME) as db:
        late = tasks.claim(db, ANNA, LEASE, T)
    assert late is not None
    read(hub, BEN, NORMAL, T + LEASE + 1)
    with hub.store.transaction(PROGRAMME) as db:
        review = tasks.finish(db, ANNA, "Dr anna", late.id, MASS, "k", hub.rules, T + LEASE + 2)
    assert review is not None and review.kind is TaskKind.SECOND and not review.final
    assert queue(hub, CARO) == ["1"]  # they differ
    with hub.store.transaction(PROGRAMME) as db:
        assert tasks.finish(db, ANNA, "Dr anna", 10**9, MASS, "k", hub.rules, T) is None


def test_a_clinic_that_asks_again_gets_another_reader(hub: Hub, box: Sender) -> None:
    box.send(result(1, Outcome.ROUTINE), at=T)
    read(hub, ANNA)
    box.send(hubs.asks("2.25.1"), at=T)
    assert queue(hub, ANNA) == [] and queue(hub, BEN) == ["1"]
    assert read(hub, BEN, NORMAL).final


def test_of_routine_films_only_the_drawn_ones_are_read_where_policy_says_so(backing: Backing) -> None:
    hub = backing.new(Policy(routine=False, audit_share=0.5, second_share=0))
    box = Sender(hub)
    box.send(*(result(number, Outcome.ROUTINE) for number in range(1, 41)), result(99, Outcome.SOON), at=T)
    with hub.store.reading(PROGRAMME) as db:
        entries = tasks.queue(db, ANNA, T)
    assert entries[0].case.result.case == "2.25.99" and entries[0].task.weight == 1
    drawn = entries[1:]
    assert 5 < len(drawn) < 35 and {(one.task.kind, one.task.weight) for one in drawn} == {(TaskKind.AUDIT, 2.0)}
    assert {one.case.result.case for one in drawn} == {
        f"2.25.{number}" for number in range(1, 41) if hub.rules.drawn("audit", f"2.25.{number}", 0.5)
    }


# --- what boxes are told


def test_answers_are_numbered_without_a_gap_and_given_until_they_are_there(hub: Hub, box: Sender) -> None:
    box.send(*(result(number) for number in range(1, 4)), at=T)
    for number in range(3):
        read(hub, ANNA, key=str(number))
    chain, chains = "", []
    with hub.store.transaction(PROGRAMME) as db:
        epoch, told = answers.after(db, SITE.name, "", 0, "")
        for answer in told:
            chains.append(chain := cards.chain(chain, answer))
        assert [one.seq for one in told] == [1, 2, 3]
        assert answers.after(db, SITE.name, epoch, 2, chains[1]) == (epoch, told[2:])
        assert answers.after(db, SITE.name, epoch, 3, chains[2]) == (epoch, ())
        assert answers.after(db, SITE.name, "f" * 16, 3, chains[2]) == (epoch, told)


@pytest.mark.parametrize("upto", [2, 9])
def test_a_hub_that_was_restored_files_its_answers_anew(hub: Hub, box: Sender, upto: int) -> None:
    """The box has answers that the backup lacks, or others under the same numbers."""
    box.send(*(result(number) for number in range(1, 3)), at=T)
    for number in range(2):
        read(hub, ANNA, key=str(number))
    with hub.store.transaction(PROGRAMME) as db:
        epoch, told = answers.after(db, SITE.name, "", 0, "")
        anew, again = answers.after(db, SITE.name, epoch, upto, "a" * 64)
        assert anew != epoch and [one.body for one in again] == [one.body for one in told]
        chain = ""
        for answer in again:
            chain = cards.chain(chain, answer)
        assert answers.after(db, SITE.name, anew, 2, chain) == (anew, ())
        assert answers.give(db, SITE.name, cards.Revoked(), T) == 3


def test_more_of_a_picture_is_asked_for_once(hub: Hub, box: Sender) -> None:
    data = bytes(1000)
    sha256 = hashlib.sha256(data).hexdigest()
    box.send(result(1), image(1, data, sha256), at=T)
    with hub.store.transaction(PROGRAMME) as db:
        case = tasks.queue(db, ANNA, T)[0].case
        for upto in (100, 100, 50, 5000, 1000):
            tasks.want(db, case, upto, T)
        wants = [one.body for one in answers.after(db, SITE.name, "", 0, "")[1]]
    assert wants == [cards.Want(sha256=sha256, upto=100), cards.Want(sha256=sha256, upto=1000)]


# --- programmes, boxes, codes


def test_no_programme_sees_anything_of_another(hub: Hub, box: Sender) -> None:
    hills = msgspec.structs.replace(SITE, programme="hills", name="ridge", title="Ridge")
    other = Sender(hub, hills, "1" * 16)
    data = b"x"
    sha256 = hashlib.sha256(data).hexdigest()
    box.send(result(1), image(1, data, sha256), at=T)
    read(hub, ANNA)
    box.send(result(2), at=T)
    stranger = msgspec.structs.replace(ANNA, programme="hills")
    assert queue(hub, stranger) == [] and claim(hub, stranger) is None
    with hub.store.transaction("hills") as db:
        for number in range(1, 4):
            assert tasks.film(db, number, T) is None and tasks.task(db, number, T) is None
            assert tasks.claim(db, stranger, LEASE, T, number) is None
        assert [one.site.name for one in sites.contacts(db)] == ["ridge"]
        assert inbox.had(db, SITE.name) == {} and films.size(db, SITE.name, sha256) is None
        assert tasks.turnaround(db, 0) == [] and sites.get(db, SITE.name) is None
    other.send(result(1), at=T)  # the same case number is another film
    assert queue(hub, stranger) == ["1"] and queue(hub, ANNA) == ["2"]


def test_a_statement_that_forgets_the_programme_gives_nothing_away(hub: Hub, box: Sender) -> None:
    """SQLite refuses it; PostgreSQL gives only the programme's own rows, and none outside a programme."""
    box.send(result(1), at=T)
    for programme in ("hills", ""):
        found: list[object] = []
        with suppress(RuntimeError), hub.store.reading(programme) as db:
            found = list(db.rows("SELECT * FROM film"))
        if programme or hub.config.database.postgresql:
            assert found == []
    with pytest.raises(ValueError, match="programme"), hub.store.reading("x'; DROP TABLE film; --"):
        pass


def test_a_code_enrols_one_box_and_only_with_its_second_half(hub: Hub, box: Sender) -> None:
    with hub.store.transaction() as db:
        code = sites.invite(db, PROGRAMME, SITE.name, T)
        newer = sites.invite(db, PROGRAMME, SITE.name, T)
        assert sites.try_code(db, code, T) == (sites.CodeState.UNKNOWN, None)
        assert sites.try_code(db, newer, T + sites.CODE_SECONDS)[0] is sites.CodeState.EXPIRED
        for _ in range(sites.TRIES - 1):
            state, found = sites.try_code(db, newer.lower(), T)
            assert state is GOOD and found is not None and found[1:] == (PROGRAMME, SITE.name)
        assert sites.try_code(db, newer, T)[0] is sites.CodeState.TRIED
        good = sites.invite(db, PROGRAMME, SITE.name, T)
        first, second, third = hub.keys.public, public(1), public(2)
        assert sites.enrol(db, good, PROGRAMME, SITE.name, first, T) is GOOD
        assert sites.enrol(db, good, PROGRAMME, SITE.name, second, T) is sites.CodeState.USED
        assert sites.try_code(db, good, T)[0] is sites.CodeState.USED
        code = sites.invite(db, PROGRAMME, SITE.name, T)
        assert sites.enrol(db, code, PROGRAMME, SITE.name, second, T + 1) is GOOD
    with hub.store.reading() as db:
        old, new = sites.device(db, first.fingerprint), sites.device(db, second.fingerprint)
        assert sites.device(db, "0" * 64) is None
        assert sites.devices(db, PROGRAMME, SITE.name) == [new, old]
    assert old is not None and old.revoked_at == T + 1 and old.public == first
    assert new is not None and new.revoked_at is None and (new.programme, new.site) == (PROGRAMME, SITE.name)
    lake = msgspec.structs.replace(SITE, name="lake")
    with hub.store.transaction(PROGRAMME) as db:
        sites.add(db, lake)
    with hub.store.transaction() as db:
        assert sites.enrol(db, sites.invite(db, PROGRAMME, lake.name, T), PROGRAMME, lake.name, third, T) is GOOD
        code = sites.invite(db, PROGRAMME, lake.name, T)
        assert sites.enrol(db, code, PROGRAMME, lake.name, second, T + 2) is sites.CodeState.ELSEWHERE
        (of_lake,) = sites.devices(db, PROGRAMME, lake.name)
        assert of_lake.public == third and of_lake.revoked_at is None, "nothing has changed"
        assert sites.device(db, second.fingerprint) == new
        assert sites.try_code(db, code, T)[0] is GOOD
        assert sites.revoke(db, PROGRAMME, SITE.name, T + 2) == 1


def public(number: int) -> sites.Public:
    return sites.Public(bytes([number]) * 32, bytes([number]) * 32)


# --- pictures


@pytest.fixture
def device(hub: Hub, box: Sender) -> sites.Device:
    with hub.store.transaction() as db:
        sites.enrol(db, sites.invite(db, PROGRAMME, SITE.name, T), PROGRAMME, SITE.name, public(1), T)
        found = sites.device(db, public(1).fingerprint)
    assert found is not None
    return found


def feed(
    hub: Hub, device: sites.Device, data: bytes, offset: int, cut: int, size: int | None = None
) -> tuple[Took, int]:
    """Send bytes from an offset until the link is cut."""
    place = offset

    def more(most: int) -> bytes:
        nonlocal place
        if place >= cut:
            raise ConnectionResetError
        place, before = min(place + most, cut), place
        return data[before:place]

    from web.hub import objects

    try:
        return objects.append(hub, device, hashlib.sha256(data).hexdigest(), offset, size, more)
    except ConnectionResetError:
        with hub.store.reading(PROGRAMME) as db:
            found = films.size(db, SITE.name, hashlib.sha256(data).hexdigest())
        assert found is not None
        return Took.KEPT, found[1]


def test_a_picture_grows_with_every_cut_and_no_byte_is_lost(hub: Hub, box: Sender, device: sites.Device) -> None:
    choice = random.Random(20261126)
    data = choice.randbytes(600_000)
    sha256 = hashlib.sha256(data).hexdigest()
    assert feed(hub, device, data, 0, 100)[0] is Took.UNKNOWN
    box.send(result(1), image(1, data, sha256), at=T)
    have = 0
    while have < len(data):
        cut = min(len(data), have + choice.choice([1, 4096, 5000, 70_000, 300_000]))
        took, now_have = feed(hub, device, data, have, cut)
        assert took is Took.KEPT and now_have == cut, "whatever came before the cut is kept"
        assert hub.blobs.read(f"{PROGRAMME}/{sha256}", 0, now_have) == data[:now_have]
        have = now_have
    assert hub.blobs.read(f"{PROGRAMME}/{sha256}", 100, 200) == data[100:200]
    assert feed(hub, device, data, len(data), len(data)) == (Took.KEPT, len(data))


def test_bytes_that_do_not_follow_or_are_wrong_are_refused(hub: Hub, box: Sender, device: sites.Device) -> None:
    data = b"a" * 10_000
    sha256 = hashlib.sha256(data).hexdigest()
    box.send(result(1), image(1, data, sha256), at=T)
    from web.hub import objects

    assert objects.append(hub, device, sha256, 5, None, lambda most: b"")[0] is Took.ELSEWHERE
    assert objects.append(hub, device, sha256, 0, 9_999, lambda most: b"")[0] is Took.ELSEWHERE
    assert objects.append(hub, device, sha256, 0, None, lambda most: b"b" * most) == (Took.WRONG, 0)
    assert hub.blobs.read(f"{PROGRAMME}/{sha256}", 0, 100) == b""
    assert feed(hub, device, data, 0, len(data)) == (Took.KEPT, len(data))
    assert hub.blobs.read(f"{PROGRAMME}/{sha256}", 0, len(data)) == data


def test_pieces_of_a_stick_are_taken_as_far_as_they_follow(hub: Hub, box: Sender, device: sites.Device) -> None:
    from web.hub import objects

    data = random.Random(7).randbytes(9_000)
    sha256 = hashlib.sha256(data).hexdigest()

    def part(start: int, stop: int, size: int = len(data)) -> tuple[Took, int]:
        one = cards.Piece(sha256=sha256, size=size, offset=start, data=data[start:stop])
        return objects.piece(hub, device, one)

    assert part(0, 100) == (Took.UNKNOWN, 0)
    box.send(result(1), image(1, data, sha256), at=T)
    assert part(0, 5000) == (Took.KEPT, 5000)
    assert part(6000, 7000) == (Took.ELSEWHERE, 5000)
    assert part(0, 9000, 8999) == (Took.UNKNOWN, 0)
    assert part(4000, 9000) == (Took.KEPT, 9000)
    assert part(4000, 9000) == (Took.ELSEWHERE, 9000)
    assert hub.blobs.read(f"{PROGRAMME}/{sha256}", 0, 9000) == data


def test_of_old_pictures_the_beginning_stays_and_the_rest_comes_again_once_somebody_asks(
    hub: Hub, box: Sender, device: sites.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(11)
    datas = {number: draw.randbytes(50_000) for number in range(1, 8)}
    datas[6] = datas[5]
    shas = {number: hashlib.sha256(data).hexdigest() for number, data in datas.items()}
    sent = [box.waited(one) for number in datas for one in (result(number), image(number, datas[number], shas[number]))]
    box.take(*sent, at=T)
    for data in dict.fromkeys(datas.values()):
        assert feed(hub, device, data, 0, len(data))[0] is Took.KEPT
    with hub.store.reading(PROGRAMME) as db:
        waiting = {one.case.result.case: one for one in tasks.queue(db, ANNA, T)}

    def say(number: int, at: float, finding: Finding = NORMAL) -> None:
        task = waiting[f"2.25.{number}"].task.id
        with hub.store.transaction(PROGRAMME) as db:
            assert tasks.claim(db, ANNA, LEASE, at, task)
            assert tasks.finish(db, ANNA, "Dr Anna", task, finding, f"k{number}", hub.rules, at)

    say(1, T + 1)
    say(3, T + 2, Finding(outcome=Outcome.SOON, codes=("mass",), second=True))  # is to be read once more
    say(5, T + 3)  # the sixth has the same picture and is unread, as the second is
    with hub.store.transaction(PROGRAMME) as db:
        sites.heard(db, SITE.name, T + 3)
        sites.told(db, SITE.name, sites.epoch(db, SITE.name), 3)
    say(7, T + 4)  # nobody at the clinic knows yet
    say(4, T + 1000)  # not long ago

    def due() -> tuple[int, int]:
        with hub.store.reading(PROGRAMME) as db:
            return old.count(db, T + 500)

    rest = 50_000 - cards.PREFIX
    assert due() == (1, rest)
    with hub.store.transaction(PROGRAMME) as db:
        sites.told(db, SITE.name, "another epoch", 5)
    assert due() == (0, 0), "a box that has the answers of another epoch has to be told again"
    with hub.store.transaction(PROGRAMME) as db:
        sites.told(db, SITE.name, sites.epoch(db, SITE.name), 5)
    assert due() == (2, 2 * rest)

    def killed(*_: object) -> None:
        raise Transient("killed")

    with monkeypatch.context() as patched, pytest.raises(Transient):
        patched.setattr(films, "dropped", killed)
        list(old.drop(hub.store, hub.blobs, PROGRAMME, T + 500))
    assert due() == (2, 2 * rest), "what was cut off goes on"
    with monkeypatch.context() as patched:
        patched.setattr(old, "AT_ONCE", 2)
        for goes in (2, 0):
            steps = list(old.drop(hub.store, hub.blobs, PROGRAMME, T + 500))
            assert sum(step[0] for step in steps) == goes and sum(step[1] for step in steps) == goes * rest
    for number, data in datas.items():
        stays = cards.PREFIX if number in (1, 7) else len(data)
        assert hub.blobs.size(f"{PROGRAMME}/{shas[number]}") == stays
        assert hub.blobs.read(f"{PROGRAMME}/{shas[number]}", 0, len(data)) == data[:stays]
    assert list(serve.check(hub)) == []
    box.take(*sent, at=T + 5)
    with hub.store.reading(PROGRAMME) as db:
        assert films.size(db, SITE.name, shas[1]) == (50_000, 50_000), "its box sends nothing by itself"
    from web.hub import objects

    assert objects.append(hub, device, shas[1], cards.PREFIX, None, lambda most: b"x" * most)[0] is Took.ELSEWHERE
    case = waiting["2.25.1"].case
    with hub.store.transaction(PROGRAMME) as db:
        tasks.want(db, case, 50_000, T + 2000)
        told = answers.since(db, SITE.name, EPOCH, 5, 10)
        assert [one.body for one in told] == [cards.Want(sha256=shas[1], upto=50_000)]
        assert films.size(db, SITE.name, shas[1]) == (50_000, cards.PREFIX)
    assert due() == (0, 0), "what somebody waits for stays"
    assert feed(hub, device, datas[1], cards.PREFIX, 50_000) == (Took.KEPT, 50_000)
    assert hub.blobs.read(f"{PROGRAMME}/{shas[1]}", 0, 50_000) == datas[1]
    assert due() == (1, rest), "and goes again when it is called next"
    for number in (1, 2, 7):  # whole, and a beginning
        for _ in range(2):
            hub.blobs.remove(f"{PROGRAMME}/{shas[number]}")
        assert hub.blobs.size(f"{PROGRAMME}/{shas[number]}") == 0


def test_a_name_that_is_none_is_refused(hub: Hub) -> None:
    for name in ("../../etc/passwd", "lakes/short", f"lakes/../{'a' * 64}", f"{'a' * 64}"):
        for ask in (lambda name=name: hub.blobs.read(name, 0, 1), lambda name=name: hub.blobs.write(name, 0, b"x")):
            with pytest.raises(ValueError, match=r".*"):
                ask()


# --- PostgreSQL alone


@pytest.mark.peer
def test_a_role_that_sees_every_programme_is_refused(server: Postgresql, tmp_path: Path) -> None:
    server.database()
    config = hubs.settings(tmp_path, database=Database(postgresql=server.where("postgres", "owner")))
    with pytest.raises(Misconfigured, match="superuser"), hubs.opened(config):
        pass


@pytest.mark.peer
def test_a_database_that_is_away_is_named_and_its_connections_are_made_anew(server: Postgresql, tmp_path: Path) -> None:
    config = hubs.settings(tmp_path, database=Database(postgresql=server.database()))
    with hubs.opened(config) as hub:
        box = Sender(hub)
        server.stop("immediate")
        with pytest.raises(Transient, match="database"):
            box.send(result(1), at=T)
        server.start()
        with suppress(Transient):
            box.send(result(2), at=T)
        box.take(box.waited(result(1), seq=1), at=T)
        assert "1" in queue(hub, ANNA)


@pytest.mark.peer
def test_what_a_bucket_does_not_take_is_said(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hubs.KEYS.items():
        monkeypatch.setenv(name, value)
    store = msgspec.structs.replace(hubs.make_bucket(bucket, "there"), bucket="s3://nowhere")
    with pytest.raises(Misconfigured, match="nowhere"), hubs.opened(hubs.settings(tmp_path, store=store)):
        pass


# --- the fleet


MODEL = rollouts.Model(sha256="5a" * 32, size=9, bundle="b0" * 32, name="m 2")
DAY = 86400.0


class Fleet:
    """Twelve clinics, and a model that can be rolled out."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.at = hub, T
        self.boxes = {
            name: Sender(hub, msgspec.structs.replace(SITE, name=name)) for name in (f"c{one:02}" for one in range(12))
        }
        with hub.store.transaction(PROGRAMME) as db:
            db.run(
                "INSERT INTO model (programme, sha256, size, bundle, name, added_at)"
                " VALUES (:programme, :sha256, 9, :bundle, 'm 2', 0)",
                sha256=MODEL.sha256,
                bundle=MODEL.bundle,
            )

    def start(self, name: str = "one", **other: Any) -> bool:
        said: dict[str, Any] = {"sha256": MODEL.sha256, "good_seconds": DAY, "silent_seconds": 7 * DAY, **other}
        with self.hub.store.transaction(PROGRAMME) as db:
            return rollouts.start(db, name, said.pop("what", What.MODEL), [*self.boxes], "c05", "Lena", self.at, **said)

    def orders(self, name: str) -> list[cards.Order]:
        """What a box was ordered; it is heard of by that."""
        told = self.boxes[name].heard(at=self.at)
        return [one.body for one in told if isinstance(one.body, cards.Order)]

    def says(
        self, name: str, result: str = "done", about: str = "", notices: tuple[str, ...] = (), bundle: str = "b0" * 32
    ) -> None:
        """A box has carried its latest order out, or not, and says how it is."""
        status = msgspec.structs.replace(STATUS, bundle=bundle, notices=notices)
        applied = cards.Applied(order=self.orders(name)[-1].order, result=result, about=about)
        self.boxes[name].heard(status, applied, at=self.at)

    def stage(self) -> tuple[str, int, dict[str, list[str]]]:
        """State and wave of the roll-out, and by stage the clinics."""
        with self.hub.store.reading(PROGRAMME) as db:
            one = rollouts.get(db, "one")
            assert one is not None and ledger.broken(db) is None
            found: dict[str, list[str]] = {}
            for member in rollouts.members(db, one, self.at):
                found.setdefault(member.stage, []).append(member.site)
            return one.state, one.wave, found

    def why(self) -> tuple[str, str, str]:
        with self.hub.store.reading(PROGRAMME) as db:
            one = rollouts.get(db, "one")
        assert one is not None
        return one.site, one.why, one.about

    def does(self, what: str) -> bool:
        with self.hub.store.transaction(PROGRAMME) as db:
            return rollouts.act(db, "one", what, "Lena", self.at)

    def acts(self) -> list[str]:
        with self.hub.store.reading(PROGRAMME) as db:
            return [f"{one.actor or 'hub'} {one.act}" for one in reversed(ledger.acts(db, 100))]

    def day(self, *names: str) -> None:
        """A day later these are heard of, and somebody looks."""
        self.at += DAY + 60
        for name in names:
            self.boxes[name].heard(at=self.at)
        with self.hub.store.transaction(PROGRAMME) as db:
            rollouts.advance(db, self.at, now=True)


def test_a_roll_out_goes_in_waves_each_after_the_one_before_was_good(hub: Hub) -> None:
    fleet = Fleet(hub)
    assert fleet.start() and fleet.start(), "sent twice it is one"
    assert not fleet.start("another"), "one is open at a time"
    assert fleet.stage()[:2] == ("going", 0) and fleet.stage()[2]["ordered"] == ["c05"]
    assert [len(fleet.orders(name)) for name in ("c05", "c04")] == [1, 0]
    (order,) = fleet.orders("c05")
    with hub.store.transaction(PROGRAMME) as db:
        assert rollouts.needed(db, MODEL.sha256) == "the open roll-out, c05" and rollouts.needed(db, "0" * 64) == ""
    assert cards.ordered("c05", order) == order and (order.sha256, order.size) == (MODEL.sha256, 9)
    with hub.store.reading(PROGRAMME) as db:
        assert rollouts.wanted(db, "c05") == MODEL and rollouts.wanted(db, "c04") is None
    fleet.says("c05")
    with hub.store.reading(PROGRAMME) as db:
        assert rollouts.wanted(db, "c05") is None and rollouts.given(db, "c05", 9)[0][3] == "done"
    assert fleet.stage()[2]["watched"] == ["c05"]
    fleet.at += DAY * 2
    fleet.boxes["c00"].heard(at=fleet.at)
    assert fleet.stage()[:2] == ("going", 0), "nobody knows whether it is still good"
    fleet.day("c05")
    state, wave, stages = fleet.stage()
    assert (state, wave, len(stages["ordered"]), stages["good"]) == ("going", 1, 2, ["c05"])
    second = stages["ordered"]
    fleet.says(second[0])
    fleet.day(*second)
    assert fleet.stage()[1] == 1, "one of the two has not said that it was done"
    fleet.says(second[1])
    fleet.day(*second)
    last = fleet.stage()[2]["ordered"]
    assert fleet.stage()[1] == 2 and len(last) == 9
    for name in last:
        fleet.says(name)
    fleet.day(*last)
    assert fleet.stage()[0] == "done"
    assert fleet.acts() == ["Lena start", "hub wave", "hub wave", "hub done"]
    assert fleet.start("another", what=What.ROLLBACK, sha256=""), "now there is room for one"


@pytest.mark.parametrize("trouble", ["unsigned", "ai_stopped", "silent", "other_model"])
def test_trouble_halts_a_roll_out_and_calls_off_what_was_not_carried_out(hub: Hub, trouble: str) -> None:
    fleet = Fleet(hub)
    fleet.start()
    fleet.says("c05")
    fleet.day("c05")
    first, second = fleet.stage()[2]["ordered"]
    before = len(fleet.orders(second))
    match trouble:
        case "unsigned":
            fleet.says(first, "unsigned")
        case "ai_stopped":
            fleet.says(first, notices=("worker",))
        case "silent":
            for _ in range(8):
                fleet.day(second)
        case "other_model":
            fleet.says(first, bundle="cc" * 32)
            fleet.day(first)
            fleet.boxes[first].heard(msgspec.structs.replace(STATUS, bundle="cc" * 32), at=fleet.at)
            fleet.day(first)
    assert fleet.stage()[0] == "halted" and fleet.why() == (first, trouble, "")
    assert [one.what for one in fleet.orders(second)[before:]] == ["keep"]
    assert not fleet.does("stop") and fleet.does("resume")
    assert fleet.stage()[0] == "going"
    again = [one.what for one in fleet.orders(first)]
    assert again.count("model") == (1 if trouble == "ai_stopped" else 2), "it is ordered anew where that can help"
    assert [one.what for one in fleet.orders(second)] == ["model", "keep", "model"]
    numbers = [one.number for one in fleet.orders(second)]
    assert numbers == sorted({*numbers}), "each is later than the one before"
    fleet.says(first)
    fleet.says(second)
    fleet.day(first, second)
    assert fleet.stage()[:2] == ("going", 2), "mended, it goes on"
    fleet.says("c05", notices=("phantom",))
    assert fleet.stage()[0] == "halted" and fleet.why()[:2] == ("c05", "ai_stopped"), "also in a wave that is past"
    assert fleet.does("end") and not fleet.does("resume") and fleet.start("another")
    assert fleet.acts()[-4:] == ["hub wave", "hub halted", "Lena ended", "Lena start"]


def test_a_wave_is_ordered_once_however_many_boxes_are_heard_of_at_the_same_moment(backing: Backing) -> None:
    hub = backing.new()
    fleet = Fleet(hub)
    fleet.start()
    fleet.says("c05")
    fleet.at += DAY
    with hub.store.transaction(PROGRAMME) as db:
        sites.heard(db, "c05", fleet.at)
    hubs_at_work = [hub, backing.again()]
    begin = threading.Barrier(6)

    def work(who: int) -> None:
        begin.wait()
        with hubs_at_work[who % 2].store.transaction(PROGRAMME) as db:
            rollouts.advance(db, fleet.at, now=True)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fleet.stage()[1] == 1 and fleet.acts() == ["Lena start", "hub wave"]
    assert sorted(len(fleet.orders(name)) for name in fleet.boxes) == [0] * 9 + [1] * 3


def test_a_line_of_the_ledger_that_was_changed_or_cut_out_is_found(hub: Hub) -> None:
    fleet = Fleet(hub)
    fleet.start()
    fleet.does("stop")
    fleet.does("end")
    with suppress(ZeroDivisionError), hub.store.transaction(PROGRAMME) as db:
        db.run("UPDATE act SET actor = 'Eve' WHERE programme = :programme AND seq = 2")
        assert ledger.broken(db) == 2
        raise ZeroDivisionError
    with hub.store.transaction(PROGRAMME) as db:
        assert ledger.broken(db) is None
        db.run("DELETE FROM act WHERE programme = :programme AND seq = 1")
        assert ledger.broken(db) == 1
