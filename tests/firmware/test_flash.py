"""`outpost flash` on files and loop devices: what is refused, what a bad card does, and that a good one holds the image."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge import site as sites
from edge.cli import main
from edge.errors import Tampered, Unreadable
from firmware import blockmap, card, disks, signature
from firmware.blockmap import BLOCK, Range
from firmware.signature import SecretKey
from tests.conftest import peer
from tests.firmware.conftest import MIB, NAME, Image, issue, loop


def flash(image: Image, *arguments: object) -> Result:
    told = ["flash", str(image.path), "--key", str(image.key), "--yes", *map(str, arguments)]
    return CliRunner().invoke(main, told)


def holds(target: Path, image: Image) -> bool:
    """Whether every block that the image's map names is on the target."""
    mapped = blockmap.make(image.path)
    with target.open("rb") as file, image.path.open("rb") as wanted:
        for one in mapped.ranges:
            file.seek(one.start)
            wanted.seek(one.start)
            if file.read(one.length) != wanted.read(one.length):
                return False
    return True


def starts(target: Path) -> bool:
    """Whether a computer would find anything to start by on it."""
    with target.open("rb") as file:
        return any(file.read(card.HEAD))


# what is written


@pytest.mark.parametrize("packed", ["img", "gz", "xz"])
def test_a_new_file_holds_the_image_and_no_more(image: Image, tmp_path: Path, packed: str) -> None:
    path = image.path
    if packed != "img":
        pack = {"gz": gzip.compress, "xz": lzma.compress}[packed]
        path = Path(f"{image.path}.{packed}")
        path.write_bytes(pack(image.path.read_bytes()))
    target = tmp_path / "card"
    result = flash(Image(path, image.key, image.secret), "--to", target)
    assert result.exit_code == 0, result.output
    assert NAME in result.output
    assert target.read_bytes() == image.path.read_bytes()
    assert target.stat().st_blocks * 512 < 8 * MIB  # sparse: the holes were not written


def test_a_larger_card_keeps_what_the_image_does_not_name(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "card"
    target.write_bytes(b"\xff" * 32 * MIB)
    assert flash(image, "--to", target).exit_code == 0
    assert holds(target, image)
    assert target.stat().st_size == 32 * MIB
    assert target.read_bytes()[-MIB:] == b"\xff" * MIB


def test_a_loop_device_holds_the_image(image: Image, tmp_path: Path) -> None:
    backing = tmp_path / "card"
    backing.write_bytes(b"\xff" * 32 * MIB)
    with loop(backing) as device:
        result = flash(image, "--to", device)
        assert result.exit_code == 0, result.output
    assert holds(backing, image)


def test_bmaptool_writes_the_same(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "card"
    command = [peer("bmaptool", "bmap-tools"), "copy", "--bmap", image.bmap, image.path, target]
    subprocess.run(command, check=True, capture_output=True)
    assert target.read_bytes() == image.path.read_bytes()


def test_a_map_of_bmaptool_is_read(image: Image) -> None:
    made = subprocess.run(
        [peer("bmaptool", "bmap-tools"), "create", image.path], capture_output=True, check=True
    ).stdout  # fmt: skip
    content = image.path.read_bytes()
    mapped = blockmap.read(made)
    assert mapped.size == len(content)
    for one in mapped.ranges:
        assert hashlib.sha256(content[one.start : one.start + one.length]).hexdigest() == one.sha256
    assert {block for one in mapped.ranges for block in range(one.start // BLOCK, (one.start + one.length) // BLOCK)} == {
        block for one in blockmap.make(image.path).ranges for block in range(one.start // BLOCK, (one.start + one.length) // BLOCK)
    }  # fmt: skip


def test_a_card_gets_its_site_file(image: Image, tmp_path: Path) -> None:
    site = tmp_path / "kalene.site"
    site.write_bytes(sites.sign('site = "kalene"', Ed25519PrivateKey.generate()))
    target = tmp_path / "card"
    result = flash(image, "--to", target, "--site", site)
    assert result.exit_code == 0, result.output
    at = MIB + 4 * 4096
    assert target.read_bytes()[at : at + card.PLACE].rstrip(b"\n") == site.read_bytes().rstrip(b"\n")
    # the rest is the image still
    content, wanted = target.read_bytes(), image.path.read_bytes()
    assert content[:at] + content[at + card.PLACE :] == wanted[:at] + wanted[at + card.PLACE :]


def test_what_is_no_site_file_is_refused_before_anything_is_written(image: Image, tmp_path: Path) -> None:
    site = tmp_path / "kalene.site"
    site.write_text('site = "kalene"\n')
    target = tmp_path / "card"
    result = flash(image, "--to", target, "--site", site)
    assert result.exit_code == Unreadable.exit_status
    assert "no site file" in result.output
    assert not target.exists()


def test_an_image_without_a_place_for_the_site_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plain.img"
    path.write_bytes(bytes(range(256)) * 4096)
    site = tmp_path / "kalene.site"
    site.write_bytes(sites.sign('site = "kalene"', Ed25519PrivateKey.generate()))
    result = flash(issue(path, SecretKey.generate()), "--to", tmp_path / "card", "--site", site)
    assert result.exit_code == Unreadable.exit_status
    assert "no place for a site file" in result.output
    assert not starts(tmp_path / "card")


# bad cards


def between(monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    """Do harm to the card once all but its head is written, before it is read back."""
    write = card.write

    def harmed(*arguments: Any) -> bytes:
        head = write(*arguments)
        harm()
        return head

    monkeypatch.setattr(card, "write", harmed)


@pytest.mark.parametrize("at", [0x200000, 0x4FFFFF, 0x9ABCDE])
@pytest.mark.parametrize("kind", ["file", "loop"])
def test_reading_back_finds_one_flipped_byte(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, kind: str
) -> None:
    backing = tmp_path / "card"
    backing.write_bytes(bytes(24 * MIB))

    def flip() -> None:
        with backing.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    between(monkeypatch, flip)
    if kind == "loop":
        with loop(backing) as device:
            result = flash(image, "--to", device)
    else:
        result = flash(image, "--to", backing)
    assert result.exit_code == Unreadable.exit_status, result.output
    assert "does not give back what was written" in result.output
    (where,) = [one.start for one in blockmap.make(image.path).ranges if one.start <= at < one.start + one.length]
    assert f"(at {where / 1e6:.1f} MB)" in result.output
    assert not starts(backing)


def test_a_card_that_is_smaller_than_it_says_is_found(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "card"
    target.write_bytes(bytes(24 * MIB))
    between(monkeypatch, lambda: os.truncate(target, 10 * MIB))
    result = flash(image, "--to", target)
    assert result.exit_code == Unreadable.exit_status
    assert "not as large as it says" in result.output
    assert not starts(target)


def test_a_card_that_fails_while_it_is_written_says_so(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, pwrite = tmp_path / "card", os.pwrite

    def failing(handle: int, content: bytes, at: int) -> int:
        if at > 5 * MIB:
            raise OSError(5, "Input/output error")
        return pwrite(handle, content, at)

    monkeypatch.setattr(os, "pwrite", failing)
    result = flash(image, "--to", target)
    assert result.exit_code == Unreadable.exit_status
    assert "the card failed: Input/output error" in result.output
    assert not starts(target)


def test_a_card_whose_first_block_is_bad_does_not_start(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, begin = tmp_path / "card", card.start
    monkeypatch.setattr(card, "start", lambda handle, head: begin(handle, head[:700] + b"x" + head[701:]))
    result = flash(image, "--to", target)
    assert result.exit_code == Unreadable.exit_status
    assert not starts(target)


def test_a_card_that_is_pulled_out_half_way_does_not_start(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "card"
    target.write_bytes(image.path.read_bytes())  # it held a system before

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "read_back", interrupted)
    result = flash(image, "--to", target)
    assert result.exit_code == 1
    assert "Aborted" in result.output
    assert not starts(target)


# what is refused before anything is written


def test_an_image_that_was_changed_is_refused(image: Image, tmp_path: Path) -> None:
    with image.path.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"x")
    result = flash(image, "--to", tmp_path / "card")
    assert result.exit_code == Tampered.exit_status
    assert "is not what was signed" in result.output
    assert not (tmp_path / "card").exists()


def test_an_image_that_ends_early_is_refused(image: Image, tmp_path: Path) -> None:
    os.truncate(image.path, 10 * MIB)
    result = flash(image, "--to", tmp_path / "card")
    assert result.exit_code == Tampered.exit_status
    packed = Path(f"{image.path}.xz")
    packed.write_bytes(lzma.compress(image.path.read_bytes())[:-4000])
    result = flash(Image(packed, image.key, image.secret), "--to", tmp_path / "card")
    assert result.exit_code == Tampered.exit_status
    assert not (tmp_path / "card").exists()


def test_a_map_that_was_changed_is_refused(image: Image, tmp_path: Path) -> None:
    image.bmap.write_bytes(image.bmap.read_bytes().replace(b"sha256", b"sha512"))
    result = flash(image, "--to", tmp_path / "card")
    assert result.exit_code == Tampered.exit_status
    assert "changed after it was signed" in result.output


def test_an_image_of_somebody_else_is_refused(image: Image, tmp_path: Path) -> None:
    image.key.write_text(signature.write_public(SecretKey.generate().public))
    result = flash(image, "--to", tmp_path / "card")
    assert result.exit_code == Tampered.exit_status
    assert "another key" in result.output


@pytest.mark.parametrize("missing", ["bmap", "signature", "key"])
def test_an_image_without_its_files_is_refused(image: Image, tmp_path: Path, missing: str) -> None:
    getattr(image, missing).unlink()
    result = flash(image, "--to", tmp_path / "card")
    assert result.exit_code == 78
    assert "is missing" in result.output


def test_nobody_is_believed_unseen(image: Image, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["flash", str(image.path), "--yes", "--to", str(tmp_path / "card")])
    assert result.exit_code == 2
    assert "--yes needs --key" in result.output


def test_a_person_is_asked_before_a_disk_is_erased(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "card"
    target.write_bytes(b"\xff" * 24 * MIB)
    told = ["flash", str(image.path), "--to", str(target)]
    result = CliRunner().invoke(main, told, input="n\n")
    assert result.exit_code == 1
    assert "Everything on it is erased" in result.output
    assert str(image.secret.public) in result.output
    assert target.read_bytes() == b"\xff" * 24 * MIB


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_card_that_is_too_small_is_refused(image: Image, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "card"
    target.write_bytes(b"\xff" * 20 * MIB)
    if kind == "loop":
        with loop(target) as device:
            result = flash(image, "--to", device)
    else:
        result = flash(image, "--to", target)
    assert result.exit_code == 78
    assert "too small" in result.output
    assert target.read_bytes() == b"\xff" * 20 * MIB


def test_the_image_is_not_written_onto_itself(image: Image) -> None:
    before = image.path.read_bytes()
    result = flash(image, "--to", image.path)
    assert result.exit_code == 78
    assert "the image itself" in result.output
    assert image.path.read_bytes() == before


def test_a_disk_that_is_not_there_is_refused(image: Image) -> None:
    result = flash(image, "--to", "/dev/sdzz")
    assert result.exit_code == Unreadable.exit_status
    assert "Is the card in?" in result.output


# disks, as kernels have told of them

LAPTOP = {
    "blockdevices": [
        {"name": "nvme0n1", "path": "/dev/nvme0n1", "size": 512110190592, "rm": False, "hotplug": False, "ro": False,
         "type": "disk", "tran": "nvme", "vendor": None, "model": "Micron 2300", "serial": "2044", "fstype": None,
         "mountpoints": [None], "children": [
             {"name": "nvme0n1p1", "path": "/dev/nvme0n1p1", "type": "part", "mountpoints": ["/boot/efi"]},
             {"name": "nvme0n1p2", "path": "/dev/nvme0n1p2", "type": "part", "mountpoints": [None], "children": [
                 {"name": "root", "path": "/dev/mapper/root", "type": "crypt", "mountpoints": ["/"]}]}]},
        {"name": "sda", "path": "/dev/sda", "size": 31914983424, "rm": True, "hotplug": True, "ro": False,
         "type": "disk", "tran": "usb", "vendor": "Generic ", "model": "STORAGE DEVICE", "serial": "0033", "fstype": None,
         "mountpoints": [None], "children": [
             {"name": "sda1", "path": "/dev/sda1", "type": "part", "mountpoints": [None]}]},
        {"name": "sdb", "path": "/dev/sdb", "size": 0, "rm": True, "hotplug": True, "ro": False, "type": "disk",
         "tran": "usb", "vendor": "Generic ", "model": "SD Reader", "serial": "0034", "mountpoints": [None]},
        {"name": "sdc", "path": "/dev/sdc", "size": 1000204886016, "rm": False, "hotplug": True, "ro": False,
         "type": "disk", "tran": "usb", "vendor": "WD", "model": "Elements", "serial": "WX1", "mountpoints": [None],
         "children": [{"name": "sdc1", "path": "/dev/sdc1", "type": "part", "mountpoints": ["/media/films"]}]},
        {"name": "sdd", "path": "/dev/sdd", "size": 4000787030016, "rm": False, "hotplug": False, "ro": False,
         "type": "disk", "tran": "sata", "vendor": "ATA", "model": "Backup", "serial": "B", "mountpoints": [None]},
        {"name": "mmcblk0", "path": "/dev/mmcblk0", "size": 15931539456, "rm": False, "hotplug": False, "ro": True,
         "type": "disk", "tran": "mmc", "vendor": None, "model": None, "serial": "0xe1", "mountpoints": [None]},
        {"name": "sde", "path": "/dev/sde", "size": 64023257088, "rm": False, "hotplug": True, "ro": False,
         "type": "disk", "tran": "usb", "vendor": "JMicron", "model": "", "serial": "", "mountpoints": [None],
         "children": [{"name": "md0", "path": "/dev/md0", "type": "raid1", "mountpoints": [None]}]},
        {"name": "sdf", "path": "/dev/sdf", "size": 64023257088, "rm": True, "hotplug": True, "ro": False,
         "type": "disk", "tran": "usb", "vendor": "SanDisk", "model": "Extreme", "serial": "S", "mountpoints": [None],
         "children": [{"name": "sdf1", "path": "/dev/sdf1", "type": "part", "mountpoints": ["[SWAP]"]}]},
        {"name": "loop0", "path": "/dev/loop0", "size": 64000000, "rm": False, "hotplug": False, "ro": False,
         "type": "loop", "tran": None, "vendor": None, "model": None, "serial": None, "mountpoints": ["/snap/core"]},
        {"name": "sr0", "path": "/dev/sr0", "size": 1073741312, "rm": True, "hotplug": True, "ro": False,
         "type": "rom", "tran": "sata", "vendor": "HL", "model": "DVD", "serial": "R", "mountpoints": [None]},
    ]
}  # fmt: skip
"""A laptop with an encrypted system, a card, an empty reader, a disk full of films, and more."""


def test_only_removable_disks_are_listed() -> None:
    found = disks.offered(disks.parse(json.dumps(LAPTOP)))
    assert [disk.path for disk in found] == ["/dev/sda", "/dev/sdc", "/dev/mmcblk0", "/dev/sde"]
    assert str(found[0]) == "/dev/sda  31.9 GB  Generic STORAGE DEVICE 0033"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/nvme0n1", "runs from"), ("/dev/sdf", "runs from"), ("/dev/sdd", "built into"), ("/dev/sdb", "no card"),
        ("/dev/sdc", "in use (/media/films)"), ("/dev/sde", "in use by /dev/md0"), ("/dev/mmcblk0", "write-protected"),
        ("/dev/loop0", "in use (/snap/core)"), ("/dev/sda", None),
    ],
)  # fmt: skip
def test_why_a_disk_is_not_written(path: str, words: str | None) -> None:
    (disk,) = [one for one in disks.parse(json.dumps(LAPTOP)) if one.path == path]
    why = disks.refusal(disk, 4 * MIB)
    assert why is None if words is None else why is not None and words in why


def test_what_this_computer_runs_from_is_never_offered() -> None:
    present = disks.present()
    source = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", "--target", "/"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert not [disk for disk in disks.offered(present) if disk.system or source.startswith(disk.path)]
    for disk in present:
        if disk.system:
            assert "runs from" in (disks.refusal(disk, 0) or "")


def test_a_mounted_disk_is_refused_by_the_kernel_too(image: Image, tmp_path: Path) -> None:
    backing, folder = tmp_path / "card", tmp_path / "mounted"
    folder.mkdir()
    backing.touch()
    os.truncate(backing, 32 * MIB)
    subprocess.run([peer("mke2fs", "e2fsprogs"), "-q", "-F", backing], check=True)
    with loop(backing) as device:
        if subprocess.run(["mount", device, folder], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            result = flash(image, "--to", device)
            assert result.exit_code == 78
            assert "in use" in result.output
            with pytest.raises(Exception, match="is in use: unmount it"), card.opened(device, MIB):
                raise AssertionError("it was opened")
        finally:
            subprocess.run(["umount", folder], check=True)


def test_without_an_image_the_disks_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "present", lambda: disks.parse(json.dumps(LAPTOP)))
    output = CliRunner().invoke(main, ["flash"]).output
    assert "/dev/sda  31.9 GB" in output
    assert "not now: /dev/sdc is in use" in output
    assert "nvme" not in output
    monkeypatch.setattr(disks, "present", list)
    assert "no card and no stick" in CliRunner().invoke(main, ["flash"]).output


def test_where_several_can_be_meant_nobody_guesses(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = LAPTOP["blockdevices"]
    monkeypatch.setattr(disks, "present", lambda: disks.parse(json.dumps({"blockdevices": [laptop[1], laptop[1]]})))
    result = flash(image)
    assert result.exit_code == 78
    assert "say which disk" in result.output


# maps and signatures


@given(blocks=st.lists(st.booleans(), min_size=1, max_size=40), tail=st.integers(0, BLOCK - 1))
def test_a_map_written_is_the_map_read(blocks: list[bool], tail: int) -> None:
    size = len(blocks) * BLOCK - tail
    ranges = tuple(
        Range(at * BLOCK, min(BLOCK, size - at * BLOCK), hashlib.sha256(bytes([at])).hexdigest())
        for at, held in enumerate(blocks)
        if held
    )
    mapped = blockmap.BlockMap(size, ranges)
    if ranges:
        assert blockmap.read(blockmap.write(mapped)) == mapped


@pytest.mark.parametrize(
    "change",
    [(b"2.0", b"2.0<"), (b"<BlockSize> 4096", b"<BlockSize> 0"), (b" 0 </Range>", b" 9-3 </Range>"),
     (b"<ImageSize> 8192", b"<ImageSize> 4096"), (b'chksum="', b'chksum="..'), (b"<Range", b"<Stange"), (b" 1 </R", b" 0 </R")],
)  # fmt: skip
def test_a_map_that_contradicts_itself_is_refused(change: tuple[bytes, bytes]) -> None:
    good = blockmap.write(blockmap.BlockMap(8192, (Range(0, 4096, "0" * 64), Range(4096, 4096, "1" * 64))))
    blockmap.read(good)
    with pytest.raises(Unreadable):
        blockmap.read(good.replace(*change))


def test_minisign_believes_our_signature(image: Image) -> None:
    command = [peer("minisign", "minisign"), "-V", "-H", "-m", image.bmap, "-p", image.key]
    assert "verified" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    image.bmap.write_bytes(image.bmap.read_bytes() + b"\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_signature_of_minisign_is_believed(tmp_path: Path) -> None:
    program, file = peer("minisign", "minisign"), tmp_path / "map"
    file.write_bytes(b"what is on the card")
    public, secret = tmp_path / "key.pub", tmp_path / "key"
    subprocess.run([program, "-G", "-W", "-p", public, "-s", secret], check=True, capture_output=True)
    subprocess.run(
        [program, "-S", "-W", "-s", secret, "-m", file, "-t", "outpost 1.2"], check=True, capture_output=True, input=b""
    )
    signed, key = (tmp_path / "map.minisig").read_text(), signature.public_key(public.read_text())
    assert signature.verify(file.read_bytes(), signed, key) == "outpost 1.2"
    with pytest.raises(Tampered):
        signature.verify(b"what was on the card", signed, key)
    with pytest.raises(Tampered):
        signature.verify(file.read_bytes(), signed.replace("1.2", "1.3"), key)


@given(st.text())
def test_no_text_is_taken_for_a_signature_or_a_key(text: str) -> None:
    key = SecretKey.generate().public
    with pytest.raises((Unreadable, Tampered)):
        signature.verify(b"", text, key)
    with pytest.raises(Unreadable):
        signature.public_key(text)
