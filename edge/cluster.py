"""Cluster: the films of an evaluation on many machines, by Dask; the same code for each film, and so the same figures.

Every worker needs the same Outpost, and bundle and films at the same paths. Whoever reaches a Dask scheduler runs on its workers
whatever he likes: it has to be a cluster of your own on a network of your own, or one with TLS (`tls://`, as Dask is set up).
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge import evaluation
from edge.errors import Misconfigured, Transient, Unreadable
from edge.evaluation import Case, Judged
from edge.reader import Reader
from models.bundle import Bundle, Mismatch, load

PACKAGES = ("outpost-cxr", "dask", "distributed", "imagecodecs", "numpy", "onnxruntime", "pillow", "pydicom")
"""What a figure, or the way to it, depends on."""
AT_ONCE = 500
"""So many films are handed out at a time."""
ANSWER_SECONDS, PATIENCE_SECONDS = 10.0, 30.0
"""How long a scheduler may take to answer, and how long films wait for a worker where there is none."""


@dataclass(frozen=True)
class Task:
    """What is the same for all films."""

    folder: Path
    bundle: Path
    digest: str
    threads: int
    versions: tuple[str, ...]


def judge(
    address: str, folder: Path, bundle: Bundle, threads: int, cases: Sequence[Case], tell: Callable[[str], None]
) -> Iterator[tuple[int, Judged]]:
    """What a bundle says of each film and its number, as the workers are done with it.

    A worker that is lost is named by `tell`; the others do its films. Raises `Misconfigured` where no scheduler answers or a worker
    is not as this machine, `Unreadable` for a film that ends one worker after another, `Transient` when no worker is left.
    """
    if missing := [name for name in ("dask", "distributed") if find_spec(name) is None]:
        raise Misconfigured(f"--scheduler needs Dask (missing: {', '.join(missing)}): pip install 'outpost-cxr[dask]'")
    from distributed import Client

    task = Task(folder.resolve(), bundle.path.resolve(), bundle.digest, threads, versions())
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{address}: no Dask scheduler answers ({error}). Start it, or mend the address.") from None
    with client:
        told = client.run(unlike, task, on_error="return")
        if not told:
            raise Misconfigured(f"{address}: this scheduler has no worker. Start some: dask worker {address}")
        wrong = [f"worker {name}: {said}" for name, said in sorted(told.items()) if said]
        if wrong:
            raise Misconfigured(
                "nothing was evaluated; every worker has to be as this machine:\n  " + "\n  ".join(wrong)
            )
        for start in range(0, len(cases), AT_ONCE):
            yield from _judged(client, task, dict(enumerate(cases[start : start + AT_ONCE], start)))
        for lost in sorted(set(told) - set(client.nthreads())):
            tell(f"worker {lost} was lost; the others have done its films")


def _judged(client: Any, task: Task, cases: dict[int, Case]) -> Iterator[tuple[int, Judged]]:
    from distributed import CancelledError, KilledWorker, wait

    numbers = {client.submit(_one, task, case, pure=False): number for number, case in cases.items()}
    waiting = set(numbers)
    while waiting:
        done: Any = ()
        try:
            with client.as_current():
                done, waiting = wait(waiting, PATIENCE_SECONDS, "FIRST_COMPLETED")
        except TimeoutError:  # a film may take long, as long as somebody is at it
            if not client.nthreads():
                raise Transient("no worker is left; nothing was evaluated. Start workers, then this again.") from None
        except (OSError, CancelledError) as error:
            raise Transient(f"the scheduler is gone ({error}); nothing was evaluated.") from None
        for future in done:
            number = numbers.pop(future)
            try:
                yield number, future.result()
            except KilledWorker:
                film = f"line {cases[number].line}: {cases[number].file}"
                raise Unreadable(f"{film} ends one worker after another. Take it out of the table.") from None


def unlike(task: Task) -> str:
    """In what the machine that this runs on is not as the one that asks; empty where it is."""
    ours = versions()
    if differs := [f"{here}, not {there}" for here, there in zip(ours, task.versions, strict=True) if here != there]:
        return f"it has {'; '.join(differs)}"
    try:
        if load(task.bundle).digest != task.digest:
            return f"{task.bundle} is another bundle there"
    except (Mismatch, OSError) as error:
        return f"the bundle: {error}"
    return "" if task.folder.is_dir() else f"{task.folder} is not there"


def versions() -> tuple[str, ...]:
    """Of Python and of `PACKAGES` on this machine."""

    def one(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"no {name}"

    return ("Python {}.{}".format(*platform.python_version_tuple()), *map(one, PACKAGES))


_mine = threading.local()
"""A reader for each thread of a worker: not every runtime can be asked twice at once."""


def _one(task: Task, case: Case) -> Judged:
    if getattr(_mine, "task", None) != task:
        if said := unlike(task):  # it came when the others were at work already
            raise Misconfigured(f"a worker that came later: {said}")
        bundle = load(task.bundle)
        _mine.reader = Reader(bundle, bundle.manifest.default_operating_point, task.threads)
        _mine.reader.model.self_test()
        _mine.task = task
    return evaluation.judge(task.folder, case, _mine.reader)
