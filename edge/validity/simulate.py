"""Queue simulator: how long films would wait here with and without the AI's order, before anybody relies on it.

A discrete-event simulation of readers who read one film after another, in the very order that the worklist has
(`edge.stages.decide.rank`). Its oracle is Cobham's formula for an M/G/1 queue with priorities (Cobham 1954).
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge.records import Outcome, Urgency, Waiting

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The simulation's clock begins here; only differences matter."""

Order = Callable[[list[Waiting], datetime], list[Waiting]]


@dataclass(frozen=True)
class Visit:
    """One film in the simulation; all times in minutes."""

    arrival: float
    reading: float
    """How long a person needs for it."""
    abnormal: bool
    """What the person will say."""
    outcome: Outcome
    """What the AI says."""
    urgency: Urgency = Urgency.ROUTINE


@dataclass(frozen=True)
class Clinic:
    """A clinic as somebody describes it, where too few films have come to replay."""

    films_per_day: float
    hours: float = 8.0
    """In which they come, and are read."""
    minutes_per_film: float = 3.0
    abnormal: float = 0.10
    sensitivity: float = 0.90
    specificity: float = 0.80
    immediate: float = 0.30
    """Of the raised films, those that are *immediate*."""


@dataclass(frozen=True)
class Wait:
    """How long the films of one kind waited until somebody began to read them, in minutes."""

    films: int
    mean: float
    percentile90: float
    longest: float


def describe(clinic: Clinic, days: int, seed: int) -> list[Visit]:
    """Films of a described clinic: Poisson arrivals in opening hours, exponential reading times; the same for the same seed."""
    draw = random.Random(seed)
    rate = clinic.films_per_day / (clinic.hours * 60)
    visits, at = [], 0.0
    while (at := at + draw.expovariate(rate)) < days * clinic.hours * 60:
        abnormal = draw.random() < clinic.abnormal
        raised = draw.random() < (clinic.sensitivity if abnormal else 1 - clinic.specificity)
        outcome = Outcome.ROUTINE
        if raised:
            outcome = Outcome.IMMEDIATE if draw.random() < clinic.immediate else Outcome.SOON
        visits.append(Visit(at, draw.expovariate(1 / clinic.minutes_per_film), abnormal, outcome))
    return visits


def replay(visits: Sequence[Visit], order: Order, readers: int = 1) -> list[float]:
    """How many minutes each film waits until somebody begins to read it, in the order of `visits`, which is that of arrival.

    `order` is the worklist's: it gets the waiting films and the moment; the first of its answer is read next.
    """
    free = [0.0] * readers
    waiting: dict[int, Waiting] = {}
    waits = [math.nan] * len(visits)
    coming, at = 0, 0.0
    while coming < len(visits) or waiting:
        at = max(at, free[0])  # a second reader who was idle begins no earlier than what is already known
        if not waiting:
            at = max(at, visits[coming].arrival)
        while coming < len(visits) and visits[coming].arrival <= at:
            visit = visits[coming]
            waiting[coming] = Waiting(coming, START + timedelta(minutes=visit.arrival), visit.urgency, visit.outcome)
            coming += 1
        chosen = order(list(waiting.values()), START + timedelta(minutes=at))[0].arrival_id
        del waiting[chosen]
        waits[chosen] = at - visits[chosen].arrival
        heapq.heapreplace(free, at + visits[chosen].reading)
    return waits


def summary(visits: Sequence[Visit], waits: Sequence[float]) -> dict[str, Wait]:
    """The waits of all films, of abnormal and normal ones, and of each outcome."""
    kinds: dict[str, list[float]] = {kind: [] for kind in ("all", "abnormal", "normal", *Outcome)}
    for visit, wait in zip(visits, waits, strict=True):
        for kind in ("all", "abnormal" if visit.abnormal else "normal", visit.outcome.value):
            kinds[kind].append(wait)
    return {kind: _wait(some) for kind, some in kinds.items()}


def _wait(waits: Sequence[float]) -> Wait:
    if not waits:
        return Wait(0, math.nan, math.nan, math.nan)
    ranked = sorted(waits)
    return Wait(len(ranked), math.fsum(ranked) / len(ranked), ranked[math.ceil(0.9 * len(ranked)) - 1], ranked[-1])


def cobham(rates: Sequence[float], reading: float, second_moment: float) -> list[float]:
    """The mean wait of each class of an M/G/1 queue in which the first class always goes first, none interrupted (Cobham 1954).

    `rates` are arrivals a minute of each class; `reading` and `second_moment` are E[S] and E[S²] of the reading time.
    Raises ValueError where the queue grows without end.
    """
    if sum(rates) * reading >= 1:
        raise ValueError("more films come than can be read")
    residual = sum(rates) * second_moment / 2
    found, before = [], 0.0
    for rate in rates:
        load = before + rate * reading
        found.append(residual / ((1 - before) * (1 - load)))
        before = load
    return found
