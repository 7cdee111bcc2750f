"""Chunks: cut by what is in them and not by where it stands, so that a little more in one place moves no end elsewhere."""

from __future__ import annotations

import random
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import Unreadable
from firmware import chunks, verity
from firmware.chunks import LEAST, MOST
from tests.conftest import peer

DATA = random.Random(5).randbytes(2**20)
CUT = list(chunks.cut(BytesIO(DATA)))


def test_the_chunks_of_a_file_are_the_whole_file() -> None:
    assert [one.start for one in CUT] == [0, *(one.start + one.length for one in CUT[:-1])]
    assert all(chunks.digest(DATA[one.start : one.start + one.length]) == one.digest for one in CUT)
    assert all(LEAST <= one.length <= MOST for one in CUT[:-1])
    assert 14_000 < len(DATA) / len(CUT) < 28_000
    assert [one.length for one in chunks.cut(BytesIO(bytes(100_000)))] == [MOST, 100_000 - MOST]
    assert list(chunks.cut(BytesIO())) == []


@pytest.mark.parametrize("blocks", [2, 128, 129, 256])
@pytest.mark.parametrize("salt", ["-", "ab" * 32])
def test_the_hashes_of_a_system_are_a_piece_that_is_made_and_not_fetched(
    tmp_path: Path, blocks: int, salt: str
) -> None:
    program, system = peer("veritysetup", "cryptsetup-bin"), DATA[: blocks * verity.BLOCK]
    for name in ("plain", "bundle"):
        (tmp_path / name).write_bytes(system)
    command = [program, "format", f"--salt={salt}", f"--hash-offset={len(system)}", f"--data-blocks={blocks}"]
    subprocess.run([*command, tmp_path / "plain", tmp_path / "plain"], check=True, capture_output=True)
    made = (tmp_path / "plain").read_bytes()[len(system) :]
    # somewhere in the middle of a file, after something that looks like one
    (tmp_path / "bundle").write_bytes(b"verity\0\0" + bytes(600) + system + made + b"and so on")
    told = chunks.read(chunks.write(chunks.pieces(tmp_path / "bundle")), len(system) + len(made) + 617)
    (tree,) = [one for one in told if one.tree is not None]
    assert (tree.start, tree.length) == (608 + len(system) + 4096, len(made) - 4096)
    assert chunks.take(tmp_path / "none", 0, tree, tmp_path / "bundle") == made[4096:]
    assert chunks.take(tmp_path / "none", 0, tree, tmp_path / "plain") == b"", "made of something else"


@settings(max_examples=20)
@given(at=st.integers(0, len(DATA)), put_in=st.binary(max_size=300), out=st.integers(0, 300))
def test_a_change_in_one_place_costs_the_chunks_around_it(at: int, put_in: bytes, out: int) -> None:
    known = {one.digest for one in CUT}
    changed = chunks.cut(BytesIO(DATA[:at] + put_in + DATA[at + out :]))
    assert sum(one.length for one in changed if one.digest not in known) < 4 * MOST


def test_an_index_is_read_as_it_was_written_and_only_for_its_file() -> None:
    index = chunks.write(CUT)
    assert chunks.read(index, len(DATA)) == CUT
    tree = b'[{"start":0,"of":0,"blocks":1,"salt":""}]'
    other = index.replace(b"[]", tree, 1), index.replace(b"[]", b"[7]", 1), index.replace(b"2\n", b"3\n", 1)
    for wrong in (index[:-1], index[:-20], *other, index + bytes(20), b""):
        with pytest.raises(Unreadable):
            chunks.read(wrong, len(DATA))
