"""The likely cause of a drift, from which streams moved and how; a short list of rules, the first that applies.

| what is seen | cause |
| --- | --- |
| many more films refused for their polarity | polarity |
| a kind of X-ray unit that was hardly seen before | detector |
| other ages or views than before, and films of the same age and view look as before, or there are few such | population |
| sharpness or distance moved as the model sees films, and the films' own noise, brightness and contrast did not | model |
| the logit moved and the films look as before | prevalence |
| brightness (level, border, saturation) moved most | exposure |
| noise, contrast or sharpness moved most | detector |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edge.records import Reason
from edge.validity import packet
from edge.validity.accuracy import AGE_BANDS
from edge.validity.packet import ALL, Packet, Stratum
from edge.validity.verdict import Cause

Group = TypeVar("Group")

CHILDREN = frozenset(f"{low}-{high}" for low, high in AGE_BANDS if high <= 18)

MUCH = 0.25
"""A share of films that has changed by so much explains the rest."""
SURE = 3.0
"""A stream has moved when its mean is so many standard errors off."""
LARGE = 0.8
"""So many spreads among films of the same age and view are no matter of who comes."""
CLEAR = 0.2
"""A movement of fewer spreads than this is no explanation."""
FEW = 5
"""A group of fewer films tells nothing."""

BRIGHTNESS = ("level", "border", "saturation")
TEXTURE = ("noise", "contrast", "sharpness")
OF_THE_FILM = ("level", "border", "saturation", "noise", "contrast")
SEEN = ("sharpness", "distance")


@dataclass(frozen=True)
class Shift:
    """By how much a stream has moved."""

    size: float
    """In spreads of single films."""
    surely: float
    """In standard errors."""

    @property
    def moved(self) -> bool:
        """Whether this is more than chance."""
        return abs(self.surely) > SURE and abs(self.size) > CLEAR


def likely(shifts: Mapping[str, Shift], before: Packet, after: Packet) -> Cause:
    """The likely cause of what has moved between the days of the reference and those since."""
    if _share(after, Reason.WRONG_POLARITY) - _share(before, Reason.WRONG_POLARITY) >= MUCH:
        return Cause.POLARITY
    devices = _mix(before, "device"), _mix(after, "device")
    if sum(share for device, share in devices[1].items() if devices[0].get(device, 0) < 0.02) >= MUCH:
        return Cause.DETECTOR
    moved, size = (
        {stream for stream in packet.STREAMS if shifts[stream].moved},
        {stream: shifts[stream].size for stream in packet.STREAMS},
    )
    if max(_apart(_mix(before, what), _mix(after, what)) for what in ("ages", "view")) >= MUCH:
        size = {stream: _alike(before, after, stream) for stream in packet.STREAMS}
        moved = {stream for stream in packet.STREAMS if abs(size[stream]) >= LARGE}
        if not moved & {*OF_THE_FILM}:
            return Cause.POPULATION
    if not moved & {*OF_THE_FILM}:
        if moved & {*SEEN}:
            return Cause.MODEL
        return Cause.PREVALENCE if "logit" in moved or shifts["raised"].moved else Cause.UNCLEAR
    most = max((*BRIGHTNESS, *TEXTURE), key=lambda stream: abs(size[stream]))
    return Cause.EXPOSURE if most in BRIGHTNESS else Cause.DETECTOR


def _alike(before: Packet, after: Packet, stream: str) -> float:
    """By how many spreads a stream has moved among films of the same age and view; 0 where fewer than half have any alike."""
    was, now = (_sums(one, stream, lambda key: (key.view, key.ages)) for one in (before, after))
    held = {key: n for key, (n, _) in now.items() if n >= FEW and was.get(key, (0, 0.0))[0] >= FEW}
    films, all_films = sum(held.values()), sum(n for n, _ in now.values())
    if not films or films < all_films / 2:
        return 0.0
    by = sum(held[key] * (now[key][1] / now[key][0] - was[key][1] / was[key][0]) for key in held) / films
    n, total, squares = packet.moments(before.whole, stream)
    return by / max(math.sqrt(max(squares / n - (total / n) ** 2, 0)), 1 / packet.STEP)


def leading(shifts: Mapping[str, Shift]) -> str:
    """The measured stream that has moved most surely."""
    return max(packet.STREAMS, key=lambda stream: abs(shifts[stream].surely))


def affected(before: Packet, after: Packet, stream: str, what: str) -> tuple[str, ...]:
    """Which X-ray units (`device`), views (`view`) or ages (`ages`) a stream has moved in; empty where in all, or where none tells.

    A group is affected where it has moved by more than half of what the most moved group has; one that was not there before is
    held against all films.
    """
    was, now = _groups(before, stream, what), _groups(after, stream, what)
    n, total, _ = packet.moments(before.whole, stream)
    usual = {name: mean for name, (films, mean) in was.items() if films >= FEW}
    gone = {name: abs(mean - usual.get(name, total / max(n, 1))) for name, (films, mean) in now.items() if films >= FEW}
    most = max(gone.values(), default=0.0)
    found = tuple(sorted(name for name, by in gone.items() if by > most / 2))
    return found if len(found) < len(gone) else ()


def _groups(one: Packet, stream: str, what: str) -> dict[str, tuple[int, float]]:
    return {name: (n, total / n) for name, (n, total) in _sums(one, stream, lambda key: getattr(key, what)).items()}


def _sums(one: Packet, stream: str, group: Callable[[Stratum], Group]) -> dict[Group, tuple[int, float]]:
    """By group, how many films a stream was measured on, and its sum."""
    found: dict[Group, tuple[int, float]] = {}
    for key, tally in one.strata.items():
        n, total, _ = packet.moments(tally, stream)
        if n:
            of, sum_ = found.get(group(key), (0, 0.0))
            found[group(key)] = of + n, sum_ + total
    return found


def _share(one: Packet, name: str) -> float:
    return packet.count(one.whole, name) / max(packet.count(one.whole, "films"), 1)


def _mix(one: Packet, what: str) -> dict[str, float]:
    films = Counter[str]()
    for key, tally in one.strata.items():
        if key.view != ALL:
            films[getattr(key, what)] += packet.count(tally, "films")
    return {name: count / max(films.total(), 1) for name, count in films.items()}


def _apart(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Total variation: the share of films that would have to be others for the two to be alike."""
    return sum(abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other}) / 2
