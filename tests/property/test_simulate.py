"""The queue simulator against queueing theory, and what no order may do."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.records import Outcome, Waiting
from edge.stages.decide import rank
from edge.validity.simulate import Clinic, Visit, cobham, describe, replay, summary

NEVER = timedelta(days=3650)


def with_ai(waiting: list[Waiting], at: datetime) -> list[Waiting]:
    return rank(waiting, at, NEVER, ranking=True)


def without(waiting: list[Waiting], at: datetime) -> list[Waiting]:
    return rank(waiting, at, NEVER, ranking=False)


VISITS = st.lists(
    st.builds(
        Visit,
        arrival=st.floats(0, 600),
        reading=st.floats(0.1, 30),
        abnormal=st.booleans(),
        outcome=st.sampled_from(Outcome),
    ),
    min_size=1,
    max_size=40,
).map(lambda visits: sorted(visits, key=lambda visit: visit.arrival))


@given(VISITS, st.integers(1, 3))
def test_no_order_makes_or_loses_work(visits: list[Visit], readers: int) -> None:
    first, ranked = replay(visits, without, readers), replay(visits, with_ai, readers)
    assert all(wait >= 0 for wait in [*first, *ranked])
    begun = [visit.arrival + wait for visit, wait in zip(visits, first, strict=True)]
    assert begun == sorted(begun), "without the AI films are read as they came"
    if readers == 1:
        busy = sum(visit.reading for visit in visits)
        assert max(begun) <= visits[-1].arrival + busy


@given(VISITS)
def test_films_of_one_outcome_keep_their_order(visits: list[Visit]) -> None:
    waits = replay(visits, with_ai)
    for outcome in Outcome:
        begun = [visit.arrival + wait for visit, wait in zip(visits, waits, strict=True) if visit.outcome is outcome]
        assert begun == sorted(begun)


def test_the_waits_are_those_of_cobhams_formula() -> None:
    clinic = Clinic(films_per_day=128, hours=8, minutes_per_film=3, abnormal=0.2, sensitivity=0.9, specificity=0.9)
    visits = describe(clinic, days=400, seed=7)
    told = summary(visits, replay(visits, with_ai))
    rate = clinic.films_per_day / (clinic.hours * 60)
    raised = clinic.abnormal * clinic.sensitivity + (1 - clinic.abnormal) * (1 - clinic.specificity)
    shares = (raised * clinic.immediate, raised * (1 - clinic.immediate), 1 - raised)
    expected = cobham([rate * share for share in shares], 3, 2 * 3**2)
    for outcome, mean in zip((Outcome.IMMEDIATE, Outcome.SOON, Outcome.ROUTINE), expected, strict=True):
        assert told[outcome].mean == pytest.approx(mean, rel=0.12)
    unranked = summary(visits, replay(visits, without))
    assert unranked["all"].mean == pytest.approx(cobham([rate], 3, 2 * 3**2)[0], rel=0.12)
    # the work is the same, so what some gain others pay (Kleinrock's conservation law)
    assert told["all"].mean == pytest.approx(unranked["all"].mean, rel=0.02)
    assert told["abnormal"].mean < 0.6 * unranked["abnormal"].mean
    assert told["normal"].longest >= unranked["normal"].longest


def test_a_cap_bounds_what_the_ai_costs() -> None:
    visits = describe(Clinic(films_per_day=150), days=60, seed=3)

    def capped(waiting: list[Waiting], at: datetime) -> list[Waiting]:
        return rank(waiting, at, timedelta(minutes=45), ranking=True)

    longest = {
        name: summary(visits, replay(visits, order))["all"].longest
        for name, order in (("first", without), ("ranked", with_ai), ("capped", capped))
    }
    assert longest["first"] <= longest["capped"] < longest["ranked"]


def test_the_same_seed_is_the_same_clinic_and_more_films_than_can_be_read_is_said() -> None:
    clinic = Clinic(films_per_day=30)
    assert describe(clinic, 5, 1) == describe(clinic, 5, 1) != describe(clinic, 5, 2)
    with pytest.raises(ValueError, match="more films come"):
        cobham([1.0], 2.0, 8.0)
    assert math.isnan(summary([], [])["all"].mean)
