"""Surveillance: every film is counted as it is assessed, and each time a day has ended, all days are looked at once more.

The numbers are summed by day, the clinic's own; a verdict is a pure function of them (`edge/validity/watch.py`).
"""

from __future__ import annotations

import sqlite3
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from edge import outside, words
from edge.config import Config
from edge.records import Assessment, Film
from edge.state import arrivals, audit, drift, notices
from edge.state.audit import Event
from edge.state.store import BUILT, transaction
from edge.validity import packet
from edge.validity.packet import Packet, Stratum
from edge.validity.verdict import Alarm, Verdict

RETOLD = 14
"""Days whose packets are told again where a decision that came late has changed them."""
PROCESS = "drift"
"""Under this name drift is in the ledger and among the notices."""


def count_film(
    store: sqlite3.Connection, config: Config, received_at: datetime, run: int, assessment: Assessment
) -> None:
    """Count an assessed film on the day it came, inside the caller's transaction."""
    decision = assessment.decision
    tally = packet.of_film(
        decision.outcome,
        None if decision.refusal is None else decision.refusal.reason,
        assessment.logit,
        assessment.signals,
        again=run > 1,
    )
    edges = packet.edges(decision.device_uid)
    key = packet.stratum(assessment.header, assessment.header.age_years)
    _add(store, _day(store, config, edges, received_at), edges, packet.placed(key, tally))


def count_read(store: sqlite3.Connection, config: Config, film: Film, overridden: bool, back: bool = False) -> None:
    """Count a decision on the day the film came, or take it back, inside the caller's transaction.

    Only what the AI assessed can be overridden.
    """
    if film.decision is None or film.decision.refusal is not None or film.arrival.source == arrivals.FOR_ACCEPTANCE:
        return
    tally = packet.of_read(overridden)
    edges = packet.edges(film.decision.device_uid)
    key = packet.stratum(film.header, film.header.age_years)
    day = _day(store, config, edges, film.arrival.received_at)
    _add(store, day, edges, packet.placed(key, packet.less(tally) if back else tally))


def _day(store: sqlite3.Connection, config: Config, edges: str, at: datetime) -> date:
    """The clinic's day; a clock that was reset makes no day of long ago: its films count with the latest."""
    if at < BUILT:
        return next(iter(drift.newest(store, edges)), BUILT.date())
    return at.astimezone(ZoneInfo(config.site.timezone)).date()


def _add(store: sqlite3.Connection, day: date, edges: str, tallies: dict[Stratum, packet.Tally]) -> None:
    drift.add(store, day, edges, {(key.device, key.view, key.ages): tally for key, tally in tallies.items()})


def days(store: sqlite3.Connection, edges: str) -> list[Packet]:
    """The packets of all days since the watch last began anew, the latest last; that one has not ended yet."""
    found = drift.days(store, edges)
    return [_packet(edges, day, tallies) for day, tallies in found.items()]


def of_day(store: sqlite3.Connection, day: date) -> list[Packet]:
    """A day's packets, one for each model that was in use on it."""
    return [_packet(edges, day, tallies) for edges, tallies in drift.of_day(store, day).items()]


def look(store: sqlite3.Connection, config: Config, device_uid: str, at: datetime) -> bool:
    """Look at all days that have ended, where another has since the last look; says whether there was one.

    What is found goes into the ledger, before everybody's eyes and, with the days' packets, to the hub, in one transaction with the
    verdict.
    """
    edges, before = packet.edges(device_uid), drift.verdict(store)
    ended = drift.newest(store, edges)[1:]
    if not ended or (before is not None and (before.edges, before.day) == (edges, ended[0])):
        return False
    from edge.validity import watch  # needs numpy, and a box's pages do without

    past = days(store, edges)[:-1]
    found = watch.look(past)
    with transaction(store):
        outside.tell_packets(store, config, past[-RETOLD:], at)
        known = None if before is None or before.edges != edges else before
        _tell(store, None if known is None else read(known), found, at)
        drift.keep(store, edges, ended[0], at, msgspec.json.encode(found).decode())
    return True


def read(kept: drift.Verdict) -> Verdict:
    """A verdict as it was kept."""
    return msgspec.json.decode(kept.verdict, type=Verdict)


def current(store: sqlite3.Connection) -> Verdict | None:
    """The verdict on the days so far, or None before the first day has ended."""
    kept = drift.verdict(store)
    return None if kept is None else read(kept)


def _tell(store: sqlite3.Connection, before: Verdict | None, found: Verdict, at: datetime) -> None:
    known = {alarm.found: alarm for alarm in before.alarms} if before is not None else {}
    for alarm in found.alarms:
        if alarm.found not in known or alarm.cause is not known[alarm.found].cause:
            audit.append(store, Event.DRIFT_FOUND, PROCESS, at, None, **_written(alarm))
        if alarm.ended is not None and (alarm.found not in known or known[alarm.found].ended is None):
            audit.append(store, Event.DRIFT_ENDED, PROCESS, at, None, found=alarm.found.isoformat(), why="quiet again")
    told = {alarm.found for alarm in found.alarms}
    for alarm in known.values():
        if (
            alarm.found not in told and alarm.ended is None
        ):  # its days were counted anew, after a decision that came late
            audit.append(store, Event.DRIFT_ENDED, PROCESS, at, None, found=alarm.found.isoformat(), why="counted anew")
    notices.clear(store, PROCESS)
    if found.alarm is not None:
        notices.post(store, PROCESS, words.DRIFT, at)


def _written(alarm: Alarm) -> dict[str, Any]:
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(alarm))
    return {name: value for name, value in written.items() if value}


def begin_anew(store: sqlite3.Connection, by: str, at: datetime) -> Alarm | None:
    """Take the films from now on as what is usual here, inside the caller's transaction; says which alarm that ends."""
    edges, before = drift.edges_in_use(store), current(store)
    if edges is None:
        return None
    drift.begin_anew(store, edges, at)
    stood = None if before is None else before.alarm
    found = {} if stood is None else {"found": stood.found.isoformat()}
    audit.append(store, Event.DRIFT_ENDED, by, at, None, why="usual now", **found)
    notices.clear(store, PROCESS)
    drift.forget(store)
    return stood


def _packet(edges: str, day: date, tallies: dict[drift.Key, packet.Tally]) -> Packet:
    return Packet(edges, day, {Stratum(*key): tally for key, tally in tallies.items()})
