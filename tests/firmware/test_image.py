"""The image starts in a computer with UEFI, takes a film, and shows its outcome over TLS."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import urllib3
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from edge import config as settings
from edge import site as sites
from edge.cli import main
from edge.config import Config
from edge.records import Outcome
from edge.samples import film
from edge.state.store import now, open_store
from firmware import authority, bom, bundle, card, slots
from firmware import image as recipe
from firmware.signature import SecretKey
from models import phantom
from tests import clinic
from tests.box import until
from tests.conftest import peer
from tests.firmware.conftest import MIB
from tests.firmware.leaks import leak
from tests.firmware.machine import FIRMWARE, NAME, SECONDS, Container, Machine
from tests.people import PIN

pytestmark = [pytest.mark.release, pytest.mark.timeout(1800)]
NAMED = """import sqlite3
rows = sqlite3.connect("file:/var/lib/outpost/state/outpost.db?mode=ro", uri=True)
print(rows.execute("SELECT group_concat(header) FROM result").fetchone()[0])
"""
SITE = """
site = "kalene"
[clinic]
name = "Kalene"
timezone = "Africa/Lusaka"
[dicom]
ae_title = "KALENE"
"""


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who releases updates for the image."""
    folder = tmp_path_factory.mktemp("keys") / "development"
    authority.create(folder, "development")
    return folder


@pytest.fixture(scope="session")
def image(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of an ordinary PC, signed by a key of its own."""
    for program, package in (
        ("mmdebstrap", "mmdebstrap"), ("mksquashfs", "squashfs-tools"), ("veritysetup", "cryptsetup-bin"),
        ("mkfs.vfat", "dosfstools"), ("mcopy", "mtools"), ("grub-mkimage", "grub-common"),
        ("qemu-system-x86_64", "qemu-system-x86"), ("rauc", "rauc"),
    ):  # fmt: skip
        peer(program, package)
    for file, package in ((FIRMWARE, "ovmf"), (Path("/usr/lib/grub/x86_64-efi"), "grub-efi-amd64-bin")):
        assert file.exists(), f"{file} is missing: apt-get install {package}"
    cache = Path(os.environ.get("OUTPOST_IMAGE_CACHE", Path.home() / ".cache/outpost"))
    return recipe.build("generic-x86-64", tmp_path_factory.mktemp("image"), cache, SecretKey.generate(), keys)


@pytest.fixture
def machine(image: Path, tmp_path: Path) -> Iterator[Machine]:
    """A computer whose disk was flashed by a technician, with a site file."""
    site, disk = tmp_path / "kalene.site", tmp_path / "disk"
    site.write_bytes(sites.sign(SITE, Ed25519PrivateKey.generate()))
    disk.touch()
    os.truncate(disk, 4096 * MIB)
    told = ["flash", str(image), "--key", f"{image}.pub", "--to", str(disk), "--site", str(site), "--yes"]
    result = CliRunner().invoke(main, told)
    assert result.exit_code == 0, result.output
    box = Machine(disk)
    try:
        yield box
    finally:
        box.cut()
        if keep := os.environ.get("OUTPOST_KEEP_SERIAL"):
            shutil.copy(box.serial, keep)


def test_the_units_of_a_slot_take_a_film_and_show_its_outcome(image: Path, tmp_path: Path) -> None:
    if os.geteuid() or not Path("/sys/fs/cgroup").is_dir():
        pytest.skip("as root only")
    site, path = tmp_path / "site.txt", tmp_path / "film.dcm"
    site.write_bytes(sites.sign(SITE, Ed25519PrivateKey.generate()))
    film(phantom.chest(1), "Mwansa^Ruth", "050Y", "F").save_as(path, enforce_file_format=True)
    box = Container(image, site, tmp_path)
    try:
        box.start()
        code = box.until(r"Setup +code ([0-9A-Z]{5}-[0-9A-Z]{5})").group(1)
        box.until("DICOM KALENE on port 11112")
        box.until("Started outpost-worker.service")
        send = [str(peer("storescu", "dcmtk")), "-v", "-aec", "KALENE", "127.0.0.1", "11112", str(path)]
        box.run(*send, network=True)
        authority = tmp_path / "outpost.crt"
        curl = [str(peer("curl", "curl")), "--silent", "--show-error", "--max-time", "60"]
        box.run(*curl, "--output", str(authority), "http://127.0.0.1/outpost.crt", network=True)
        authority.write_bytes(x509.load_der_x509_certificate(authority.read_bytes()).public_bytes(Encoding.PEM))
        jar = str(tmp_path / "cookies")
        curl += ["--cacert", str(authority), "--resolve", f"{NAME}:443:127.0.0.1", "--cookie", jar, "--cookie-jar", jar]
        curl += ["--header", "Accept-Language: en", "--header", f"Origin: https://{NAME}"]
        form = {"code": code, "name": "Grace", "new": PIN, "again": PIN}
        told = [part for key, value in form.items() for part in ("--data-urlencode", f"{key}={value}")]
        box.run(*curl, *told, f"https://{NAME}/setup", network=True)

        def shown() -> bool:
            page = box.run(*curl, f"https://{NAME}/", network=True)
            return "Ruth" in page and re.search("Immediate|Soon|Routine|could not assess", page) is not None

        until(shown, "the film's outcome on the page")
        # from outside it can be reached at what is declared, and at nothing else
        rows = [line.split() for line in box.run("ss", "-H", "-l", "-t", "-u", "-n", network=True).splitlines()]
        reached = {row[4].rpartition(":")[2] for row in rows if not re.match(r"127\.|\[::1\]", row[4])}
        assert reached - {"5353"} == {"80", "443", "11112"}
        assert "policy drop" in box.run("nft", "list", "ruleset", network=True)
        # the worker is alone
        worker = box.run("/bin/systemctl", "show", "--value", "--property=MainPID", "outpost-worker").strip()
        assert box.run("/bin/cat", f"/proc/{worker}/net/dev").count(":") == 1  # the loopback, and nothing else
        assert box.run("/bin/sh", "-c", "touch /etc/x 2>/dev/null || echo read-only").strip() == "read-only"
        assert "outpost:" in box.run("/bin/cat", "/etc/passwd")
        hashes = [line.split(":")[1] for line in box.run("/bin/cat", "/etc/shadow").splitlines()]
        assert hashes and all(one.startswith(("!", "*")) for one in hashes)  # nobody can sign in
    finally:
        box.stop()


def test_a_new_box_becomes_what_the_one_on_the_stick_was(image: Path, tmp_path: Path) -> None:
    """A technician's whole part: the recovery code into a file on the card, and the stick into the new box."""
    if os.geteuid() or not Path("/sys/fs/cgroup").is_dir():
        pytest.skip("as root only")
    old, stick, site, code = (tmp_path / name for name in ("old", "stick", "site.txt", "recovery.txt"))
    stick.mkdir()
    config = Config(state=str(old))
    with closing(open_store(old)) as store:
        clinic.film(config, store, Outcome.IMMEDIATE, "Mwansa^Ruth")
    settings.save(config, tmp_path / "old.toml")
    told = CliRunner().invoke(main, ["--config", str(tmp_path / "old.toml"), "backup", "to", str(stick)])
    assert told.exit_code == 0, told.output
    written = re.search(r"(\w{5}-){5}\w{5}", told.output)
    assert written is not None
    code.write_text(f"{written[0]}\n")
    site.write_bytes(sites.sign(SITE, Ed25519PrivateKey.generate()))
    for path in (stick, *stick.rglob("*")):  # as on FAT, where nobody owns anything
        path.chmod(0o755 if path.is_dir() else 0o644)
    box = Container(image, site, tmp_path)
    box.brought |= {"/run/outpost-site/recovery.txt": code, "/run/outpost-old": stick}
    try:
        box.start()
        box.until("1 films, as of")
        box.until("Finished outpost-restore.service")
        box.until("DICOM KALENE on port 11112")
        rows = box.run("/usr/bin/python3", "-c", NAMED)
        assert "Mwansa^Ruth" in rows
    finally:
        box.stop()


def test_all_that_is_in_the_image_is_in_its_bill_and_nothing_is_secret(image: Path, tmp_path: Path) -> None:
    bill = json.loads(image.with_suffix(".cdx.json").read_text())
    versions = {part["name"]: part["version"] for part in bill["components"]}
    assert {"libc6", "systemd", "rauc", "cryptography", "outpost-cxr"} <= versions.keys() and len(versions) > 150
    unknown = {part["name"] for part in bill["components"] if part["licenses"][0]["license"]["name"] == bom.UNKNOWN}
    assert unknown == {"libcrypt1", "libpython3-stdlib", "python3", "python3-minimal"}  # in prose
    with image.open("rb") as file:
        ((begin, end),) = [(begin, end) for name, begin, end in card.partitions(file.fileno()) if name == "outpost-a"]
        file.seek(begin)
        (tmp_path / "slot").write_bytes(file.read(end - begin))
    unpack = [
        peer("unsquashfs", "squashfs-tools"),
        "-quiet",
        "-no-progress",
        "-d",
        tmp_path / "root",
        tmp_path / "slot",
    ]
    subprocess.run(unpack, check=True, capture_output=True)
    found = []
    for path in (tmp_path / "root").rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(tmp_path / "root").as_posix()
            own = name.startswith(tuple(f"{recipe.TOP}/{part}/" for part in ("edge", "models", "web", "firmware")))
            if "/libgnutls.so." not in name:  # it tests itself with keys that stand in its source
                found.append(leak(name, path.read_bytes(), own))
    assert [one for one in found if one] == [] and len(found) > 5000


def test_the_model_passes_its_self_test_on_a_processor_without_vnni() -> None:
    """Most PCs made before 2021; QEMU's emulated processor has AVX2 and no VNNI."""
    script = "from models.model import Model; from models.bundle import SHIPPED, load; Model(load(SHIPPED)).self_test()"
    command = [peer("qemu-x86_64-static", "qemu-user-static"), "-cpu", "max", sys.executable, "-c", script]
    subprocess.run(command, cwd=recipe.ROOT, check=True, timeout=SECONDS)


def variables(disk: Path) -> dict[str, str]:
    """What the boot loader would find on the disk."""
    with disk.open("rb") as file:
        ((_, begin, end), *_) = card.partitions(file.fileno())
        file.seek(begin)
        volume = disk.with_suffix(".efi")
        volume.write_bytes(file.read(end - begin))
    command = [peer("mtype", "mtools"), "-i", volume, "::EFI/outpost/grubenv"]
    return slots.parse(subprocess.run(command, capture_output=True, check=True).stdout)


def join(machine: Machine, file: Path) -> None:
    """Fetch the box's authority, as a tablet does that comes for the first time."""
    with urllib3.PoolManager(timeout=60) as pool:
        answer = pool.request("GET", f"http://127.0.0.1:{machine.http}/outpost.crt", retries=10)
    file.write_bytes(x509.load_der_x509_certificate(answer.data).public_bytes(Encoding.PEM))


def test_a_flashed_disk_becomes_a_box_that_takes_a_film(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    code = machine.until(r"Setup +code ([0-9A-Z]{5}-[0-9A-Z]{5})").group(1)
    machine.until("DICOM KALENE on port 11112")
    path = tmp_path / "film.dcm"
    film(phantom.chest(1), "Mwansa^Ruth", "050Y", "F").save_as(path, enforce_file_format=True)
    send = [peer("storescu", "dcmtk"), "-aec", "KALENE", "127.0.0.1", str(machine.dicom), str(path)]
    subprocess.run(send, check=True, timeout=SECONDS)
    ready = machine.until(r"\[ *([0-9.]+)\].*DICOM KALENE").group(1)

    join(machine, tmp_path / "outpost.crt")
    tablet = machine.tablet(tmp_path / "outpost.crt")
    status, text = tablet.ask("/setup", {"code": code, "name": "Grace", "new": PIN, "again": PIN})
    assert status in (200, 302, 303), text
    end = time.monotonic() + SECONDS
    while "Ruth" not in text or not re.search("Immediate|Soon|Routine|could not assess", text):
        assert time.monotonic() < end, text
        time.sleep(1)
        status, text = tablet.ask("/")
    tablet.close()

    machine.until("slot A is good")
    machine.until("Finished outpost-good.service")
    machine.cut()
    assert variables(machine.disk) == {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}
    failed = re.findall(r"systemd\[1\]: (?:Failed to start|\S+: Failed with result).*", machine.said())
    assert failed == []
    print(f"ready for films {ready} s after its kernel began, on a machine with a load of {os.getloadavg()[0]:.0f}")


def test_a_slot_that_is_damaged_gives_way_to_the_one_before(machine: Machine) -> None:
    """An update that rots: slot B has the same system with one bit changed, and was said to be good."""
    with machine.disk.open("r+b") as disk:
        place = {name: (begin, end) for name, begin, end in card.partitions(disk.fileno())}
        (a, end), (b, _) = place["outpost-a"], place["outpost-b"]
        disk.seek(a)
        system = bytearray(disk.read(end - a))
        size = int(system[-4096:].split()[1])
        system[size + 4096 + 8] ^= 1  # the hashes of hashes, which every read of the root needs
        disk.seek(b)
        disk.write(system)
        esp, last = place["outpost-esp"]
        disk.seek(esp)
        block = re.search(rb"# GRUB Environment Block\n(#.*\n)*ORDER=", disk.read(last - esp))
        assert block is not None
        at = esp + block.start()
        disk.seek(at)
        disk.write(slots.render({"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"}))
    machine.start()
    machine.until("Outpost, slot B")
    machine.until("Outpost, slot A")
    machine.until("slot A is good; slot B was not, and is not started again")
    machine.until("Finished outpost-good.service")
    machine.cut()
    assert variables(machine.disk) == {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}


def test_an_update_on_a_stick_is_installed_started_and_kept(
    image: Path, keys: Path, machine: Machine, tmp_path: Path
) -> None:
    """The technician's whole part: put a stick in, and switch the box off and on. The box is backed up to it as well."""
    with image.open("rb") as file:
        ((begin, end),) = [(begin, end) for name, begin, end in card.partitions(file.fileno()) if name == "outpost-a"]
        file.seek(begin)
        slot = file.read(end - begin)
    system, last = slot[: -bundle.BLOCK].rstrip(b"\0"), slot[-bundle.BLOCK :]
    path = tmp_path / "system"
    path.write_bytes(system.ljust(-(-len(system) // bundle.BLOCK) * bundle.BLOCK, b"\0"))
    made = bundle.make(
        path, last, "generic-x86-64", "0.9.0", tmp_path / "b.raucb", keys / "signer.pem", keys / "signer.key"
    )
    mirror, stick = tmp_path / "mirror", tmp_path / "stick"
    authority.add(mirror, keys, (made, "generic-x86-64", "0.9.0"), now())
    stick.touch()
    os.truncate(stick, 1024 * MIB)
    subprocess.run(
        [peer("mkfs.vfat", "dosfstools"), "-F", "32", "-n", "OUTPOST-USB", stick], check=True, capture_output=True
    )
    subprocess.run(
        [peer("mcopy", "mtools"), "-i", stick, "-s", *sorted(mirror.iterdir()), "::"],
        check=True,
        env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
    )
    machine.stick = stick
    machine.start()
    machine.until("slot A is good")
    machine.until("Version 0.9.0 is on the box and starts when the box does")
    machine.until(r"(\w{5}-){5}\w{5}")
    machine.until("all read back and right")
    machine.until("Finished outpost-stick.service")
    machine.cut()
    assert variables(machine.disk)["ORDER"] == "B A"
    machine.stick = None
    machine.start()
    machine.until("Outpost, slot B")
    machine.until("slot B is good")
    machine.until("Finished outpost-good.service")
    machine.cut()
    told = variables(machine.disk)
    assert (told["B_OK"], told["B_TRY"], told["A_OK"]) == ("1", "0", "1")
