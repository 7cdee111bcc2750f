"""The courier, killed at any moment, has given every result exactly once as far as the peer can tell, and the ledger agrees."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import pytest

from edge.config import FolderSink
from edge.state import audit
from edge.state.store import open_store
from tests.box import PATIENCE, Box
from tests.results import decided

STEPS = 7
"""Of one result in two forms: it is claimed; each file is synced and named; the folder is synced; it is settled."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_durable_step(tmp_path: Path, when: str) -> None:
    share = tmp_path / "share"
    share.mkdir()
    box = Box(tmp_path, "courier", sinks=[FolderSink(name="share", path=str(share), send=("fhir", "oru"))])
    for step in range(1, STEPS + 1):
        decided(box.config, step)
        box.launch(when, str(step))
        box.process.wait(PATIENCE)
        assert box.process.returncode == -signal.SIGKILL, f"there are fewer than {step} durable steps"
    box.launch()
    box.delivered(STEPS)
    box.process.terminate()
    assert box.process.wait(PATIENCE) == 0
    names = [path.name for path in share.iterdir()]
    assert len(names) == 2 * STEPS and not any(name.startswith(".") for name in names)
    with closing(open_store(Path(box.config.state))) as store:
        exported = [one.arrival_id for one in audit.records(store) if one.event is audit.Event.EXPORTED]
        assert sorted(exported) == list(range(1, STEPS + 1))
        assert audit.verify(store) is None
