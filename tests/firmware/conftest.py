"""An image to flash: partitions, a place for the site file, holes; with its block map, signature and key."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware import blockmap, card, signature
from firmware.signature import SecretKey
from tests.conftest import peer

MIB = 1024 * 1024
NAME = "outpost-generic-x86-64-0.1.0"


@dataclass(frozen=True)
class Image:
    """An image as a technician gets it."""

    path: Path
    key: Path
    secret: SecretKey

    @property
    def bmap(self) -> Path:
        return Path(f"{self.path}.bmap")

    @property
    def signature(self) -> Path:
        return Path(f"{self.bmap}.minisig")


def issue(path: Path, secret: SecretKey) -> Image:
    """Map and sign an image."""
    image = Image(path, Path(f"{path}.pub"), secret)
    content = blockmap.write(blockmap.make(path))
    image.bmap.write_bytes(content)
    image.signature.write_text(signature.sign(content, secret, NAME))
    image.key.write_text(signature.write_public(secret.public))
    return image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A sparse image of 24 MiB: a partition for the site file, one with a system in it, one with nothing."""
    folder = tmp_path / "image"
    folder.mkdir()
    path = folder / f"{NAME}.img"
    path.touch()
    os.truncate(path, 24 * MIB)
    table = f"label: gpt\nsize=1MiB, name={card.SITE}\nsize=12MiB, name=outpost-a\nsize=8MiB, name=outpost-b\n"
    subprocess.run([peer("sfdisk", "fdisk"), "-q", path], input=table, text=True, check=True, capture_output=True)
    noise = random.Random(7)
    with path.open("r+b") as file:
        file.seek(MIB + 4 * 4096)
        file.write(card.MAGIC.ljust(card.PLACE, b"\n"))
        for at in (2, 9):
            file.seek(at * MIB)
            file.write(noise.randbytes(3 * MIB))
    return issue(path, SecretKey.generate())


@contextmanager
def loop(file: Path) -> Iterator[Path]:
    """A loop device on a file, where this computer lets us have one."""
    made = subprocess.run(
        [peer("losetup", "mount"), "--find", "--show", file], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
