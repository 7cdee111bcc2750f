"""Fuzz target, intake → decode: whatever bytes a film has, it ends as an outcome; run `python tests/fuzz/fuzz_film.py -runs=N`."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge", "pydicom"]):
    from edge.config import Config
    from edge.reader import open_reader
    from edge.worker import assess

from tests import mutations

READER = open_reader(Config())
FILM = Path(tempfile.mkdtemp()) / "film.dcm"


def one_input(data: bytes) -> None:
    """A film of the mutated bytes, or a good film with them laid over it."""
    if len(data) > 8 and data[0] % 2:
        good = bytearray(mutations.whole(mutations.ENCODINGS[data[1] % len(mutations.ENCODINGS)]))
        at = int.from_bytes(data[2:6]) % len(good)
        good[at : at + len(data) - 6] = data[6:]
        data = bytes(good)
    FILM.write_bytes(data)
    decision = assess(FILM, READER).decision
    assert bool(decision.findings) != (decision.refusal is not None)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
