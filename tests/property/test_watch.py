"""The watch against scipy, against what is known of simulated clinics, and against what must never happen."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from edge.records import Header, Outcome, Reason, Signals
from edge.validity import packet, planning, watch
from edge.validity.cause import Shift, affected, leading, likely
from edge.validity.packet import Packet, Stratum
from edge.validity.planning import Clinic, Rivals
from edge.validity.verdict import Alarm, Cause
from edge.validity.watch import CHARTED, CHARTS, COLUMNS, Charts, Days

EDGES = packet.edges("a bundle")
FIRST = date(2026, 1, 1)


def day(
    number: int,
    films: int = 30,
    seed: int = 0,
    unit: str = "One",
    child: float = 0.1,
    refused: Reason | None = None,
    **shift: float,
) -> Packet:
    """A day of a simulated clinic; some streams may be moved, in spreads of single films."""
    draw = np.random.default_rng([seed, number])
    effect = draw.normal(0, 0.15, 8)
    parts = []
    for _ in range(films):
        values = {
            name: float(draw.normal() + effect[at] + shift.get(name, 0)) for at, name in enumerate(packet.STREAMS)
        }
        logit, place = values.pop("logit"), tuple(float(value) for value in draw.normal(0, 1, packet.AXES))
        bad = refused is not None or draw.random() < 0.03
        outcome = Outcome.COULD_NOT_ASSESS if bad else (Outcome.SOON if logit > 1 else Outcome.ROUTINE)
        tally = packet.of_film(
            outcome,
            (refused or Reason.ROTATED) if bad else None,
            None if bad else logit,
            Signals(**values, place=place),
        )
        header = Header(Manufacturer=unit, ViewPosition="PA" if draw.random() < 0.7 else "AP")
        parts.append((packet.stratum(header, 3.0 if draw.random() < child else 40.0), tally))
    merged = [Packet(EDGES, FIRST + timedelta(number), packet.placed(key, tally)) for key, tally in parts]
    return packet.merge(merged)


usual = lru_cache(maxsize=None)(lambda number, seed: day(number, seed=seed))


def history(days: int, seed: int = 0) -> list[Packet]:
    return [usual(number, seed) for number in range(days)]


def test_the_reference_is_that_of_the_analysis_of_variance() -> None:
    """With as many films every day, the sums of squares are those of scipy's one-way analysis."""
    draw = np.random.default_rng(4)
    values = draw.normal(0, 1, (60, 30, 1)) + draw.normal(0, 0.4, (60, 1, 1))
    values = np.repeat(values, len(COLUMNS) + packet.AXES, 2)
    mean = values.mean(1)
    told = watch.reference(Days(np.full(mean.shape, 30.0), mean, np.square(values - mean[:, None]).sum(1)))
    rows = values[:, :, 0]
    f = stats.f_oneway(*rows).statistic
    assert told.mean[0] == pytest.approx(rows.mean())
    assert told.variance[0] == pytest.approx(rows.var(1, ddof=1).mean())
    assert (told.effect[0] * 30 + told.variance[0]) / told.variance[0] == pytest.approx(f)
    standard = told.standard(np.full(mean.shape, 30.0), mean)
    assert standard[:, 0] == pytest.approx((rows.mean(1) - rows.mean()) / rows.mean(1).std(ddof=1))


def test_the_cusum_is_that_of_the_textbook() -> None:
    """Page's recursion equals the largest sum of what exceeds the slack over any stretch that ends today."""
    draw = np.random.default_rng(1)
    z = draw.normal(0.3, 1.5, (40, len(COLUMNS) + packet.AXES))
    charts = Charts()
    stood = [charts.step(row) for row in z]
    for today in range(40):
        for sign in (1, -1):
            best = max(0, *((sign * z[start : today + 1, 0] - watch.SLACK).sum() for start in range(today + 1)))
            if best >= stood[today][0] - 1e-9:
                assert best == pytest.approx(stood[today][0])
                break
        else:
            pytest.fail("neither side is what the chart says")


def test_the_ewma_settles_to_chi_squared() -> None:
    draw = np.random.default_rng(2)
    charts = Charts((2000,))
    for _ in range(40):
        height = charts.step(draw.standard_normal((2000, len(COLUMNS) + packet.AXES)))[:, CHARTS.index(watch.PLACE)]
    assert stats.kstest(height, stats.chi2(packet.AXES).cdf).pvalue > 0.001
    assert stats.kstest(height, stats.chi2(packet.AXES - 2).cdf).pvalue < 0.001


def test_the_distances_of_the_rivals_are_scipys() -> None:
    draw = np.random.default_rng(3)
    history, since = draw.uniform(-4, 4, (90, 40, 1)), draw.triangular(-4, 1, 4, (30, 40, 1))
    old, new = planning.binned(history).mean(0), planning.binned(since).mean(0)
    bins = [np.searchsorted(planning.INNER, values.ravel()) for values in (history, since)]
    assert planning.ks(old, new)[0] == pytest.approx(stats.ks_2samp(*bins).statistic)
    entropy = stats.entropy(new[0], old[0]) + stats.entropy(old[0], new[0])
    assert planning.psi(old, new)[0] == pytest.approx(entropy, rel=0.02)  # Jeffreys' divergence


def test_the_third_rival_is_the_discrepancy_of_a_gaussian_kernel() -> None:
    """Random features come near to what scipy's distances say of all pairs (biased estimate, Gretton 2012, equation 5)."""
    old, new = (
        planning.films(np.random.default_rng(seed), Clinic(effect=0), 40, shift)[1].reshape(1, -1, len(watch.MAIN))
        for seed, shift in ((6, 0.0), (7, 1.5))
    )
    pairs = [(old, old), (new, new), (old, new)]
    kernels = [np.exp(-cdist(one[0], other[0], "sqeuclidean") / 2 / len(watch.MAIN)).mean() for one, other in pairs]
    told = []
    for seed in range(20):
        rivals = Rivals(Clinic(), seed, 1)
        told.append(np.square(rivals._seen(old)[1] - rivals._seen(new)[1]).sum())
    assert np.mean(told) == pytest.approx(kernels[0] + kernels[1] - 2 * kernels[2], rel=0.1)


def test_limits_let_the_years_pass_that_they_promise() -> None:
    """A site's own double bootstrap against fresh sites: e^-1 of the years are quiet, as far as 50 years can tell."""
    years = list(planning.quiet_years(Clinic(history=120), iter(range(50))))
    quiet = sum(not one for one in years)
    low, high = stats.binom(50, math.exp(-1)).ppf([0.001, 0.999])
    assert low <= quiet <= high
    assert 0.6 <= np.mean(years) <= 1.6


def test_days_that_are_uneven_give_wider_limits() -> None:
    """Were days taken for even, as a test of single films takes them, such a site would have alarms all the time."""
    draw = np.random.default_rng(5)
    uneven, _ = planning.films(draw, Clinic(effect=0.4), 90)
    usual = watch.reference(uneven)
    assert np.median(usual.effect[: len(watch.MAIN)]) == pytest.approx(0.16, rel=0.4)
    naive = (uneven.mean[:, 0] - usual.mean[0]) / np.sqrt(usual.variance[0] / 30)
    assert naive.std() > 1.8
    assert usual.standard(uneven.n, uneven.mean)[:, 0].std() == pytest.approx(1, abs=0.1)


def test_too_few_is_said_with_what_is_needed() -> None:
    told = watch.look(history(12))
    assert (told.days, told.films, told.more_days, told.more_films, told.alarm) == (12, 360, 18, 0, None)
    told = watch.look([day(number, films=3) for number in range(40)])
    assert (told.more_days, told.more_films) == (0, 180)
    assert watch.look([]).more_days == watch.SIZES[0]


def test_the_same_days_say_the_same() -> None:
    days = [*history(45), *(day(number, noise=1.5) for number in range(45, 50))]
    assert watch.look(days) == watch.look(list(days))


def test_the_box_alarms_on_the_day_on_which_a_chart_crosses_its_limit() -> None:
    packets = [*history(45, 5), *(day(number, seed=5, contrast=0.4) for number in range(45, 60))]
    days = watch.days_of(packets)
    learnt, most = watch._usual(packets, days, watch.SIZES[0])
    charts, heights = Charts(), []
    for standard in learnt.standard(days.n, days.mean)[watch.SIZES[0] :]:
        heights.append(charts.step(standard) / most)
        if (heights[-1] > 1).any():
            break
    at = watch.SIZES[0] + len(heights) - 1
    assert at > 46, "it takes days, so that another limit is another day"
    before, told = watch.look(packets[:at]), watch.look(packets[: at + 1])
    assert before.alarm is None
    assert [chart.height for chart in before.charts] == pytest.approx(heights[-2], abs=5e-4)
    assert told.alarm is not None
    assert told.alarm.found == packets[at].day
    assert told.alarm.charts == tuple(name for name, height in zip(CHARTS, heights[-1], strict=True) if height > 1)


def test_an_alarm_says_since_when_and_ends_when_it_is_quiet_again() -> None:
    days = [*history(45, 3), *(day(number, seed=3, level=1.5, saturation=1.2) for number in range(45, 51))]
    told = watch.look(days)
    assert told.alarm is not None
    assert told.alarm.since == FIRST + timedelta(45)
    assert told.alarm.found <= FIRST + timedelta(47)
    assert told.alarm.cause is Cause.EXPOSURE
    again = watch.look([*days, *(usual(number, 3) for number in range(51, 75))])
    assert again.alarm is None
    assert again.alarms[0].found == told.alarm.found
    assert again.alarms[0].ended is not None


def test_an_alarm_that_stands_takes_the_cause_that_later_films_tell() -> None:
    days = [*history(45, 3), *(day(number, seed=3, logit=1.2) for number in range(45, 48))]
    assert watch.look(days).alarms[-1].cause is Cause.PREVALENCE
    days += [day(number, seed=3, logit=1.2, noise=2.5, sharpness=1.0) for number in range(48, 54)]
    (alarm,) = watch.look(days).alarms
    assert alarm.cause is Cause.DETECTOR
    assert {"logit", "noise"} <= {*alarm.charts}


def test_films_that_have_changed_do_not_become_what_is_usual_by_lasting() -> None:
    lasting = [*history(45, 3), *(day(number, seed=3, level=1.5) for number in range(45, 80))]
    assert len(lasting) > watch.SIZES[1] + watch.QUIET, "else limits are made anew from so many days"
    told, days = watch.look(lasting), watch.days_of(lasting)
    assert told.alarm is not None
    assert told.alarm.since == FIRST + timedelta(45)
    at_first = watch.reference(days[: watch.SIZES[0]]).standard(days.n[-1], days.mean[-1])
    level = CHARTS.index("level")
    assert told.charts[level].days[-1] == pytest.approx(at_first[level], abs=0.006)


def test_what_further_films_tell_of_an_alarm_that_stands() -> None:
    stands = Alarm(FIRST, FIRST, ("noise",), Cause.DETECTOR, ("0a",), (), ())
    further = Alarm(FIRST + timedelta(9), FIRST + timedelta(8), ("place", "logit"), Cause.UNCLEAR, (), ("AP",), ())
    assert watch._also(stands, further) == stands
    told = watch._also(stands, replace(further, cause=Cause.MODEL))
    assert told == Alarm(FIRST, FIRST, ("logit", "noise", "place"), Cause.MODEL, (), ("AP",), ())


@pytest.mark.parametrize("seed", [6, 7])
def test_a_few_odd_films_at_last_do_not_rename_the_cause_of_an_alarm(seed: int) -> None:
    """Days on which noise happens to be off by three errors, after many on which only what the model sees was."""
    days = history(40, seed) + [day(number, seed=seed, sharpness=0.6, distance=0.5) for number in range(40, 52)]
    assert [alarm.cause for alarm in watch.look(days).alarms] == [Cause.MODEL]


SEEDS = 12
CASES: dict[Cause, dict[str, object]] = {
    Cause.POLARITY: {"refused": Reason.WRONG_POLARITY, "level": -1.0, "border": 1.2, "distance": 5.0},
    Cause.DETECTOR: {"noise": 2.0, "contrast": -1.5, "sharpness": 1.0, "distance": 0.6},
    Cause.POPULATION: {"child": 0.8, "sharpness": 1.0, "distance": -0.8, "border": -0.5},
    Cause.EXPOSURE: {"level": 1.4, "saturation": 1.6, "border": 0.9},
    Cause.MODEL: {"sharpness": 0.7, "distance": 0.6},
    Cause.PREVALENCE: {"logit": 1.0},
}


@pytest.mark.parametrize("cause", CASES)
def test_the_cause_is_named_in_nine_of_ten(cause: Cause) -> None:
    right = 0
    for seed in range(SEEDS):
        days = history(40, seed) + [day(number, seed=seed, **CASES[cause]) for number in range(40, 47)]  # type: ignore[arg-type]
        alarms = [alarm for alarm in watch.look(days).alarms if alarm.found >= FIRST + timedelta(40)]
        right += bool(alarms) and alarms[0].cause is cause
    assert right >= 0.9 * SEEDS, f"{right} of {SEEDS}"


def test_a_new_x_ray_unit_is_named_with_the_films_it_makes() -> None:
    old = history(40)
    both = [
        packet.merge([day(number, films=18), day(number, films=12, seed=9, unit="Other", noise=2.5, sharpness=1.5)])
        for number in range(40, 48)
    ]
    alarm = watch.look([*old, *both]).alarms[0]
    assert alarm.cause is Cause.DETECTOR
    assert alarm.devices == (packet.stratum(Header(Manufacturer="Other"), None).device,)
    assert alarm.views == ()


@pytest.mark.parametrize(("before", "cause"), [(15, Cause.EXPOSURE), (1, Cause.EXPOSURE), (0, Cause.DETECTOR)])
def test_only_a_unit_that_was_not_there_is_a_new_one(before: int, cause: Cause) -> None:
    """One that takes more of the films than it did explains nothing by itself."""

    def mixed(other: int) -> Packet:
        return packet.merge(
            [day(0, films=30 - other), day(0, films=other, seed=9, unit="Other")] if other else [day(0)]
        )

    moved = {name: Shift(0.0, 0.0) for name in COLUMNS} | {"level": Shift(1.5, 9.0)}
    assert likely(moved, mixed(before), mixed(24)) is cause


def test_affected_is_what_moved_by_more_than_half_of_the_most() -> None:
    def mixed(seed: int, *noise: float) -> Packet:
        return packet.merge(
            [
                day(0, 100, seed + at, unit=name, noise=moved)
                for at, (name, moved) in enumerate(zip("ABC", noise, strict=True))
            ]
        )

    units = [packet.stratum(Header(Manufacturer=name), None).device for name in "ABC"]
    before = mixed(0, 0, 0, 0)
    assert affected(before, mixed(3, 2.0, 0.7, 0.0), "noise", "device") == (units[0],)
    assert affected(before, mixed(3, 2.0, 1.5, 0.0), "noise", "device") == tuple(sorted(units[:2]))
    assert affected(before, mixed(3, 2.0, 1.8, 1.9), "noise", "device") == (), "all of them: it is about none by itself"


def test_nothing_that_moved_leads_to_no_cause() -> None:
    quiet = {name: Shift(0.0, 0.0) for name in COLUMNS}
    empty = Packet(EDGES, FIRST, {Stratum("0a", "PA", "18-40"): (0,) * packet.LENGTH})
    assert likely(quiet, empty, empty) is Cause.UNCLEAR
    assert leading({**quiet, "noise": Shift(1.0, -9.0)}) == "noise"


def test_a_day_without_a_film_moves_nothing() -> None:
    usual = watch.reference(watch.days_of(history(30)))
    assert not usual.standard(np.zeros(len(usual.mean)), np.zeros(len(usual.mean))).any()
    assert len(Charts().step(np.zeros(len(COLUMNS) + packet.AXES))) == len(CHARTS) == CHARTED + 1
