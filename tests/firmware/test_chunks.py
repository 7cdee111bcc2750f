"""Chunks: cut by what is in them and not by where it stands, so that a little more in one place moves no end elsewhere."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import Unreadable
from firmware import chunks
from firmware.chunks import LEAST, MOST

DATA = random.Random(5).randbytes(2**20)
CUT = list(chunks.cut(BytesIO(DATA)))


def test_the_chunks_of_a_file_are_the_whole_file() -> None:
    assert [one.start for one in CUT] == [0, *(one.start + one.length for one in CUT[:-1])]
    assert all(chunks.digest(DATA[one.start : one.start + one.length]) == one.digest for one in CUT)
    assert all(LEAST <= one.length <= MOST for one in CUT[:-1])
    assert 14_000 < len(DATA) / len(CUT) < 28_000
    assert [one.length for one in chunks.cut(BytesIO(bytes(100_000)))] == [MOST, 100_000 - MOST]
    assert list(chunks.cut(BytesIO())) == []


@settings(max_examples=20)
@given(at=st.integers(0, len(DATA)), put_in=st.binary(max_size=300), out=st.integers(0, 300))
def test_a_change_in_one_place_costs_the_chunks_around_it(at: int, put_in: bytes, out: int) -> None:
    known = {one.digest for one in CUT}
    changed = chunks.cut(BytesIO(DATA[:at] + put_in + DATA[at + out :]))
    assert sum(one.length for one in changed if one.digest not in known) < 4 * MOST


def test_an_index_is_read_as_it_was_written_and_only_for_its_file() -> None:
    index = chunks.write(CUT)
    assert chunks.read(index, len(DATA)) == CUT
    for wrong in (index[:-1], index[:-20], b"outpost chunks 2\n" + index[17:], index + bytes(20), b""):
        with pytest.raises(Unreadable):
            chunks.read(wrong, len(DATA))
