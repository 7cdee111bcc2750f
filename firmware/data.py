"""The data partition of a box made from an image: encrypted (LUKS2), opened at every start, forgotten at one stroke.

Its key is made on the box at the first start. Where the board has a security chip (TPM 2) the key is sealed there, bound to PCR 7:
whether Secure Boot is on and whose keys it believes. An update of the system changes what PCR 4, 8 and 9 hold and leaves that one
as it is. Elsewhere the key lies in a file beside the boot loader, on the same disk. The header's label says that all is made; it is
written last and taken back first, so that a power cut ends on a partition that is whole, or one that is made anew.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from enum import Enum
from pathlib import Path

from edge.errors import Misconfigured, OutpostError
from edge.records import DISK_KEY, DiskKey
from firmware.slots import write_in_place

DEVICE = Path("/dev/disk/by-partlabel/outpost-data")
NAME = "outpost-data"
"""Under which it is opened, below /dev/mapper."""
KEY = Path("/efi/EFI/outpost/data.key")
"""Made with the image, `SIZE` bytes of nothing, and only ever written in place: the file system's own records stay as they are."""
SIZE = 64
LABEL, ERASED = "outpost-data", "outpost-erased"
CHIP, TABLE = Path("/dev/tpmrm0"), Path("/sys/firmware/acpi/tables/TPM2")
PATIENCE = 30
"""Seconds for a chip that the firmware speaks of to appear."""
CARD = Path("/run/outpost-site")
ORDER = "reset.txt"
"""On the card beside the site file: with the site's name in it, the box forgets everything at its next start."""


class Found(Enum):
    """What is on the partition."""

    NOTHING = "nothing"
    BEGUN = "begun"
    """Not made to the end, or erased: nothing in it can be wanted."""
    READY = "ready"
    OTHER = "other"
    """Whose, nobody knows: never written to."""


def found(device: Path) -> Found:
    """What is on the partition. Raises `Misconfigured` where it cannot be read."""
    with device.open("rb") as file:
        file.read(SIZE)  # blkid takes a disk that cannot be read for an empty one
    probe = subprocess.run(["blkid", "-p", "-o", "export", device], capture_output=True, text=True, check=False)
    told = dict(line.split("=", 1) for line in probe.stdout.splitlines() if "=" in line)
    if probe.returncode not in (0, 2):
        return Found.OTHER
    if told.get("TYPE") != "crypto_LUKS":
        return Found.OTHER if "TYPE" in told or "PTTYPE" in told else Found.NOTHING
    if told.get("LABEL") == LABEL:
        return Found.READY if _header(device)["keyslots"] else Found.BEGUN
    return Found.BEGUN if told.get("LABEL", ERASED) == ERASED else Found.OTHER


def start(device: Path = DEVICE, key: Path = KEY, card: Path = CARD) -> None:
    """Open the partition; made first where there is none yet, and forgotten first where the card says so."""
    state = found(device)
    if state is Found.OTHER:
        raise Misconfigured(
            "the data partition is not encrypted, as it was with earlier images. This version changes nothing in "
            "it. Put a stick in while the earlier version runs, flash the disk again, and restore from that stick."
        )
    ordered = is_ordered(card)
    if state is Found.BEGUN or (ordered and state is Found.READY):
        forget(device, key)
        state = Found.BEGUN
    if ordered:
        _fulfil(card)  # before anything new is made: it would be erased by the next start
        print("everything that was on this box is erased: its key is gone")  # noqa: T201
    if state is not Found.READY:
        make(device, key)
    else:
        unlock(device, key)
    DISK_KEY.write_text(holder(device), encoding="ascii")


def make(device: Path, key: Path) -> None:
    """Make the partition with a key of its own and an empty file system, and open it."""
    with tempfile.NamedTemporaryFile(dir="/run") as secret:  # in memory
        secret.write(secrets.token_bytes(SIZE))
        secret.flush()
        # a key of 512 random bits needs no slow derivation, and a small board has no memory for one
        cheap = ("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000")
        _cryptsetup("luksFormat", "--batch-mode", "--type=luks2", *cheap, f"--key-file={secret.name}", str(device))
        if not (_has_chip() and _sealed(device, Path(secret.name))):
            write_in_place(key, Path(secret.name).read_bytes())
    unlock(device, key)
    _run("mkfs.ext4", "-q", f"/dev/mapper/{NAME}")
    _cryptsetup("config", f"--label={LABEL}", str(device))


def unlock(device: Path, key: Path) -> None:
    """Open the partition with the key that it has. Raises `Misconfigured` where nobody gives it out."""
    if holder(device) is DiskKey.CHIP:
        try:
            _cryptsetup("open", "--token-only", "--token-type=systemd-tpm2", str(device), NAME)
        except Misconfigured as error:
            raise Misconfigured(
                "the security chip does not give out the key of the disk: Secure Boot was switched or its keys changed, the chip "
                f"was cleared, or the disk is another box's. Undo that; else flash it again, and restore from the stick. ({error})"
            ) from None
    else:
        _cryptsetup("open", f"--key-file={key}", f"--keyfile-size={SIZE}", str(device), NAME)


def holder(device: Path) -> DiskKey:
    """Who holds the partition's key."""
    sealed = any(token["type"] == "systemd-tpm2" for token in _header(device)["tokens"].values())
    return DiskKey.CHIP if sealed else DiskKey.FILE


def forget(device: Path = DEVICE, key: Path = KEY) -> None:
    """Erase the partition's keys: once it is closed, what is on it is noise. Cut on the way, the next start goes on."""
    _cryptsetup("config", f"--label={ERASED}", str(device))
    _cryptsetup("erase", "--batch-mode", str(device))
    if key.exists():
        write_in_place(key, bytes(SIZE))


def is_ordered(card: Path) -> bool:
    """Whether the card says that this box shall forget: the site's name, which `site.txt` beside it has too."""
    try:
        typed = (card / ORDER).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    from edge import site  # heavy, and needed at this one start

    try:
        content = (card / "site.txt").read_bytes()
        name = site.read(content, None)[0].site if content.rstrip().partition(b"\n")[2] else "outpost"
    except (OSError, OutpostError):
        name = ""
    if not name or typed.strip().casefold() != name.casefold():
        print(f"{ORDER} on the card does not have the name that the site file beside it has: nothing is erased")  # noqa: T201
        return False
    return True


def _fulfil(card: Path) -> None:
    """Take the order off the card, so that it is carried out once."""
    _run("mount", "-o", "remount,rw", str(card))
    (card / ORDER).unlink()
    _run("mount", "-o", "remount,ro", str(card))


def _has_chip() -> bool:
    end = time.monotonic() + PATIENCE
    while TABLE.exists() and not CHIP.exists() and time.monotonic() < end:
        time.sleep(0.2)
    return CHIP.exists()


def _sealed(device: Path, secret: Path) -> bool:
    """Whether the chip took a key for the partition; the one that it was made with is gone then."""
    command = (
        "systemd-cryptenroll",
        f"--unlock-key-file={secret}",
        "--tpm2-device=auto",
        "--tpm2-pcrs=7",
        "--wipe-slot=0",
    )
    try:
        _run(*command, str(device))
    except Misconfigured as error:
        print(f"the security chip takes no key, so it lies on the disk: {error}")  # noqa: T201
        return False
    return True


def _header(device: Path) -> dict[str, dict[str, dict[str, str]]]:
    told: dict[str, dict[str, dict[str, str]]] = json.loads(
        _cryptsetup("luksDump", "--dump-json-metadata", str(device))
    )
    return told


def _cryptsetup(*arguments: str) -> str:
    return _run("cryptsetup", *arguments)


def _run(*command: str) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
    if done.returncode:
        raise Misconfigured(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        start()
    except OutpostError as failure:
        sys.exit(f"outpost: {failure}")
