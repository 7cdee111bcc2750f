"""The tables of what the boxes sent: every event once, by site, epoch and number, and how far each epoch has come without a gap.

An event is kept as it came, and carried out in the same transaction; what a box is told that the hub has is read from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

from edge import cards
from web.hub import films, packets, sites, tasks
from web.hub.records import Site
from web.hub.tasks import Rules
from web.hub.transaction import Transaction

TABLE = """
CREATE TABLE epoch (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    epoch TEXT NOT NULL,
    upto INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (programme, site, epoch)
) STRICT;
CREATE TABLE event (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL,
    waited INTEGER,
    received_at REAL NOT NULL,
    PRIMARY KEY (programme, site, epoch, seq)
) STRICT;
"""


def receive(
    db: Transaction, site: Site, events: Iterable[cards.Waited], rules: Rules, at: float
) -> dict[str, list[int]]:
    """Take events inside the caller's transaction; those that are here already change nothing.

    Gives the numbers, by epoch, under which another event is here: their box was restored from a backup, and files them anew.
    """
    by_epoch: dict[str, dict[int, cards.Waited]] = {}
    for one in events:
        by_epoch.setdefault(one.event.epoch, {}).setdefault(one.event.seq, one)
    differs: dict[str, list[int]] = {}
    for epoch, numbered in sorted(by_epoch.items()):
        upto = _begin(db, site, epoch)
        known = {
            row["seq"]: row["body"]
            for row in db.rows(
                "SELECT seq, body FROM event WHERE programme = :programme AND site = :site AND epoch = :epoch"
                " AND seq BETWEEN :first AND :last",
                site=site.name,
                epoch=epoch,
                first=min(numbered),
                last=max(numbered),
            )
        }
        written: list[dict[str, Any]] = [
            {
                "site": site.name,
                "epoch": epoch,
                "seq": seq,
                "body": cards.canonical(one.event.body).decode(),
                "waited": one.seconds,
                "at": at,
            }
            for seq, one in sorted(numbered.items())
        ]
        fresh = [one for one in written if one["seq"] not in known]
        if other := [int(one["seq"]) for one in written if known.get(one["seq"], one["body"]) != one["body"]]:
            differs[epoch] = other
        if fresh:
            db.many(
                "INSERT INTO event (programme, site, epoch, seq, body, waited, received_at)"
                " VALUES (:programme, :site, :epoch, :seq, :body, :waited, :at)",
                fresh,
            )
        seqs = [int(row["seq"]) for row in fresh]
        images: list[
            cards.Image
        ] = []  # kept together, as results and tasks are: each way to the database takes its time
        results: list[tuple[cards.Result, float]] = []
        opened: list[tasks.Opening] = []
        for seq in seqs:
            body = numbered[seq].event.body
            if isinstance(body, cards.Image):
                images.append(body)
                continue
            if isinstance(body, cards.Result):
                results.append((body, at - (numbered[seq].seconds or 0)))
                continue
            if isinstance(body, cards.StaysHome):
                films.pictured(db, site.name, images, at)
                images = []
            opened += _assess(db, site, results, rules, at)
            results = []
            opened += _carry_out(db, site, numbered[seq], rules, at)
        films.pictured(db, site.name, images, at)
        opened += _assess(db, site, results, rules, at)
        tasks.put(db, opened)
        _advance(db, site, epoch, upto, set(seqs))
    return differs


def had(db: Transaction, site: str) -> dict[str, cards.Had]:
    """What the hub has of a site durably, by the box's epochs."""
    found = {}
    for row in db.rows("SELECT epoch, upto FROM epoch WHERE programme = :programme AND site = :site", site=site):
        ranges: list[tuple[int, int]] = []
        beyond = db.rows(
            "SELECT seq FROM event WHERE programme = :programme AND site = :site AND epoch = :epoch AND seq > :upto"
            " ORDER BY seq",
            site=site,
            epoch=row["epoch"],
            upto=row["upto"],
        )
        for seq in (one["seq"] for one in beyond):
            if ranges and ranges[-1][1] == seq - 1:
                ranges[-1] = (ranges[-1][0], seq)
            else:
                ranges.append((seq, seq))
        found[row["epoch"]] = cards.Had(upto=row["upto"], beyond=tuple(ranges))
    return found


def _begin(db: Transaction, site: Site, epoch: str) -> int:
    """Hold the epoch until the end of the transaction, so that one at a time adds to it; gives how far it has come."""
    asked = "SELECT upto FROM epoch WHERE programme = :programme AND site = :site AND epoch = :epoch" + db.hold
    row = db.row(asked, site=site.name, epoch=epoch)
    if row is None:
        db.run(
            "INSERT INTO epoch (programme, site, epoch) VALUES (:programme, :site, :epoch)"
            " ON CONFLICT (programme, site, epoch) DO NOTHING",
            site=site.name,
            epoch=epoch,
        )
        row = db.row(asked, site=site.name, epoch=epoch)
        assert row is not None
    return int(row["upto"])


def _advance(db: Transaction, site: Site, epoch: str, upto: int, fresh: set[int]) -> None:
    at = upto
    while at + 1 in fresh:
        at += 1
    if at == upto:
        return
    for row in db.rows(
        "SELECT seq FROM event WHERE programme = :programme AND site = :site AND epoch = :epoch AND seq > :at ORDER BY seq",
        site=site.name,
        epoch=epoch,
        at=at,
    ):
        if row["seq"] != at + 1:
            break
        at += 1
    db.run(
        "UPDATE epoch SET upto = :at WHERE programme = :programme AND site = :site AND epoch = :epoch",
        site=site.name,
        epoch=epoch,
        at=at,
    )


def _assess(
    db: Transaction, site: Site, results: Sequence[tuple[cards.Result, float]], rules: Rules, at: float
) -> list[tasks.Opening]:
    """Keep what the AI says of films, and give what is to be read because of it."""
    opened: list[tasks.Opening] = []
    for (result, since), found in zip(results, films.assessed(db, site.name, results, at), strict=True):
        if found is not None:
            opened += tasks.offer(db, site, found[0], result, found[1], since, rules)
    return opened


def _carry_out(db: Transaction, site: Site, waited: cards.Waited, rules: Rules, at: float) -> list[tasks.Opening]:
    """Do what an event says, and give what is to be read because of it."""
    event, since = waited.event, at - (waited.seconds or 0)
    match event.body:
        case cards.Result() as result:
            return _assess(db, site, [(result, since)], rules, at)
        case cards.Image() as image:
            films.pictured(db, site.name, [image], at)
        case cards.StaysHome() as image:
            films.stays_home(db, site.name, image)
        case cards.Decided() as read:
            number = films.said(db, site.name, read, event.epoch, event.seq, at)
            if number is not None and (case := films.case(db, number)) is not None:
                return tasks.offer(db, site, number, case.result, True, since, rules)
        case cards.Packet() as packet:
            packets.keep(db, site.name, packet, event.epoch, event.seq)
        case cards.Status() as status:
            sites.heard(db, site.name, at)
            sites.stands(db, site.name, status, event.epoch, event.seq, since)
        case cards.Seen() as seen:
            tasks.seen(db, seen.read, since)
        case cards.Applied() as applied:
            packets.applied(db, site.name, applied, since)
        case cards.Void():
            pass
        case _ as never:
            assert_never(never)
    return []
