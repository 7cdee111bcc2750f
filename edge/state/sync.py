"""The tables of sync: what this box tells its hub, what the hub has of it, and what the hub tells this box.

An event is written in the transaction of what it tells. It counts as arrived once the hub says that it has it, in answer to a
parcel in which it left; what the hub has no longer, because it was restored from a backup, is sent again. Where it is this box that
was restored, numbers are used twice: the hub says which, and those events are filed anew in another epoch. Nothing is given up.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from edge import cards
from edge.cards import (
    PREFIX,
    Answer,
    Event,
    Had,
    Image,
    Lane,
    Order,
    Read,
    Revoked,
    StaysHome,
    ToBox,
    Up,
    Void,
    Waited,
    Want,
)
from edge.records import Concern, Trouble
from edge.state import device, ordered

TABLE = """
CREATE TABLE sync (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    hub_epoch TEXT NOT NULL DEFAULT '',
    kept INTEGER NOT NULL DEFAULT 0,
    left_behind TEXT NOT NULL DEFAULT '[]',
    upto INTEGER NOT NULL DEFAULT 0,
    chain TEXT NOT NULL DEFAULT '',
    answered_at TEXT,
    trouble TEXT,
    detail TEXT NOT NULL DEFAULT '',
    since TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    next_at TEXT,
    day TEXT NOT NULL DEFAULT '',
    spent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE sync_event (
    id INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    body TEXT NOT NULL,
    about TEXT NOT NULL,
    arrival_id INTEGER REFERENCES arrival,
    made_at TEXT NOT NULL,
    due_at TEXT NOT NULL,
    parcel TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'had', 'moved')),
    UNIQUE (epoch, seq)
) STRICT;
CREATE INDEX sync_event_open ON sync_event (lane, id) WHERE state IN ('waiting', 'sent');
CREATE INDEX sync_event_had ON sync_event (epoch, seq) WHERE state = 'had';
CREATE INDEX sync_event_about ON sync_event (about);
CREATE INDEX sync_event_film ON sync_event (arrival_id) WHERE arrival_id IS NOT NULL;
CREATE TABLE sync_case (arrival_id INTEGER PRIMARY KEY REFERENCES arrival, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE sync_object (
    sha256 TEXT PRIMARY KEY,
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    event_id INTEGER NOT NULL REFERENCES sync_event,
    size INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    offset INTEGER,
    made_at TEXT NOT NULL
) STRICT;
CREATE INDEX sync_object_open ON sync_object (lane, event_id) WHERE offset IS NULL OR offset < size;
CREATE TABLE sync_read (
    read TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    seen_at TEXT,
    seen_by TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX sync_read_of_case ON sync_read (name);
"""
"""An event is `sent` from the moment before it first leaves, `had` while the hub has it, `moved` where it was filed anew; `parcel`
is the identifier of the one in which it left last.

`offset` is how many bytes the hub has durably; NULL where nobody knows.
"""

SOON = """
UPDATE sync_event SET lane = lane + 2 WHERE lane >= 4;
UPDATE sync_object SET lane = lane + 2 WHERE lane >= 4;
"""
"""Lanes between the box's state and what is routine came later."""

RESULTS = (Lane.URGENT, Lane.SOON, Lane.ROUTINE)
"""In which results go."""
JITTER = timedelta(minutes=1)
"""A moment further ahead than this was written under a clock that was wrong."""
BELIEVED = timedelta(days=3650)
MOST_ASKED = 32
"""So many objects are asked about at once."""
_OPEN = "state IN ('waiting', 'sent')"


@dataclass(frozen=True)
class Filed:
    """An event on its way."""

    id: int
    epoch: str
    seq: int
    lane: Lane
    body: Up
    made_at: datetime

    def waited(self, site: str, at: datetime) -> Waited:
        """As it travels, with how long it has waited until now."""
        waited = at - self.made_at
        seconds = max(0, int(waited.total_seconds())) if waited < BELIEVED else None
        return Waited(event=Event(site=site, epoch=self.epoch, seq=self.seq, body=self.body), seconds=seconds)


@dataclass(frozen=True)
class Part:
    """Bytes of a film that the hub shall get next."""

    sha256: str
    size: int
    offset: int
    upto: int
    lane: Lane
    made_at: datetime


@dataclass(frozen=True)
class Standing:
    """How it stands with the hub."""

    epoch: str
    hub_epoch: str
    upto: int
    """All of the hub's answers to this one are kept here."""
    chain: str
    answered_at: datetime | None
    trouble: Trouble | None
    detail: str
    since: datetime | None
    """Since when it has not answered well."""
    failures: int
    next_at: datetime | None
    day: str
    spent: int
    """Bytes on that day."""


@dataclass(frozen=True)
class Returned:
    """A teleradiologist's read of a film of this box."""

    read: Read
    arrival_id: int
    taken_at: datetime
    seen_at: datetime | None


def case(connection: sqlite3.Connection, arrival_id: int, name: str) -> str:
    """The name of a film at the hub, inside the caller's transaction: `name`, unless it has one already or another has this."""
    connection.execute(
        "INSERT INTO sync_case (arrival_id, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (arrival_id, name)
    )
    return case_of(connection, arrival_id) or ""


def case_of(connection: sqlite3.Connection, arrival_id: int) -> str | None:
    """The name of a film at the hub; None where it has none yet."""
    row = connection.execute("SELECT name FROM sync_case WHERE arrival_id = ?", (arrival_id,)).fetchone()
    return None if row is None else str(row["name"])


def tell(
    connection: sqlite3.Connection,
    body: Up,
    lane: Lane,
    at: datetime,
    *,
    about: str,
    arrival_id: int | None = None,
    due: datetime | None = None,
) -> None:
    """File an event for the hub, inside the transaction that records what it tells.

    One of the same `about` that has not left yet gets the new body instead: only the latest state of a box is of use. Two that say
    the same one after the other are one.
    """
    written = text(body)
    last = connection.execute("SELECT * FROM sync_event WHERE about = ? ORDER BY id DESC LIMIT 1", (about,)).fetchone()
    if last is not None and last["body"] == written:
        event_id = int(last["id"])
    elif last is not None and last["state"] == "waiting":
        event_id = int(last["id"])
        connection.execute(
            "UPDATE sync_event SET body = ?, lane = MIN(lane, ?), made_at = ?, due_at = ? WHERE id = ?",
            (written, lane, at.isoformat(), (due or at).isoformat(), event_id),
        )
    else:
        event_id = _file(connection, written, lane, about, arrival_id, at, due or at)
    if isinstance(body, Image) and arrival_id is not None:
        picture = body.picture
        connection.execute(
            "INSERT INTO sync_object (sha256, arrival_id, event_id, size, lane, made_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET event_id = excluded.event_id, lane = MIN(lane, excluded.lane)",
            (picture.sha256, arrival_id, event_id, picture.size, lane, at.isoformat()),
        )


def last(connection: sqlite3.Connection, about: str) -> Filed | None:
    """What was told last of something; None where nothing was."""
    row = connection.execute("SELECT * FROM sync_event WHERE about = ? ORDER BY id DESC LIMIT 1", (about,)).fetchone()
    return None if row is None else _filed(row)


def take_back(connection: sqlite3.Connection, about: str) -> None:
    """Make nothing of an event that has not left yet, inside the transaction that takes back what it tells."""
    connection.execute(
        "UPDATE sync_event SET body = ?, due_at = made_at WHERE about = ? AND state = 'waiting'", (text(Void()), about)
    )


def hasten(connection: sqlite3.Connection, arrival_id: int, lane: Lane) -> None:
    """Have a film and what was said of it go no later than in that lane of a result, inside the caller's transaction."""
    images = ", ".join(str(one.image.value) for one in RESULTS)
    connection.execute(
        f"UPDATE sync_event SET lane = CASE WHEN lane IN ({images}) THEN :image ELSE :lane END"
        f" WHERE arrival_id = :film AND {_OPEN} AND lane > :image",
        {"film": arrival_id, "lane": lane, "image": lane.image},
    )
    connection.execute("UPDATE sync_object SET lane = MIN(lane, ?) WHERE arrival_id = ?", (lane.image, arrival_id))


def stays_home(connection: sqlite3.Connection, arrival_id: int) -> Concern | None:
    """Why a film's picture does not leave toward the hub, as the hub was told last; None where it leaves, or nobody knows yet."""
    row = connection.execute(
        "SELECT body FROM sync_event WHERE arrival_id = ? AND about = ? ORDER BY id DESC LIMIT 1",
        (arrival_id, f"image {arrival_id}"),
    ).fetchone()
    body: Up | None = None if row is None else msgspec.json.decode(row["body"], type=Up)
    return body.concern if isinstance(body, StaysHome) else None


def lane_of(connection: sqlite3.Connection, arrival_id: int) -> Lane:
    """The first lane of a result in which something of a film went."""
    row = connection.execute(
        f"SELECT MIN(lane) FROM sync_event WHERE arrival_id = ? AND lane IN ({', '.join(map(str, map(int, RESULTS)))})",
        (arrival_id,),
    ).fetchone()
    return Lane.ROUTINE if row[0] is None else Lane(row[0])


def _file(
    connection: sqlite3.Connection,
    text: str,
    lane: int,
    about: str,
    arrival_id: int | None,
    at: datetime,
    due: datetime,
) -> int:
    epoch = _epoch(connection)
    row = connection.execute(
        "INSERT INTO sync_event (epoch, seq, lane, body, about, arrival_id, made_at, due_at)"
        " VALUES (:epoch, (SELECT COALESCE(MAX(seq), 0) + 1 FROM sync_event WHERE epoch = :epoch), :lane, :body, :about,"
        " :arrival, :at, :due) RETURNING id",
        {
            "epoch": epoch,
            "lane": lane,
            "body": text,
            "about": about,
            "arrival": arrival_id,
            "at": at.isoformat(),
            "due": due.isoformat(),
        },
    ).fetchone()
    return int(row["id"])


def _epoch(connection: sqlite3.Connection) -> str:
    """The epoch in which events are filed; drawn at the first one."""
    connection.execute("INSERT INTO sync (one, epoch) VALUES (1, ?) ON CONFLICT DO NOTHING", (os.urandom(8).hex(),))
    return str(connection.execute("SELECT epoch FROM sync").fetchone()["epoch"])


def standing(connection: sqlite3.Connection) -> Standing:
    """How it stands with the hub; before the first event too."""
    row = connection.execute("SELECT * FROM sync").fetchone()
    if row is None:
        return Standing("", "", 0, "", None, None, "", None, 0, None, "", 0)
    return Standing(
        epoch=row["epoch"],
        hub_epoch=row["hub_epoch"],
        upto=row["upto"],
        chain=row["chain"],
        answered_at=_moment(row["answered_at"]),
        trouble=None if row["trouble"] is None else Trouble(row["trouble"]),
        detail=row["detail"],
        since=_moment(row["since"]),
        failures=row["failures"],
        next_at=_moment(row["next_at"]),
        day=row["day"],
        spent=row["spent"],
    )


def events(
    connection: sqlite3.Connection, at: datetime, room: int, *, most: Lane = Lane.BULK, oldest: bool = False
) -> list[Filed]:
    """Events that the hub has not got and that are due, the most urgent first, until their bodies fill `room`; at least one.

    None of a lane behind `most`; with `oldest` those that have waited longest come first, whatever their lane.
    """
    rows = connection.execute(
        f"SELECT * FROM sync_event WHERE {_OPEN} AND lane <= ? AND (due_at <= ? OR due_at > ?)"
        f" ORDER BY {'id' if oldest else 'lane, id'}",
        (most, at.isoformat(), (at + JITTER).isoformat()),
    )
    found: list[Filed] = []
    for row in rows:
        room -= len(row["body"])
        if room < 0 and found:
            break
        found.append(_filed(row))
    rows.close()
    return found


def leave(connection: sqlite3.Connection, filed: Iterable[Filed], parcel: str) -> None:
    """Note that these are about to leave in a parcel, inside the caller's transaction: only what has left can have arrived."""
    connection.executemany(
        f"UPDATE sync_event SET state = 'sent', parcel = ? WHERE id = ? AND {_OPEN}",
        [(parcel, one.id) for one in filed],
    )


_TARGET = (
    """CASE WHEN offset < MIN(:prefix, size) THEN MIN(:prefix, size) WHEN offset < asked THEN asked ELSE size END"""
)
_LANE = (
    """CASE WHEN COALESCE(offset, 0) < MIN(:prefix, size) THEN lane WHEN offset < asked THEN :asked ELSE :bulk END"""
)
_ANNOUNCED = "EXISTS (SELECT 1 FROM sync_event WHERE sync_event.id = event_id AND state = 'had')"


def part(connection: sqlite3.Connection, *, most: Lane = Lane.BULK, oldest: bool = False) -> Part | None:
    """The bytes that shall go next, of a film that the hub knows of and nothing behind lane `most`; None where there are none."""
    row = connection.execute(
        f"SELECT *, {_TARGET} AS upto, {_LANE} AS going FROM sync_object WHERE offset < size AND {_ANNOUNCED}"
        f" AND {_LANE} <= :most ORDER BY {'event_id' if oldest else 'going, event_id'} LIMIT 1",
        {"prefix": PREFIX, "asked": Lane.ASKED, "bulk": Lane.BULK, "most": most},
    ).fetchone()
    return None if row is None else _part(row)


def _part(row: sqlite3.Row) -> Part:
    return Part(
        sha256=row["sha256"],
        size=row["size"],
        offset=row["offset"] or 0,
        upto=row["upto"],
        lane=Lane(row["going"]),
        made_at=datetime.fromisoformat(row["made_at"]),
    )


def unknown(connection: sqlite3.Connection) -> list[tuple[str, Lane]]:
    """Films of which nobody knows how much the hub has, the most urgent first, each with its lane."""
    rows = connection.execute(
        f"SELECT sha256, lane FROM sync_object WHERE offset IS NULL AND {_ANNOUNCED} ORDER BY lane, event_id LIMIT ?",
        (MOST_ASKED,),
    )
    return [(row["sha256"], Lane(row["lane"])) for row in rows]


def parts(connection: sqlite3.Connection, *, whole: bool) -> list[Part]:
    """All bytes that the hub has not got, as far as anybody knows, of films that it knows of or will with the same parcel.

    Of each its beginning and what was asked for; with `whole` everything. The most urgent come first.
    """
    rows = connection.execute(
        f"SELECT *, iif(:whole, size, MAX(MIN(:prefix, size), asked)) AS upto, {_LANE} AS going FROM sync_object"
        " WHERE COALESCE(offset, 0) < upto AND EXISTS (SELECT 1 FROM sync_event WHERE sync_event.id = event_id"
        " AND state IN ('had', 'sent'))"
        " ORDER BY going, event_id",
        {"prefix": PREFIX, "asked": Lane.ASKED, "bulk": Lane.BULK, "whole": whole},
    )
    return [_part(row) for row in rows]


def presses(connection: sqlite3.Connection, at: datetime, before: Lane) -> bool:
    """Whether something goes before that lane: an event, or the bytes of a film."""
    row = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM sync_event WHERE {_OPEN} AND lane < :before AND due_at <= :at)"
        f" OR EXISTS (SELECT 1 FROM sync_object WHERE offset < size AND {_ANNOUNCED} AND {_LANE} < :before)",
        {"prefix": PREFIX, "asked": Lane.ASKED, "bulk": Lane.BULK, "before": before, "at": at.isoformat()},
    ).fetchone()
    return bool(row[0])


def remake(connection: sqlite3.Connection, sha256: str) -> int:
    """Forget a film's file because it is damaged, inside the caller's transaction; says which film has to be rendered again."""
    row = connection.execute("DELETE FROM sync_object WHERE sha256 = ? RETURNING arrival_id", (sha256,)).fetchone()
    return int(row["arrival_id"])


def arrived(connection: sqlite3.Connection, sha256: str, offset: int | None) -> None:
    """Note how many bytes of a film the hub has durably, inside the caller's transaction; None where nobody knows."""
    connection.execute("UPDATE sync_object SET offset = MIN(?, size) WHERE sha256 = ?", (offset, sha256))


def take(connection: sqlite3.Connection, said: ToBox, at: datetime, *, fresh: bool) -> None:
    """Do as a hub says, inside the caller's transaction; the same again changes nothing.

    `fresh` where it answers what was just asked: a stick may be old, and then what the network said since counts.
    """
    now_in = _epoch(connection)
    before = standing(connection)
    left = msgspec.json.decode(
        connection.execute("SELECT left_behind FROM sync").fetchone()["left_behind"], type=list[str]
    )
    if said.epoch != before.hub_epoch and (fresh or said.epoch not in left):
        left = [one for one in left if one != said.epoch] + ([before.hub_epoch] if before.hub_epoch else [])
        connection.execute(
            "UPDATE sync SET hub_epoch = ?, left_behind = ?, upto = 0, chain = ''",
            (said.epoch, msgspec.json.encode(left[-1000:]).decode()),
        )
        if before.hub_epoch:
            _forget_offsets(connection)
    for epoch, seqs in said.differs.items():
        now_in = _file_anew(connection, epoch, seqs, now_in, at)
    known = [row["epoch"] for row in connection.execute("SELECT DISTINCT epoch FROM sync_event WHERE state = 'had'")]
    lost = 0
    for epoch, had in (dict.fromkeys(known, Had(upto=0)) | said.had).items():
        lost += _had(connection, epoch, had, said.answers_to)
        if epoch == now_in and _last(had) > _made(connection, epoch):
            now_in = _draw(connection)  # the hub has more of this epoch than was ever made in this database
    if lost:
        _forget_offsets(connection)
    if said.kept is not None:
        has_kept(connection, said.kept)
    for sha256, offset in said.objects.items():
        arrived(connection, sha256, offset)
    for answer in said.answers:
        _answer(connection, answer, at)


def _had(connection: sqlite3.Connection, epoch: str, had: Had, parcels: Iterable[str]) -> int:
    """Note what the hub has of an epoch; says how much it has no longer."""
    given = {
        "epoch": epoch,
        "ranges": msgspec.json.encode([(1, had.upto), *had.beyond]).decode(),
        "parcels": msgspec.json.encode(list(parcels)).decode(),
    }
    within = "EXISTS (SELECT 1 FROM json_each(:ranges) WHERE seq BETWEEN value ->> 0 AND value ->> 1)"
    lost = connection.execute(
        f"UPDATE sync_event SET state = 'sent' WHERE epoch = :epoch AND state = 'had' AND NOT {within}", given
    ).rowcount
    connection.execute(
        f"UPDATE sync_event SET state = 'had' WHERE epoch = :epoch AND state = 'sent' AND {within}"
        " AND parcel IN (SELECT value FROM json_each(:parcels))",
        given,
    )
    return lost


def _file_anew(connection: sqlite3.Connection, epoch: str, seqs: Collection[int], now_in: str, at: datetime) -> str:
    """Give events numbers of a new epoch, because the hub has others under theirs."""
    rows = connection.execute(
        "SELECT * FROM sync_event WHERE epoch = ? AND state IN ('sent', 'had') AND seq IN (SELECT value FROM json_each(?))"
        " ORDER BY seq",
        (epoch, msgspec.json.encode(list(seqs)).decode()),
    ).fetchall()
    if rows and epoch == now_in:
        now_in = _draw(connection)
    for row in rows:
        made_at = datetime.fromisoformat(row["made_at"])
        anew = _file(connection, row["body"], row["lane"], row["about"], row["arrival_id"], made_at, made_at)
        connection.execute("UPDATE sync_event SET state = 'moved' WHERE id = ?", (row["id"],))
        connection.execute("UPDATE sync_object SET event_id = ? WHERE event_id = ?", (anew, row["id"]))
    return now_in


def _draw(connection: sqlite3.Connection) -> str:
    connection.execute("UPDATE sync SET epoch = ?", (os.urandom(8).hex(),))
    return _epoch(connection)


def _made(connection: sqlite3.Connection, epoch: str) -> int:
    row = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM sync_event WHERE epoch = ?", (epoch,)).fetchone()
    return int(row[0])


def _last(had: Had) -> int:
    return max((had.upto, *(end for _, end in had.beyond)))


def has_kept(connection: sqlite3.Connection, times: int) -> None:
    """Note how often the hub has kept bytes of films, inside the caller's transaction: after fewer, nobody knows what it has."""
    if times < connection.execute("SELECT kept FROM sync").fetchone()["kept"]:
        _forget_offsets(connection)
    connection.execute("UPDATE sync SET kept = ?", (times,))


def _forget_offsets(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE sync_object SET offset = NULL")


def _answer(connection: sqlite3.Connection, answer: Answer, at: datetime) -> None:
    stood = standing(connection)
    if answer.epoch != stood.hub_epoch or answer.seq != stood.upto + 1:
        return  # it is here already, or one before it has not come yet and both will come again
    body = answer.body
    match body:
        case Read():
            connection.execute(
                "INSERT INTO sync_read (read, name, body, taken_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (body.read, body.case, text(body), at.isoformat()),
            )
        case Want():
            connection.execute(  # a hub that would have what it is thought to have was restored: nobody knows what it has
                "UPDATE sync_object SET asked = MAX(asked, MIN(:upto, size)),"
                " offset = iif(offset >= MIN(:upto, size), NULL, offset) WHERE sha256 = :sha256",
                {"upto": body.upto, "sha256": body.sha256},
            )
        case Order():
            ordered.take(connection, body, at)
        case Revoked():
            device.revoke(connection)
    connection.execute("UPDATE sync SET upto = ?, chain = ?", (answer.seq, cards.chain(stood.chain, answer)))


def begin_with(connection: sqlite3.Connection, hub_epoch: str) -> None:
    """Begin with a hub, inside the transaction that enrols the box: it has nothing yet, as far as anybody knows."""
    _epoch(connection)
    connection.execute(
        "UPDATE sync SET hub_epoch = ?, left_behind = '[]', upto = 0, chain = '', trouble = NULL, detail = '', since = NULL,"
        " failures = 0, next_at = NULL",
        (hub_epoch,),
    )
    connection.execute("UPDATE sync_event SET state = 'sent' WHERE state = 'had'")
    _forget_offsets(connection)


def begin_anew(connection: sqlite3.Connection) -> None:
    """Number what comes in an epoch of its own, inside the transaction that restores a box: the hub may have the old numbers."""
    _epoch(connection)
    _draw(connection)


def settle(
    connection: sqlite3.Connection, trouble: Trouble | None, detail: str, at: datetime, pause: timedelta | None
) -> None:
    """Note how an attempt went and when the next one may be made, inside the caller's transaction.

    Without `pause` it went well, and when the hub is asked next is as before.
    """
    _epoch(connection)
    if trouble is not None and pause is not None:
        connection.execute(
            "UPDATE sync SET trouble = ?, detail = ?, since = COALESCE(since, ?), failures = failures + 1, next_at = ?",
            (trouble, detail, at.isoformat(), (at + pause).isoformat()),
        )
        return
    connection.execute("UPDATE sync SET trouble = NULL, detail = '', since = NULL, failures = 0")
    if pause is not None:
        connection.execute("UPDATE sync SET answered_at = ?, next_at = ?", (at.isoformat(), (at + pause).isoformat()))


def spend(connection: sqlite3.Connection, day: str, size: int) -> None:
    """Count bytes against a day's budget, inside the caller's transaction."""
    _epoch(connection)
    connection.execute("UPDATE sync SET spent = iif(day = ?, spent, 0) + ?, day = ?", (day, size, day))


def clock_moved(connection: sqlite3.Connection, by: timedelta) -> None:
    """Let events wait for as long as they really did, inside the caller's transaction, when somebody has set the clock."""
    for row in connection.execute(f"SELECT id, made_at, due_at FROM sync_event WHERE {_OPEN}").fetchall():
        moved = [_shifted(row[name], by) for name in ("made_at", "due_at")]
        connection.execute("UPDATE sync_event SET made_at = ?, due_at = ? WHERE id = ?", (*moved, row["id"]))


def _shifted(text: str, by: timedelta) -> str:
    try:
        return (datetime.fromisoformat(text) + by).isoformat()
    except OverflowError:
        return text


def unsent(connection: sqlite3.Connection) -> dict[int, datetime]:
    """By film, since when the hub has not got something of it: what was said, or its first bytes."""
    rows = connection.execute(
        f"SELECT arrival_id, MIN(made_at) AS since FROM sync_event WHERE {_OPEN} AND arrival_id IS NOT NULL"
        " GROUP BY arrival_id UNION ALL"
        " SELECT arrival_id, MIN(made_at) FROM sync_object WHERE COALESCE(offset, 0) < MIN(?, size) GROUP BY arrival_id",
        (PREFIX,),
    )
    found: dict[int, datetime] = {}
    for row in rows:
        since = datetime.fromisoformat(row["since"])
        found[row["arrival_id"]] = min(since, found.get(row["arrival_id"], since))
    return found


def waiting(connection: sqlite3.Connection) -> int:
    """How many events the hub has not got."""
    return int(connection.execute(f"SELECT COUNT(*) FROM sync_event WHERE {_OPEN}").fetchone()[0])


def objects(connection: sqlite3.Connection) -> set[str]:
    """Every file that the hub may still be sent, or asked for."""
    return {row["sha256"] for row in connection.execute("SELECT sha256 FROM sync_object")}


def returned(connection: sqlite3.Connection, arrival_id: int) -> list[Returned]:
    """The teleradiologists' reads of a film, oldest first."""
    rows = connection.execute(
        f"{_READS} WHERE sync_case.arrival_id = ? ORDER BY sync_read.rowid",
        (arrival_id,),
    )
    return [_returned(row) for row in rows]


def unseen(connection: sqlite3.Connection) -> list[Returned]:
    """The teleradiologists' reads that nobody at the clinic has opened, oldest first."""
    return [_returned(row) for row in connection.execute(f"{_READS} WHERE seen_at IS NULL ORDER BY sync_read.rowid")]


def reads(connection: sqlite3.Connection) -> set[str]:
    """Every read that a teleradiologist has sent here."""
    return {row["read"] for row in connection.execute("SELECT read FROM sync_read")}


_READS = "SELECT sync_read.*, sync_case.arrival_id FROM sync_read JOIN sync_case ON sync_case.name = sync_read.name"


def see(connection: sqlite3.Connection, read: str, by: str, at: datetime) -> bool:
    """Note that somebody has opened a read, inside the caller's transaction; says whether they are the first."""
    return (
        connection.execute(
            "UPDATE sync_read SET seen_at = ?, seen_by = ? WHERE read = ? AND seen_at IS NULL",
            (at.isoformat(), by, read),
        ).rowcount
        == 1
    )


def _returned(row: sqlite3.Row) -> Returned:
    return Returned(
        read=msgspec.json.decode(row["body"], type=Read),
        arrival_id=row["arrival_id"],
        taken_at=datetime.fromisoformat(row["taken_at"]),
        seen_at=_moment(row["seen_at"]),
    )


def _filed(row: sqlite3.Row) -> Filed:
    body: Up = msgspec.json.decode(row["body"], type=Up)
    return Filed(
        id=row["id"],
        epoch=row["epoch"],
        seq=row["seq"],
        lane=Lane(row["lane"]),
        body=body,
        made_at=datetime.fromisoformat(row["made_at"]),
    )


def text(body: cards.Card) -> str:
    """A card as it is kept here."""
    return cards.canonical(body).decode()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
