"""Outside: this box's door toward the hub, made of its key, its model and every fixed text that it has; and what goes through it.

Each `tell_…` files what the hub may know, inside the transaction of what it tells, where the settings name a hub.

`stages/deidentify` lets no other free text through, so whatever new sentence a result gets belongs in `words.py`, `vocabulary.py`
or `stages/report/terms.py`; one that stands elsewhere stays home.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import msgspec

from edge import health, passport, vocabulary, words
from edge.cards import Lane, Packet, Saliency, Seen, Status, Up
from edge.config import Config
from edge.errors import Tampered
from edge.records import (
    Assessment,
    Concern,
    Decision,
    Display,
    Outcome,
    Read,
    ReadKind,
    Reason,
    StoredFile,
    Urgency,
    Withheld,
)
from edge.stages import decide
from edge.stages.deidentify import Door, telling
from edge.stages.report import terms
from edge.stages.report.content import MANUFACTURER
from edge.state import acceptances, arrivals, drift, installed, notices, pseudonyms, queue, reads, results, sync
from edge.state.objects import Objects
from edge.validity import packet
from edge.validity.verdict import Verdict
from models.bundle import Manifest

STATUS = timedelta(hours=1)
"""So often at most the hub is told how it stands with the box, while nothing presses."""


def door(state: Path, manifest: Manifest, device_uids: frozenset[str]) -> Door:
    """The door of the box with that state and model; `device_uids` are those under which the model speaks."""
    known = concepts(manifest)
    sentences = (*words.OUTCOMES.values(), *(text for pair in words.REASONS.values() for text in pair))
    model = (manifest.id, manifest.version, f"{manifest.id} {manifest.version}")
    points = {point for finding in manifest.findings for point in finding.operating_points}
    texts = {
        MANUFACTURER,
        MANUFACTURER.upper(),
        words.PRELIMINARY,
        *sentences,
        *(f"{outcome}. {words.PRELIMINARY}" for outcome in words.OUTCOMES.values()),
        *model,
        *points,
        *known.values(),
    }
    return Door(
        key=pseudonyms.key(state),
        texts=frozenset(texts),
        terms=known,
        uids=device_uids | {terms.OUTPOST_UID},
    )


def concepts(manifest: Manifest) -> dict[tuple[str, str], str]:
    """The meaning of every concept that a box with that model may name, by scheme and code."""
    return {(term.scheme, term.code): term.meaning for term in _terms(manifest)}


def _terms(manifest: Manifest) -> Iterator[terms.Term]:
    """Every concept that a result of this box may name."""
    yield from (term for term in vars(terms).values() if isinstance(term, terms.Term))
    yield from terms.OUTCOMES.values()
    yield from terms.KINDS.values()
    yield terms.Term("RFC5646", "en", "English")
    yield from (terms.why_not(reason) for reason in Reason)
    for choice in (*vocabulary.IMPRESSIONS.values(), *vocabulary.OVERRIDES.values(), vocabulary.NOT_ASSESSED):
        yield terms.Term(choice.scheme, choice.code, choice.text)
        yield terms.chosen(choice.key)
    yield from (terms.Term(finding.scheme, finding.code, finding.label) for finding in manifest.findings)


def tell_result(
    store: sqlite3.Connection,
    config: Config,
    manifest: Manifest,
    arrival_id: int,
    run: int,
    assessment: Assessment,
    pictured: bool,
    at: datetime,
) -> None:
    """Tell the hub what a run of the stage line made of a film; `pictured` where its picture is going to be made."""
    decision = assessment.decision
    if not config.hub.url or (decision.refusal is not None and decision.refusal.reason is Reason.NOT_A_RADIOGRAPH):
        return
    row = arrivals.get(store, arrival_id)
    arrival = arrivals.read(row)
    way_out = door(Path(config.state), manifest, frozenset({decision.device_uid}))
    same = arrivals.of_instance(store, arrival.sop_instance_uid)
    name = sync.case(store, arrival_id, telling.case(arrival, same[:1] in ([], [arrival_id]), way_out))
    shadow = acceptances.accepted(store) != decision.device_uid
    seen = None if config.policy.triage_only else _saliency(assessment)
    body = telling.result(name, run, arrival, assessment.header, decision, row["supplied_age"], shadow, seen, way_out)
    lane = _lane(decision.outcome, arrival.urgency)
    sync.tell(store, body, lane, at, about=f"result {arrival_id} {run}", arrival_id=arrival_id)
    if not pictured:
        tell_withheld(store, config, arrival_id, Withheld(Concern.UNREADABLE), at)
    sync.hasten(store, arrival_id, lane)


def tell_earlier(store: sqlite3.Connection, config: Config, since: datetime, at: datetime) -> int:
    """Tell the hub of the films that came since then, before there was one, and that nobody here has decided; gives how many."""
    decided = reads.standing(store)
    waiting = (
        film.arrival.id
        for film in results.came(store, since)
        if film.arrival.id not in decided or decided[film.arrival.id].kind is ReadKind.REFER
    )
    told = [number for number in waiting if _tell_film(store, config, number, at)]
    for number in told:
        if number in decided:
            tell_read(store, config, decided[number])
    return len(told)


def _tell_film(store: sqlite3.Connection, config: Config, arrival_id: int, at: datetime) -> bool:
    """Tell of a film what would have been told when it was assessed, its picture too; False where that is done, or will be."""
    if not config.hub.url or sync.case_of(store, arrival_id) is not None:
        return False
    film = results.film(store, arrival_id)
    if film.decision is None or film.decided_at is None:
        return False
    try:
        manifest = passport.at_work(config, store)[0].manifest
    except (OSError, Tampered):  # nobody knows its words
        return False
    pictured = has_picture(film.decision)
    said = Assessment(film.header, film.decision, film.saliency, {})
    tell_result(store, config, manifest, arrival_id, film.run, said, pictured, film.decided_at)
    if pictured and sync.case_of(store, arrival_id) is not None:
        queue.add_render(store, arrival_id, film.run, at, again=True)
    return sync.case_of(store, arrival_id) is not None


def has_picture(decision: Decision) -> bool:
    """Whether a film of that outcome can be shown."""
    without = {Reason.NOT_DICOM, Reason.DAMAGED, Reason.NO_PIXELS, Reason.ENCODING_UNSUPPORTED, Reason.TOO_LARGE}
    return decision.refusal is None or decision.refusal.reason not in without


def _saliency(assessment: Assessment) -> Saliency | None:
    leading = decide.leading(assessment.decision.findings)
    if assessment.saliency is None or leading is None:
        return None
    from edge.stages import png  # brings in numpy, which the pages do without

    columns, cells = png.cells(assessment.saliency)
    return Saliency(finding=leading.finding, columns=columns, cells=cells)


def _lane(outcome: Outcome, urgency: Urgency) -> Lane:
    """What the AI says and what was ordered, the sooner of the two; a film that could not be assessed is never routine."""
    if outcome is Outcome.IMMEDIATE or urgency is Urgency.STAT:
        return Lane.URGENT
    soon = outcome in (Outcome.SOON, Outcome.COULD_NOT_ASSESS) or urgency is Urgency.HIGH
    return Lane.SOON if soon else Lane.ROUTINE


def tell_image(
    store: sqlite3.Connection,
    config: Config,
    arrival_id: int,
    file: StoredFile,
    shape: tuple[int, int],
    display: Display,
    at: datetime,
) -> None:
    """Tell the hub that a film's picture is there, which goes after it."""
    name = sync.case_of(store, arrival_id)
    if not config.hub.url or name is None:
        return
    body = telling.image(name, file.sha256, file.size, shape, display)
    sync.tell(
        store, body, sync.lane_of(store, arrival_id).image, at, about=f"image {arrival_id}", arrival_id=arrival_id
    )


def tell_withheld(store: sqlite3.Connection, config: Config, arrival_id: int, withheld: Withheld, at: datetime) -> None:
    """Tell the hub that a film's picture stays home, and why."""
    name = sync.case_of(store, arrival_id)
    if not config.hub.url or name is None:
        return
    body = telling.stays_home(name, withheld)
    lane = sync.lane_of(store, arrival_id)
    sync.tell(store, body, lane, at, about=f"image {arrival_id}", arrival_id=arrival_id)


def tell_read(store: sqlite3.Connection, config: Config, read: Read) -> None:
    """Tell the hub what somebody said of a film, once they can no longer take it back; a referral makes the film go first.

    A film that came before there was a hub is told of once somebody asks for a read of it.
    """
    asks = read.kind is ReadKind.REFER
    if asks:
        _tell_film(store, config, read.arrival_id, read.at)
    name = sync.case_of(store, read.arrival_id)
    if not config.hub.url or name is None:
        return
    due = read.at if read.kind is ReadKind.IMPRESSION else read.at + reads.UNDO
    sync.tell(
        store,
        telling.decided(name, read, Door(pseudonyms.key(Path(config.state)))),
        Lane.URGENT if asks else Lane.PEOPLE,
        read.at,
        about=f"read {read.id}",
        arrival_id=read.arrival_id,
        due=due,
    )
    if asks:
        sync.hasten(store, read.arrival_id, Lane.URGENT)


def take_back(store: sqlite3.Connection, read: Read) -> None:
    """Have the hub never know of a decision that was taken back in time."""
    sync.take_back(store, f"read {read.id}")


def tell_seen(store: sqlite3.Connection, config: Config, returned: sync.Returned, by: str, at: datetime) -> bool:
    """Tell the hub that a teleradiologist's read was opened here; says whether this is the first time."""
    first = sync.see(store, returned.read.read, by, at)
    if first and config.hub.url:
        body = Seen(case=returned.read.case, read=returned.read.read)
        sync.tell(store, body, Lane.PEOPLE, at, about=f"seen {body.read}", arrival_id=returned.arrival_id)
    return first


def tell_packets(store: sqlite3.Connection, config: Config, packets: Iterable[packet.Packet], at: datetime) -> None:
    """Tell the hub what days looked like that have ended; one that is as it was told before is not told again."""
    if not config.hub.url:
        return
    for one in packets:
        body = Packet(edges=one.edges, day=one.day.isoformat(), data=packet.encode(one))
        sync.tell(store, body, Lane.STATE, at, about=f"packet {one.edges} {one.day.isoformat()}")


def tell_status(store: sqlite3.Connection, config: Config, at: datetime) -> None:
    """Tell the hub how it stands with this box: at once where the model, or what the box complains of, has changed, else hourly."""
    if not config.hub.url:
        return
    body, last = _status(store, config, at), sync.last(store, "status")
    if last is not None and abs(at - last.made_at) < STATUS and _pressing(last.body) == _pressing(body):
        return
    sync.tell(store, body, Lane.STATE, at, about="status")


def _pressing(body: Up) -> tuple[object, ...]:
    if not isinstance(body, Status):
        return ()
    return body.version, body.bundle, body.accepted, body.runtime, body.drift, body.clock, body.notices


def _status(store: sqlite3.Connection, config: Config, at: datetime) -> Status:
    state = Path(config.state)
    try:
        bundle, device_uid = passport.at_work(config, store)
        model, digest = f"{bundle.manifest.id} {bundle.manifest.version}", bundle.digest
        runtime = config.worker.runtime or installed.runtime(state, digest) or ""
    except (OSError, Tampered):  # the worker says so, and its notice goes too
        model = digest = device_uid = runtime = ""
    accepted, waits = acceptances.accepted(store), sync.unsent(store)
    disk = Objects(state)
    degrees, backup = health.warmth().values.get("degrees"), health.backup(store, at).values.get("at")
    return Status(
        version=version("outpost-cxr"),
        model=model,
        bundle=digest,
        device_uid=device_uid,
        accepted=bool(device_uid) and accepted == device_uid,
        before=accepted is not None,
        runtime=runtime,
        drift=_drift(drift.verdict(store)),
        disk_free_mib=disk.free_mib() // 64 * 64,
        disk_free_percent=disk.free_percent(),
        films=arrivals.count(store),
        unsent=len(waits),
        unsent_hours=max((max(at - since, timedelta(0)) // timedelta(hours=1) for since in waits.values()), default=0),
        clock=health.clock(store, at).state,
        degrees=5 * round(degrees / 5) if isinstance(degrees, float) else None,
        backup_days=max(at - backup, timedelta(0)).days if isinstance(backup, datetime) else None,
        notices=tuple(notices.processes(store)),
    )


def _drift(kept: drift.Verdict | None) -> str:
    if kept is None:
        return "learning"
    found = msgspec.json.decode(kept.verdict, type=Verdict)
    return "changed" if found.alarm is not None else "learning" if found.more_days or found.more_films else "quiet"
