"""Results on their way out of a real box: to peers of other projects, through their absence, until they have them exactly once."""

from __future__ import annotations

import json
from pathlib import Path

from edge.config import FolderSink
from edge.samples import film
from edge.sending import send
from models import phantom
from tests.box import Box


def sample(folder: Path, number: int = 1) -> Path:
    """A small film of its own."""
    path = folder / f"film{number}.dcm"
    dataset = film(phantom.chest(number, (256, 256)), f"Test^{number}", "040Y", "F")
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_folder_gets_every_form_of_a_result(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    with Box(tmp_path, sinks=[FolderSink(name="share", path=str(share), send=("fhir", "oru"))]) as box:
        send("127.0.0.1", box.port, "OUTPOST", sample(tmp_path))
        box.delivered(1)
    names = sorted(path.suffix for path in share.iterdir())
    assert names == [".hl7", ".json"]
    (bundle,) = share.glob("*.json")
    assert json.loads(bundle.read_bytes())["type"] == "transaction"
