"""Packets of sites add up to those of all films together, and of many sites few are named without cause."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edge.records import Header, Outcome, Signals
from edge.validity import packet, pooling
from edge.validity.packet import Packet
from edge.validity.verdict import Cause
from tests.property.test_watch import CASES, EDGES, day

FIRST = date(2026, 1, 1)
NUMBERS = st.floats(-5, 5, allow_nan=False)


def film(seed: int) -> Packet:
    """A film of its own as the packet of a day on which nothing else came."""
    draw = random.Random(seed)
    signals = Signals(*(draw.gauss(0, 1) for _ in packet.STREAMS[1:]), place=tuple(draw.gauss(0, 1) for _ in range(8)))
    tally = packet.of_film(draw.choice([Outcome.SOON, Outcome.ROUTINE]), None, draw.gauss(0, 1), signals)
    header = Header(Manufacturer=draw.choice("AB"), ViewPosition=draw.choice(["PA", "AP"]))
    key = packet.stratum(header, draw.choice([3.0, 40.0]))
    return Packet(EDGES, FIRST + timedelta(draw.randrange(3)), packet.placed(key, tally))


@settings(max_examples=40)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=25), choice=st.randoms(), sites=st.integers(1, 6))
def test_any_split_over_sites_in_any_order_adds_up_to_the_same_bits(
    seeds: list[int], choice: random.Random, sites: int
) -> None:
    films = [film(seed) for seed in seeds]
    whole = [packet.encode(one) for one in pooling.by_day(films)]
    split: list[list[Packet]] = [[] for _ in range(sites)]
    for one in films:
        choice.choice(split).append(one)
    sent = [packet.decode(packet.encode(one)) for some in split for one in pooling.by_day(some)]
    choice.shuffle(sent)
    assert [packet.encode(one) for one in pooling.by_day(sent)] == whole
    units = pooling.by_unit(sent)
    for (_, device), some in units.items():
        alone = [one for one in films if {key.device for key in one.strata} == {device}]
        assert list(map(packet.encode, pooling.by_day(some))) == list(map(packet.encode, pooling.by_day(alone)))


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(st.lists(NUMBERS, min_size=2, max_size=40), st.lists(NUMBERS, min_size=2, max_size=20))
def test_the_evidence_is_scipys_ratio_of_t_densities(before: list[float], after: list[float]) -> None:
    if np.std(before) + np.std(after) < 1e-3:
        return
    t, free = stats.ttest_ind(after, before).statistic, len(before) + len(after) - 2
    wider = math.sqrt(1 + pooling.PRIOR * len(before) * len(after) / (len(before) + len(after)))
    ratio = stats.t(free).pdf(t / wider) / wider / stats.t(free).pdf(t)
    assert pooling.evidence(before, after) == pytest.approx(ratio, rel=1e-6)


def test_nobody_wins_on_average_where_nothing_changes() -> None:
    draw = np.random.default_rng(1)
    won = [pooling.evidence(*np.split(draw.normal(3, 2, 44), [30])) for _ in range(20_000)]
    assert np.mean(won) < 1.15
    assert np.mean(np.array(won) > 20) <= 0.05  # Ville, or Markov


@given(st.dictionaries(st.integers(), st.floats(0, 1e6) | st.integers(0, 60), max_size=30), st.floats(0.01, 0.5))
def test_named_is_the_largest_set_that_the_procedure_allows(found: dict[int, float], wrongly: float) -> None:
    chosen = pooling.named(found, wrongly)
    if chosen:
        assert min(found[name] for name in chosen) * wrongly * len(chosen) >= len(found)
        assert all(found[name] <= min(found[one] for one in chosen) for name in found if name not in chosen)
    for size in range(len(chosen) + 1, len(found) + 1):
        assert sorted(found.values(), reverse=True)[size - 1] * wrongly * size < len(found)


def test_few_are_named_without_cause_also_where_sites_hang_together() -> None:
    """Of 200 programmes of 40 sites, with eight that changed, and a weather that all share."""
    draw, shares, missed = np.random.default_rng(2), [], 0
    for _ in range(200):
        weather = draw.normal(0, 0.5, 44)
        moved = {site: 2.0 if site < 8 else 0.0 for site in range(40)}
        found = {}
        for site, shift in moved.items():
            days = draw.normal(0, 1, 44) + weather
            days[30:] += shift
            found[site] = pooling.evidence(days[:30], days[30:])
        chosen = pooling.named(found)
        shares.append(sum(not moved[site] for site in chosen) / max(len(chosen), 1))
        missed += 8 - sum(site < 8 for site in chosen)
    assert np.mean(shares) <= 0.1
    assert missed <= 0.1 * 8 * 200


def test_a_site_with_too_few_days_is_not_judged() -> None:
    assert pooling.change([day(number) for number in range(pooling.LEAST + pooling.RECENT - 1)]) is None


@pytest.mark.parametrize("cause", [Cause.DETECTOR, Cause.EXPOSURE, Cause.POPULATION])
def test_a_change_is_found_over_sites_and_its_cause_named(cause: Cause) -> None:
    first, last = pooling.LEAST, pooling.LEAST + pooling.RECENT
    usual = [day(number) for number in range(last)]
    moved = [*usual[:first], *(day(number, **CASES[cause]) for number in range(first, last))]  # type: ignore[arg-type]
    found = {name: pooling.change(days) for name, days in (("usual", usual), ("moved", moved))}
    known = {name: value for name, value in found.items() if value is not None}
    assert pooling.named(known) == {"moved"}
    assert pooling.likely(moved) is cause
