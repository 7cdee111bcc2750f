"""A PACS of another project: what it sends comes to an outcome, and it keeps what it was given when it starts again."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from edge.samples import film
from edge.sending import send
from models import phantom
from tests.box import Box
from tests.orthanc import Orthanc


@pytest.mark.peer
def test_a_film_that_a_pacs_sends_comes_to_an_outcome(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F").save_as(path, enforce_file_format=True)
    with Box(tmp_path) as box:
        pacs = Orthanc(tmp_path, modalities={"box": ["OUTPOST", "127.0.0.1", box.port]})
        with pacs:
            send("127.0.0.1", pacs.port, "ORTHANC", path)
            kept = pacs.instances()
            pacs.stop()
            pacs.start()
            assert pacs.instances() == kept
            assert [one["PatientName"] for one in kept] == ["Test^One"]
            done = pacs.post("/modalities/box/store", [kept[0]["ID"]])
            assert done["FailedInstancesCount"] == 0
        (decided,) = box.decided(1)
        assert decided.header.SOPInstanceUID == kept[0]["SOPInstanceUID"]


@pytest.mark.peer
def test_a_pacs_with_users_lets_nobody_else_in(tmp_path: Path) -> None:
    with Orthanc(tmp_path, users={"box": "secret"}) as pacs:
        assert pacs.instances() == []
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{pacs.url}/instances")
        refused.value.close()
