"""The ledger detects whatever is changed, dropped or reordered."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.state import audit
from edge.state.audit import Event
from edge.state.store import open_store, transaction

START = datetime(2026, 1, 1, tzinfo=UTC)

written = st.lists(
    st.tuples(st.sampled_from(Event), st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=5))),
    min_size=2,
    max_size=8,
)


def write(store: sqlite3.Connection, events: list[tuple[Event, str, dict[str, str]]]) -> None:
    for minute, (event, actor, detail) in enumerate(events):
        with transaction(store):
            audit.append(store, event, actor, START + timedelta(minutes=minute), values=detail)


def unlock(store: sqlite3.Connection) -> None:
    store.execute("DROP TRIGGER audit_unchanged")
    store.execute("DROP TRIGGER audit_kept")


@given(written, st.data())
def test_any_change_is_found(events: list[tuple[Event, str, dict[str, str]]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        write(store, events)
        assert audit.verify(store) is None
        assert [record.detail["values"] for record in audit.records(store)] == [detail for *_, detail in events]
        unlock(store)
        victim = data.draw(st.integers(1, len(events)))
        match data.draw(st.sampled_from(["change", "drop", "swap", "cut the end", "forge the end"])):
            case "change":
                column = data.draw(st.sampled_from(["at", "actor", "detail"]))
                store.execute(f"UPDATE audit SET {column} = {column} || ' ' WHERE id = ?", (victim,))
            case "drop":
                store.execute("DELETE FROM audit WHERE id = ?", (victim,))
            case "swap":
                other = victim % len(events) + 1
                for number, to in ((victim, -1), (other, victim), (-1, other)):
                    store.execute("UPDATE audit SET id = ? WHERE id = ?", (to, number))
            case "cut the end":
                store.execute("DELETE FROM audit WHERE id >= ?", (victim,))
            case "forge the end":  # by someone who knows how the chain is made but not the box's key
                store.execute("DELETE FROM audit WHERE id = ?", (len(events),))
                (Path(folder) / "ledger.key").rename(Path(folder) / "away")
                with transaction(store):
                    audit.append(store, Event.VIEWED, "nobody", START)
                (Path(folder) / "away").rename(Path(folder) / "ledger.key")
        assert audit.verify(store) is not None


def test_the_database_refuses_to_change_or_delete(state: Path) -> None:
    with closing(open_store(state)) as store:
        write(store, [(Event.STARTED, "box", {})])
        for statement in ("UPDATE audit SET actor = 'other'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                store.execute(statement)
        assert (state / "ledger.key").stat().st_mode & 0o777 == 0o600
