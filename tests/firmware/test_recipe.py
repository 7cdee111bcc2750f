"""The parts of the recipe that need no mirror: the same inputs make the same slot, nothing secret is in it, all of it is named."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.errors import Misconfigured
from firmware import authority, bom, chunks, image
from tests.conftest import peer
from tests.firmware.leaks import leak

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u13

Package: libc-bin
Status: install ok installed
Architecture: amd64
Source: glibc (2.36)
Version: 2.36-9+deb12u13

Package: busybox
Status: install ok installed
Architecture: amd64
Version: 1:1.35.0-4+b7

Package: firmware-realtek
Status: install ok installed
Architecture: all
Source: firmware-nonfree
Version: 20230210-5

Package: linux-image-arm64
Status: install ok installed
Architecture: arm64
Source: linux-signed-arm64 (7.3.4+1~bpo13+1)
Version: 7.3.4-1~bpo13+1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
GLIBC = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: LGPL-2.1+

Files: timezone/*
License: public-domain

License: LGPL-2.1+
 On Debian systems …
"""
NONFREE = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: iwlwifi-*
License: binary-redist-Intel

Files: rtlwifi/*
 rtw88/*
License: binary-redist-Realtek-restrictive
 All rights reserved.
 .
 …

Files: rtl_nic/*
License: binary-redist-Realtek-permissive

Files: rtw88/rtw8822c*
License: of-this-one
"""


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """As much of a Debian as the recipe looks at."""
    files = {
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        bom.STATUS: STATUS.encode(),
        "usr/share/doc/libc6/copyright": GLIBC.encode(),
        "usr/share/doc/busybox/copyright": b"Busybox.\nSee /usr/share/common-licenses/GPL-2.\n",
        "usr/share/doc/firmware-realtek/copyright": NONFREE.encode(),
        "var/lib/dpkg/info/firmware-realtek.list": b"/.\n/lib/firmware/rtw88\n/lib/firmware/rtw88/rtw8821c_fw.bin\n"
        b"/lib/firmware/rtw88/rtw8822c_fw.bin\n/lib/firmware/rtl_nic/gone.fw\n/lib/firmware/rtw89/x.bin\n",
        "usr/lib/firmware/rtw88/rtw8821c_fw.bin": b"1",
        "usr/lib/firmware/rtw88/rtw8822c_fw.bin": b"2",
        "usr/lib/firmware/rtw89/x.bin": b"3",
        "bin/sh": bytes(range(256)) * 900,
    }
    path = tmp_path / "debian.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(data), image.EPOCH - 9
            tar.addfile(member, io.BytesIO(data))
        for name, meant in (("linux-image-arm64", "linux-base-arm64"), ("linux-base-arm64", "busybox")):
            member = tarfile.TarInfo(f"./usr/share/doc/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, meant
            tar.addfile(member)
    return path


def test_the_same_inputs_make_the_same_slot(debian: Path, tmp_path: Path) -> None:
    for program, package in (("mksquashfs", "squashfs-tools"), ("veritysetup", "cryptsetup-bin")):
        peer(program, package)
    made = []
    for number in (1, 2):  # at other places, in another order on the disk, with other dates, by another process
        out, folder = tmp_path / f"out{number}", tmp_path / f"packages{number}"
        out.mkdir()
        folder.mkdir()
        names = sorted(path.name for path in (image.ROOT / "edge/validity").glob("*.py"))
        for name in names if number == 1 else reversed(names):
            shutil.copy(image.ROOT / "edge/validity" / name, folder / name)
            os.utime(folder / name, (number * 10**8, number * 10**8))
        script = "import sys, pathlib; from firmware import image; image._compile(pathlib.Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            check=True,
            cwd=image.ROOT,
            env=os.environ | {"PYTHONHASHSEED": str(number), "TZ": "Asia/Kathmandu"},
        )
        made.append(image.slot(debian, (folder,), out, {"usr/share/outpost/release": b"{}"}))
    first, second = made
    assert (first.size, first.last) == (second.size, second.last)
    assert first.path.read_bytes() == second.path.read_bytes()
    listed = subprocess.run(
        [peer("unsquashfs", "squashfs-tools"), "-lln", first.path], capture_output=True, text=True, check=True
    ).stdout
    assert "usr/share/outpost/release" in listed and "var/lib/dpkg" not in listed
    assert "multi-user.target.wants/outpost-intake.service" in listed
    owners = {line.split()[1] for line in listed.splitlines() if line[:1] in "-dl"}
    assert owners == {"0/0"}
    assert not re.search(r" 20(2[7-9]|[3-9]\d)-", listed), "nothing is younger than the image says it is"


def test_little_changes_in_a_slot_where_little_has_changed(tmp_path: Path) -> None:
    for program, package in (("mksquashfs", "squashfs-tools"), ("veritysetup", "cryptsetup-bin")):
        peer(program, package)
    noise, cut = random.Random(3), []
    files = {f"usr/lib/{number:02}": noise.randbytes(50_000) for number in range(40)}
    for version in ("before", "after"):
        (tmp_path / version).mkdir()
        if version == "after":
            files["usr/lib/03"] += b"a line more"
        with tarfile.open(tmp_path / "debian.tar", "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size, member.mtime = len(data), image.EPOCH
                tar.addfile(member, io.BytesIO(data))
        with image.slot(tmp_path / "debian.tar", (), tmp_path / version).path.open("rb") as file:
            cut.append(list(chunks.cut(file)))
    known = {one.digest for one in cut[0]}
    assert sum(one.length for one in cut[1] if one.digest not in known) < 200_000


def test_nothing_secret_is_in_what_is_laid_over_debian(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for package in ("edge", "models", "web", "firmware"):
        ignored = shutil.ignore_patterns("__pycache__", "training", "root", "debian")
        shutil.copytree(image.ROOT / package, folder / package, ignore=ignored)
    laid = {name: content for name, (_, content) in image._laid((folder,)) if content is not None}
    assert len(laid) > 300 and "etc/nftables.conf" in laid
    assert [found for name, content in laid.items() if (found := leak(name, content, own=True))] == []


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    long = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"MIIEpAIBAAKCAQEA" * 4 + b"\n" + b"abcd" * 16 + b"\n-----END"
    hashed = b"$6$abcdefgh$" + b"x" * 86
    for name, data, why in (
        ("usr/lib/outpost/device.key", b"", "named like a key"),
        ("usr/share/thing", key.replace(b"\n-----END", b"\n" + key.split(b"\n")[1] + b"\n-----END"), "a private key"),
        ("usr/share/thing", long, "a private key"),
        ("etc/shadow", b"daemon:*:1::::::\nroot:" + hashed + b":1::::::\n", "root can sign in"),
        ("etc/shadow", b"root::1::::::\n", "root can sign in"),
        ("etc/thing.conf", b"user admin " + hashed, "hashed password"),
        ("etc/thing.conf", b"[x]\npassword = outpost1\n", "password = outpost1"),
        ("etc/thing.service", b"Environment=API_KEY=AKIA" + b"ABCDEFGHIJKLMNOP", "cloud's key"),
    ):
        assert why in (leak(name, data, own=True) or ""), (name, why)
    assert leak("etc/shadow", b"root:!*:1::::::\noutpost:!:1::::::\n", own=True) is None
    assert leak("edge/device.py", b'b"-----BEGIN PRIVATE KEY-----\\n"', own=True) is None


def test_a_system_takes_with_it_whom_it_believes_and_no_key(tmp_path: Path) -> None:
    authority.create(tmp_path / "keys", "development")
    laid = image.trust("generic-x86-64", tmp_path / "keys")
    assert sorted(laid) == [f"usr/share/outpost/{name}" for name in ("keyring.pem", "release", "root.json")]
    assert [found for name, data in laid.items() if (found := leak(name, data, own=True))] == []
    assert json.loads(laid["usr/share/outpost/release"])["board"] == "generic-x86-64"


def test_every_package_is_in_the_bill_with_its_licence(debian: Path) -> None:
    parts = bom.debian(debian, "bookworm")
    assert [(part.name, part.version, part.licences) for part in parts] == [
        ("busybox", "1:1.35.0-4+b7", ("GPL-2",)),
        (
            "firmware-realtek",
            "20230210-5",
            ("binary-redist-Realtek-restrictive", bom.UNKNOWN, "of-this-one"),
        ),  # what is there
        ("libc-bin", "2.36-9+deb12u13", ("LGPL-2.1+", "public-domain")),
        ("libc6", "2.36-9+deb12u13", ("LGPL-2.1+", "public-domain")),
        ("linux-image-arm64", "7.3.4-1~bpo13+1", ("GPL-2",)),
    ]
    assert parts[0].purl == "pkg:deb/debian/busybox@1%3A1.35.0-4%2Bb7?arch=amd64&distro=bookworm"
    here = bom.python([Path(pytest.__file__).parents[1]])
    named = {part.name: part for part in here}
    assert named["tuf"].licences == ("Apache-2.0 OR MIT",)
    assert named["cryptography"].purl.startswith("pkg:pypi/cryptography@")
    told = bom.bill([*parts, *here], "outpost-generic-x86-64-0.1.0", "0.1.0", image.EPOCH)
    assert told == bom.bill([*parts, *here], "outpost-generic-x86-64-0.1.0", "0.1.0", image.EPOCH)
    read = json.loads(told)
    assert (read["bomFormat"], read["specVersion"], read["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", read["serialNumber"])
    assert read["metadata"]["timestamp"] == "2026-11-01T00:00:00Z"
    references = [one["bom-ref"] for one in read["components"]]
    assert len(set(references)) == len(references) == len(parts) + len(here)
    assert "libc6 2.36-9+deb12u13: LGPL-2.1+; public-domain\n" in bom.licences(parts)


def test_a_start_that_changed_at_its_beginning_has_most_of_its_bytes_still() -> None:
    """As `customize` packs it: an update fetches what is new of it."""
    ((command,),) = [re.findall(r"\| (zstd .*?) > /boot/initrd", (image.HERE / "debian/customize").read_text())]
    draw = random.Random(7)
    words = [draw.randbytes(draw.randint(3, 12)) for _ in range(4000)]
    old = b"".join(draw.choices(words, k=700_000))
    packed = [
        subprocess.run(
            [peer("zstd", "zstd"), *command.split()[1:]], input=start, capture_output=True, check=True
        ).stdout
        for start in (old, draw.randbytes(4321) + old)
    ]
    had, new = ({one.digest: one.length for one in chunks.cut(io.BytesIO(start))} for start in packed)
    assert sum(length for digest, length in new.items() if digest not in had) < len(packed[1]) / 4


BASE = """/dts-v1/;
/ {
    soc {
        gio_aon: gpio { brcm,gpio-bank-widths = <17 6>; };
        pinctrl: pinctrl { compatible = "brcm,bcm2712c0-pinctrl"; };
        pinctrl_aon: aon { compatible = "brcm,bcm2712c0-aon-pinctrl"; };
        uart10: serial { interrupts = <0 121 4>; };
    };
};
"""
"""As much of the board's device tree as is changed."""


def test_a_board_has_beside_grub_what_its_own_loader_reads(tmp_path: Path) -> None:
    dtc, get, over = (peer(name, "device-tree-compiler") for name in ("dtc", "fdtget", "fdtoverlay"))
    own = image.HERE / "boards/raspberry-pi-5"
    board = msgspec.toml.decode(own.with_suffix(".toml").read_bytes(), type=image.Board)
    plain, boot = tmp_path / "plain.dtb", tmp_path / "boot"
    compile_ = [dtc, "-q", "-@", "-O", "dtb", "-o", plain]
    subprocess.run(compile_, input=BASE, text=True, check=True)
    trees = [f"usr/lib/modules/7/dtb/broadcom/bcm{name}-b.dtb" for name in ("2712-rpi-5", "2712-d-rpi-5", "2711-rpi-4")]

    def debian(*names: str) -> Path:
        with tarfile.open(tmp_path / "debian.tar", "w") as tar:
            for name in names:
                tar.add(plain, f"./{name}")
        return tmp_path / "debian.tar"

    boot.mkdir()
    image.before(board, own, debian("usr/lib/u-boot/rpi_arm64/u-boot.bin", *trees), boot)
    config = dict(line.split("=") for line in (boot / "config.txt").read_text().split())
    assert {path.name for path in boot.iterdir()} == {
        "config.txt", config["kernel"], "bcm2712-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb", "overlays",
    }  # fmt: skip
    assert (boot / "bcm2712-rpi-5-b.dtb").read_bytes() == plain.read_bytes()

    def laid(name: str, node: str, of: str, kind: str) -> str:
        made = tmp_path / "made.dtb"
        subprocess.run([over, "-i", plain, "-o", made, boot / f"overlays/{name}.dtbo"], check=True)
        asked = [get, "-t", kind, made, node, of]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    # U-Boot's "doc/device-tree-bindings/config.txt": no key is waited for, and none read
    assert laid(config["dtoverlay"], "/config", "bootdelay", "i") == "-2"
    assert laid("bcm2712d0", "/soc/pinctrl", "compatible", "s") == "brcm,bcm2712d0-pinctrl"
    assert laid("bcm2712d0", "/soc/serial", "interrupts", "i") == "0 120 4"
    with pytest.raises(Misconfigured, match=r"usr/lib/u-boot.*it has none"):
        image.before(board, own, debian(*trees), boot)
    two = debian("usr/lib/u-boot/rpi_arm64/u-boot.bin", *trees, trees[0].replace("/7/", "/8/"))
    with pytest.raises(Misconfigured, match=r"it has .*/7/.*/8/"):
        image.before(board, own, two, boot)


def test_only_what_names_another_suite_comes_from_there() -> None:
    found = {
        file.stem: image.suites(msgspec.toml.decode(file.read_bytes(), type=image.Board))
        for file in (image.HERE / "boards").glob("*.toml")
    }
    assert found == {"generic-x86-64": [], "arm64": [], "raspberry-pi-5": ["trixie", "trixie-backports"]}


def test_each_board_says_all_that_differs_and_starts_where_its_uefi_looks() -> None:
    for file in sorted((image.HERE / "boards").glob("*.toml")):
        board = msgspec.toml.decode(file.read_bytes(), type=image.Board)
        name, made = {"x86_64": ("BOOTX64.EFI", "amd64"), "aarch64": ("BOOTAA64.EFI", "arm64")}[board.machine]
        assert (board.loader, board.architecture) == (f"EFI/BOOT/{name}", made), "UEFI specification, 3.5.1.1"
