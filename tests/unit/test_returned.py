"""Results that a PACS sends back to the box are no films, and nothing is sent because of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.records import Reason, Refusal, Source, Station
from edge.stages import decide, gate, header, report
from tests import results

SOURCE = results.example()
OURS = {one.kind: one for one in report.documents(SOURCE) + report.assessment(SOURCE, results.confirmed())}


@pytest.mark.parametrize("kind", ["sr", "sc", "gsps", "assessment"])
def test_no_result_of_ours_is_assessed_or_answered(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result.dcm"
    path.write_bytes(OURS[kind].data)
    parsed = header.read(path)
    assert not isinstance(parsed, Refusal)
    refusal = gate.admit(parsed[1])
    assert refusal is not None and refusal.reason is Reason.NOT_A_RADIOGRAPH
    film = results.film(parsed[1], decide.refuse(refusal))
    assert report.documents(Source(film, None, Station())) == ()
