"""Which slot starts, as the boot loader and the box tell each other: GRUB's environment block.

Its 1024 bytes are written in place: a power cut harms at most these two sectors and never the file system;
GRUB then starts slot A.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge.errors import Misconfigured

SIZE = 1024
HEAD = "# GRUB Environment Block\n"
NAMES = ("A", "B")


def parse(block: bytes) -> dict[str, str]:
    """The variables of an environment block. Raises `Misconfigured` for what is none."""
    text = block.decode("utf-8", "replace")
    if len(block) != SIZE or not text.startswith(HEAD):
        raise Misconfigured("the boot loader's variables cannot be read. Flash the card again.")
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


def render(values: dict[str, str]) -> bytes:
    """An environment block with these variables."""
    text = HEAD + "".join(f"{name}={value}\n" for name, value in values.items())
    return text.encode().ljust(SIZE, b"#")


def change(path: Path, **values: str) -> None:
    """Change variables, durably and without touching the file system's own records."""
    write_in_place(path, render(parse(path.read_bytes()) | values))


def write_in_place(path: Path, data: bytes) -> None:
    """Write over a file's first bytes, durably and without touching the file system's own records."""
    handle = os.open(path, os.O_WRONLY | os.O_SYNC)
    try:
        os.pwrite(handle, data, 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def running(command_line: str) -> str:
    """The slot that the kernel was started from, by its command line. Raises `Misconfigured` where there is none."""
    found = re.search(r"(?:^|\s)rauc\.slot=([AB])(?:\s|$)", command_line)
    if found is None:
        raise Misconfigured("this computer was not started from a slot: it is no box made by `outpost flash`.")
    return found[1]


def other(slot: str) -> str:
    """The one beside it."""
    return NAMES[1 - NAMES.index(slot)]
