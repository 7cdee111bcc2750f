"""A direction of the bad link on a clock of its own: delay, rate, queue, loss and cuts are as its profile says, to the packet."""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import netem
from edge.errors import Misconfigured
from edge.netem import Direction, Link, Profile

PACKETS = 20_000


def direction(**named: float) -> Direction:
    return Direction(Profile(**named), random.Random(5))  # type: ignore[arg-type]


def through(way: Direction, packets: int, every: float, size: int = 100) -> list[bool]:
    """Whether each of so many packets, one every so many seconds, came out of the other end."""
    arrived = []
    for number in range(packets):
        way.offer(number.to_bytes(4, "big") * (size // 4), number * every)
        arrived += way.due(number * every)
    arrived += way.due(float("inf"))
    came = {int.from_bytes(packet[:4], "big") for packet in arrived}
    return [number in came for number in range(packets)]


def test_a_packet_takes_its_time_on_the_wire_and_the_delay() -> None:
    way = direction(rate=8_000, delay=0.3)
    way.offer(bytes(500), 10.0)
    assert way.next() == pytest.approx(10.8)
    assert way.due(10.79) == []
    assert way.due(10.81) == [bytes(500)]


def test_packets_wait_for_one_another_and_the_queue_drops_its_tail() -> None:
    way = direction(rate=8_000, delay=0, queue=2_000)
    for number in range(10):
        way.offer(bytes([number]) * 500, 0.0)
    # one on the wire and four that wait, half a second each
    assert [packet[0] for packet in way.due(2.4)] == [0, 1, 2, 3]
    assert [packet[0] for packet in way.due(9)] == [4]
    assert way.count.overflowed == 5
    way.offer(bytes(500), 9.0)
    assert way.next() == pytest.approx(9.5)


def test_jitter_keeps_order() -> None:
    way = direction(rate=1e9, delay=0.3, jitter=0.2)
    for number in range(200):
        way.offer(bytes([number]), number * 0.001)
    dues = []
    while (at := way.next()) is not None:
        dues.append(at)
        way.due(at)
    assert dues == sorted(dues)
    assert all(at - number * 0.001 >= 0.3 for number, at in enumerate(dues))
    assert max(dues) < 0.2 + 0.3 + 0.2 + 0.001
    assert len(set(dues)) > 2


def test_losses_that_come_alone() -> None:
    arrived = through(direction(rate=1e9, loss=0.1), PACKETS, 0.001)
    assert arrived.count(False) == pytest.approx(PACKETS * 0.1, abs=4 * (PACKETS * 0.09) ** 0.5)
    lost = [number for number, came in enumerate(arrived) if not came]
    together = sum(second - first == 1 for first, second in pairwise(lost))
    assert together == pytest.approx(len(lost) * 0.1, abs=4 * (len(lost) * 0.09) ** 0.5)


def test_losses_in_bursts_are_as_many_and_come_together() -> None:
    arrived = through(direction(rate=1e9, loss=0.1, burst=5), PACKETS, 0.001)
    assert arrived.count(False) == pytest.approx(PACKETS * 0.1, rel=0.15)
    runs = "".join("1" if came else "0" for came in arrived).split("1")
    bursts = [len(run) for run in runs if run]
    assert sum(bursts) / len(bursts) == pytest.approx(5, rel=0.15)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 500), st.integers(0, 500))
def test_seconds_in_which_the_link_was_up(up: int, down: int, first: int, more: int) -> None:
    profile = Profile(up=up, down=down)
    counted = sum(profile.is_up(second + 0.5) for second in range(first, first + more))
    assert profile.up_seconds(first, first + more) == pytest.approx(counted)


def test_a_link_without_outages_is_always_up() -> None:
    assert Profile().is_up(1e6)
    assert Profile().up_seconds(3, 8) == 5


@given(st.lists(st.tuples(st.integers(1, 1500), st.floats(0, 2), st.booleans()), max_size=60))
def test_every_packet_is_accounted_for(steps: list[tuple[int, float, bool]]) -> None:
    way = direction(rate=16_000, delay=0.5, loss=0.3, queue=3_000)
    at, up = 0.0, True
    for size, later, still_up in steps:
        at += later
        way.due(at)
        if up and not still_up:
            way.cut()
        up = still_up
        way.offer(bytes(size), at, up)
    way.due(float("inf"))
    count = way.count
    assert count.offered == len(steps) == count.delivered + count.lost + count.overflowed + count.cut


def test_a_cut_takes_what_is_under_way() -> None:
    way = direction(rate=8_000, delay=1)
    way.offer(bytes(800), 0.0)
    way.cut()
    way.offer(bytes(800), 0.5, is_up=False)
    assert way.due(float("inf")) == []
    assert way.count.cut == 2


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in netem.missing()
    with pytest.raises(Misconfigured, match="sudo"):
        Link(Profile()).__enter__()
