"""Which disks of this laptop an image may be written to: removable ones, never the system's, never one in use.

What the kernel says (`lsblk --json`) is judged by pure functions, so that disks nobody has here are judged in tests too.
"""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import Misconfigured, Unreadable

COLUMNS = "NAME,PATH,SIZE,RM,HOTPLUG,RO,TYPE,TRAN,VENDOR,MODEL,SERIAL,FSTYPE,MOUNTPOINTS"
SYSTEM = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home", "[SWAP]")
HELD = {"crypt", "lvm", "raid0", "raid1", "raid5", "raid6", "raid10", "mpath", "dm"}
"""Kinds of devices that show that somebody has opened the disk below them."""
CARRIED = {"usb", "mmc"}


@dataclass(frozen=True)
class Disk:
    """A whole disk as the kernel sees it."""

    path: str
    size: int
    """Bytes; 0 where a reader has no card in it."""
    name: str
    """Maker, model and serial number, as printed on it."""
    kind: str
    removable: bool
    read_only: bool
    mounted: tuple[str, ...]
    """Where anything on it is mounted, swap included."""
    held: tuple[str, ...]
    """What was opened on top of it: encryption, LVM, RAID."""

    @property
    def system(self) -> bool:
        """Whether this computer runs from it."""
        return any(place in SYSTEM for place in self.mounted)

    def __str__(self) -> str:
        """As a person chooses it."""
        return f"{self.path}  {self.size / 1e9:.1f} GB  {self.name or 'no name'}"


def parse(answer: str) -> list[Disk]:
    """The whole disks in an answer of `lsblk --json --bytes`, with all that lies on each."""
    return [_disk(row) for row in json.loads(answer)["blockdevices"] if row["type"] in ("disk", "loop")]


def _disk(row: dict[str, Any]) -> Disk:
    below = list(_tree(row))
    mounted = [place for one in below for place in one.get("mountpoints") or [] if place]
    told = (row.get(key) or "" for key in ("vendor", "model", "serial"))
    return Disk(
        path=row["path"],
        size=int(row["size"] or 0),
        name=" ".join(" ".join(told).split()),
        kind=row["type"],
        removable=bool(row.get("rm") or row.get("hotplug") or row.get("tran") in CARRIED),
        read_only=bool(row.get("ro")),
        mounted=tuple(mounted),
        held=tuple(one["path"] for one in below if one["type"] in HELD),
    )


def _tree(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield row
    for child in row.get("children") or ():
        yield from _tree(child)


def present() -> list[Disk]:
    """The disks of this computer now. Raises `Misconfigured` where `lsblk` is missing or says nothing."""
    command = ["lsblk", "--json", "--bytes", "--output", COLUMNS]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Misconfigured(f"the disks cannot be listed ({error}). Install the package util-linux.") from None
    return parse(answer)


def offered(disks: list[Disk]) -> list[Disk]:
    """The removable disks, in use or not; what this computer runs from is never among them."""
    return [disk for disk in disks if disk.kind == "disk" and disk.removable and disk.size and not disk.system]


def refusal(disk: Disk, size: int) -> str | None:
    """Why an image of `size` bytes is not written to this disk, and what to do; None where it may be."""
    if disk.system:
        return f"{disk.path} is a disk this computer runs from. Choose the card or stick; `outpost flash` lists them."
    if disk.kind == "disk" and not disk.removable:
        return f"{disk.path} is built into this computer, not removable. Put the box's disk into a USB case or reader."
    if disk.mounted:
        return f"{disk.path} is in use ({', '.join(disk.mounted)}). Close what uses it, unmount it, and try again."
    if disk.held:
        return f"{disk.path} is in use by {', '.join(disk.held)}. Close that first."
    if not disk.size:
        return f"there is no card in {disk.path}. Put one in."
    if disk.read_only:
        return f"{disk.path} is write-protected. Move the small switch on the side of the card, or take another."
    if disk.size < size:
        return (
            f"{disk.path} is too small: it has {disk.size / 1e9:.1f} GB, the image needs {size / 1e9:.1f} GB. "
            "Take a larger one."
        )
    return None


def target(path: Path, size: int, disks: list[Disk]) -> Path:
    """Where to write when a person names a place: a disk that may be written to, or an ordinary file.

    Raises `Misconfigured` for a disk that may not, `Unreadable` for what is neither.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        if path.is_relative_to("/dev"):
            raise Unreadable(f"there is no {path}. Is the card in? `outpost flash` lists what there is.") from None
        return path
    real = path.resolve()
    if stat.S_ISREG(kind):
        return real
    if not stat.S_ISBLK(kind):
        raise Unreadable(f"{path} is neither a disk nor a file.")
    found = next((disk for disk in disks if Path(disk.path).samefile(real)), None)
    if found is None:
        raise Misconfigured(f"{path} is a part of a disk, or none. Name the whole disk; `outpost flash` lists them.")
    why = refusal(found, size)
    if why is not None:
        raise Misconfigured(why)
    return real
