"""A box: its processes, started and watched together, for small boards, for development and for the demo.

Intake and web run as threads here; the worker, which alone decodes pixels, is a process of its own, so that a film that
crashes a codec or never ends costs that film and nothing else; so is the courier, where there is a way out.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from edge import config as settings
from edge import words
from edge.config import Config
from edge.errors import Misconfigured, Tampered, Transient
from edge.state import audit, notices, phantoms, queue, settled
from edge.state.store import now, open_store, transaction

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
"""How long a worker may take to finish what it is doing when the box stops."""
PARENT = "OUTPOST_PARENT"
"""The variable that tells a child which process started it: that one may be gone before the child can ask."""


class Child:
    """A process of the box as a child: started again when it dies."""

    command: str

    def __init__(self, config: Config, patience: float = PATIENCE_SECONDS, within: Sequence[str] = ()) -> None:
        """`within` is the command that runs the process somewhere else, such as at the end of a bad link."""
        self.config = config
        self.patience = patience
        self._within = within
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"{self.command}-watch")

    def start(self) -> None:
        """Start the process and watch it in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the process to end after what it is doing, and end it if that takes more than `patience` seconds."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with closing(open_store(Path(self.config.state))) as store:
            path = Path(self.config.state) / f"{self.command}.toml"
            settings.save(self.config, path)
            command = [*self._within, sys.executable, "-m", "edge", "--config", str(path), self.command]
            while not self._stop.is_set():
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, env=os.environ | {PARENT: str(os.getpid())}
                )
                while process.poll() is None and not self._stop.wait(WATCH_SECONDS):
                    self._look(store, process)
                self._end(process)
                self._ended(store, process.returncode)

    def _look(self, store: sqlite3.Connection, process: subprocess.Popen[bytes]) -> None:
        """See to a process that runs."""

    def _ended(self, store: sqlite3.Connection, status: int) -> None:
        """See to the end of a process before it is started again."""
        self._stop.wait(WATCH_SECONDS)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self.patience)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


class WorkerProcess(Child):
    """The worker: also ended when a film's lease runs out under it."""

    command = "worker"

    def __init__(self, config: Config, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(config, patience)
        self.failed = ""
        """Why the AI is stopped (safe mode), in words; empty while it works."""

    def _look(self, store: sqlite3.Connection, process: subprocess.Popen[bytes]) -> None:
        if queue.overdue(store, now()) or phantoms.overdue(store, now()):
            log.error("the worker has been on one film for too long; it is started again")
            process.kill()

    def _ended(self, store: sqlite3.Connection, status: int) -> None:
        with transaction(store):  # else the next worker, while it starts, is taken for the one whose lease ran out
            queue.release(store, "the worker was stopped before it was done")
            phantoms.release(store)
        if status in (Misconfigured.exit_status, Tampered.exit_status):
            self._safe_mode()

    def _safe_mode(self) -> None:
        """Leave the AI stopped, say so on the screen, and go on accepting films."""
        self.failed = words.AI_STOPPED
        log.error(self.failed)
        safe_mode(self.config)
        self._stop.wait()


class CourierProcess(Child):
    """The courier: what makes results takes memory that the box's network process shall not hold."""

    command = "courier"


class Service:
    """A process's `run` function as a thread of this process; its failure stops the box with the reason."""

    def __init__(self, run: Callable[..., None], config: Config) -> None:
        self.port = 0
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(run, config), name=run.__module__)

    def _run(self, run: Callable[..., None], config: Config) -> None:
        try:
            run(config, self._stop, self._opened)
        except BaseException as error:  # noqa: BLE001  handed to whoever starts or stops the box
            self._failure = error
            self._ready.set()

    def _opened(self, port: int) -> None:
        self.port = port
        self._ready.set()

    def start(self) -> None:
        """Start, and return once the service listens. Raises what the service raised."""
        self._thread.start()
        self._ready.wait()
        self._raise()

    def stop(self) -> None:
        """Stop and wait for the end. Raises what the service raised."""
        self._stop.set()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure


@contextmanager
def worker(config: Config, patience: float = PATIENCE_SECONDS) -> Iterator[WorkerProcess]:
    """The worker process of a box, for the length of the block."""
    process = WorkerProcess(config, patience)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def courier(config: Config, within: Sequence[str] = ()) -> Iterator[None]:
    """The courier process of a box, for the length of the block; a box that has nobody to talk to has none."""
    if not (config.sinks or config.audit.host or config.ris.host or config.hub.url):
        yield
        return
    process = CourierProcess(config, within=within)
    process.start()
    try:
        yield
    finally:
        process.stop()


@contextmanager
def service(run: Callable[..., None], config: Config) -> Iterator[int]:
    """A network service of a box in this process, for the length of the block; gives its port."""
    running = Service(run, config)
    running.start()
    try:
        yield running.port
    finally:
        running.stop()


@contextmanager
def recorded(config: Config) -> Iterator[None]:
    """The ledger tells when the box started, with which settings, and that it was stopped properly."""
    with closing(open_store(Path(config.state))) as store, transaction(store):
        settled.note(store, config, now())
        audit.append(store, audit.Event.STARTED, "box", now())
    try:
        yield
    finally:
        with closing(open_store(Path(config.state))) as store, transaction(store):
            audit.append(store, audit.Event.STOPPED, "box", now())


def safe_mode(config: Config) -> None:
    """Say on the screen that the AI is stopped; films are still accepted."""
    with closing(open_store(Path(config.state))) as store, transaction(store):
        notices.post(store, "worker", words.AI_STOPPED, now())


def tell_systemd(state: str) -> Callable[[], None]:
    """A way to tell systemd how this process is (sd_notify(3)); tells nobody where no systemd asked."""
    address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)

    def tell() -> None:
        if address:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as to:
                to.sendto(state.encode(), address)

    return tell


def orphaned() -> bool:
    """Whether the box that started this process is gone; never for a process that no box has started."""
    return os.environ.get(PARENT, str(os.getppid())) != str(os.getppid())


def stop_on_signal() -> threading.Event:
    """An event that is set by Ctrl-C or SIGTERM, so that films in hand are finished before the process ends.

    A thread of its own sets it: Python runs a handler in the main thread alone, which does not hear a signal that came to another
    while it waits for a lock.
    """
    stop = threading.Event()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def hear() -> None:
        os.read(told, 1)
        stop.set()

    threading.Thread(target=hear, name="signals", daemon=True).start()
    return stop


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free right now."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, host: str = "127.0.0.1", seconds: float = 60) -> None:
    """Wait until somebody listens. Raises `Transient` when nobody does in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with closing(socket.socket()) as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise Transient(f"nobody listens on {host}:{port}")
