"""The day packet: what a day's films looked like, in whole numbers only, so that packets add up exactly in any order.

For each stratum (X-ray unit, view, age band): counts, and the sums from which means and variances are made; for each X-ray unit
also fixed-edge histograms, and the products from which covariances are made. Nothing of it is a person's; a day of 30 films is
under 1,000 bytes. Its edges hold for one bundle only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import combinations_with_replacement

from edge.errors import Unreadable
from edge.records import Header, Outcome, Reason, Signals
from edge.validity.accuracy import AGE_BANDS

STREAMS = ("logit", "level", "contrast", "sharpness", "noise", "border", "saturation", "distance")
"""What is measured of each film; see `models/signals.py`. The logit is of the films that were assessed only."""
AXES = 8
COUNTS = ("films", *Outcome, *Reason, "read", "overridden")

STEP = 16
"""A unit of a signal is this many whole numbers."""
FAR = 16 * STEP
"""Signals farther out than this count as this far."""
BINS = 16
"""Each half a unit wide, from 4 below to 4 above; the outer two are open."""

_PAIRS = tuple(combinations_with_replacement(range(AXES), 2))
_PLACES = {name: place for place, name in enumerate(COUNTS)}
_MEASURED = {stream: len(COUNTS) + number * 3 for number, stream in enumerate(STREAMS)}
_SHAPE = len(COUNTS) + len(STREAMS) * 3
_BINS = {stream: _SHAPE + number * BINS for number, stream in enumerate(STREAMS)}
_AXES = _SHAPE + len(STREAMS) * BINS
LENGTH = _AXES + 1 + AXES + len(_PAIRS)

MAGIC = b"OPD1"
MOST_BYTES = 1 << 16
"""No packet is longer, packed or not."""

ALL = "*"

Tally = tuple[int, ...]
"""`LENGTH` whole numbers: `COUNTS`, and n, Σ, Σ² of each stream; then the shape: histograms, and the axes' n, Σ and ΣΣᵀ."""


@dataclass(frozen=True, order=True)
class Stratum:
    """Films that can be compared: of one kind of X-ray unit, one view and one age band."""

    device: str = ""
    """Eight hexadecimal digits of a hash of maker and model; empty where the film does not say."""
    view: str = ""
    ages: str = ""

    @property
    def unit(self) -> Stratum:
        """Where the shape is kept: all films of this kind of X-ray unit."""
        return Stratum(self.device, ALL, ALL)


@dataclass(frozen=True)
class Packet:
    """One day of one bundle's films."""

    edges: str
    """Names the bundle and the layout: packets of other edges are never added."""
    day: date
    strata: Mapping[Stratum, Tally]

    @property
    def whole(self) -> Tally:
        """All strata together."""
        return add(self.strata.values())


def edges(bundle_digest: str) -> str:
    """The name of the edges that go with a bundle."""
    layout = f"{bundle_digest} {MAGIC!r} {COUNTS} {STREAMS} {AXES} {STEP} {FAR} {BINS}"
    return hashlib.sha256(layout.encode()).hexdigest()[:16]


def stratum(header: Header, age_years: float | None) -> Stratum:
    """Where a film belongs."""
    maker = f"{header.Manufacturer}\\{header.ManufacturerModelName}".strip("\\ ")
    band = next((f"{low}-{high}" for low, high in AGE_BANDS if age_years is not None and low <= age_years < high), "")
    view = header.ViewPosition if header.ViewPosition in {"PA", "AP"} else ""
    return Stratum(hashlib.sha256(maker.encode()).hexdigest()[:8] if maker else "", view, band)


def of_film(
    outcome: Outcome, reason: Reason | None, logit: float | None, signals: Signals | None, again: bool = False
) -> Tally:
    """One film. Where it is assessed `again`, after a person gave its age, only what was lacking is added: its logit."""
    numbers = [0] * LENGTH
    if not again:
        for name in ("films", outcome, *([] if reason is None else [reason])):
            numbers[_PLACES[name]] += 1
    if logit is not None:
        _put(numbers, "logit", logit)
    if signals is not None and not again:
        for stream in STREAMS[1:]:
            _put(numbers, stream, getattr(signals, stream))
        place = [_whole(value) for value in signals.place]
        numbers[_AXES] = 1
        numbers[_AXES + 1 :] = place + [place[one] * place[other] for one, other in _PAIRS]
    return tuple(numbers)


def of_read(overridden: bool) -> Tally:
    """One decision of a person on a film that the AI had assessed."""
    numbers = [0] * LENGTH
    numbers[_PLACES["read"]], numbers[_PLACES["overridden"]] = 1, int(overridden)
    return tuple(numbers)


def placed(key: Stratum, tally: Tally) -> dict[Stratum, Tally]:
    """A film's numbers where each is kept: its sums in its stratum, its shape with its X-ray unit."""
    sums, shape = tally[:_SHAPE], tally[_SHAPE:]
    return {key: sums + (0,) * len(shape), key.unit: (0,) * len(sums) + shape}


def _put(numbers: list[int], stream: str, value: float) -> None:
    at, whole = _MEASURED[stream], _whole(value)
    numbers[at : at + 3] = [1, whole, whole * whole]
    numbers[_BINS[stream] + min(max((whole + 4 * STEP) // (STEP // 2), 0), BINS - 1)] = 1


def _whole(value: float) -> int:
    return 0 if value != value else min(max(round(value * STEP), -FAR), FAR)  # NaN of a blank film tells nothing


def add(tallies: Iterable[Tally]) -> Tally:
    """The sum: exact, in any order."""
    return tuple(map(sum, zip((0,) * LENGTH, *tallies, strict=True)))


def less(tally: Tally) -> Tally:
    """What takes a tally back when it is added."""
    return tuple(-number for number in tally)


def merge(packets: Iterable[Packet]) -> Packet:
    """Several packets of one bundle as one, of the latest day. Raises `Unreadable` where their edges differ, or there is none."""
    every = list(packets)
    if len({packet.edges for packet in every}) != 1:
        raise Unreadable("packets of different models cannot be added")
    found: dict[Stratum, list[Tally]] = {}
    for packet in every:
        for key, tally in packet.strata.items():
            found.setdefault(key, []).append(tally)
    strata = {key: add(found[key]) for key in sorted(found)}
    return Packet(every[0].edges, max(packet.day for packet in every), strata)


def count(tally: Tally, name: str) -> int:
    """One of `COUNTS`."""
    return tally[_PLACES[name]]


def moments(tally: Tally, stream: str) -> tuple[int, float, float]:
    """How many films a stream was measured on, and the sums of it and of its square."""
    n, total, squares = tally[_MEASURED[stream] : _MEASURED[stream] + 3]
    return n, total / STEP, squares / STEP**2


def histogram(tally: Tally, stream: str) -> tuple[int, ...]:
    """How many films lie in each of a stream's bins."""
    return tally[_BINS[stream] : _BINS[stream] + BINS]


def axes(tally: Tally) -> tuple[int, list[float], list[list[float]]]:
    """How many films have a place, the sum of their places, and that of the products of each with itself."""
    totals = [number / STEP for number in tally[_AXES + 1 : _AXES + 1 + AXES]]
    products = [[0.0] * AXES for _ in range(AXES)]
    for (one, other), number in zip(_PAIRS, tally[_AXES + 1 + AXES :], strict=True):
        products[one][other] = products[other][one] = number / STEP**2
    return tally[_AXES], totals, products


def encode(packet: Packet) -> bytes:
    """The packet as it travels: the same packet makes the same bytes."""
    return zlib.compress(_plain(packet), 9)


def decode(data: bytes) -> Packet:
    """The packet that was encoded. Raises `Unreadable` for everything else, sums that contradict each other included."""
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data[:MOST_BYTES], MOST_BYTES)
        if not inflate.eof or inflate.unused_data or len(data) > MOST_BYTES:
            raise ValueError("cut short, or too long")
        packet = _read(plain)
        if _plain(packet) != plain:
            raise ValueError("not written as packets are")
        for unit in {key.unit for key in packet.strata}:
            _consistent(add(tally for key, tally in packet.strata.items() if key.unit == unit))
    except (ValueError, IndexError, OverflowError, zlib.error) as error:
        raise Unreadable(f"no day packet ({error}). Make it again on its box: outpost drift packet.") from None
    return packet


def _plain(packet: Packet) -> bytes:
    out = bytearray(MAGIC + bytes.fromhex(packet.edges))
    _number(out, packet.day.toordinal())
    _number(out, len(packet.strata))
    for key in sorted(packet.strata):
        name = f"{key.device}/{key.view}/{key.ages}".encode()
        _number(out, len(name))
        out += name
        tally, last = packet.strata[key], -1
        _number(out, sum(number != 0 for number in tally))
        for place, number in enumerate(tally):
            if number:
                _number(out, place - last - 1)
                _number(out, number * 2 if number >= 0 else -number * 2 - 1)
                last = place
    return bytes(out)


def _read(plain: bytes) -> Packet:
    if plain[:4] != MAGIC or len(plain) < 12:
        raise ValueError("it begins like none")
    at = 12

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (plain[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if plain[at - 1] < 128:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    day, strata = date.fromordinal(number()), dict[Stratum, Tally]()
    for _ in range(number()):
        size = number()
        device, view, ages = plain[at : at + size].decode().split("/")
        at += size
        tally, place = [0] * LENGTH, -1
        for _ in range(number()):
            place += number() + 1
            value = number()
            tally[place] = value >> 1 if value % 2 == 0 else -(value + 1 >> 1)
        strata[Stratum(device, view, ages)] = tuple(tally)
    if at != len(plain):
        raise ValueError("something follows")
    return Packet(plain[4:12].hex(), day, strata)


def _number(out: bytearray, value: int) -> None:
    """Seven bits a byte, the lowest first; all but the last have the eighth set (LEB128, as in DWARF 7.6)."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _consistent(tally: Tally) -> None:
    """Raises ValueError where the numbers cannot be those of any films."""
    films = count(tally, "films")
    right = min(tally[: len(COUNTS)]) >= 0 and sum(count(tally, one) for one in Outcome) == films
    right = right and count(tally, "overridden") <= count(tally, "read")
    for stream, at in _MEASURED.items():
        right = right and _possible(*tally[at : at + 3])
        bins = histogram(tally, stream)
        right = right and min(bins) >= 0 and sum(bins) == tally[at]
    n = tally[_AXES]
    squares = {one: tally[_AXES + 1 + AXES + place] for place, (one, other) in enumerate(_PAIRS) if one == other}
    right = right and all(_possible(n, tally[_AXES + 1 + axis], squares[axis]) for axis in range(AXES))
    if not right:
        raise ValueError("its sums contradict each other")


def _possible(n: int, total: int, squares: int) -> bool:
    """Cauchy and Schwarz: n Σ² is at least the square of Σ."""
    return 0 <= squares <= n * FAR * FAR and total * total <= n * squares
