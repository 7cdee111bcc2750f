"""What came of a trial: each arm's films, what the AI and people said, how long they waited (CONSORT-AI, DECIDE-AI)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.records import Arm, Outcome, ReadKind
from edge.validity.accuracy import RAISED, Share
from edge.validity.fairness import SMALL, Wait, between_medians, waits


@dataclass(frozen=True)
class Followed:
    """One randomized film until the end of the trial, as it may leave the site: pseudonyms, codes and minutes, and no date.

    Empty or None is what there was not.
    """

    film: str
    patient: str
    arm: Arm
    place: int
    """Of its unit in the sequence, from 0."""
    day: int
    """On which it came; that of the registration is 0."""
    age_band: str
    sex: str
    urgency: str
    """As ordered."""
    ai_outcome: str
    ai_reason: str
    """Why the AI could not assess it."""
    same_model: bool | None
    """The outcome is that of the model that the trial is of."""
    impression: str
    """What the first person who said so saw before they were shown the AI's: normal, abnormal or unsure."""
    decision: str
    """Confirm, override or refer."""
    decided_outcome: str
    override_reason: str
    reader: str
    minutes_to_ai: int | None
    minutes_to_look: int | None
    minutes_to_decision: int | None
    """The first that was not taken back."""
    minutes_undecided: int | None
    """Until the end of the trial, where nobody had decided."""
    looks: int
    revealed: int
    """How often somebody was first shown what the AI says."""
    taken_back: int
    alerts_acknowledged: int
    ages_supplied: int


@dataclass(frozen=True)
class Told:
    """What came of the films of one arm."""

    arm: Arm
    units: int
    films: int
    assessed: int
    """By the AI, with an outcome other than *could not assess*."""
    refused: dict[str, int]
    """Films that it could not assess, by reason."""
    unassessed: int
    """Films that it had not tried when the trial ended."""
    other_model: int
    """Films whose outcome is of another model than the trial's."""
    analysed: int
    """Films on which a person decided."""
    agreed: Share
    """Of the films whose outcome a person decided, those with the AI's."""
    agreed_blind: Share
    """Of the films that a person read before the AI's was shown and could tell, those that the AI raised as they would have."""
    referred: int
    overrides: dict[str, int]
    """By reason."""
    to_look: Wait | None
    to_decision: Wait | None
    to_decision_urgent: Wait | None
    """Of the films that a person decided are immediate or soon."""
    to_decision_routine: Wait | None
    interaction: dict[str, int]
    """How often people did something with the films and the AI's answers."""

    @property
    def lost(self) -> int:
        """Films that nobody had decided on when the trial ended."""
        return self.films - self.analysed


def told(arm: Arm, films: Iterable[Followed]) -> Told:
    """What came of one arm."""
    own = [film for film in films if film.arm is arm]
    decided = [film for film in own if film.minutes_to_decision is not None]
    settled = [film for film in decided if film.decision in (ReadKind.CONFIRM, ReadKind.OVERRIDE)]
    blind = [film for film in own if film.impression in ("normal", "abnormal") and _assessed(film)]
    right = sum((film.ai_outcome in RAISED) is (film.impression == "abnormal") for film in blind)
    urgent = [film for film in decided if film.decided_outcome in RAISED]
    routine = [film for film in decided if film.decided_outcome == Outcome.ROUTINE]
    return Told(
        arm=arm,
        units=len({film.place for film in own}),
        films=len(own),
        assessed=sum(map(_assessed, own)),
        refused=dict(Counter(film.ai_reason for film in own if film.ai_outcome == Outcome.COULD_NOT_ASSESS)),
        unassessed=sum(not film.ai_outcome for film in own),
        other_model=sum(film.same_model is False for film in own),
        analysed=len(decided),
        agreed=Share(sum(film.decision == ReadKind.CONFIRM for film in settled), len(settled)),
        agreed_blind=Share(right, len(blind)),
        referred=sum(film.decision == ReadKind.REFER for film in decided),
        overrides=dict(Counter(film.override_reason for film in settled if film.decision == ReadKind.OVERRIDE)),
        to_look=_waits([film.minutes_to_look for film in own]),
        to_decision=_waits([film.minutes_to_decision for film in own]),
        to_decision_urgent=_waits([film.minutes_to_decision for film in urgent]),
        to_decision_routine=_waits([film.minutes_to_decision for film in routine]),
        interaction={
            name: sum(getattr(film, name) for film in own)
            for name in ("looks", "revealed", "taken_back", "alerts_acknowledged", "ages_supplied")
        },
    )


def gained(films: Sequence[Followed]) -> tuple[float, float] | None:
    """By how many minutes the median wait for a decision is shorter when the AI ranks, at least and at most; None of too few."""
    ranked, arrival = (
        [film.minutes_to_decision for film in films if film.arm is arm and film.minutes_to_decision is not None]
        for arm in (Arm.AI_RANKED, Arm.ARRIVAL_ORDER)
    )
    return None if min(len(ranked), len(arrival)) < SMALL else between_medians(arrival, ranked)


def _assessed(film: Followed) -> bool:
    return film.ai_outcome not in ("", Outcome.COULD_NOT_ASSESS)


def _waits(minutes: Sequence[int | None]) -> Wait | None:
    known = [one for one in minutes if one is not None]
    return waits(known) if known else None
