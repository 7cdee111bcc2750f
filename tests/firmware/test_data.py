"""The data partition: made encrypted, opened again, forgotten at one stroke; wherever the power goes, whole or made anew."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import health
from edge import site as sites
from edge.errors import Misconfigured
from edge.records import DiskKey
from firmware import data
from tests.conftest import peer

LAST = f"cryptsetup config --label={data.LABEL}"
SITE = 'site = "kalene"\n[clinic]\nname = "Kalene"\n'
SEALED = {
    "type": "systemd-tpm2", "keyslots": ["0"], "tpm2-blob": "AAAA", "tpm2-pcrs": [7], "tpm2-pcr-bank": "sha256",
    "tpm2-primary-alg": "ecc", "tpm2-policy-hash": "00", "tpm2-pin": False,
}  # fmt: skip


class Cut(BaseException):
    """The power is away."""


@dataclass
class Box:
    """A disk in a file, with what opens, mounts and seals played: that takes a kernel's device-mapper, a card, a chip."""

    device: Path
    key: Path
    card: Path
    chip: bool = False
    left: int = -1
    """Changes of the disk until the power goes; never where it is less than nothing."""
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.said.clear()
        data.start(self.device, self.key, self.card)

    def order(self, text: str) -> None:
        (self.card / data.ORDER).write_text(text)

    def run(self, real: Callable[..., str], *command: str) -> str:
        self.said.append(" ".join(command[: 3 if "config" in command else 2]))
        told = ""
        if command[:2] == ("cryptsetup", "open") and "--token-only" not in command:
            told = real(*command[:-1], "--test-passphrase")
        elif command[0] == "systemd-cryptenroll":
            if not self.chip:
                raise Misconfigured("there is no chip")
            sealed = self.device.with_name("token")
            sealed.write_text(json.dumps(SEALED))
            told = real("cryptsetup", "token", "import", f"--json-file={sealed}", str(self.device))
        elif command[0] == "cryptsetup" and command[1] != "open":
            told = real(*command)
        self.left -= command[1] not in ("luksDump", "open")
        if self.left == 0:
            raise Cut
        return told

    def opens(self, key: bytes) -> bool:
        """Whether a key, kept since, opens what is on the disk now."""
        told = [peer("cryptsetup", "cryptsetup-bin"), "open", "--test-passphrase", "--key-file=-", self.device]
        return subprocess.run(told, input=key, capture_output=True, check=False).returncode == 0


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """A disk as `outpost flash` and systemd-repart leave it, and a card with a site file."""
    peer("cryptsetup", "cryptsetup-bin")
    made = Box(tmp_path / "disk", tmp_path / "data.key", tmp_path / "card")
    made.device.touch()
    os.truncate(made.device, 20 * 2**20)
    made.key.write_bytes(bytes(data.SIZE))
    made.card.mkdir()
    (made.card / "site.txt").write_bytes(sites.sign(SITE, Ed25519PrivateKey.generate()))
    real = data._run
    monkeypatch.setattr(data, "_run", lambda *command: made.run(real, *command))
    monkeypatch.setattr(data, "DISK_KEY", tmp_path / "note")
    monkeypatch.setattr(data, "_has_chip", lambda: made.chip)
    try:
        yield made
    except Misconfigured as error:
        if "crypto API" in str(error):
            pytest.skip(f"this kernel encrypts nothing: {error}")
        raise


@pytest.mark.parametrize("chip", [False, True])
def test_a_new_disk_is_made_once_and_opened_from_then_on(box: Box, tmp_path: Path, chip: bool) -> None:
    box.chip = chip
    assert data.found(box.device) is data.Found.NOTHING
    box.start()
    assert box.said.index("cryptsetup luksFormat") < box.said.index("mkfs.ext4 -q") < box.said.index(LAST)
    assert data.found(box.device) is data.Found.READY
    assert (box.key.read_bytes() == bytes(data.SIZE)) is chip, "where a chip has the key it is nowhere else"
    assert box.opens(box.key.read_bytes()) is not chip
    held = box.device.read_bytes()
    box.start()
    assert box.device.read_bytes() == held and "mkfs.ext4 -q" not in box.said
    assert health.encryption(tmp_path / "note").state == (DiskKey.CHIP if chip else DiskKey.FILE)
    assert health.encryption(tmp_path / "none").level is health.Level.UNKNOWN


def test_a_chip_that_takes_no_key_leaves_it_on_the_disk(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_has_chip", lambda: True)
    box.start()
    assert data.holder(box.device) is DiskKey.FILE and box.opens(box.key.read_bytes())


def test_a_chip_that_gives_no_key_out_stops_the_start_and_changes_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.chip = True
    box.start()
    held, run = box.device.read_bytes(), data._run

    def refused(*command: str) -> str:
        if "--token-only" in command:
            raise Misconfigured("TPM Error")
        return run(*command)

    monkeypatch.setattr(data, "_run", refused)
    with pytest.raises(Misconfigured, match="Undo that; else flash it again"):
        box.start()
    assert box.device.read_bytes() == held


def test_what_somebody_else_wrote_is_left_alone(box: Box) -> None:
    subprocess.run([peer("mkfs.ext4", "e2fsprogs"), "-q", box.device], check=True)
    held = box.device.read_bytes()
    with pytest.raises(Misconfigured, match="flash the disk again"):
        box.start()
    assert box.device.read_bytes() == held


def test_the_site_s_name_on_the_card_erases_the_box_once(box: Box) -> None:
    box.start()
    key = box.key.read_bytes()
    for wrong in ("Mwandi", "", "\xff"):
        box.order(wrong)
        box.start()
        assert box.opens(key) and (box.card / data.ORDER).exists()
    box.order(" Kalene\n")
    box.start()
    assert not box.opens(key) and box.opens(box.key.read_bytes()) and not (box.card / data.ORDER).exists()
    assert box.said.index("cryptsetup erase") < box.said.index("cryptsetup luksFormat")
    key = box.key.read_bytes()
    box.start()
    assert box.opens(key)


def test_a_card_that_keeps_its_order_starts_no_box_that_would_be_erased_again(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.start()
    box.order("kalene")
    monkeypatch.setattr(Path, "unlink", lambda path, *more: (_ for _ in ()).throw(OSError("read-only")))
    for _ in range(2):
        with pytest.raises((Misconfigured, OSError)):
            box.start()
        assert data.found(box.device) is data.Found.BEGUN


@pytest.mark.parametrize("changes", range(1, 8))
def test_a_power_cut_ends_on_a_disk_that_is_whole_or_made_anew(box: Box, changes: int) -> None:
    """A box is erased and made anew by seven commands: the power goes after each of them once."""
    box.start()
    key = box.key.read_bytes()
    box.order("kalene")
    box.left = changes
    with pytest.raises(Cut):
        box.start()
    box.left = -1
    assert data.found(box.device) is (data.Found.READY if changes == 7 else data.Found.BEGUN)
    box.start()
    assert data.found(box.device) is data.Found.READY
    assert box.opens(box.key.read_bytes()) and not box.opens(key)
    assert not (box.card / data.ORDER).exists()
