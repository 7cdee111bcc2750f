"""Runtimes: which of those that a bundle was made for compute here what they shall, and how fast.

Each is tried in a process of its own, `python -m models.runtimes BUNDLE RUNTIME THREADS`: the memory is given back.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from models import backends
from models.bundle import Bundle, load

ROUNDS = 15
SECONDS = 120.0
FASTER = 0.9
"""A runtime is chosen over the reference, on which the figures were measured, only when it takes a tenth less time at least."""


@dataclass(frozen=True)
class Tried:
    """What came of a runtime on this device."""

    milliseconds: float | None = None
    """For one film, the median; None where the runtime is not to be used."""
    why: str = ""
    """Why it is not."""


def tried(bundle: Bundle, threads: int) -> dict[str, Tried]:
    """Every runtime that the bundle was made for, the reference first."""
    return {name: _tried(bundle, name, threads) for name in bundle.manifest.runtimes}


def fastest(found: Mapping[str, Tried]) -> str | None:
    """The runtime to use, or None where none can be: the reference, unless another is clearly faster."""
    times = {name: one.milliseconds for name, one in found.items() if one.milliseconds is not None}
    if not times:
        return None
    best = min(times, key=lambda name: times[name])
    reference = next(iter(found))
    return best if times[best] < FASTER * times.get(reference, np.inf) else reference


def installed(name: str) -> bool:
    """Whether a runtime is there; nothing is imported."""
    return any(find_spec(package) is not None for package in backends.BACKENDS[name].packages)


def _tried(bundle: Bundle, name: str, threads: int) -> Tried:
    if name not in backends.BACKENDS:
        return Tried(why="this version of Outpost does not know it")
    if not installed(name):
        return Tried(why=f"not installed: {backends.BACKENDS[name].hint}")
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(bundle.path), name, str(threads)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return Tried(why=f"it took more than {SECONDS:g} seconds")
    if done.returncode != 0:
        return Tried(why=(done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return Tried(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Try one runtime and print what came of it."""
    from models.model import Model

    folder, name, threads = sys.argv[1:]
    try:
        model = Model(load(Path(folder)), int(threads), name)
        model.self_test()
    except ValueError as error:
        print(json.dumps({"why": str(error)}))  # noqa: T201  the answer on the pipe
        return
    side = model.manifest.input_size
    tensor = np.full((1, 1, side, side), 0.5, np.float32)
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        model.infer(tensor)
        taken.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"milliseconds": round(statistics.median(taken), 2)}))  # noqa: T201  the answer on the pipe


if __name__ == "__main__":
    main()
