"""Acceptance: whether this site may let a model rank, from the films that people here read without seeing what it says.

It is bound to one model, one calibration and one operating point: the passport. A change of any of the three is another Device UID,
and the box is in shadow mode until the retained films have been assessed again and somebody has signed again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from edge import passport
from edge.config import Config
from edge.errors import Misconfigured, Tampered
from edge.records import Decision, Film, Finding, Outcome, Read
from edge.stages import decide
from edge.state import acceptances, audit, queue, reads, results, scores
from edge.state.audit import Event
from edge.validity.accuracy import AT_LEAST, RAISED, Difference, Judged, accuracy, difference, needed
from edge.validity.calibration import Calibration
from edge.vocabulary import IMPRESSIONS, Sight
from models.bundle import Bundle, load

RETAINED = 300
"""So many of the newest films that were read here are kept for a new model to be tried on."""


@dataclass(frozen=True)
class Retained:
    """A film that was read here without seeing the AI, and what the model in use says of it."""

    film: Film
    read: Read
    decision: Decision | None
    """None while the model has not assessed it yet."""

    @property
    def abnormal(self) -> bool:
        """As the person read it."""
        return IMPRESSIONS[self.read.codes[0]].sight is Sight.ABNORMAL


class Hindrance(StrEnum):
    """What stands in the way of a signature."""

    PENDING = "pending"
    TOO_FEW = "too_few"
    NOT_TRUER = "not_truer"
    FINDS_FEWER = "finds_fewer"
    MAY_BE_WORSE = "may_be_worse"


@dataclass(frozen=True)
class Proposal:
    """A model with one calibration at one operating point, on the films that were read here."""

    operating_point: str
    device_uid: str
    model: str
    calibration: Calibration | None
    """This site's own; None where it is the bundle's."""
    stood: bool
    """A lead accepted this very device here before: to go back to it, nothing has to be proven anew."""
    films: list[Judged]
    pending: int
    """Films that the model has not assessed yet."""
    digest: str
    """SHA-256 over the films and their readings."""
    sensitivity: Difference | None
    """Against what is accepted now; None where nothing else is."""
    specificity: Difference | None

    @property
    def hindrance(self) -> Hindrance | None:
        """What stands in the way of a signature, the first; None where nothing does."""
        if self.pending:
            return Hindrance.PENDING
        if len(self.films) < AT_LEAST:
            return Hindrance.TOO_FEW
        if self.stood:
            return None
        held = [] if self.calibration is None else [fitted.held for fitted in self.calibration.findings.values()]
        if not all(one.truer for one in held):
            return Hindrance.NOT_TRUER
        if not all(one.keeps(self.operating_point) for one in held):
            return Hindrance.FINDS_FEWER
        compared = [one for one in (self.sensitivity, self.specificity) if one is not None]
        return None if all(one.non_inferior for one in compared) else Hindrance.MAY_BE_WORSE

    @property
    def obstacle(self) -> str:
        """Why this cannot be signed yet, in words; empty where it can."""
        match self.hindrance:
            case None:
                return ""
            case Hindrance.PENDING:
                return f"The model has not assessed {self.pending} of the films yet. Wait until it has."
            case Hindrance.TOO_FEW:
                more = needed(self.films)
                return f"Too few films were read here: {len(self.films)} of at least {AT_LEAST}. Read {more} more."
            case Hindrance.NOT_TRUER:
                return (
                    "On films that it was not made from, this calibration is no truer. Keep what is there; read more."
                )
            case Hindrance.FINDS_FEWER:
                return "With this calibration fewer abnormal films would be put first. Keep what is there."
            case Hindrance.MAY_BE_WORSE:
                return (
                    "These films do not rule out that the new model is worse than the accepted one."
                    " Read more, or keep the old one."
                )


def proposals(config: Config, store: sqlite3.Connection) -> list[Proposal]:
    """The model in use with each calibration at each of its operating points, what is in use and the defaults first.

    Raises ValueError where the bundle is damaged.
    """
    bundle = load(passport.folder(config))
    kept = retained(store, passport.devices(store, bundle))
    signed = acceptances.history(store)
    digest = digest_of(kept)
    found = []
    for calibration in passport.candidates(store, bundle):
        points = passport.operating_points(bundle, passport.digest(calibration))
        for point, device in points.items():
            said = [(one, _at(one.decision, bundle, point, calibration)) for one in kept if one.decision is not None]
            compared: tuple[Difference | None, Difference | None] = (None, None)
            if signed and signed[-1].device_uid not in points.values():
                compared = _compared(said, _accepted(store, bundle, signed[-1]))
            found.append(
                Proposal(
                    operating_point=point,
                    device_uid=device,
                    model=f"{bundle.manifest.id} {bundle.manifest.version}",
                    calibration=calibration,
                    stood=device in {one.device_uid for one in signed},
                    films=[_judged(one, decision) for one, decision in said],
                    pending=len(kept) - len(said),
                    digest=digest,
                    sensitivity=compared[0],
                    specificity=compared[1],
                )
            )
    return found


def digest_of(kept: list[Retained]) -> str:
    """SHA-256 over films and their readings, in any order."""
    lines = sorted(f"{one.film.arrival.sha256} {one.read.seal}" for one in kept)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def retained(store: sqlite3.Connection, device_uids: list[str], limit: int = RETAINED) -> list[Retained]:
    """The films that people read here without seeing the AI and could tell, each with what one of these devices says of it."""
    return [
        Retained(results.film(store, read.arrival_id), read, scores.decision(store, read.arrival_id, device_uids))
        for read in reads.blind(store, limit)
        if IMPRESSIONS[read.codes[0]].sight is not Sight.UNSURE
    ]


def ask_again(store: sqlite3.Connection, device_uids: list[str], at: datetime) -> int:
    """Have the retained films assessed by a model that has not seen them, inside the caller's transaction; says how many."""
    unseen = [one.film.arrival.id for one in retained(store, device_uids) if one.decision is None and one.film.decision]
    for arrival_id in unseen:
        queue.add_score(store, arrival_id, at)
    return len(unseen)


def as_shipped(finding: Finding) -> float:
    """The probability by the bundle's own calibration."""
    return finding.probability if finding.as_shipped is None else finding.as_shipped


def _at(decision: Decision, bundle: Bundle, point: str, calibration: Calibration | None) -> Decision:
    """What the same output of the network would have led to with another calibration, at another operating point."""
    if decision.refusal is not None:
        return decision
    thresholds = {finding.key: finding.operating_points[point] for finding in bundle.manifest.findings}
    findings = []
    for one in decision.findings:
        own, at = as_shipped(one), thresholds[one.finding]
        ours = None if calibration is None else calibration.apply(one.finding, own)
        value = own if ours is None else ours[0]
        findings.append(replace(one, probability=value, operating_point=point, soon=at.soon, immediate=at.immediate))
    return decide.decide(findings, decision.model, decision.device_uid)


def _judged(one: Retained, decision: Decision) -> Judged:
    leading = decide.leading(decision.findings)
    said = one.film.header
    return Judged(
        abnormal=one.abnormal,
        outcome=decision.outcome,
        finding="" if leading is None else leading.label,
        probability=0.0 if leading is None else leading.probability,
        sex=said.PatientSex,
        age_years=said.age_years if one.film.supplied_age is None else one.film.supplied_age,
    )


def _accepted(
    store: sqlite3.Connection, bundle: Bundle, signed: acceptances.Acceptance
) -> Callable[[Retained], Decision | None]:
    """What the accepted device says of a film; the same network needs not be asked again."""

    def by_itself(one: Retained) -> Decision | None:
        return scores.decision(store, one.film.arrival.id, [signed.device_uid])

    if signed.device_uid not in passport.devices(store, bundle):
        return by_itself
    try:
        calibration = passport.calibration(store, signed.calibration) if signed.calibration else None
    except Tampered:  # it must be possible to go back from it
        return by_itself
    return lambda one: one.decision and _at(one.decision, bundle, signed.operating_point, calibration)


def _compared(
    said: list[tuple[Retained, Decision]], accepted: Callable[[Retained], Decision | None]
) -> tuple[Difference, Difference]:
    """New minus accepted, in sensitivity and specificity, on the films that both have assessed."""
    pairs = [(one, before.outcome, after.outcome) for one, after in said if (before := accepted(one)) is not None]

    def of(abnormal: bool, right: Callable[[Outcome], bool]) -> Difference:
        return difference((right(old), right(new)) for one, old, new in pairs if one.abnormal is abnormal)

    # a film that could not be assessed is no silent negative, and no raised film either: it is read no later than soon
    return of(True, lambda outcome: outcome is not Outcome.ROUTINE), of(False, lambda outcome: outcome not in RAISED)


def sign(store: sqlite3.Connection, proposal: Proposal, by: str, at: datetime) -> None:
    """Accept a proposal inside the caller's transaction: from now on this model ranks here at this operating point.

    Raises `Misconfigured` with what stands in the way.
    """
    if proposal.obstacle:
        raise Misconfigured(proposal.obstacle)
    told = accuracy(proposal.films)
    calibration = passport.digest(proposal.calibration)
    written: dict[str, Any] = {
        "model": proposal.model,
        "calibration": calibration,
        "films": len(proposal.films),
        "set": proposal.digest,
        **{
            name: [share.count, share.of]
            for name in ("sensitivity", "specificity", "ppv", "npv", "abstained")
            for share in [getattr(told, name)]
        },
    }
    acceptances.sign(store, proposal.device_uid, proposal.operating_point, by, at, written, calibration)
    audit.append(
        store,
        Event.ACCEPTED,
        by,
        at,
        device_uid=proposal.device_uid,
        operating_point=proposal.operating_point,
        **written,
    )
