"""Any mutation of a film ends as an outcome with a reason; nothing is raised, and nothing absurd is allocated."""

from __future__ import annotations

import tracemalloc
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.config import Config
from edge.reader import Reader, open_reader
from edge.records import Assessment, Outcome
from edge.worker import assess
from tests import mutations

MOST_BYTES = 400 * 2**20


@cache
def reader() -> Reader:
    return open_reader(Config())


def assessed(data: bytes) -> Assessment:
    """What becomes of a file with these bytes, within bounded memory."""
    reader()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        path.write_bytes(data)
        tracemalloc.start()
        try:
            assessment = assess(path, reader())
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()
    assert (assessment.decision.refusal is not None) == (assessment.decision.outcome is Outcome.COULD_NOT_ASSESS)
    assert bool(assessment.decision.findings) == (assessment.decision.refusal is None)
    return assessment


encodings = st.sampled_from(mutations.ENCODINGS)


@pytest.mark.parametrize("encoding", mutations.ENCODINGS)
def test_the_films_are_good_before_they_are_broken(encoding: str) -> None:
    assert assessed(mutations.whole(encoding)).decision.refusal is None


@given(encodings, st.floats(0, 1))
@example("raw", 0.0)
@example("jpeg 2000", 0.5)
def test_truncated_anywhere(encoding: str, share: float) -> None:
    data = mutations.whole(encoding)
    assessed(data[: int(share * len(data))])


@given(encodings, st.integers(0, 2**32), st.integers(1, 400))
def test_bytes_flipped_anywhere(encoding: str, seed: int, count: int) -> None:
    assessed(mutations.flipped(mutations.whole(encoding), seed, count))


@given(encodings, st.integers(0, 2**32), st.integers(1, 60))
def test_bytes_flipped_in_the_header(encoding: str, seed: int, count: int) -> None:
    data = mutations.whole(encoding)
    assessed(mutations.flipped(data[:1800], seed, count) + data[1800:])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Rows", 65535),
        ("Columns", 65535),
        ("Rows", 0),
        ("Rows", 1),
        ("BitsAllocated", 64),
        ("BitsStored", 0),
        ("HighBit", 200),
        ("NumberOfFrames", 2**31 - 1),
        ("SamplesPerPixel", 4),
        ("WindowWidth", 0),
        ("WindowWidth", -5),
        ("WindowCenter", 1e300),
        ("RescaleSlope", 0),
        ("PixelPaddingValue", 4095),
        ("PixelAspectRatio", ["1", "1000000"]),
        ("SOPInstanceUID", None),
        ("SOPClassUID", None),
        ("PixelData", None),
        ("PatientAge", "999Y"),
        ("PhotometricInterpretation", "YBR_FULL"),
    ],
)
def test_absurd_attributes(keyword: str, value: object) -> None:
    assessed(mutations.absurd(keyword, value))


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [("1.2.840.10008.5.1.4.1.1.88.33", "SR"), ("1.2.840.10008.5.1.4.1.1.104.1", "DOC"), ("1.2.3.4", "XX")],
)
def test_what_is_no_film(sop_class: str, modality: str) -> None:
    decision = assessed(mutations.other_kind(sop_class, modality)).decision
    assert decision.refusal is not None and decision.refusal.reason == "not_a_radiograph"


@given(st.binary(max_size=4096))
def test_any_bytes(data: bytes) -> None:
    assessed(data)
