"""A box under test: a real `outpost` in a process of its own, and DICOM senders next to it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

from edge import config as settings
from edge.config import Config, Intake, Sink, Web, Worker
from edge.records import Film
from edge.state import results
from edge.state.store import open_store
from tests.people import cookies

PATIENCE = 120.0
"""Seconds until something that must happen counts as never happening; no test passes because of it."""

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that is free on loopback right now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.05)


class Box:
    """A box on a state folder: start, kill and start again; the state stays."""

    def __init__(
        self,
        folder: Path,
        command: str = "serve",
        watch: Sequence[Path] = (),
        like: Box | None = None,
        path: Sequence[Path] = (),
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.folder = folder
        self.path = [*path, ROOT]
        self.command = command
        self.config = (
            like.config
            if like is not None
            else Config(
                state=str(folder / "box"),
                intake=Intake(port=free_port(), disk_floor_mib=0, watch=tuple(map(str, watch))),
                web=Web(port=free_port(), join_port=free_port()),
                worker=Worker(runtime="onnx"),  # every box of the tests would try all of them anew
                sinks=tuple(sinks),
            )
        )
        self.file = folder / "outpost.toml"
        self.held = ""
        """The cookies of somebody who has signed in, once a page was asked for."""
        settings.save(self.config, self.file)

    @property
    def port(self) -> int:
        """The DICOM port."""
        return self.config.intake.port

    @property
    def url(self) -> str:
        """Where the pages are."""
        return f"https://127.0.0.1:{self.config.web.port}"

    def page(self, path: str = "/") -> str:
        """A page of the box, asked by a clinician who trusts nothing but this box's own authority."""
        trusting = ssl.create_default_context(cafile=Path(self.config.state) / "trust/ca.crt")
        self.held = self.held or "; ".join(map("=".join, cookies(Path(self.config.state)).items()))
        asked = urllib.request.Request(self.url + path, headers={"Cookie": self.held})
        with urllib.request.urlopen(asked, context=trusting) as answer:
            return str(answer.read().decode())

    def launch(self, *killer: str) -> None:
        """Start the process, under `tests/fault/killer.py` where that is asked for."""
        program = [str(ROOT / "tests/fault/killer.py"), *killer, "--"] if killer else ["-m", "edge"]
        arguments = [sys.executable, *program, "--config", str(self.file), self.command]
        self.process = subprocess.Popen(
            arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": ":".join(map(str, self.path))}
        )

    def start(self, *killer: str) -> Box:
        """Launch it, and wait until films can be sent, or until the killer struck before that."""
        self.launch(*killer)
        until(lambda: self.answers() or self.process.poll() is not None, "the DICOM port opens")
        assert killer or self.process.poll() is None, f"`outpost {self.command}` ended with {self.process.returncode}"
        return self

    def answers(self) -> bool:
        """Whether the DICOM port is open."""
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """A power cut, as far as processes can tell."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Box:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def films(self) -> list[Film]:
        """What the worklist is made of."""
        with closing(open_store(Path(self.config.state))) as store:
            return list(results.films(store))

    def decided(self, number: int) -> list[Film]:
        """The films, once so many have an outcome."""
        until(lambda: sum(film.decision is not None for film in self.films()) >= number, f"{number} films are decided")
        return self.films()

    def deliveries(self) -> dict[tuple[str, int, int, int], tuple[str, str, int]]:
        """State, trouble and attempts of everything that leaves, by way out, film, run and decision."""
        with closing(open_store(Path(self.config.state))) as store:
            rows = store.execute("SELECT * FROM delivery").fetchall()
        return {
            (row["sink"], row["arrival_id"], row["run"], row["read_id"]): (
                row["state"],
                row["trouble"],
                row["attempts"],
            )
            for row in rows
        }

    def delivered(self, number: int) -> None:
        """Wait until so many deliveries, and no others, are done."""

        def done() -> bool:
            states = [state for state, _, _ in self.deliveries().values()]
            return len(states) >= number and set(states) == {"delivered"}

        until(done, f"{number} results are delivered")
