"""The worklist's rows: which film is next, whether the AI has a say in it, and what a row tells."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from edge.records import Decision, Film, Finding, Outcome, Reason, Waiting
from edge.stages import decide
from edge.state import acceptances, results

FIRST = 200
"""How many films are shown until someone asks for all: nobody works further down, and a tablet stays quick."""

PATIENCE = timedelta(minutes=3)
"""After this long without an outcome people are told not to wait for the AI."""


class Mode(StrEnum):
    """Whether the AI ranks here."""

    SHADOW = "shadow"
    """No acceptance was ever signed."""
    CHANGED = "changed"
    """One was signed, but for another model, calibration or operating point than the one at work."""
    RANKING = "ranking"


@dataclass(frozen=True)
class Row:
    """One film on the worklist."""

    position: int
    film: Film
    wait: timedelta
    overdue: bool
    """It has waited for the cap, and so goes before every film that came later."""
    ranked: bool
    """The accepted model assessed it, so its outcome has a say in the order."""
    twins: list[int]
    """The other films with its identifier and other content."""

    @property
    def late(self) -> bool:
        """The AI takes so long that nobody should wait for it."""
        return self.film.decision is None and self.wait > PATIENCE


@dataclass(frozen=True)
class Worklist:
    """The list at a moment."""

    mode: Mode
    rows: list[Row]
    total: int


def build(store: sqlite3.Connection, at: datetime, wait_cap: timedelta, limit: int | None = FIRST) -> Worklist:
    """Rank every film and describe the first `limit` of them."""
    films = {film.arrival.id: film for film in results.films(store)}
    accepted = acceptances.accepted(store)
    order = decide.rank((_waiting(film, accepted) for film in films.values()), at, wait_cap, accepted is not None)
    rows = []
    for position, waiting in enumerate(order[:limit], 1):
        film = films[waiting.arrival_id]
        rows.append(
            Row(
                position=position,
                film=film,
                wait=at - film.arrival.received_at,
                overdue=film.arrival.received_at <= at - wait_cap,
                ranked=is_ranked(film, accepted),
                twins=results.same_instance(store, film.arrival) if film.arrival.conflict else [],
            )
        )
    return Worklist(mode(films.values(), accepted), rows, len(order))


def mode(films: Iterable[Film], accepted: str | None) -> Mode:
    """Whether the AI ranks, judged by the model that decided last."""
    if accepted is None:
        return Mode.SHADOW
    newest = max(
        (film for film in films if film.decision is not None and film.decision.device_uid),
        key=lambda film: film.decided_at or datetime.min.replace(tzinfo=UTC),
        default=None,
    )
    return Mode.RANKING if newest is None or is_ranked(newest, accepted) else Mode.CHANGED


def is_ranked(film: Film, accepted: str | None) -> bool:
    """Whether this film's outcome comes from the accepted model, calibration and operating point."""
    return film.decision is not None and accepted is not None and film.decision.device_uid == accepted


def _waiting(film: Film, accepted: str | None) -> Waiting:
    outcome = None if film.decision is None else film.decision.outcome
    if outcome is not None and outcome is not Outcome.COULD_NOT_ASSESS and not is_ranked(film, accepted):
        outcome = Outcome.ROUTINE  # a model that was not accepted here raises nothing
    return Waiting(film.arrival.id, film.arrival.received_at, film.arrival.urgency, outcome)


def leading(decision: Decision) -> Finding | None:
    """The finding that gave the outcome; among those, and when none did, the most probable."""
    return max(
        decision.findings,
        key=lambda finding: (
            finding.probability >= finding.immediate,
            finding.probability >= finding.soon,
            finding.probability,
        ),
        default=None,
    )


def mapped(decision: Decision) -> Finding | None:
    """The finding that the worker made the map of: the most probable."""
    return max(decision.findings, key=lambda finding: finding.probability, default=None)


def needs_age(film: Film) -> bool:
    """A person can help: the film could not be assessed because nobody knows the patient's age."""
    return _age_unknown(film) and film.supplied_age is None


def runs_again(film: Film) -> bool:
    """The missing age was entered and the film waits for its new outcome."""
    return _age_unknown(film) and film.supplied_age is not None


def _age_unknown(film: Film) -> bool:
    refusal = film.decision.refusal if film.decision else None
    return refusal is not None and refusal.reason is Reason.AGE_UNKNOWN
