"""The ledger detects whatever is changed, dropped or reordered."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.records import Breakage
from edge.state import audit
from edge.state.audit import Break, Event
from edge.state.store import now, open_store, transaction

START = datetime(2026, 1, 1, tzinfo=UTC)

written = st.lists(
    st.tuples(st.sampled_from(Event), st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=5))),
    min_size=2,
    max_size=8,
)


def write(store: sqlite3.Connection, events: list[tuple[Event, str, dict[str, str]]]) -> None:
    with transaction(store):
        for minute, (event, actor, detail) in enumerate(events):
            audit.append(store, event, actor, START + timedelta(minutes=minute), values=detail)


def chain(store: sqlite3.Connection) -> None:
    """Chain the records anew, as anybody can who knows how; only the seal is out of reach."""
    before = audit.ORIGIN
    for row in store.execute("SELECT * FROM audit ORDER BY id").fetchall():
        said = [before, row["id"], row["at"], row["event"], row["actor"], row["arrival_id"], row["detail"]]
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        before = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        store.execute("UPDATE audit SET hash = ? WHERE id = ?", (before, row["id"]))


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
        ways = ["change", "chain anew", "drop", "drop and close up", "swap", "cut the end", "forge the end"]
        store.execute("BEGIN")
        match data.draw(st.sampled_from(ways)):
            case "change":
                column = data.draw(st.sampled_from(["at", "event", "actor", "detail", "hash"]))
                store.execute(f"UPDATE audit SET {column} = {column} || ' ' WHERE id = ?", (victim,))
            case "chain anew":  # by someone who knows how the chain is made
                store.execute("UPDATE audit SET actor = actor || ' ' WHERE id = ?", (victim,))
                chain(store)
            case "drop and close up":
                store.execute("DELETE FROM audit WHERE id = ?", (victim,))
                for number in range(victim + 1, len(events) + 1):
                    store.execute("UPDATE audit SET id = id - 1 WHERE id = ?", (number,))
                chain(store)
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
                audit.append(store, Event.VIEWED, "nobody", START)
                (Path(folder) / "away").rename(Path(folder) / "ledger.key")
        store.execute("COMMIT")
        assert audit.verify(store) is not None
        # what the box itself writes afterwards does not mend it, and says what it saw
        with transaction(store):
            audit.append(store, Event.VIEWED, "Amina", START)
        assert audit.verify(store) is not None


def test_an_end_that_was_cut_off_is_recorded_by_the_next_record(state: Path) -> None:
    with closing(open_store(state)) as store:
        write(store, [(Event.STARTED, "box", {})] * 5)
        unlock(store)
        store.execute("DELETE FROM audit WHERE id > 3")
        assert audit.verify(store) == Break(4, Breakage.CUT)
        with transaction(store):
            audit.append(store, Event.VIEWED, "Amina", START)
        told = [(record.id, record.event, record.detail) for record in audit.records(store, after=3)]
        assert told == [(7, Event.TAMPERED, {"record": 4, "why": "cut"}), (8, Event.VIEWED, {})]
        assert audit.verify(store) == Break(4, Breakage.MISSING)
        assert audit.verify(store, after=7) is None


def test_what_is_found_says_where_and_how(state: Path) -> None:
    with closing(open_store(state)) as store:
        write(store, [(Event.STARTED, "box", {})] * 5)
        unlock(store)
        seal = store.execute("SELECT seal FROM audit_head").fetchone()[0]
        assert audit.verify(store, after=2) is None
        for statement, found in (
            ("UPDATE audit_head SET seal = 'other'", Break(5, Breakage.FOREIGN)),
            ("DELETE FROM audit_head", Break(5, Breakage.UNSEALED)),
            (f"INSERT INTO audit_head VALUES (1, 4, '{seal}')", Break(5, Breakage.FOREIGN)),
            ("UPDATE audit SET actor = 'other' WHERE id = 4", Break(4, Breakage.CHANGED)),
            ("DELETE FROM audit WHERE id = 2", Break(2, Breakage.MISSING)),
            ("DELETE FROM audit", Break(1, Breakage.CUT)),
        ):
            store.execute(statement)
            assert audit.verify(store) == found


def test_the_database_refuses_to_change_or_delete(state: Path) -> None:
    with closing(open_store(state)) as store:
        write(store, [(Event.STARTED, "box", {})])
        for statement in ("UPDATE audit SET actor = 'other'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                store.execute(statement)
        assert (state / "ledger.key").stat().st_mode & 0o777 == 0o600


def test_a_ledger_that_is_written_to_while_it_is_looked_at_is_whole(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as looking, closing(open_store(tmp_path)) as writing:

        def write() -> None:
            with transaction(writing):
                audit.append(writing, Event.STARTED, "serve", now())

        write()
        looking.set_trace_callback(lambda statement: write() if "audit_head" in statement else None)
        assert audit.verify(looking) is None
        looking.set_trace_callback(None)
        assert audit.head(looking)[0] == 2 and audit.verify(looking) is None
