"""`outpost bench --sync`: what arrives when over a bad link, beside what others make of the same link at the same time.

Each way has links of its own, all equally bad and all at once: this box's courier to its hub, a STOW-RS client to Orthanc, a tus
client to its server. Every way has 100 MB to send and, from time to time, an urgent result with the beginning of its film. What
counts is for how long the link was up between the moment when something was there to be sent and the moment when all of it was
kept at the other end: an outage is nobody's fault. The parts are in `tests/bench/uploads.py`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import click

from edge.bench import present
from edge.cards import Lane
from edge.errors import Misconfigured, Transient
from edge.netem import FAR, HOSTILE, NEAR, TWO_G, Link, Profile

PROFILES = {"10 % loss": (TWO_G, 23.0), "30 % loss": (HOSTILE, 61.0)}
"""Each with how often a result is urgent, in seconds: on every moment of the link's 65 seconds, and no more than it can carry."""
OURS, STOW, TUS = "Outpost", "STOW-RS to Orthanc", "tus"
PARTS = {OURS: ("hub", "box"), STOW: ("orthanc", "stow"), TUS: ("tusd", "tus")}
"""By way, what runs where things arrive and where they come from."""
AIMS = {
    ("10 % loss", "result"): 15.0,
    ("10 % loss", "prefix"): 60.0,
    ("30 % loss", "result"): 45.0,
    ("30 % loss", "prefix"): 240.0,
}
"""Seconds at the 95th percentile that this project has set itself."""
LINKS = 4
"""Of this box: more urgent results in the same time."""
SECONDS = 400.0
LAST_SECONDS = 130.0
"""So long before the end nothing more becomes urgent: what was must have its time."""
BACKLOG = 25
"""Films of 4 MB."""
PATIENCE_SECONDS = 120.0
"""So long the servers have to start."""


@dataclass
class Run:
    """One link with what runs at its ends."""

    way: str
    folder: Path
    link: Link
    plan: list[dict[str, Any]]
    begin: float = 0.0
    """On the machine's monotonic clock; the plan's times are after it."""
    arrived: dict[str, float] = field(default_factory=dict)
    """By name, when an item was whole at the far end, on the machine's monotonic clock."""
    kept: int = 0
    """Bytes that need not be sent again."""
    ready: threading.Event = field(default_factory=threading.Event)
    """The far end can be reached."""

    def hear(self, lines: IO[str]) -> None:
        """Take down what the far end says."""
        for line in lines:
            said = json.loads(line)
            self.kept = said["kept"]
            self.ready.set()
            for name in said["names"]:
                self.arrived[name] = said["at"]

    def waits(self, lane: Lane, end: float) -> list[tuple[float, bool]]:
        """For each item of a lane the seconds for which the link was up until it had arrived, and whether it has."""
        found = []
        for item in (one for one in self.plan if one["lane"] == lane):
            at = self.arrived.get(str(item["number"]))
            since = self.begin + item["at"] - self.link.start
            up = self.link.profile.up_seconds(since, (end if at is None else at) - self.link.start)
            found.append((up, at is not None))
        return found


def bench(as_json: bool) -> None:
    """Measure every way on every profile, and say it. Raises `Misconfigured` where something is missing."""
    if not present("tests.bench.uploads"):
        raise Misconfigured("the bench of sync needs a checkout of the project")
    ways = [OURS] * LINKS + ([STOW] if Path("/usr/sbin/Orthanc").exists() else [])
    ways += [TUS] if present("tuspyserver", "tusclient") else []
    figures = {name: measured(name, *profile, ways) for name, profile in PROFILES.items()}
    click.echo(json.dumps(figures, indent=1) if as_json else told(figures))


def measured(name: str, profile: Profile, every: float, ways: Sequence[str]) -> dict[str, Any]:
    """Every way's figures on one profile."""
    with tempfile.TemporaryDirectory(prefix="outpost-bench-") as folder, ExitStack() as stack:
        runs = []
        for number, way in enumerate(ways):
            one = Run(way, Path(folder) / str(number), Link(replace(profile), seed=number), day(number, every))
            one.folder.mkdir()
            (one.folder / "plan.json").write_text(json.dumps(one.plan), encoding="utf-8")
            if way == OURS:
                subprocess.run([*part("prepare"), str(one.folder)], check=True)
            runs.append(one)
        for one in runs:
            serve(one, stack)
        for one in runs:
            if not one.ready.wait(PATIENCE_SECONDS):
                raise Transient(f"{one.way}: its server does not start. See {one.folder / 'log'}")
        begin = time.monotonic()
        for one in runs:
            send(one, begin, stack)
        with click.progressbar(length=int(SECONDS), label=f"{name:<10}", file=sys.stderr) as bar:
            while (left := begin + SECONDS - time.monotonic()) > 0:
                time.sleep(min(1.0, left))
                bar.update(1)
        end = time.monotonic()
        return {
            way: summary([one for one in runs if one.way == way], end)
            for way in PARTS
            if way in {one.way for one in runs}
        }


def day(number: int, every: float) -> list[dict[str, Any]]:
    """What there is to send over one of the links, each at another moment of its outages."""
    plan = [{"number": at, "lane": Lane.BULK, "at": 0.0} for at in range(1, BACKLOG + 1)]
    at, film = 3 + number % LINKS * every / LINKS, 1000
    while at < SECONDS - LAST_SECONDS:
        plan += [
            {"number": film, "lane": Lane.URGENT, "at": at},
            {"number": film + 1, "lane": Lane.URGENT_IMAGE, "at": at},
        ]
        at, film = at + every, film + 2
    return plan


def serve(one: Run, stack: ExitStack) -> None:
    """Start a link and what is at its far end; `stack` ends them."""
    stack.enter_context(one.link)
    far = subprocess.Popen(
        one.link.command(FAR, *part(PARTS[one.way][0]), str(one.folder)),
        stdout=subprocess.PIPE,
        stderr=log(one, stack),
        text=True,
    )
    stack.callback(far.wait)
    stack.callback(far.terminate)
    assert far.stdout is not None
    threading.Thread(target=one.hear, args=(far.stdout,), daemon=True).start()


def send(one: Run, begin: float, stack: ExitStack) -> None:
    """Start what is at the near end of a link; `stack` ends it."""
    one.begin = begin
    command = one.link.command(NEAR, *part(PARTS[one.way][1]), str(one.folder), str(begin))
    near = subprocess.Popen(command, stderr=log(one, stack))
    stack.callback(near.wait)
    stack.callback(near.terminate)


def log(one: Run, stack: ExitStack) -> IO[str]:
    """Where both ends of a link write what goes wrong."""
    return stack.enter_context((one.folder / "log").open("a", encoding="utf-8"))


def part(name: str) -> list[str]:
    """The command of one part."""
    return [sys.executable, "-W", "ignore", "-m", "tests.bench.uploads", name]


def summary(runs: Sequence[Run], end: float) -> dict[str, Any]:
    """The figures of one way, over all its links."""
    figures: dict[str, Any] = {}
    for what, lane in (("result", Lane.URGENT), ("prefix", Lane.URGENT_IMAGE)):
        waits = sorted(wait for one in runs for wait in one.waits(lane, end))
        ranked = waits[math.ceil(0.95 * len(waits)) - 1]
        figures[what] = {
            "count": len(waits),
            "arrived": sum(arrived for _, arrived in waits),
            "median": round(waits[len(waits) // 2][0], 1),
            "p95": round(ranked[0], 1),
            "p95 is a lower bound": not all(arrived for seconds, arrived in waits if seconds <= ranked[0]),
            "longest": round(waits[-1][0], 1),
        }
    carried = sum(one.link.count()[0].carried for one in runs)
    figures["kept of what used the link"] = round(sum(one.kept for one in runs) / carried, 2) if carried else 0.0
    figures["kept bytes a link"] = sum(one.kept for one in runs) // len(runs)
    return figures


def told(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        "64 kbit/s, 600 ms, 45 s up and 20 s down, 100 MB waiting; seconds for which the link was up until all had arrived",
        f"{os.cpu_count()} cores; {LINKS} links of this box, one of each other, {SECONDS:.0f} s each",
    ]
    for profile, ways in figures.items():
        for what in ("result", "prefix"):
            lines += ["", f"{profile} each way, urgent {what if what == 'result' else 'first 32 kB of its film'}"]
            ours = ways[OURS][what]["p95"]
            for way, of in ways.items():
                row = of[what]
                more = "≥ " if row["p95 is a lower bound"] else ""
                beside = "" if way == OURS else f"   {more}{row['p95'] / ours:.1f}×"
                aim = AIMS[profile, what]
                if way != OURS:
                    mark = beside
                elif row["p95"] > aim:
                    mark = f" ✘ {aim:g} s was the aim"
                else:
                    mark = f" ? {aim:g} s is the aim" if more else " ✔"
                lines.append(
                    f"  {way:<20} 95 % within {more}{row['p95']:6.1f} s, median {row['median']:6.1f} s,"
                    f" {row['arrived']} of {row['count']} arrived{mark}"
                )
        lines += ["", f"{profile} each way, bytes kept for every byte that used the link"]
        lines += [
            f"  {way:<20} {of['kept of what used the link']:.2f} ({of['kept bytes a link'] / 1000:.0f} kB a link)"
            for way, of in ways.items()
        ]
    return "\n".join(lines)
