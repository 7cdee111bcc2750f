"""Day packets: any split of the films, added in any order, makes the same bytes; garbage is refused; thirty films stay small."""

from __future__ import annotations

import random
import zlib
from datetime import date
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Unreadable
from edge.records import Header, Outcome, Reason, Signals
from edge.validity import packet
from edge.validity.packet import Packet, Stratum, Tally

EDGES = packet.edges("a bundle")
DAY = date(2026, 3, 1)

values = st.floats(-40, 40) | st.just(float("nan"))
signals = st.builds(
    Signals, *[values] * 7, place=st.lists(values, min_size=packet.AXES, max_size=packet.AXES).map(tuple)
)
strata = st.builds(
    Stratum, st.sampled_from(["", "0a1b2c3d"]), st.sampled_from(["PA", "AP", ""]), st.sampled_from(["0-5", "18-40"])
)
tallies = st.builds(
    packet.of_film, st.sampled_from(Outcome), st.none() | st.sampled_from(Reason), st.none() | values,
    st.none() | signals,
) | st.builds(packet.of_read, st.booleans())  # fmt: skip
films = st.lists(st.tuples(strata, tallies), max_size=12)


def made(of: list[tuple[Stratum, Tally]]) -> Packet:
    single = [Packet(EDGES, DAY, packet.placed(key, tally)) for key, tally in of]
    return packet.merge([Packet(EDGES, DAY, {}), *single])


@given(films, st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_split_in_any_order_makes_the_same_bytes(
    of: list[tuple[Stratum, Tally]], draw: random.Random, parts: int
) -> None:
    pooled = packet.encode(made(of))
    shuffled = draw.sample(of, len(of))
    split = [packet.decode(packet.encode(made(shuffled[part::parts]))) for part in range(parts)]
    assert packet.encode(packet.merge(draw.sample(split, parts))) == pooled
    assert packet.decode(pooled) == made(of)


@given(films)
def test_what_was_added_can_be_taken_back(of: list[tuple[Stratum, Tally]]) -> None:
    assert packet.add([*(tally for _, tally in of), *(packet.less(tally) for _, tally in of)]) == (0,) * packet.LENGTH


def drawn(seed: int, films: int = 30) -> list[tuple[Stratum, Tally, Signals]]:
    """A day of a clinic with two X-ray units, both views, children and adults."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(films):
        told = Signals(*map(float, draw.normal(0, 1, 7)), place=tuple(map(float, draw.normal(0, 1, packet.AXES))))
        header = Header(
            Manufacturer=str(draw.choice(["One", "Other"], p=[0.8, 0.2])), ViewPosition=str(draw.choice(["PA", "AP"]))
        )
        age = float(draw.choice([3, 30, 50]))
        outcome = Outcome(draw.choice([Outcome.ROUTINE, Outcome.SOON, Outcome.COULD_NOT_ASSESS], p=[0.7, 0.2, 0.1]))
        refused = outcome is Outcome.COULD_NOT_ASSESS
        logit = None if refused else float(draw.normal())
        tally = packet.of_film(outcome, Reason.ROTATED if refused else None, logit, told)
        found.append((packet.stratum(header, age), tally, told))
    return found


def test_a_day_of_thirty_films_is_small() -> None:
    sizes = [len(packet.encode(made([(key, tally) for key, tally, _ in drawn(seed)]))) for seed in range(20)]
    assert max(sizes) <= 1000, sizes
    assert min(sizes) > 200, "nothing is in it"


def test_the_sums_are_those_of_the_films() -> None:
    day = drawn(3, 200)
    whole = made([(key, tally) for key, tally, _ in day]).whole
    levels = np.array([told.level for _, _, told in day])
    n, total, squares = packet.moments(whole, "level")
    assert n == packet.count(whole, "films") == 200
    assert total / n == pytest.approx(levels.mean(), abs=1 / packet.STEP)
    assert squares / n - (total / n) ** 2 == pytest.approx(levels.var(), rel=0.05)
    edges = np.r_[-np.inf, np.arange(-3.5, 4, 0.5), np.inf]
    rounded = np.array([float(Fraction(round(value * packet.STEP), packet.STEP)) for value in levels])
    assert packet.histogram(whole, "level") == tuple(np.histogram(rounded, edges)[0])
    count, totals, products = packet.axes(whole)
    places = np.array([told.place for _, _, told in day])
    assert count == 200
    assert np.array(totals) == pytest.approx(places.sum(0), abs=200 / packet.STEP)
    assert np.array(products) == pytest.approx(places.T @ places, abs=12)


def test_a_film_that_is_assessed_again_is_counted_once() -> None:
    told = drawn(1, 1)[0][2]
    first = packet.of_film(Outcome.COULD_NOT_ASSESS, Reason.AGE_UNKNOWN, None, told)
    whole = packet.add([first, packet.of_film(Outcome.SOON, None, 0.5, told, again=True)])
    assert packet.count(whole, "films") == packet.moments(whole, "level")[0] == packet.moments(whole, "logit")[0] == 1


def test_other_edges_are_never_added() -> None:
    with pytest.raises(Unreadable, match="different models"):
        packet.merge([Packet(EDGES, DAY, {}), Packet(packet.edges("another"), DAY, {})])


@given(st.binary(max_size=80))
def test_garbage_is_refused(data: bytes) -> None:
    for written in (data, zlib.compress(data), zlib.compress(packet.MAGIC + data)):
        try:
            found = packet.decode(written)
        except Unreadable:
            continue
        assert packet.decode(packet.encode(found)) == found  # by chance it was one


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_packet_with_one_byte_changed_is_refused_or_another_possible_one(at: int, by: int) -> None:
    plain = bytearray(zlib.decompress(packet.encode(made([(key, tally) for key, tally, _ in drawn(2, 5)]))))
    plain[at % len(plain)] ^= by
    try:
        found = packet.decode(zlib.compress(bytes(plain)))
    except Unreadable:
        return
    assert zlib.decompress(packet.encode(found)) == bytes(plain)


def test_sums_that_no_films_can_have_are_refused() -> None:
    key, tally, _ = drawn(4, 1)[0]
    assert packet.decode(packet.encode(Packet(EDGES, DAY, packet.placed(key, tally))))
    overridden = packet.COUNTS.index("overridden")
    for place in (
        0,
        packet.LENGTH - 1,
        len(packet.COUNTS),
        len(packet.COUNTS) + 2,
        len(packet.COUNTS) + 30,
        overridden,
    ):
        wrong = list(tally)
        wrong[place] += 1 if place == overridden else -1000
        with pytest.raises(Unreadable):
            packet.decode(packet.encode(Packet(EDGES, DAY, packet.placed(key, tuple(wrong)))))


def test_a_flood_is_refused() -> None:
    with pytest.raises(Unreadable):
        packet.decode(zlib.compress(packet.MAGIC + bytes(10_000_000)))
