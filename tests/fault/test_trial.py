"""Killed at the commits of a trial: it is registered with its record or not at all, and a film's arm comes with the film."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge import evidence, trial
from edge.config import Config
from edge.records import Role, Unit
from edge.state import acceptances, audit, trials
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction
from edge.validity import randomize
from tests.box import ROOT
from tests.people import PIN, cookies

FORM = {"title": "Order", "unit": "film", "size": "40", "last_day": "", "pin": PIN}


@pytest.fixture
def ranking(tmp_path: Path) -> Config:
    """A box whose model was accepted."""
    config = Config(state=str(tmp_path / "state"))
    with closing(open_store(Path(config.state))) as store, transaction(store):
        audit.append(store, Event.STARTED, "box", now())
        acceptances.sign(store, "2.25.1", "balanced", "Lina", now())
    return config


def strike(when: str, table: str, *command: str) -> bool:
    """Run a script of the tests, killed around its first commit of what it wrote to that table; whether it was struck."""
    killer = [sys.executable, str(ROOT / "tests/fault/killer.py"), when, "1", table, "--"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*killer, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode == -signal.SIGKILL


def post(config: Config, when: str, path: str, form: dict[str, str]) -> bool:
    held = json.dumps(cookies(Path(config.state), "Lina", Role.LEAD))
    return strike(when, "audit", str(ROOT / "tests/fault/form.py"), config.state, path, json.dumps(form), held)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_trial_is_registered_and_ended(ranking: Config, when: str) -> None:
    assert post(ranking, when, "/trial", FORM)
    with closing(open_store(Path(ranking.state))) as store:
        begun, told = trials.running(store), audit.latest(store, Event.TRIAL_REGISTERED)
        assert (begun is not None) is (told is not None) is (when == "after")
        if begun is None:
            with transaction(store):
                begun = trial.register(ranking, store, "Order", Unit.FILM, 40, None, "Lina", now())
        elif told is not None:
            assert told.detail["commitment"] == randomize.commitment(begun.seed), (
                "the seed that was committed to is kept"
            )
        assert post(ranking, when, "/trial/end", {"trial": str(begun.id), "pin": PIN})
        over = audit.latest(store, Event.TRIAL_STOPPED)
        assert (trials.running(store) is None) is (over is not None) is (when == "after")
        assert audit.verify(store) is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_film_is_given_to_an_arm(ranking: Config, when: str, tmp_path: Path) -> None:
    """It came with its arm, or it did not come; sent again, it is in that arm and in no other."""
    path = tmp_path / "film.dcm"
    path.write_bytes(b"whatever comes in")
    with closing(open_store(Path(ranking.state))) as store:
        with transaction(store):
            begun = trial.register(ranking, store, "Order", Unit.FILM, 40, None, "Lina", now())
        script = str(ROOT / "tests/fault/arrive.py")
        assert strike(when, "allocation", script, ranking.state, str(path))

        def counts() -> tuple[int, int, int]:
            films = store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0]
            lots = [one for one in audit.records(store) if one.event is Event.RANDOMIZED]
            return films, len(trials.allocations(store, begun)), len(lots)

        assert counts() == ((0, 0, 0) if when == "before" else (1, 1, 1))
        assert not strike(when, "nothing", script, ranking.state, str(path))
        assert counts() == (1, 1, 1)
        (given,) = trials.allocations(store, begun)
        assert (given.place, given.arm) == (0, randomize.arm(begun.seed, 0))
        with transaction(store):
            trial.end(ranking, store, "Lina", now())
        assert evidence.proof(store, begun) == []
