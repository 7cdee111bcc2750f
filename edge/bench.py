"""`outpost bench`: how fast the box is against what a research user has today, side by side in one run.

Both sides are processes of their own that take turns, film by film; a ratio is taken per round, and its median and range are
what is reported. Milliseconds belong to this machine, ratios travel better.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid

from edge import box, config
from edge.config import Config, Intake, Web
from edge.errors import Misconfigured
from edge.records import Role, Urgency
from edge.samples import film, jpeg2000, rle
from edge.state import accounts, arrivals, queue, results, sessions
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from edge.worker import Worker
from models import backends, phantom, runtimes
from models.bundle import SHIPPED
from models.bundle import load as load_bundle

FLOOR = {
    "raw": 40.0,
    "JPEG 2000": 50.0,
    "RLE": 18.0,
    "JPEG Lossless": 3.5,
    "exec to first result": 10.0,
    "reception": 0.5,
}
"""The ratios that this project has set itself."""

NETWORK = {"onnx": 20.0, "openvino": 18.0, "litert": 20.0}
"""The ratios for the network alone."""
ROUNDS = 9
SENT = 20
SIZE = (2500, 2000)


@dataclass(frozen=True)
class Ratio:
    """How many times faster this side is: the median over rounds with its range, and both medians in milliseconds."""

    median: float
    low: float
    high: float
    ours: float
    theirs: float
    rounds: int


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """The ratio of two measurements that were taken in turns."""
    each = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Ratio(
        statistics.median(each), min(each), max(each), statistics.median(ours), statistics.median(theirs), len(each)
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True, help="Rounds per figure.")
@click.option("--sync", is_flag=True, help="Measure instead what arrives when over a bad link; needs root.")
@click.option(
    "--hub", is_flag=True, help="Measure instead how many studies a hub takes, and how soon a reader has the next."
)
@click.option("--studies", type=click.IntRange(8), default=1_000_000, show_default=True, help="With --hub: of the day.")
@click.option("--postgresql", default="", help="With --hub: a database to use; else a temporary one is started.")
def bench(as_json: bool, rounds: int, sync: bool, hub: bool, studies: int, postgresql: str) -> None:
    """Measure ratios against the baseline, in one run."""
    if hub:
        importlib.import_module("web.hub.bench").bench(as_json, studies, postgresql)  # as text: edge never imports web
        return
    if sync:
        from edge import bench_sync

        bench_sync.bench(as_json)
        return
    if not present("tests.bench.baseline", "torch", "skimage"):
        raise Misconfigured(
            "the baseline needs a checkout of the project, PyTorch and scikit-image: pip install -e '.[train,bench]'"
        )
    with tempfile.TemporaryDirectory(prefix="outpost-bench-") as name:
        folder = Path(name)
        films = make_films(folder)
        figures: dict[str, Any] = {"machine": machine(), "one thread": {}, "stages in ms": {}}
        with (
            side("edge.bench", folder / "ours") as ours,
            side("tests.bench.baseline", folder / "theirs.db") as theirs,
        ):
            for encoding, path in films.items():
                figures["one thread"][encoding] = vars(
                    alternate(lambda p=path: ours(p), lambda p=path: theirs(p), rounds, f"{encoding:<14}")  # type: ignore[misc]
                )
                figures["stages in ms"][encoding] = ours.stages()
            figures["peak memory in MiB"] = {"ours": ours.peak(), "theirs": theirs.peak()}
        figures["network alone"] = networks(rounds)
        figures["exec to first result"] = vars(first_result(folder, films["raw"], max(3, rounds // 3)))
        if dcmtk("storescu") and dcmtk("storescp"):
            figures["reception"] = vars(reception(folder, films["raw"], max(3, rounds // 3)))
            figures.update(serving(folder, films["raw"]))
        else:
            figures["reception"] = "not measured: apt-get install dcmtk"
    click.echo(json.dumps(figures, indent=1) if as_json else told(figures))


def networks(rounds: int) -> dict[str, Any]:
    """Every runtime of the shipped model against eager DenseNet-121 on one thread, the network alone; and its peak memory.

    What runs but does not agree with the reference on this device is marked: the worker does not take it.
    """
    bundle = load_bundle(SHIPPED)
    found: dict[str, Any] = {}
    for name, tried in runtimes.tried(bundle, threads=1).items():
        if not runtimes.installed(name):
            found[name] = f"not measured: {tried.why}"
            continue
        with side("edge.bench", name) as ours, side("tests.bench.baseline", "network") as theirs:
            path = Path()
            measured = vars(alternate(lambda: ours(path), lambda: theirs(path), rounds * 3, f"{name:<14}"))  # noqa: B023
            found[name] = measured | {"peak memory in MiB": ours.peak(), "agrees": tried.milliseconds is not None}
    return found


def serve_network(runtime: str) -> None:
    """The shipped model's network alone on one runtime, once for each line of standard input."""
    bundle = load_bundle(SHIPPED)
    backend = backends.load(runtime, SHIPPED / bundle.manifest.runtimes[runtime], 1)
    tensor = np.random.default_rng(1).random((1, 1, bundle.manifest.input_size, bundle.manifest.input_size), np.float32)
    for _ in sys.stdin:
        start = time.perf_counter()
        backend.run(tensor)
        print(json.dumps({"ms": (time.perf_counter() - start) * 1000}), flush=True)  # noqa: T201  the answer on the pipe


def make_films(folder: Path) -> dict[str, Path]:
    """A synthesized film of 5 megapixels in each encoding; JPEG Lossless is dcmtk's."""
    encodings = {"raw": lambda dataset: dataset, "RLE": rle, "JPEG 2000": jpeg2000}
    paths = {}
    for encoding, encoded in encodings.items():
        paths[encoding] = folder / f"{encoding.replace(' ', '')}.dcm"
        dataset = film(phantom.chest(1, SIZE), "Bench^Film", "050Y", "F")
        encoded(dataset).save_as(paths[encoding], enforce_file_format=True)
    if dcmtk("dcmcjpeg"):
        paths["JPEG Lossless"] = folder / "jpegll.dcm"
        subprocess.run([dcmtk("dcmcjpeg"), "+e1", str(paths["raw"]), str(paths["JPEG Lossless"])], check=True)
    return paths


def dcmtk(program: str) -> str:
    """Where dcmtk's program lies, or nothing; pynetdicom's of the same name, which a virtual environment has, is not meant."""
    return shutil.which(program, path=os.defpath) or ""


class Side:
    """A process that assesses one film a line and says how long it took."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._stages: list[dict[str, float]] = []

    def __call__(self, path: Path) -> float:
        """Milliseconds for one film."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self._stages.append(answer.get("stages", {}))
        return float(answer["ms"])

    def stages(self) -> dict[str, float]:
        """Median milliseconds of each stage since the last time this was asked."""
        films, self._stages = self._stages, []
        return {stage: round(statistics.median(film[stage] for film in films), 1) for stage in films[0]}

    def peak(self) -> int:
        """The most memory it has had so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) // 1024


@contextmanager
def side(module: str, argument: Path | str) -> Iterator[Side]:
    """One side of the comparison, for the length of the block."""
    command = [sys.executable, "-W", "ignore", "-m", module, str(argument)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread()
    ) as process:
        yield Side(process)
        assert process.stdin is not None
        process.stdin.close()


def one_thread() -> dict[str, str]:
    """An environment in which no library starts threads of its own."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def alternate(ours: Callable[[], float], theirs: Callable[[], float], rounds: int, label: str) -> Ratio:
    """Measure both in turns, one warm-up first, the order changing every round."""
    ours(), theirs()
    measured: tuple[list[float], list[float]] = ([], [])
    with click.progressbar(range(rounds), label=label, file=sys.stderr) as bar:
        for number in bar:
            for which in (0, 1) if number % 2 else (1, 0):
                measured[which].append((ours, theirs)[which]())
    return ratio(*measured)


def first_result(folder: Path, path: Path, rounds: int) -> Ratio:
    """From the start of a process to the first film's outcome."""

    def timed(*command: str, line: str = "") -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *command],
            input=line,
            check=True,
            capture_output=True,
            text=True,
            env=one_thread(),
        )
        return (time.perf_counter() - start) * 1000

    return alternate(
        lambda: timed("edge", "triage", "--json", str(path)),
        lambda: timed("tests.bench.baseline", str(folder / "cold.db"), line=f"{path}\n"),
        rounds,
        "first result  ",
    )


def reception(folder: Path, path: Path, rounds: int) -> Ratio:
    """Dcmtk's storescu sends the same films to this box, which makes each durable, and to dcmtk's storescp, which does not."""
    films = [different(path, folder / f"send{number}.dcm", number) for number in range(SENT)]
    theirs_at = folder / "storescp"
    theirs_at.mkdir()
    port = box.free_port()
    storescp = subprocess.Popen([dcmtk("storescp"), "-ll", "error", "-od", str(theirs_at), str(port)])

    def send(to: int) -> float:
        start = time.perf_counter()
        subprocess.run([dcmtk("storescu"), "-pdu", "131072", "127.0.0.1", str(to), *map(str, films)], check=True)
        return (time.perf_counter() - start) * 1000

    def ours() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as state, running(Path(state), "intake") as (_, settings):
            return send(settings.intake.port)

    try:
        return alternate(ours, lambda: send(port), rounds, "reception     ")
    finally:
        storescp.terminate()
        storescp.wait()


def different(path: Path, copy: Path, number: int) -> Path:
    """A copy of a film under an identifier of its own."""
    dataset = dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=[f"bench {number}"]
    )
    dataset.save_as(copy, enforce_file_format=True)
    return copy


@contextmanager
def running(state: Path, command: str) -> Iterator[tuple[subprocess.Popen[bytes], Config]]:
    """An `outpost` process on a state of its own, and its settings, once its DICOM port is open."""
    port = box.free_port()
    settings = Config(
        state=str(state / "box"),
        intake=Intake(port=port, disk_floor_mib=0),
        web=Web(port=box.free_port(), join_port=0),
        worker=config.Worker(
            runtime="onnx"
        ),  # what every box has; another that is installed here may be faster and larger
    )
    config.save(settings, state / "outpost.toml")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "--config", str(state / "outpost.toml"), command], stdout=subprocess.DEVNULL
    )
    try:
        box.wait_for_port(port)
        yield process, settings
    finally:
        process.terminate()
        process.wait()


def serving(folder: Path, path: Path) -> dict[str, Any]:
    """`outpost serve`: proportional memory of its processes, idle and after 100 films; and from C-STORE to the page."""
    films = [different(path, folder / f"send{number}.dcm", number) for number in range(10)]
    with tempfile.TemporaryDirectory(dir=folder) as state, running(Path(state), "serve") as (process, settings):

        def send(*paths: Path) -> None:
            to = ["127.0.0.1", str(settings.intake.port)]
            subprocess.run([dcmtk("storescu"), "-pdu", "131072", *to, *map(str, paths)], check=True)

        def decided() -> int:
            with urllib.request.urlopen(worklist, context=trusting) as answer:  # noqa: S310  of this box
                page = str(answer.read().decode())
            return page.count('class="row ') - page.count('class="row pending"')

        time.sleep(5)
        with closing(open_store(Path(settings.state))) as store, transaction(store):
            accounts.add(store, "bench", Role.CLINICIAN, "en", "no hash: nobody signs in with it", now())
            session = sessions.start(store, "bench", sessions.hash_of("bench"), now())
        worklist = urllib.request.Request(
            f"https://127.0.0.1:{settings.web.port}/worklist", headers={"Cookie": f"signed_in={session}; tablet=bench"}
        )
        trusting = ssl.create_default_context(cafile=Path(settings.state) / "trust/ca.crt")
        idle = proportional(process.pid)
        waits = []
        for number, film in enumerate(films, 1):
            send(film)
            start = time.perf_counter()
            while decided() < number:
                time.sleep(0.01)
            waits.append((time.perf_counter() - start) * 1000)
        with closing(open_store(Path(settings.state))) as store:
            for _ in range(9):
                for number, one in enumerate(films):
                    different(one, one, int(time.monotonic_ns()) + number)
                send(*films)
            while queue.open_jobs(store, "assess") or queue.open_jobs(store, "render"):
                time.sleep(0.5)
        return {
            "serve, memory in MiB": {"idle": idle, "after 100 films": proportional(process.pid)},
            "from C-STORE to the page in ms": {
                "median": round(statistics.median(waits)),
                "longest": round(max(waits)),
                "films": len(waits),
            },
        }


def proportional(pid: int) -> int:
    """PSS in MiB of a process and its children: pages that they share count once."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += (task / "children").read_text(encoding="ascii").split()
    total = 0
    for one in {str(pid), *children}:
        rollup = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
        total += int(rollup.split("Pss:")[1].split()[0])
    return total // 1024


def present(*names: str) -> bool:
    """Whether all of these can be imported; nothing of a package that is not there can."""
    try:
        return None not in map(find_spec, names)
    except ModuleNotFoundError:
        return False


def machine() -> dict[str, Any]:
    """What this was measured on."""
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return {
        "processor": processor or platform.machine(),
        "cores": os.cpu_count(),
        "film": f"{SIZE[1]} x {SIZE[0]}, 12 bit",
    }


def told(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    rows = {
        **figures["one thread"],
        "exec to first result": figures["exec to first result"],
        "reception": figures["reception"],
    }
    lines = [
        f"{figures['machine']['processor']}, {figures['machine']['cores']} cores; film {figures['machine']['film']}",
        "",
    ]
    for name, row in rows.items():
        if isinstance(row, str):
            lines.append(f"{name:<22} {row}")
            continue
        goal = FLOOR.get(name)
        mark = "" if goal is None else (" ✔" if row["median"] >= goal else f" ✘ {goal:g}× was the aim")
        lines.append(
            f"{name:<22} {row['median']:7.1f}× [{row['low']:.1f} to {row['high']:.1f}]   {row['ours']:8.1f} ms against"
            f" {row['theirs']:8.1f} ms, {row['rounds']} rounds{mark}"
        )
    for name, row in figures["network alone"].items():
        if isinstance(row, str):
            lines.append(f"{'network, ' + name:<22} {row}")
            continue
        mark = " ✔" if row["median"] >= NETWORK[name] else f" ✘ {NETWORK[name]:g}× was the aim"
        mark += "" if row["agrees"] else "; does not agree with the reference here, so it is not used"
        lines.append(
            f"{'network, ' + name:<22} {row['median']:7.1f}× [{row['low']:.1f} to {row['high']:.1f}]   {row['ours']:8.1f} ms"
            f" against {row['theirs']:8.1f} ms, {row['rounds']} rounds, {row['peak memory in MiB']} MiB{mark}"
        )
    for encoding, stages in figures["stages in ms"].items():
        lines.append(f"{encoding + ' in ms':<22} {', '.join(f'{stage} {taken}' for stage, taken in stages.items())}")
    for name in ("peak memory in MiB", "serve, memory in MiB", "from C-STORE to the page in ms"):
        measured = figures.get(name, {"not measured": "apt-get install dcmtk"})
        lines.append(f"{name:<30} {', '.join(f'{what} {value}' for what, value in measured.items())}")
    return "\n".join(lines)


def serve_films() -> None:
    """This box's side: one path a line, from its file to the committed outcome with its map."""
    state = Path(sys.argv[1])
    settings = Config(state=str(state))
    objects = Objects(state)
    with closing(open_store(state)) as store:
        worker = Worker(settings, store)
        for number, line in enumerate(sys.stdin):
            stored = objects.put(Path(line.strip()).read_bytes())
            with transaction(store):
                arrival, _ = arrivals.add(store, f"1.{number}", stored.sha256, "bench", now())
                queue.add(store, arrival, Urgency.STAT, now())
            start = time.perf_counter()
            worker.step()
            taken = (time.perf_counter() - start) * 1000
            stages = results.film(store, arrival).milliseconds
            stages["queue and commits"] = taken - sum(stages.values())
            print(json.dumps({"ms": taken, "stages": stages}), flush=True)  # noqa: T201  the answer on the pipe


if __name__ == "__main__":
    if sys.argv[1] in backends.BACKENDS:
        serve_network(sys.argv[1])
    else:
        serve_films()
