"""The worklist's rows: which film is next, whether the AI has a say in it, and what a row tells."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from edge.records import Arm, Decision, Film, Finding, Outcome, Read, ReadKind, Reason, Waiting
from edge.stages import decide
from edge.state import acceptances, reads, results, trials
from web.languages import N_

PART = 100
"""How many films are shown at once: nobody works further down, and a tablet stays quick."""

PATIENCE = timedelta(minutes=3)
"""After this long without an outcome people are told not to wait for the AI."""

PACE_SPAN = timedelta(hours=4)
PACE_READS = 3
"""Fewer decisions than this within the span tell nothing of how long a film will wait."""


class Mode(StrEnum):
    """Whether the AI ranks here."""

    SHADOW = "shadow"
    """No acceptance was ever signed."""
    CHANGED = "changed"
    """One was signed, but for another model, calibration or operating point than the one at work."""
    RANKING = "ranking"


class Show(StrEnum):
    """Which films are on the list."""

    OPEN = "open"
    """Nobody has decided yet."""
    UNASSESSED = "unassessed"
    """Of those, the ones that the AI could not assess."""
    ASKED = "asked"
    """A teleradiologist was asked."""
    READ = "read"
    """A person has decided; the latest decision first."""


SHOWN = {
    Show.OPEN: N_("To read"),
    Show.UNASSESSED: N_("AI could not assess"),
    Show.ASKED: N_("Teleradiologist asked"),
    Show.READ: N_("Read"),
}


@dataclass(frozen=True)
class Row:
    """One film on the worklist."""

    position: int
    """Its place among the open films; 0 where it is none of them."""
    film: Film
    wait: timedelta
    overdue: bool
    """It has waited for the cap, and so goes before every film that came later."""
    ranked: bool
    """The accepted model assessed it, so its outcome has a say in the order."""
    twins: list[int]
    """The other films with its identifier and other content."""
    expected: datetime | None
    """When it will be read if people go on at today's pace; None where too few reads tell."""
    read: Read | None
    """The decision of a person that stands."""

    @property
    def late(self) -> bool:
        """The AI takes so long that nobody should wait for it."""
        return self.film.decision is None and self.wait > PATIENCE


@dataclass(frozen=True)
class Worklist:
    """The list at a moment."""

    mode: Mode
    show: Show
    sought: str
    rows: list[Row]
    total: int
    """How many films there are of what is shown."""
    counts: dict[Show, int]
    page: int
    """Which part of it this is, from 1."""

    @property
    def first(self) -> int:
        """The place of the first row in what is shown."""
        return (self.page - 1) * PART + 1


def build(
    store: sqlite3.Connection,
    at: datetime,
    wait_cap: timedelta,
    page: int = 1,
    show: Show = Show.OPEN,
    sought: str = "",
    immediate_raised: bool = True,
) -> Worklist:
    """Rank the open films, and describe a part of those to be shown; a search looks at all films.

    In a trial, what the AI calls immediate is raised in both arms where its protocol or `immediate_raised` says so.
    """
    runs = results.current_runs(store)
    standing = reads.standing(store)
    settled = {number: read for number, read in standing.items() if read.run >= runs.get(number, 0)}
    needed = show in (Show.ASKED, Show.READ) or bool(sought)
    films = {film.arrival.id: film for film in results.films(store, but=() if needed else settled)}
    accepted = acceptances.accepted(store)
    unread = [film for number, film in films.items() if number not in settled]
    trial = trials.running(store)
    arms = trials.arms(store, trial, [film.arrival.id for film in unread]) if trial else {}
    raised = immediate_raised or trial is None or trial.protocol.immediate_raised
    waiting_films = (_waiting(film, accepted, arms.get(film.arrival.id), raised) for film in unread)
    order = decide.rank(waiting_films, at, wait_cap, accepted is not None)
    positions = {waiting.arrival_id: place for place, waiting in enumerate(order, 1)}
    pace = _pace(settled.values(), at)
    if sought:
        words = _folded(sought).split()
        latest = sorted(settled, key=lambda number: settled[number].at, reverse=True)
        shown = [number for number in [*positions, *latest] if _matches(films[number], words)]
    elif show in (Show.ASKED, Show.READ):
        shown = _decided(settled, show)
    else:
        shown = [number for number in positions if show is Show.OPEN or _unassessed(films[number])]
    page = max(1, min(page, -(-len(shown) // PART)))
    rows = []
    for number in shown[(page - 1) * PART : page * PART]:
        film = films[number]
        position = positions.get(number, 0)
        rows.append(
            Row(
                position=position,
                film=film,
                wait=at - film.arrival.received_at,
                overdue=film.arrival.received_at <= at - wait_cap,
                ranked=is_ranked(film, accepted),
                twins=results.same_instance(store, film.arrival) if film.arrival.conflict else [],
                expected=None if pace is None or not position else at + pace * position,
                read=settled.get(number),
            )
        )
    counts = {
        Show.OPEN: len(unread),
        Show.UNASSESSED: sum(map(_unassessed, unread)),
        Show.ASKED: len(_decided(settled, Show.ASKED)),
        Show.READ: len(_decided(settled, Show.READ)),
    }
    return Worklist(mode(store, accepted), show, sought, rows, len(shown), counts, page)


def _decided(settled: dict[int, Read], show: Show) -> list[int]:
    asked = show is Show.ASKED
    chosen = [number for number, read in settled.items() if (read.kind is ReadKind.REFER) is asked]
    return sorted(chosen, key=lambda number: (settled[number].at, number), reverse=not asked)


def _unassessed(film: Film) -> bool:
    return film.decision is not None and film.decision.outcome is Outcome.COULD_NOT_ASSESS


def _pace(decisions: Iterable[Read], at: datetime) -> timedelta | None:
    """The time from one decision to the next, of late."""
    times = [read.at for read in decisions if at - PACE_SPAN < read.at <= at]
    return None if len(times) < PACE_READS else (at - min(times)) / len(times)


def _matches(film: Film, words: Sequence[str]) -> bool:
    said = film.header
    text = _folded(f"{said.PatientName.replace('^', ' ').replace('=', ' ')} {said.PatientID} {film.arrival.id}")
    return all(word in text for word in words)


def _folded(text: str) -> str:
    """Without case and accents, digits of every script as 0 to 9, so that a search finds what was written a little differently."""
    plain = [letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)]
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in plain).casefold()


def mode(store: sqlite3.Connection, accepted: str | None) -> Mode:
    """Whether the AI ranks, judged by the model that decided last."""
    if accepted is None:
        return Mode.SHADOW
    newest = results.newest_device(store)
    return Mode.RANKING if newest in (None, accepted) else Mode.CHANGED


def mode_of(film: Film, accepted: str | None) -> Mode:
    """Whether the AI has a say in this film's place."""
    if accepted is None:
        return Mode.SHADOW
    return Mode.RANKING if film.decision is None or is_ranked(film, accepted) else Mode.CHANGED


def is_ranked(film: Film, accepted: str | None) -> bool:
    """Whether this film's outcome comes from the accepted model, calibration and operating point."""
    return film.decision is not None and accepted is not None and film.decision.device_uid == accepted


def _waiting(film: Film, accepted: str | None, arm: Arm | None, immediate_raised: bool) -> Waiting:
    outcome = None if film.decision is None else film.decision.outcome
    if outcome is not None and outcome is not Outcome.COULD_NOT_ASSESS and not is_ranked(film, accepted):
        outcome = Outcome.ROUTINE  # a model that was not accepted here raises nothing
    outcome = decide.within(arm, outcome, immediate_raised)
    return Waiting(film.arrival.id, film.arrival.received_at, film.arrival.urgency, outcome)


def leading(decision: Decision) -> Finding | None:
    """The finding that gave the outcome."""
    return decide.leading(decision.findings)


def needs_age(film: Film) -> bool:
    """A person can help: the film could not be assessed because nobody knows the patient's age."""
    return _age_unknown(film) and film.supplied_age is None and not film.again


def runs_again(film: Film) -> bool:
    """The missing age was entered, or came with the order, and the film waits for its new outcome."""
    return _age_unknown(film) and (film.supplied_age is not None or film.again)


def _age_unknown(film: Film) -> bool:
    refusal = film.decision.refusal if film.decision else None
    return refusal is not None and refusal.reason is Reason.AGE_UNKNOWN
