"""Header: tolerant in, whatever was written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from edge.records import Reason, Refusal
from edge.samples import film
from edge.stages.header import age_years, read
from models import phantom


@pytest.mark.parametrize(
    ("age", "born", "taken", "years"),
    [
        ("034Y", None, None, 34),
        ("34", None, None, 34),
        (" 6 m ", None, None, 0.5),
        ("010D", None, None, 10 / 365.25),
        ("026W", None, None, 26 * 7 / 365.25),
        ("000Y", None, None, None),
        ("", date(2000, 1, 1), date(2026, 1, 1), 26),
        ("unknown", date(2000, 1, 1), date(2026, 1, 1), 26),
        ("", date(1900, 1, 1), date(2026, 1, 1), None),
        ("", date(2026, 1, 2), date(2026, 1, 1), None),
        ("", date(2000, 1, 1), None, None),
        ("", None, None, None),
    ],
)
def test_age(age: str, born: date | None, taken: date | None, years: float | None) -> None:
    assert age_years(age, born, taken) == pytest.approx(years, abs=0.01)


def test_a_film_cut_off_within_its_pixels_still_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    film(phantom.chest(1, (512, 512)), "Diallo^Aïssatou", "040Y", "F").save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes()[:-1000])
    parsed = read(path)
    assert not isinstance(parsed, Refusal)
    assert parsed[1].PatientName == "Diallo^Aïssatou"


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"%PDF-1.7", b"PK\3\4" + b"\xff" * 500])
def test_what_is_no_film(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    refusal = read(path)
    assert isinstance(refusal, Refusal)
    assert refusal.reason in (Reason.NOT_DICOM, Reason.DAMAGED)
