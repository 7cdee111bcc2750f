"""A system as it travels: a RAUC bundle in verity format (rauc.readthedocs.io, "Bundle Formats"), checked by RAUC itself.

In it are the slot's bytes and the block that goes to the slot's end. RAUC holds signature and every block to its keyring before
anything is unpacked; this box then writes the slot as `outpost flash` writes a card, and reads it back.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.errors import Misconfigured

SYSTEM, LAST = "slot.img", "slot.last"
BLOCK = 4096
"""Of the slot's last block."""
PLAIN = "--mksquashfs-args=-noD -noF -noI -noX"
"""A system is packed already; its bytes lie in the bundle as they are, so that a box finds there what it has (`chunks.py`)."""


class Told(msgspec.Struct, frozen=True):
    """What RAUC says of a bundle that it believes."""

    compatible: str
    version: str


@dataclass(frozen=True)
class Content:
    """A bundle, unpacked."""

    told: Told
    system: Path
    last: bytes


def make(system: Path, last: bytes, board: str, version: str, out: Path, certificate: Path, key: Path) -> Path:
    """Make and sign the bundle of a system; its path. Raises `Misconfigured`."""
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name)
        (folder / SYSTEM).hardlink_to(system)
        (folder / LAST).write_bytes(last)
        (folder / "manifest.raucm").write_text(
            f"[update]\ncompatible=outpost-{board}\nversion={version}\n[bundle]\nformat=verity\n[image.system]\nfilename={SYSTEM}\n"
        )
        done = _rauc("bundle", f"--cert={certificate}", f"--key={key}", PLAIN, name, str(out))
    if done.returncode:
        raise Misconfigured(f"rauc made no bundle: {done.stderr.strip()[-2000:]}")
    return out


@contextmanager
def unpacked(bundle: Path, keyring: Path) -> Iterator[Content | None]:
    """What is in a bundle, beside it for the length of the block; None where RAUC does not believe it."""
    folder = bundle.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        said = _rauc("info", f"--keyring={keyring}", "--output-format=json", str(bundle))
        if said.returncode or _rauc("extract", f"--keyring={keyring}", str(bundle), str(folder)).returncode:
            yield None
            return
        told = msgspec.json.decode(said.stdout, type=Told)
        yield Content(told, folder / SYSTEM, (folder / LAST).read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rauc(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["rauc", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Misconfigured("rauc is missing: this is no box made by `outpost flash`. apt-get install rauc") from None
