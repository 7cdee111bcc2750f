"""What a hub remembers of its readers, the same on each backing: accounts, sessions, tries, what is sealed, what is to leave."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from edge import cards
from edge.records import Outcome
from tests.hub import PROGRAMME, SITE, Sender, result
from tests.integration.test_hub_store import (  # noqa: F401  fixtures
    ANNA,
    BEN,
    MASS,
    NORMAL,
    Backing,
    T,
    backing,
    box,
    bucket,
    hub,
    server,
)
from web.hub import accounts, drafts, tasks
from web.hub.accounts import Account, Role
from web.hub.here import Hub
from web.hub.records import TaskKind

AMINA = Account(
    name="Amina", programme=PROGRAMME, role=Role.LEAD, language="sw", languages=("sw", "en"), kinds=tuple(TaskKind),
    sites=(SITE.name,), countries=("KE",), secret="s", totp="t",
)  # fmt: skip


def test_an_account_is_kept_as_it_is_and_a_name_given_once(hub: Hub) -> None:  # noqa: F811
    with hub.store.transaction() as db:
        assert accounts.add(db, AMINA)
        assert not accounts.add(db, msgspec.structs.replace(AMINA, name="AMINA"))
        assert accounts.get(db, "aMINA") == AMINA
        assert accounts.everyone(db, PROGRAMME) == [AMINA] and accounts.everyone(db, "other") == []
        moved = msgspec.structs.replace(AMINA, secret="", issuer="https://id.example", subject="4711")
        assert accounts.put(db, moved, AMINA) and not accounts.put(db, AMINA, AMINA), "only what is known is changed"
        assert accounts.elsewhere(db, "https://id.example", "4711") == moved
        assert accounts.elsewhere(db, "", "") is None
        other = Account(name="Bea", programme=PROGRAMME, role=Role.READER)
        assert accounts.add(db, other)
        assert not accounts.put(db, msgspec.structs.replace(other, issuer=moved.issuer, subject=moved.subject), other)


def test_a_code_counts_once_whoever_asks_at_the_same_moment(backing: Backing) -> None:  # noqa: F811
    hub, again = backing.new(), backing.again()  # noqa: F811
    with hub.store.transaction() as db:
        accounts.add(db, AMINA)
        assert accounts.use_code(db, "amina", 7)
    with again.store.transaction() as db:
        assert not accounts.use_code(db, "amina", 7) and not accounts.use_code(db, "amina", 6)
        assert accounts.use_code(db, "amina", 8)


def test_sessions_end_one_by_one_all_at_once_or_by_age(hub: Hub) -> None:  # noqa: F811
    with hub.store.transaction() as db:
        accounts.add(db, AMINA)
        first, second = accounts.start(db, "amina", T), accounts.start(db, "amina", T)
        held = accounts.session(db, first)
        assert held is not None and held[1] == AMINA and first not in str(held)
        accounts.seen(db, held[0], T + 60)
        accounts.end_older(db, T + 30)
        assert accounts.session(db, first) is not None and accounts.session(db, second) is None
        accounts.end_all(db, "Amina")
        assert accounts.session(db, first) is None
        assert not accounts.knows(db, "b", "amina")
        accounts.remember(db, "b", "amina")
        accounts.remember(db, "b", "amina")
        assert accounts.knows(db, "b", "AMINA")


def test_tries_are_counted_before_they_are_checked_and_the_wait_ends(hub: Hub) -> None:  # noqa: F811
    with hub.store.transaction() as db:
        for _ in range(5):
            assert not accounts.begin_try(db, "person x", T)
        assert accounts.begin_try(db, "person x", T + 1) == timedelta(seconds=29)
        assert not accounts.begin_try(db, "person x", T + 31)
        assert accounts.imposed(db, "person x") == timedelta(seconds=60)
        assert not accounts.begin_try(db, "person x on b", T)
        accounts.forget(db, "person x")
        assert not accounts.imposed(db, "person x") and not accounts.begin_try(db, "person x", T)
        accounts.begin_try(db, accounts.STRANGER + "1", T)
        accounts.forget_strangers(db, T + 2 * 86400)
        assert not accounts.imposed(db, accounts.STRANGER + "1")


@pytest.fixture
def taken(hub: Hub, box: Sender) -> int:  # noqa: F811
    """A film that Anna has; the number of its task."""
    box.send(result(1), at=T)
    with hub.store.transaction(PROGRAMME) as db:
        task = tasks.claim(db, ANNA, 900, T)
        assert task is not None
        drafts.opened(db, task.id, ANNA, T)
    return task.id


def said(hub: Hub) -> list[cards.Read]:  # noqa: F811
    with hub.store.reading(PROGRAMME) as db:
        rows = db.rows("SELECT body FROM answer WHERE programme = :programme ORDER BY seq")
    found = [msgspec.json.decode(row["body"], type=cards.Down) for row in rows]
    return [one for one in found if isinstance(one, cards.Read)]


def test_the_first_impression_counts(hub: Hub, taken: int) -> None:  # noqa: F811
    with hub.store.transaction(PROGRAMME) as db:
        drafts.seal(db, taken, ANNA, NORMAL)
        drafts.seal(db, taken, ANNA, MASS)
        draft = drafts.get(db, taken, ANNA)
        assert draft is not None and draft.impression == NORMAL and drafts.get(db, taken, BEN) is None


def test_a_read_leaves_after_ten_seconds_and_can_be_taken_back_until_then(hub: Hub, taken: int) -> None:  # noqa: F811
    with hub.store.transaction(PROGRAMME) as db:
        assert not drafts.leave(db, taken, BEN, AMINA, NORMAL, "k", T), "Ben does not have it"
        assert drafts.leave(db, taken, ANNA, AMINA, MASS, "k", T)
        assert tasks.claim(db, BEN, 900, T + 5) is None and tasks.holds(db, ANNA, T + 5) is None
        assert drafts.flush(db, hub.rules, T + 9) == []
        assert drafts.take_back(db, taken, ANNA, 900, T + 9)
        assert tasks.holds(db, ANNA, T + 9) is not None and drafts.leaving(db, ANNA, T + 9) is None
        assert drafts.leave(db, taken, ANNA, AMINA, NORMAL, "k", T + 20)
    with hub.store.transaction(PROGRAMME) as db:
        assert not drafts.take_back(db, taken, ANNA, 900, T + 31)
        (review,) = drafts.flush(db, hub.rules, T + 31)
        assert drafts.flush(db, hub.rules, T + 31) == []
    assert (review.finding, review.shown_as, review.site) == (NORMAL, "Amina", SITE.name)
    assert [one.outcome for one in said(hub)] == [Outcome.ROUTINE]
    with hub.store.reading(PROGRAMME) as db:
        assert [one.id for one in tasks.of_reader(db, ANNA, 9)] == [review.id] and tasks.of_reader(db, BEN, 9) == []


def test_a_read_that_is_sent_survives_a_hub_that_dies(backing: Backing) -> None:  # noqa: F811
    hub = backing.new()  # noqa: F811
    Sender(hub).send(result(1), at=T)
    with hub.store.transaction(PROGRAMME) as db:
        task = tasks.claim(db, ANNA, 900, T)
        assert task is not None
        drafts.opened(db, task.id, ANNA, T)
        drafts.leave(db, task.id, ANNA, AMINA, MASS, "k", T)
    again = backing.again()
    with again.store.transaction(PROGRAMME) as db:
        assert len(drafts.flush(db, again.rules, T + 60)) == 1
    assert len(said(again)) == 1


def test_another_programme_sees_no_draft(hub: Hub, taken: int) -> None:  # noqa: F811
    with hub.store.transaction("other") as db:
        other = msgspec.structs.replace(ANNA, programme="other")
        assert drafts.get(db, taken, other) is None and drafts.flush(db, hub.rules, T + 60, other) == []
