"""`outpost bench --hub`: how many studies a hub takes durably, and how soon a reader has the next, on each of its databases.

A day is replayed as boxes send it: parcels of results and pictures, sealed and signed, opened, committed and answered by several
workers. The films that are then open are claimed and read. Everything runs on one machine: its senders, workers and database.
What else runs on it makes every figure worse: the load before is told too, and the processor's own time, which others change less.
"""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge import cards
from edge.bench import present
from edge.records import Outcome, Urgency
from edge.stages import parcel
from edge.stages.parcel import Keys, Opened
from web.hub import here, inbox, sites, sync, tasks
from web.hub.config import Config, Database, Policy
from web.hub.records import Device, Finding, Reader, Site, TaskKind
from web.hub.store import now

AIMS = {
    "studies a second": 1500.0,
    "claim p95 in ms": 20.0,
    "page p95 in ms": 10.0,
    "a day of a million in minutes": 15.0,
}
PROGRAMME = "bench"
SITES = 200
PER_PARCEL = 20
WORKERS = 4
READERS = 8
SECONDS = 10.0
"""How long each figure is taken."""
CLAIMS = 100
"""By each reader."""


def bench(as_json: bool, studies: int, where: str) -> None:
    """Print what was measured; `where` is a PostgreSQL database to use, else a temporary one of Debian's is started."""
    figures: dict[str, Any] = {"machine": machine(), "load before": round(os.getloadavg()[0], 1), "studies": studies}
    with tempfile.TemporaryDirectory(prefix="outpost-bench-") as folder, ExitStack() as running:
        figures["sqlite"] = measured(Config(state=f"{folder}/sqlite", policy=Policy(second_share=0)), studies, 1)
        if database := where or running.enter_context(_debian()):
            config = Config(
                state=f"{folder}/postgresql", policy=Policy(second_share=0), database=Database(postgresql=database)
            )
            figures["postgresql"] = measured(config, studies, WORKERS)
        else:
            figures["postgresql"] = "not measured: apt-get install postgresql, in a checkout of the project"
    click.echo(json.dumps(figures, indent=1) if as_json else told(figures))


def measured(config: Config, studies: int, workers: int) -> dict[str, float]:
    """All figures of one database."""
    _found(config)
    with ProcessPoolExecutor(max(workers, READERS), multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm, range(max(workers, READERS))))

        def together(work: Callable[..., Any], number: int, *given: object) -> list[Any]:
            begin = time.time() + 1
            return list(
                pool.map(work, [config] * number, range(number), [begin] * number, *([one] * number for one in given))
            )

        one = together(_take, workers, 1, SECONDS)
        many = together(_take, workers, PER_PARCEL, SECONDS)
        began, spent = time.monotonic(), _server_seconds(config)
        replayed = together(_replay, workers, studies // workers)
        took, spent = time.monotonic() - began - 1, _server_seconds(config) - spent
        day = [number for number, _ in replayed]
        cpu = (sum(seconds for _, seconds in replayed) + spent) / sum(day)
        with closing(here.open_hub(config).store) as store, store.reading(PROGRAMME) as db:
            row = db.row("SELECT COUNT(*) AS n FROM task WHERE programme = :programme AND done_at IS NULL")
        claims = [seconds for part in together(_claim, READERS) for seconds in part]
        pages = [seconds for part in together(_page, 2) for seconds in part]
    return {
        "studies a second, one a transaction": sum(one) / SECONDS,
        f"studies a second, {PER_PARCEL} a transaction": sum(many) / SECONDS,
        "studies a second, in sealed parcels": sum(day) / took,
        "minutes of the day": took / 60,
        "processor ms a study, database included": cpu * 1000,
        "studies a second, if two cores did nothing else": 2 / cpu,
        "a day of a million in minutes": 1e6 / (sum(day) / took) / 60,
        "open films": float(row["n"]) if row else 0.0,
        "claims": float(len(claims)),
        "claim median in ms": statistics.median(claims) * 1000,
        "claim p95 in ms": _p95(claims) * 1000,
        "page p95 in ms": _p95(pages) * 1000,
        "bytes a study in the database": _bytes(config) / max(1.0, sum(one) + sum(many) + sum(day)),
    }


def told(figures: dict[str, Any]) -> str:
    """The figures as a table, beside the aims."""
    lines = [f"{figures['machine']}, load {figures['load before']}, {figures['studies']} studies in the day"]
    for name in ("sqlite", "postgresql"):
        lines += ["", name]
        if isinstance(figures[name], str):
            lines.append(f"  {figures[name]}")
            continue
        for figure, value in figures[name].items():
            aim = next((f" (aim {wanted:g})" for key, wanted in AIMS.items() if figure.startswith(key)), "")
            lines.append(f"  {figure:<42} {value:10.1f}{aim}")
    return "\n".join(lines)


def machine() -> str:
    """What this runs on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


@contextmanager
def _debian() -> Iterator[str]:
    """A temporary PostgreSQL of Debian's, as the tests start it; empty where there is none."""
    if not present("tests.postgresql", "pytest"):
        yield ""
        return
    started = importlib.import_module("tests.postgresql")
    if not started.BINARIES:
        yield ""
        return
    with started.postgresql() as server:
        yield server.database()


def _site(number: int) -> Site:
    return Site(
        programme=PROGRAMME, name=f"site{number}", title="", language=("en", "fr", "sw")[number % 3], timezone="UTC"
    )


def _found(config: Config) -> None:
    """A programme with its sites and boxes."""
    with closing(here.open_hub(config).store) as store:
        with store.transaction() as db:
            sites.add_programme(db, PROGRAMME, "")
        for number in range(SITES):
            with store.transaction(PROGRAMME) as db:
                sites.add(db, _site(number))


def _result(number: int) -> cards.Result:
    """One in ten is immediate, one in five soon."""
    outcome = (Outcome.IMMEDIATE, Outcome.SOON, Outcome.SOON, *[Outcome.ROUTINE] * 7)[number % 10]
    return cards.Result(
        case=f"2.25.{number}",
        run=1,
        study=f"2.25.{number + 10**12}",
        patient="P" + "A" * 16,
        age="050Y",
        sex="F",
        day="2026-11-26",
        view="PA",
        urgency=Urgency.ROUTINE,
        outcome=outcome,
        reason=None,
        findings=tuple(
            cards.Likelihood(finding=name, scheme="SCT", code="95436008", probability=0.31, low=0.2, high=0.4)
            for name in ("consolidation", "effusion")
        ),
        model="cxr-lite0 1",
        device_uid="2.25.7",
        operating_point="screening",
        shadow=False,
    )


def _events(site: str, epoch: str, first: int, base: int, number: int) -> tuple[cards.Waited, ...]:
    """Of so many studies: a result each, and its picture."""
    bodies: list[cards.Up] = []
    for one in range(base, base + number):
        picture = cards.Picture(
            sha256=f"{one:064x}",
            size=4_000_000,
            rows=2500,
            columns=2000,
            windows=(),
            millimetres=0.14,
            at_detector=True,
        )
        bodies += [_result(one), cards.Image(case=f"2.25.{one}", picture=picture)]
    return tuple(
        cards.Waited(event=cards.Event(site=site, epoch=epoch, seq=seq, body=body), seconds=random.randrange(3600))
        for seq, body in enumerate(bodies, first)
    )


@dataclass
class _Box:
    """One site's box within a worker."""

    site: Site
    epoch: str
    base: int
    device: Device
    keys: Keys
    seq: int = 1
    chain: int = 0

    def events(self, number: int) -> tuple[cards.Waited, ...]:
        """The next studies."""
        made = _events(self.site.name, self.epoch, self.seq, self.base, number)
        self.seq, self.base = self.seq + len(made), self.base + number
        return made


def _boxes(worker: int, run: int) -> list[_Box]:
    """A worker's share of the sites; each run has numbers of its own."""
    made = []
    for number in range(worker, SITES, 8):
        keys = Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())
        device = Device(
            fingerprint=keys.public.fingerprint,
            programme=PROGRAMME,
            site=f"site{number}",
            public=keys.public,
            enrolled_at=0,
            revoked_at=None,
        )
        base = ((run * 8 + worker) * SITES + number) * 10**7 + 1
        made.append(_Box(_site(number), f"{run * 1000 + worker:016x}", base, device, keys))
    return made


def _warm(_number: int) -> None:
    """Start a process."""


def _wait(begin: float) -> None:
    time.sleep(max(0.0, begin - time.time()))


def _take(config: Config, worker: int, begin: float, number: int, seconds: float) -> int:
    """Commit studies for some seconds, so many a transaction; gives how many."""
    hub, boxes, done = here.open_hub(config), _boxes(worker, number), 0
    with closing(hub.store):
        _wait(begin)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            box = boxes[done // number % len(boxes)]
            with hub.store.transaction(PROGRAMME) as db:
                inbox.receive(db, box.site, box.events(number), hub.rules, now())
            done += number
    return done


def _replay(config: Config, worker: int, begin: float, studies: int) -> tuple[int, float]:
    """A worker's share of the day, in sealed parcels that are opened, committed and answered, and its processor seconds."""
    hub, boxes, done = here.open_hub(config), _boxes(worker, 500), 0
    with closing(hub.store):
        _wait(begin)
        before = time.process_time()
        while done < studies:
            box = boxes[done // PER_PARCEL % len(boxes)]
            identifier = os.urandom(parcel.IDENTIFIER)
            said = cards.ToHub(events=box.events(min(PER_PARCEL, studies - done)))
            body = b"".join(parcel.seal([said], 1, box.keys, hub.keys.public, identifier))
            opened = Opened(io.BytesIO(body), hub.keys, lambda _, box=box: box.keys.public)  # type: ignore[misc]
            messages = [one for one in opened if isinstance(one, cards.ToHub)]
            answer = sync.take(hub, box.device, messages, identifier.hex())
            b"".join(parcel.seal([answer], 1, hub.keys, box.keys.public, os.urandom(parcel.IDENTIFIER)))
            done += len(said.events) // 2
    return done, time.process_time() - before


def _claim(config: Config, worker: int, begin: float) -> list[float]:
    """Seconds of each claim of a reader who reads what they get."""
    hub, took = here.open_hub(config), []
    reader = Reader(programme=PROGRAMME, name=f"reader {worker}", languages=("en", "fr"), kinds=frozenset(TaskKind))
    finding = Finding(outcome=Outcome.ROUTINE, codes=("normal",))
    with closing(hub.store):
        _wait(begin)
        for turn in range(CLAIMS):
            began = time.perf_counter()
            with hub.store.transaction(PROGRAMME) as db:
                task = tasks.claim(db, reader, 900, now())
            took.append(time.perf_counter() - began)
            if task is not None:
                with hub.store.transaction(PROGRAMME) as db:
                    tasks.finish(db, reader, "Dr", task.id, finding, str(turn), hub.rules, now())
    return took


def _page(config: Config, worker: int, begin: float) -> list[float]:
    """Seconds of each look at the first fifty of the queue."""
    hub, took = here.open_hub(config), []
    reader = Reader(programme=PROGRAMME, name=f"looker {worker}", languages=("en", "fr"), kinds=frozenset(TaskKind))
    with closing(hub.store):
        _wait(begin)
        for _ in range(CLAIMS):
            began = time.perf_counter()
            with hub.store.reading(PROGRAMME) as db:
                tasks.queue(db, reader, now(), 50)
            took.append(time.perf_counter() - began)
    return took


def _server_seconds(config: Config) -> float:
    """Processor seconds of a database server on this machine, so far; none for one that runs within the workers."""
    if not config.database.postgresql:
        return 0.0
    with closing(here.open_hub(config).store) as store, store.reading() as db:
        row = db.row("SELECT pg_backend_pid() AS pid")
        assert row is not None
        processes = dict(_processes())
    if str(row["pid"]) not in processes:
        return 0.0
    postmaster = processes[str(row["pid"])][1]
    own = [
        int(one) for one in processes[postmaster][11:15]
    ]  # its own and those of its children that have ended (proc(5))
    children = [int(one) for fields in processes.values() if fields[1] == postmaster for one in fields[11:13]]
    return (sum(own) + sum(children)) / os.sysconf("SC_CLK_TCK")


def _processes() -> Iterator[tuple[str, list[str]]]:
    """The number of each process, and what stands behind its name in its `stat`."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            yield folder.name, (folder / "stat").read_text().rpartition(")")[2].split()


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def _bytes(config: Config) -> float:
    if config.database.postgresql:
        with closing(here.open_hub(config).store) as store, store.reading() as db:
            row = db.row("SELECT pg_database_size(current_database()) AS n")
            return float(row["n"]) if row else 0.0
    return float((Path(config.state) / "hub.db").stat().st_size)
