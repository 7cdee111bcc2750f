"""The figures of a site acceptance, held against scipy and scikit-learn's definitions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from edge.records import Outcome
from edge.validity.accuracy import AT_LEAST, HALF_WIDTH, Judged, Share, accuracy, difference, needed, strata, thresholds
from edge.validity.doubt import doubt

FILMS = st.lists(
    st.builds(
        Judged,
        abnormal=st.booleans(),
        outcome=st.sampled_from(Outcome),
        finding=st.just("opacity"),
        probability=st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.9]),
        sex=st.sampled_from(["F", "M", "O", ""]),
        age_years=st.none() | st.floats(0, 100),
    ),
    max_size=60,
)


@given(st.integers(0, 400), st.integers(1, 400))
def test_the_interval_is_that_of_scipy(count: int, of: int) -> None:
    count = min(count, of)
    oracle = binomtest(count, of).proportion_ci(method="wilson")
    assert Share(count, of).interval == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_a_share_of_nothing_says_nothing() -> None:
    assert Share(0, 0).interval == (0.0, 1.0)
    assert math.isnan(Share(0, 0).value)


@given(FILMS)
def test_every_film_is_counted_once(films: list[Judged]) -> None:
    told = accuracy(films)
    assessed = [film for film in films if film.outcome is not Outcome.COULD_NOT_ASSESS]
    assert told.abstained.count + len(assessed) == told.abstained.of == len(films)
    assert told.sensitivity.of == sum(film.abnormal for film in assessed)
    assert told.sensitivity.of + told.specificity.of == told.ppv.of + told.npv.of == len(assessed)
    assert told.sensitivity.count == told.ppv.count
    assert told.specificity.count == told.npv.count


@given(FILMS)
def test_the_sexes_add_up_to_the_whole(films: list[Judged]) -> None:
    known = [film for film in films if film.sex]
    told, whole = strata(known), accuracy(known)
    for name in ("sensitivity", "specificity", "abstained"):
        parts = [getattr(told[sex], name) for sex in "FMO" if sex in told]
        assert sum(part.count for part in parts) == getattr(whole, name).count
        assert sum(part.of for part in parts) == getattr(whole, name).of


@given(FILMS)
def test_a_higher_threshold_raises_fewer_and_misses_more(films: list[Judged]) -> None:
    told = thresholds(films, "opacity")
    scored = [film for film in films if film.outcome is not Outcome.COULD_NOT_ASSESS]
    assert [one.at for one in told] == sorted({film.probability for film in scored})
    for one in told:
        raised = [film for film in scored if film.probability >= one.at]
        assert one.raised == pytest.approx(100 * len(raised) / len(scored))
        assert one.sensitivity.count == sum(film.abnormal for film in raised)
        assert one.specificity.count == sum(not film.abnormal for film in scored) - sum(
            not film.abnormal for film in raised
        )
        assert one.missed == pytest.approx(100 * (one.sensitivity.of - one.sensitivity.count) / len(scored))
    assert thresholds(films, "nothing that is looked for") == []


@given(FILMS)
def test_the_doubt_is_about_films_between(films: list[Judged]) -> None:
    scored = [film for film in films if film.outcome is not Outcome.COULD_NOT_ASSESS]
    told, kinds = doubt(films, "opacity"), [sum(film.abnormal is kind for film in scored) for kind in (True, False)]
    assert (told is None) is (min(kinds) < 19), "1 / (18 + 1) is more than 5 %: nothing can be ruled out"
    if told is not None:
        between = sum(told.low <= film.probability <= told.high for film in scored)
        assert told.undecided.of == len(scored) >= between >= told.undecided.count
        assert 0.8 < told.least < 0.95


def test_the_doubt_of_films_that_overlap_and_of_such_as_do_not() -> None:
    def films(normal: range, abnormal: range) -> list[Judged]:
        return [
            replace(_film(kind, True), probability=at / 100)
            for kind in (False, True)
            for at in (normal, abnormal)[kind]
        ]

    told = doubt(films(range(40), range(30, 70)), "opacity")
    assert told is not None
    assert (told.low, told.high, told.undecided) == (0.31, 0.38, Share(16, 80))
    assert told.least == pytest.approx(beta(39, 2).ppf(0.025))
    apart = doubt(films(range(40), range(60, 99)), "opacity")
    assert apart is not None
    assert (apart.low, apart.high) == (0.38, 0.61)
    assert apart.undecided.count == 2, "the highest of the normal and the lowest of the abnormal"
    refused = [replace(film, outcome=Outcome.COULD_NOT_ASSESS) for film in films(range(40), range(30, 70))]
    assert doubt(refused, "opacity") is doubt(films(range(40), range(40)), "another") is None


def _film(abnormal: bool, right: bool) -> Judged:
    raised = abnormal is right
    return Judged(abnormal, Outcome.SOON if raised else Outcome.ROUTINE, "opacity", 0.5, "F", 40.0)


def test_ten_films_are_too_few_and_enough_are_enough() -> None:
    ten = [_film(index % 2 == 0, True) for index in range(10)]
    assert needed(ten) >= AT_LEAST - 10
    assert needed([]) >= AT_LEAST
    many = [_film(index % 3 == 0, index % 10 != 0) for index in range(300)]
    assert needed(many) == 0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_what_is_needed_is_enough_if_the_films_go_on_like_this(found: int, missed: int, right: int, false: int) -> None:
    films = (
        [_film(True, True)] * found
        + [_film(True, False)] * missed
        + [_film(False, True)] * right
        + [_film(False, False)] * false
    )
    more = needed(films)
    told = accuracy(films)
    known = [share.interval for share in (told.sensitivity, told.specificity)]
    if more == 0:
        assert len(films) >= AT_LEAST
        assert all(high - low <= 2 * HALF_WIDTH for low, high in known)
    else:
        assert len(films) < AT_LEAST or any(high - low > 2 * HALF_WIDTH for low, high in known)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_the_difference_turns_its_sign_with_its_sides(pairs: list[tuple[bool, bool]]) -> None:
    one, other = difference(pairs), difference((new, old) for old, new in pairs)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.low <= one.value + 1e-9
    assert one.value <= one.high + 1e-9


def test_a_model_that_misses_much_more_is_inferior_and_the_same_is_not() -> None:
    assert difference([(True, True)] * 180 + [(False, False)] * 20).non_inferior
    assert not difference([(True, False)] * 30 + [(True, True)] * 170).non_inferior
    assert not difference([(True, True)] * 10).non_inferior, "ten films cannot rule it out"
