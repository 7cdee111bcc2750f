"""The promises of the worklist, for any films, outcomes and clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.records import Arm, Finding, Outcome, Reason, Refusal, Urgency, Waiting
from edge.stages.decide import decide, rank, refuse, within

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CAP = timedelta(hours=4)

moments = st.integers(0, 12 * 60).map(lambda minutes: NOON - timedelta(minutes=minutes))
outcomes = st.sampled_from([None, *Outcome])
worklists = st.lists(st.tuples(moments, st.sampled_from(list(Urgency)), outcomes), max_size=30).map(
    lambda films: [Waiting(number, *film) for number, film in enumerate(films, 1)]
)


def place(films: list[Waiting], film: Waiting) -> int:
    return films.index(film)


@given(worklists)
def test_ranking_loses_and_invents_no_film(films: list[Waiting]) -> None:
    assert sorted(rank(films, NOON, CAP, True), key=lambda film: film.arrival_id) == films


@given(worklists)
def test_after_the_cap_no_later_film_goes_first(films: list[Waiting]) -> None:
    ranked = rank(films, NOON, CAP, True)
    for film in films:
        if film.received_at <= NOON - CAP:
            assert all(before.received_at <= film.received_at for before in ranked[: place(ranked, film)])


@given(worklists)
def test_only_what_is_raised_goes_ahead(films: list[Waiting]) -> None:
    """The AI only raises: a film is overtaken only by one that the AI or the person who ordered it calls more urgent."""
    ranked = rank(films, NOON, CAP, True)
    for film in films:
        for before in ranked[: place(ranked, film)]:
            if (before.received_at, before.arrival_id) > (film.received_at, film.arrival_id):
                assert before.urgency is not Urgency.ROUTINE or before.outcome is not Outcome.ROUTINE


@given(worklists, st.integers(0, 29), st.sampled_from([Outcome.IMMEDIATE, Outcome.SOON, Outcome.COULD_NOT_ASSESS]))
def test_an_outcome_never_moves_its_own_film_back(films: list[Waiting], number: int, outcome: Outcome) -> None:
    """Whatever the AI says of a film, the film is no later than if the AI had called it routine."""
    if number >= len(films):
        return
    film = films[number]

    def with_outcome(outcome: Outcome) -> int:
        changed = Waiting(film.arrival_id, film.received_at, film.urgency, outcome)
        return place(rank([*films[:number], changed, *films[number + 1 :]], NOON, CAP, True), changed)

    assert with_outcome(outcome) <= with_outcome(Outcome.ROUTINE)


@given(worklists)
def test_could_not_assess_is_never_below_routine(films: list[Waiting]) -> None:
    ranked = [film for film in rank(films, NOON, CAP, True) if film.received_at > NOON - CAP]
    seen_routine = False
    for film in ranked:
        if film.urgency is Urgency.ROUTINE:
            assert not (seen_routine and film.outcome in (None, Outcome.COULD_NOT_ASSESS))
            seen_routine = seen_routine or film.outcome is Outcome.ROUTINE


@given(worklists, worklists)
def test_in_shadow_mode_the_ai_has_no_say(films: list[Waiting], others: list[Waiting]) -> None:
    silent = [Waiting(film.arrival_id, film.received_at, film.urgency, None) for film in films]
    order = [film.arrival_id for film in rank(films, NOON, CAP, False)]
    assert order == [film.arrival_id for film in rank(silent, NOON, CAP, False)]


def in_trial(films: list[Waiting], arms: list[Arm | None], immediate_raised: bool) -> list[Waiting]:
    return [
        Waiting(film.arrival_id, film.received_at, film.urgency, within(arm, film.outcome, immediate_raised))
        for film, arm in zip(films, arms, strict=True)
    ]


trials = worklists.flatmap(
    lambda films: st.tuples(
        st.just(films),
        st.lists(st.sampled_from([None, *Arm]), min_size=len(films), max_size=len(films)),
    )
)


@given(trials, st.booleans())
def test_in_a_trial_no_film_overtakes_that_nobody_raises(
    trial: tuple[list[Waiting], list[Arm | None]], immediate_raised: bool
) -> None:
    """A film in order of arrival is ahead of its turn only by its order, because it is not assessed, or as immediate by policy."""
    films, arms = trial
    arm_of = {film.arrival_id: arm for film, arm in zip(films, arms, strict=True)}
    said = {film.arrival_id: film.outcome for film in films}
    ranked = rank(in_trial(films, arms, immediate_raised), NOON, CAP, True)
    assert sorted(film.arrival_id for film in ranked) == [film.arrival_id for film in films]
    for place, film in enumerate(ranked):
        for before in ranked[:place]:
            if (before.received_at, before.arrival_id) > (film.received_at, film.arrival_id):
                assert film.received_at > NOON - CAP, "the cap holds in both arms"
                outcome = said[before.arrival_id]
                by_ai = outcome is not Outcome.ROUTINE
                if arm_of[before.arrival_id] is Arm.ARRIVAL_ORDER:
                    by_ai = outcome in (None, Outcome.COULD_NOT_ASSESS) or (
                        immediate_raised and outcome is Outcome.IMMEDIATE
                    )
                assert before.urgency is not Urgency.ROUTINE or by_ai


@given(trials)
def test_immediate_is_where_it_would_be_without_the_trial_or_further_ahead(
    trial: tuple[list[Waiting], list[Arm | None]],
) -> None:
    """So too what was ordered as STAT, and what nobody has assessed: the trial only ever keeps *soon* in its turn."""
    films, arms = trial
    routine_care = rank(films, NOON, CAP, True)
    ranked = rank(in_trial(films, arms, True), NOON, CAP, True)
    places = {film.arrival_id: place for place, film in enumerate(ranked)}
    for place, film in enumerate(routine_care):
        if film.outcome is not Outcome.SOON or film.urgency is not Urgency.ROUTINE:
            assert places[film.arrival_id] <= place


@given(worklists, st.booleans())
def test_where_all_is_assessed_order_of_arrival_is_that_of_shadow_mode(
    films: list[Waiting], immediate_raised: bool
) -> None:
    assessed = [film for film in films if film.outcome in (Outcome.SOON, Outcome.ROUTINE, Outcome.IMMEDIATE)]
    if immediate_raised:
        assessed = [film for film in assessed if film.outcome is not Outcome.IMMEDIATE]
    ranked = rank(in_trial(assessed, [Arm.ARRIVAL_ORDER] * len(assessed), immediate_raised), NOON, CAP, True)
    shadow = rank(assessed, NOON, CAP, False)
    assert [film.arrival_id for film in ranked] == [film.arrival_id for film in shadow]


@given(st.sampled_from([None, *Outcome]), st.booleans())
def test_the_arm_of_the_ai_changes_nothing(outcome: Outcome | None, immediate_raised: bool) -> None:
    assert within(Arm.AI_RANKED, outcome, immediate_raised) is outcome
    assert within(None, outcome, immediate_raised) is outcome


probabilities = st.floats(0, 1)


def finding(probability: float, soon: float = 0.3, immediate: float = 0.8) -> Finding:
    return Finding("opacity", "Opacity", "SCT", "1", probability, 0, 1, "balanced", soon, immediate)


@given(st.lists(probabilities, min_size=1, max_size=5), st.integers(0, 4), st.floats(0, 1))
def test_a_higher_probability_is_never_less_urgent(values: list[float], index: int, more: float) -> None:
    order = [Outcome.ROUTINE, Outcome.SOON, Outcome.IMMEDIATE]
    before = decide([finding(value) for value in values], "model", "2.25.1").outcome
    index %= len(values)
    raised = [max(value, more) if number == index else value for number, value in enumerate(values)]
    after = decide([finding(value) for value in raised], "model", "2.25.1").outcome
    assert order.index(after) >= order.index(before)


@given(probabilities)
def test_a_probability_on_the_threshold_is_above_it(probability: float) -> None:
    assert decide([finding(probability, soon=probability, immediate=1.1)], "", "").outcome is Outcome.SOON


def test_nothing_looked_for_is_never_routine() -> None:
    with pytest.raises(ValueError, match="no findings"):
        decide([], "model", "2.25.1")


@given(st.sampled_from(list(Reason)))
def test_a_refusal_is_an_outcome_with_its_reason(reason: Reason) -> None:
    decision = refuse(Refusal(reason))
    assert decision.outcome is Outcome.COULD_NOT_ASSESS
    assert decision.refusal is not None and decision.refusal.reason is reason
    assert decision.findings == ()
