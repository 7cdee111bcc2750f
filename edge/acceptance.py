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
from typing import Any

from edge import passport
from edge.config import Config
from edge.errors import Misconfigured
from edge.records import Decision, Film, Outcome, Read
from edge.stages import decide
from edge.state import acceptances, audit, queue, reads, results, scores
from edge.state.audit import Event
from edge.validity.accuracy import AT_LEAST, RAISED, Difference, Judged, accuracy, difference, needed
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


@dataclass(frozen=True)
class Proposal:
    """A model at one operating point, on the films that were read here."""

    operating_point: str
    device_uid: str
    model: str
    films: list[Judged]
    pending: int
    """Films that the model has not assessed yet."""
    digest: str
    """SHA-256 over the films and their readings."""
    sensitivity: Difference | None
    """Against what is accepted now; None where nothing else is."""
    specificity: Difference | None

    @property
    def obstacle(self) -> str:
        """Why this cannot be signed yet, in words; empty where it can."""
        if self.pending:
            return f"The model has not assessed {self.pending} of the films yet. Wait until it has."
        if len(self.films) < AT_LEAST:
            return f"Too few films were read here: {len(self.films)} of at least {AT_LEAST}. Read {needed(self.films)} more."
        compared = [one for one in (self.sensitivity, self.specificity) if one is not None]
        if not all(one.non_inferior for one in compared):
            return "These films do not rule out that the new model is worse than the accepted one. Read more, or keep the old one."
        return ""


def proposals(config: Config, store: sqlite3.Connection) -> list[Proposal]:
    """The model in use at each of its operating points, the default first. Raises ValueError where the bundle is damaged."""
    bundle = load(passport.folder(config))
    points = passport.operating_points(bundle)
    kept = retained(store, list(points.values()))
    signed = acceptances.latest(store)
    digest = hashlib.sha256(
        "\n".join(sorted(f"{one.film.arrival.sha256} {one.read.seal}" for one in kept)).encode()
    ).hexdigest()
    found = []
    for point, device in points.items():
        said = [(one, _at(one.decision, bundle, point)) for one in kept if one.decision is not None]
        compared: tuple[Difference | None, Difference | None] = (None, None)
        if signed is not None and signed.device_uid not in points.values():
            compared = _compared(store, said, signed.device_uid)
        found.append(
            Proposal(
                operating_point=point,
                device_uid=device,
                model=f"{bundle.manifest.id} {bundle.manifest.version}",
                films=[_judged(one, decision) for one, decision in said],
                pending=len(kept) - len(said),
                digest=digest,
                sensitivity=compared[0],
                specificity=compared[1],
            )
        )
    return found


def retained(store: sqlite3.Connection, device_uids: list[str]) -> list[Retained]:
    """The films that people read here without seeing the AI and could tell, each with what one of these devices says of it."""
    return [
        Retained(results.film(store, read.arrival_id), read, scores.decision(store, read.arrival_id, device_uids))
        for read in reads.blind(store, RETAINED)
        if IMPRESSIONS[read.codes[0]].sight is not Sight.UNSURE
    ]


def ask_again(store: sqlite3.Connection, device_uids: list[str], at: datetime) -> int:
    """Have the retained films assessed by a model that has not seen them, inside the caller's transaction; says how many."""
    unseen = [one.film.arrival.id for one in retained(store, device_uids) if one.decision is None and one.film.decision]
    for arrival_id in unseen:
        queue.add_score(store, arrival_id, at)
    return len(unseen)


def _at(decision: Decision, bundle: Bundle, point: str) -> Decision:
    """What the same probabilities would have led to at another operating point."""
    if decision.refusal is not None:
        return decision
    thresholds = {finding.key: finding.operating_points[point] for finding in bundle.manifest.findings}
    findings = [
        replace(
            one, operating_point=point, soon=thresholds[one.finding].soon, immediate=thresholds[one.finding].immediate
        )
        for one in decision.findings
    ]
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


def _compared(
    store: sqlite3.Connection, said: list[tuple[Retained, Decision]], accepted: str
) -> tuple[Difference, Difference]:
    """New minus accepted, in sensitivity and specificity, on the films that both have assessed."""
    pairs = [
        (one, before.outcome, after.outcome)
        for one, after in said
        if (before := scores.decision(store, one.film.arrival.id, [accepted])) is not None
    ]

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
    written: dict[str, Any] = {
        "model": proposal.model,
        "films": len(proposal.films),
        "set": proposal.digest,
        **{
            name: [share.count, share.of]
            for name in ("sensitivity", "specificity", "ppv", "npv", "abstained")
            for share in [getattr(told, name)]
        },
    }
    acceptances.sign(store, proposal.device_uid, proposal.operating_point, by, at, written)
    audit.append(
        store,
        Event.ACCEPTED,
        by,
        at,
        device_uid=proposal.device_uid,
        operating_point=proposal.operating_point,
        **written,
    )
