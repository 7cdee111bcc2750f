"""Killed in the middle of a sign-in, a change of PIN or the first start, the box knows exactly who is who afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge import pins, setup
from edge.config import Config
from edge.records import Role
from edge.state import accounts, audit, sessions, setup_code, tries
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction
from tests.box import ROOT
from tests.people import PIN, cookies, person

NEW = "571938"
LAST = 8
"""More durable steps than any of these forms takes."""
FORM = str(ROOT / "tests/fault/form.py")


def started(state: Path) -> None:
    """A box that has written in its ledger before."""
    with closing(open_store(state)) as store, transaction(store):
        audit.append(store, Event.STARTED, "serve", now())


def strike(when: str, at: int, state: Path, path: str, form: dict[str, str], held: dict[str, str]) -> bool:
    """Send the form and kill the box around its N-th durable step; False where it had been answered before."""
    killer = [sys.executable, str(ROOT / "tests/fault/killer.py"), when, str(at), "--"]
    arguments = [FORM, str(state), path, json.dumps(form), json.dumps(held)]
    done = subprocess.run(
        [*killer, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL or done.stdout.strip() == "303", done.stderr
    return done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_somebody_signs_in(tmp_path: Path, when: str) -> None:
    started(tmp_path)
    person(tmp_path)
    struck = [strike(when, at, tmp_path, "/sign-in", {"typed": "Amina", "pin": PIN}, {}) for at in range(1, LAST)]
    assert struck[0] and not struck[-1]
    with closing(open_store(tmp_path)) as store:
        said = [record.event for record in audit.records(store)]
        assert said[1:] == [Event.SIGNED_IN] * len(sessions.everyones(store)) and said[1:]
        assert audit.verify(store) is None
        with transaction(store):
            assert not tries.begin(store, "person Amina", now()), "nobody waits for a power cut"


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_somebody_chooses_a_pin(tmp_path: Path, when: str) -> None:
    ends = set()
    for at in range(1, LAST):
        state = tmp_path / str(at)
        started(state)
        held, elsewhere = cookies(state), cookies(state)
        struck = strike(when, at, state, "/pin", {"pin": PIN, "new": NEW, "again": NEW}, held)
        with closing(open_store(state)) as store:
            account = accounts.get(store, "Amina")
            assert account is not None
            fits = [pin for pin in (PIN, NEW) if pins.fits(pin, account.secret)]
            said = [record.event for record in audit.records(store)]
            assert len(fits) == 1 and (Event.ACCOUNT_CHANGED in said) is (fits == [NEW])
            assert (sessions.get(store, elsewhere["signed_in"]) is None) is (fits == [NEW])
            assert audit.verify(store) is None
        ends.add((struck, fits[0]))
    assert {(True, PIN), (True, NEW), (False, NEW)} == ends


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_lead_is_made(tmp_path: Path, when: str) -> None:
    ends = set()
    for at in range(1, LAST):
        config = Config(state=str(tmp_path / str(at)))
        started(Path(config.state))
        code = setup.code(config)
        assert code is not None
        form = {"code": code, "name": "Grace", "new": NEW, "again": NEW}
        struck = strike(when, at, Path(config.state), "/setup", form, {})
        with closing(open_store(Path(config.state))) as store:
            leads = [one.name for one in accounts.everyone(store) if one.role is Role.LEAD]
            assert (setup_code.get(store) is None) is (leads == ["Grace"]), (
                "either the code counts or the lead is there"
            )
            assert audit.verify(store) is None
        assert setup.code(config) == (None if leads else code), "and a restart says which"
        assert setup.file(config).exists() is not bool(leads)
        ends.add((struck, bool(leads)))
    assert {(True, False), (True, True), (False, True)} == ends
