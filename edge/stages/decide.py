"""Decide: the outcome of a film from its calibrated probabilities, and the order of the worklist.

Both are pure, so that the promises (raise only, no starving, no silent negative) are properties a test can state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from edge.records import Arm, Decision, Finding, Outcome, Refusal, Urgency, Waiting

_BY_OUTCOME = {
    Outcome.IMMEDIATE: 0,
    Outcome.SOON: 1,
    Outcome.COULD_NOT_ASSESS: 1,  # never below routine: nobody has looked at it yet, not even the machine
    None: 1,
    Outcome.ROUTINE: 2,
}
_BY_URGENCY = {Urgency.STAT: 0, Urgency.HIGH: 1, Urgency.ROUTINE: 2}


def decide(findings: Sequence[Finding], model: str, device_uid: str) -> Decision:
    """The outcome is that of the most urgent finding at its operating point; a probability on the threshold is above it.

    Raises ValueError without findings: that nothing was looked for must never become *routine*.
    """
    if not findings:
        raise ValueError("no findings to decide on")
    if any(finding.probability >= finding.immediate for finding in findings):
        outcome = Outcome.IMMEDIATE
    elif any(finding.probability >= finding.soon for finding in findings):
        outcome = Outcome.SOON
    else:
        outcome = Outcome.ROUTINE
    return Decision(outcome, tuple(findings), model, device_uid)


def leading(findings: Iterable[Finding]) -> Finding | None:
    """The finding that gives the outcome; among those, and when none does, the most probable."""
    return max(
        findings,
        key=lambda one: (one.probability >= one.immediate, one.probability >= one.soon, one.probability),
        default=None,
    )


def refuse(refusal: Refusal, model: str = "", device_uid: str = "") -> Decision:
    """The outcome of a film that was refused: *could not assess*, without findings."""
    return Decision(Outcome.COULD_NOT_ASSESS, (), model, device_uid, refusal)


def within(arm: Arm | None, outcome: Outcome | None, immediate_raised: bool) -> Outcome | None:
    """The outcome of a film of a trial as the order sees it: in order of arrival what the AI says raises nothing.

    What it calls immediate is raised all the same where the policy says so, and what it has not assessed is never below routine.
    """
    if arm is not Arm.ARRIVAL_ORDER or outcome not in (Outcome.IMMEDIATE, Outcome.SOON):
        return outcome
    return outcome if immediate_raised and outcome is Outcome.IMMEDIATE else Outcome.ROUTINE


def rank(films: Iterable[Waiting], at: datetime, wait_cap: timedelta, ranking: bool) -> list[Waiting]:
    """The worklist's order at a moment.

    A film that has waited for `wait_cap` goes before every film that came later. Otherwise the more urgent of what was
    ordered and what the AI says comes first, then the earlier arrival. Without `ranking` (shadow mode) the AI has no say.
    """

    def key(film: Waiting) -> tuple[int, int, datetime, int]:
        overdue = film.received_at <= at - wait_cap
        level = _BY_URGENCY[film.urgency]
        if ranking:
            level = min(level, _BY_OUTCOME[film.outcome])
        return (0, 0, film.received_at, film.arrival_id) if overdue else (1, level, film.received_at, film.arrival_id)

    return sorted(films, key=key)
