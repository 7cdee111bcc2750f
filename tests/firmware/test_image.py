"""The image starts in a computer with UEFI, takes a film, and shows its outcome over TLS."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
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
from firmware import authority, bom, bundle, card, data, slots
from firmware import image as recipe
from firmware.signature import SecretKey
from models import phantom
from tests import clinic
from tests.box import until
from tests.conftest import lacking, peer
from tests.firmware import air
from tests.firmware.conftest import MIB
from tests.firmware.leaks import leak
from tests.firmware.machine import BOARDS, NAME, SECONDS, Container, Machine, Tablet
from tests.people import PIN
from web import ranking

pytestmark = pytest.mark.timeout(1800)
release = pytest.mark.release
"""Not in every run: minutes each."""
CACHE = Path(os.environ.get("OUTPOST_IMAGE_CACHE", Path.home() / ".cache/outpost"))
ROUNDS = 25
"""In how many the power goes."""
AT_ONCE = 12
"""Films that an X-ray unit sends in each."""
SETUP = r"Setup +code ([0-9A-Z]{5}-[0-9A-Z]{5})"
LISTENS = "DICOM KALENE on port 11112"
DRIVERS = """
    3c59x 8139cp 8139too alx asix atl1c atl1e atlantic ax88179_178a b44 bnx2 cdc_ether cdc_ncm dm9601 e100 e1000 e1000e forcedeth
    i40e igb igc ixgbe jme mcs7830 natsemi ne2k-pci pcnet32 r8152 r8169 sis900 skge sky2 smsc75xx smsc95xx stmmac tg3 via-rhine
    via-velocity virtio_net iwlmvm iwldvm rtw88_8821ce rtw88_8822ce rtl8821ae rtl8xxxu brcmfmac
    ahci nvme sd_mod usb-storage uas mmc_block sdhci-pci sdhci-acpi virtio_blk virtio_scsi xhci-pci dm-crypt dm-verity dm-mod
    squashfs vfat nls_ascii loop zram softdog nft_ct nft_limit algif_skcipher algif_hash cmac
"""
"""What the kernel of a PC has: network cards, those of USB too, radios, disks, and what the start, the firewall and iwd need."""
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
[policy]
impression_first = false
"""


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who releases updates for the image."""
    folder = tmp_path_factory.mktemp("keys") / "development"
    authority.create(folder, "development")
    return folder


every_board = pytest.mark.parametrize(
    "image", [name if name == "generic-x86-64" else pytest.param(name, marks=release) for name in BOARDS], indirect=True
)


@pytest.fixture(scope="session", params=["generic-x86-64"])
def image(keys: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The image of an ordinary PC or of the board that a test names, signed by a key of its own."""
    if os.geteuid():
        lacking("an image is made by root: sudo build/test firmware")
    board = BOARDS[request.param]
    for program, package in (
        ("mmdebstrap", "mmdebstrap"), ("mksquashfs", "squashfs-tools"), ("veritysetup", "cryptsetup-bin"),
        ("mkfs.vfat", "dosfstools"), ("mcopy", "mtools"), ("grub-mkimage", "grub-common"), ("dtc", "device-tree-compiler"),
        ("rauc", "rauc"), board.program,
    ):  # fmt: skip
        peer(program, package)
    file, package = board.firmware
    if not Path(file).exists():
        lacking(f"{file} is missing: apt-get install {package}")
    return recipe.build(request.param, tmp_path_factory.mktemp(request.param), CACHE, SecretKey.generate(), keys)


@pytest.fixture
def machine(image: Path, tmp_path: Path) -> Iterator[Machine]:
    """A computer whose disk was flashed by a technician, with a site file."""
    site, disk = tmp_path / "kalene.site", tmp_path / "disk"
    site.write_bytes(sites.sign(SITE, Ed25519PrivateKey.generate()))
    disk.touch()
    os.truncate(disk, 4096 * MIB)
    command = ["flash", str(image), "--key", f"{image}.pub", "--to", str(disk), "--site", str(site), "--yes"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    box = Machine(disk, next(board for name, board in BOARDS.items() if name in image.name))
    try:
        yield box
    finally:
        box.cut()
        if keep := os.environ.get("OUTPOST_KEEP_SERIAL"):
            shutil.copy(box.serial, keep)


@release
def test_the_units_of_a_slot_take_a_film_and_show_its_outcome(image: Path, tmp_path: Path) -> None:
    if os.geteuid() or not Path("/sys/fs/cgroup").is_dir():
        pytest.skip("as root only")
    site, path = tmp_path / "site.txt", tmp_path / "film.dcm"
    site.write_bytes(sites.sign(f'{SITE}[network]\naddress = "192.168.7.20/24"\n', Ed25519PrivateKey.generate()))
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
        # all TCP ports, from another computer in its network: what is declared by IPv4, nothing by IPv6
        assert box.scanned("192.168.7.20", "fe80::ff:fe00:20%cable") == ["80 443 11112", ""]
        # the worker is alone
        worker = box.run("/bin/systemctl", "show", "--value", "--property=MainPID", "outpost-worker").strip()
        assert box.run("/bin/cat", f"/proc/{worker}/net/dev").count(":") == 1  # the loopback, and nothing else
        assert box.run("/bin/sh", "-c", "touch /etc/x 2>/dev/null || echo read-only").strip() == "read-only"
        assert "outpost:" in box.run("/bin/cat", "/etc/passwd")
        hashes = [line.split(":")[1] for line in box.run("/bin/cat", "/etc/shadow").splitlines()]
        assert hashes and all(one.startswith(("!", "*")) for one in hashes)  # nobody can sign in
    finally:
        box.stop()


@release
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


@release
@pytest.mark.parametrize(("keys_of", "address"), [("WPA-PSK", "192.168.9.20"), ("SAE", "192.168.9.50")])
def test_a_box_joins_the_wifi_of_its_clinic(image: Path, tmp_path: Path, keys_of: str, address: str) -> None:
    """With WPA2 and an address of its own, with WPA3 and one that the network gives: an X-ray unit there has its echo answered."""
    point = air.Point("Kalene – Röntgen", r' a\b "horse"\s ~8 ', keys_of)
    network = '[network]\naddress = "192.168.9.20/24"\n' if address.endswith(".20") else ""
    wifi = f'[network.wifi]\nssid = {json.dumps(point.ssid)}\npassphrase = {json.dumps(point.passphrase)}\ncountry = "KE"\n'
    site = sites.sign(SITE + network + wifi, Ed25519PrivateKey.generate())
    said = air.told(image, CACHE / "archives", site, point, address, tmp_path)
    name = f"={point.ssid.encode().hex()}.psk"
    heard = re.findall(r"AIR (.*?)\r?$", said, re.MULTILINE)
    assert sorted(set(heard)) == sorted([
        f"ping {address}", "echo 0", "radio country KE", "end", f"nowhere else: /var/lib/iwd/{name}",
        "file root 700 /var/lib/iwd", f"file root 600 /var/lib/iwd/{name}", "file root 600 /var/lib/iwd/main.conf",
    ])  # fmt: skip
    assert "horse" not in said


@release
@every_board
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
    drivers = set(DRIVERS.split()) if "x86-64" in image.name else set()
    assert drivers <= {path.stem for path in (tmp_path / "root/usr/lib/modules").rglob("*.ko")}


@release
@pytest.mark.parametrize("image", ["raspberry-pi-5"], indirect=True)
def test_the_loader_of_a_raspberry_pi_finds_what_it_needs_for_either_stepping(image: Path, tmp_path: Path) -> None:
    """What can be said of the card without the board."""
    table = [peer("sfdisk", "fdisk"), "--json", image]
    told = json.loads(subprocess.run(table, capture_output=True, check=True).stdout)["partitiontable"]
    first = told["partitions"][0]
    assert (told["label"], first["name"]) == ("gpt", "outpost-esp")  # the loader takes the first one with FAT
    begin, end = partition(image, "outpost-esp")
    card_of_it, boot = tmp_path / "esp", tmp_path / "boot"
    boot.mkdir()
    with image.open("rb") as file:
        file.seek(begin)
        card_of_it.write_bytes(file.read(end - begin))
    assert card_of_it.read_bytes()[54:62] == b"FAT16   "
    subprocess.run([peer("mcopy", "mtools"), "-i", card_of_it, "-s", "::", boot], check=True)
    config = [line.split("=") for line in (boot / "config.txt").read_text().split()]
    loaded = {key: value for key, value in config}
    uboot = (boot / loaded["kernel"]).read_bytes()
    assert uboot[3] >> 2 == 0b101 and b"brcm,bcm2712-sdhci" in uboot, "it begins with a branch, and knows the card"
    assert (boot / f"overlays/{loaded['dtoverlay']}.dtbo").exists()

    dtc, put, over = (peer(name, "device-tree-compiler") for name in ("dtc", "fdtput", "fdtoverlay"))

    def tree(path: Path) -> str:
        read = [dtc, "-q", "-s", "-I", "dtb", "-O", "dts", path]
        return subprocess.run(read, capture_output=True, text=True, check=True).stdout

    c1, d0, made = boot / "bcm2712-rpi-5-b.dtb", boot / "bcm2712-d-rpi-5-b.dtb", tmp_path / "made.dtb"
    for needed in ("raspberrypi,5-model-b", "raspberrypi,rp1-gem", "snps,dwc3", "brcm,bcm2712-sdhci"):
        assert needed in tree(c1)
    assert "serial10 =" in tree(c1) and tree(c1) != tree(d0)
    subprocess.run([over, "-i", c1, "-o", made, boot / "overlays/bcm2712d0.dtbo"], check=True)
    subprocess.run([put, "-d", d0, "/soc@107c000000/gpio@7d517c00", "gpio-line-names"], check=True)  # for people
    assert tree(made) == tree(d0), "what the loader makes of the one tree on a D0 is Debian's tree for it"

    begin, end = partition(image, "outpost-a")
    with image.open("rb") as file:
        file.seek(begin)
        (tmp_path / "slot").write_bytes(file.read(end - begin))
    unpack = [peer("unsquashfs", "squashfs-tools"), "-q", "-n", "-d", tmp_path / "root", tmp_path / "slot"]
    subprocess.run([*unpack, "boot", "usr/lib/modules"], check=True, capture_output=True)
    assert (tmp_path / "root/boot/vmlinuz").read_bytes()[56:60] == b"ARM\x64"
    start = subprocess.run(
        [peer("zstd", "zstd"), "-dc", tmp_path / "root/boot/initrd"], capture_output=True, check=True
    )
    (modules,) = (tmp_path / "root/usr/lib/modules").iterdir()
    built = (modules / "modules.builtin").read_bytes()
    board = msgspec.toml.decode((recipe.HERE / "boards/raspberry-pi-5.toml").read_bytes(), type=recipe.Board)
    for name in board.modules:
        pattern = rb"/%s\.ko" % name.replace("_", "[-_]").encode()
        assert re.search(pattern, start.stdout) or re.search(pattern, built), name
    for name in ("rp1_pci", "clk-rp1", "pinctrl-rp1", "macb", "dwc3", "irq-bcm2712-mip"):  # network and USB
        assert list(modules.rglob(f"{name}.ko*")), name
    versions = {
        part["name"]: part["version"] for part in json.loads(image.with_suffix(".cdx.json").read_text())["components"]
    }
    assert versions["libc6"].startswith("2.36-") and versions["python3"].startswith("3.11."), "all else is Debian 12"


@release
def test_the_model_passes_its_self_test_on_a_processor_without_vnni() -> None:
    """Most PCs made before 2021; QEMU's emulated processor has AVX2 and no VNNI. It comes to the very probabilities."""
    script = (
        "import numpy as np; from models.model import Model, golden_outputs; from models.bundle import SHIPPED, load;"
        "model, golden = Model(load(SHIPPED)), np.load(SHIPPED / 'golden.npz'); model.self_test();"
        "assert np.abs(golden_outputs(model, golden['films']) - golden['probabilities']).max() < 1e-6"
    )
    command = [peer("qemu-x86_64-static", "qemu-user-static"), "-cpu", "max", sys.executable, "-c", script]
    subprocess.run(command, cwd=recipe.ROOT, check=True, timeout=SECONDS)


def partition(disk: Path, name: str) -> tuple[int, int]:
    """Where it begins and ends, in bytes."""
    with disk.open("rb") as file:
        ((begin, end),) = [(begin, end) for part, begin, end in card.partitions(file.fileno()) if part == name]
    return begin, end


def beside(disk: Path, name: str) -> bytes:
    """A file beside the boot loader's configuration, as it lies on the disk."""
    command = [peer("mtype", "mtools"), "-i", f"{disk}@@{partition(disk, 'outpost-esp')[0]}", f"::EFI/outpost/{name}"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def variables(disk: Path) -> dict[str, str]:
    """What the boot loader would find on the disk."""
    return slots.parse(beside(disk, "grubenv"))


def holds(disk: Path, text: bytes, begin: int) -> bool:
    """Whether a disk shows it to somebody who reads it from a place on."""
    with disk.open("rb") as file:
        file.seek(begin)
        before = b""
        while block := file.read(16 * MIB):
            if text in before + block:
                return True
            before = block[-len(text) :]
    return False


def send(machine: Machine, *paths: Path) -> None:
    """What an X-ray unit does; all are acknowledged."""
    command = [peer("storescu", "dcmtk"), "-aec", "KALENE", "127.0.0.1", str(machine.dicom), *map(str, paths)]
    subprocess.run(command, check=True, timeout=SECONDS)


def sign_in(machine: Machine, code: str, folder: Path) -> Tablet:
    """The tablet of the box's lead, with the code that stands at the serial port."""
    join(machine, folder / "outpost.crt")
    tablet = machine.tablet(folder / "outpost.crt")
    status, text = tablet.ask("/setup", {"code": code, "name": "Grace", "new": PIN, "again": PIN})
    assert status in (200, 302, 303), text
    return tablet


def join(machine: Machine, file: Path) -> None:
    """Fetch the box's authority, as a tablet does that comes for the first time."""
    with urllib3.PoolManager(timeout=60) as pool:
        answer = pool.request("GET", f"http://127.0.0.1:{machine.http}/outpost.crt", retries=10)
    file.write_bytes(x509.load_der_x509_certificate(answer.data).public_bytes(Encoding.PEM))


@every_board
def test_a_flashed_disk_becomes_a_box_that_takes_a_film_and_shows_its_outcome(
    image: Path, machine: Machine, tmp_path: Path
) -> None:
    """The board has no security chip: the key of the data partition lies on the disk."""
    machine.start()
    code = machine.until(SETUP).group(1)
    machine.until(LISTENS)
    path = tmp_path / "film.dcm"
    film(phantom.chest(1), "Mwansa^Ruth", "050Y", "F").save_as(path, enforce_file_format=True)
    send(machine, path)
    ready = machine.until(rf"\[ *([0-9.]+)\].*{LISTENS}").group(1)
    tablet, text = sign_in(machine, code, tmp_path), ""
    end = time.monotonic() + SECONDS
    while not (outcome := re.search(r'class="row (immediate|soon|routine|could_not_assess)"', text)):
        assert time.monotonic() < end, text
        time.sleep(1)
        _, text = tablet.ask("/")
    assert "Ruth" in text
    assert "its key is on the same disk" in tablet.ask("/status")[1]
    _, text = tablet.ask("/films/1")
    tablet.close()
    # on whatever processor, it is what the same film comes to here
    told = json.loads(CliRunner().invoke(main, ["triage", "--json", str(path)]).stdout)
    assert outcome.group(1) == told["outcome"]
    shown = [int(percent) for percent in re.findall(r"<p><b>(\d+)\s*%</b>", text)]
    assert shown == [round(100 * one["probability"]) for one in told["findings"]], text
    machine.until("slot A is good")
    machine.until("Finished outpost-good.service")
    machine.cut()
    assert variables(machine.disk) == {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}
    failed = re.findall(r"systemd\[1\]: (?:Failed to start|\S+: Failed with result).*", machine.said())
    assert failed == []
    print(f"ready for films {ready} s after its kernel began, on a machine with a load of {os.getloadavg()[0]:.0f}")

    begin, _ = partition(machine.disk, "outpost-data")
    system, end_of_system = partition(machine.disk, "outpost-a")
    with machine.disk.open("rb") as disk, image.open("rb") as flashed:
        disk.seek(system), flashed.seek(system)
        assert disk.read(end_of_system - system) == flashed.read(end_of_system - system), "the root is never written"
        disk.seek(begin)
        header = disk.read(6)
    assert header == b"LUKS\xba\xbe"
    assert not holds(machine.disk, b"Mwansa", begin) and not holds(machine.disk, b"SQLite format 3", begin)
    key = beside(machine.disk, "data.key")
    assert len(set(key)) > 16


@release
@every_board
def test_a_box_forgets_everything_where_the_card_says_so(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    code = machine.until(SETUP).group(1)
    machine.until(LISTENS)
    path = tmp_path / "film.dcm"
    film(phantom.chest(1), "Mwansa^Ruth", "050Y", "F").save_as(path, enforce_file_format=True)
    send(machine, path)
    machine.until("slot A is good")
    machine.cut()
    key = beside(machine.disk, "data.key")
    (tmp_path / data.ORDER).write_text("Kalene\n")
    place = f"{machine.disk}@@{partition(machine.disk, card.SITE)[0]}"
    copy = [peer("mcopy", "mtools"), "-i", place, tmp_path / data.ORDER, "::"]
    subprocess.run(copy, check=True, env=os.environ | {"MTOOLS_SKIP_CHECK": "1"})
    machine.start()
    machine.until("everything that was on this box is erased")
    assert machine.until(SETUP).group(1) != code
    machine.until(LISTENS)
    machine.cut()
    assert beside(machine.disk, "data.key") not in (key, bytes(data.SIZE))
    listed = subprocess.run([peer("mdir", "mtools"), "-b", "-i", place], capture_output=True, text=True, check=True)
    assert "reset" not in listed.stdout.casefold()


@release
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


def system(image: Path) -> tuple[bytes, bytes]:
    """What is in slot A of an image: the system with its hashes, and the slot's last block."""
    begin, end = partition(image, "outpost-a")
    with image.open("rb") as file:
        file.seek(begin)
        slot = file.read(end - begin)
    held, last = slot[: -bundle.BLOCK].rstrip(b"\0"), slot[-bundle.BLOCK :]
    return held.ljust(-(-len(held) // bundle.BLOCK) * bundle.BLOCK, b"\0"), last


def stick(keys: Path, held: bytes, last: bytes, version: str, folder: Path) -> Path:
    """A stick with a release of a system."""
    path, mirror, made = folder / "system", folder / "mirror", folder / "stick"
    path.write_bytes(held)
    by = (keys / "signer.pem", keys / "signer.key")
    released = bundle.make(path, last, "generic-x86-64", version, folder / "b.raucb", *by)
    authority.add(mirror, keys, (released, "generic-x86-64", version), now())
    made.touch()
    os.truncate(made, 1024 * MIB)
    label = [peer("mkfs.vfat", "dosfstools"), "-F", "32", "-n", "OUTPOST-USB", made]
    subprocess.run(label, check=True, capture_output=True)
    copy = [peer("mcopy", "mtools"), "-i", made, "-s", *sorted(mirror.iterdir()), "::"]
    subprocess.run(copy, check=True, env=os.environ | {"MTOOLS_SKIP_CHECK": "1"})
    return made


@release
def test_an_update_on_a_stick_is_installed_started_and_kept(
    image: Path, keys: Path, machine: Machine, tmp_path: Path
) -> None:
    """The technician's whole part: put a stick in, and switch the box off and on. The box is backed up to it as well.

    The board has a security chip, which gives the new system the key of the data partition as it gave it to the old one.
    """
    machine.stick, machine.chip = stick(keys, *system(image), "0.9.0", tmp_path), tmp_path / "chip"
    machine.start()
    code = machine.until(SETUP).group(1)
    machine.until("slot A is good")
    machine.until("Version 0.9.0 is on the box and starts when the box does")
    machine.until(r"(\w{5}-){5}\w{5}")
    machine.until("all read back and right")
    machine.until("Finished outpost-stick.service")
    machine.cut()
    assert variables(machine.disk)["ORDER"] == "B A"
    assert beside(machine.disk, "data.key") == bytes(data.SIZE), "the key is in the chip and nowhere else"
    machine.stick = None
    machine.start()
    machine.until("Outpost, slot B")
    machine.until("slot B is good")
    machine.until("Finished outpost-good.service")
    tablet = sign_in(machine, code, tmp_path)
    assert "its key is in the box’s security chip" in tablet.ask("/status")[1]
    tablet.close()
    machine.cut()
    told = variables(machine.disk)
    assert (told["B_OK"], told["B_TRY"], told["A_OK"]) == ("1", "0", "1")

    machine.chip = tmp_path / "another chip"
    machine.start()
    machine.until("outpost: the security chip does not give out the key of the disk")
    machine.cut()


@release
def test_an_update_that_does_not_start_ends_on_the_slot_before_and_the_page_says_so(
    image: Path, keys: Path, machine: Machine, tmp_path: Path
) -> None:
    """Signed, released, installed and read back; but of the system only the kernel and its start are there: it cannot go on."""
    (tmp_path / "slot").write_bytes(system(image)[0])
    unpack = [peer("unsquashfs", "squashfs-tools"), "-quiet", "-d", tmp_path / "root", tmp_path / "slot", "boot"]
    subprocess.run(unpack, check=True, capture_output=True)
    pack = [peer("mksquashfs", "squashfs-tools"), tmp_path / "root", tmp_path / "start", "-quiet", "-comp", "gzip"]
    subprocess.run(pack, check=True, capture_output=True)
    held = (tmp_path / "start").read_bytes()
    last = f"outpost-slot {len(held)} {'0' * 64}\n".encode().ljust(bundle.BLOCK, b"\0")
    machine.stick = stick(keys, held, last, "0.9.1", tmp_path)
    machine.start()
    code = machine.until(SETUP).group(1)
    machine.until("Version 0.9.1 is on the box and starts when the box does")
    machine.until("Finished outpost-stick.service")
    machine.cut()
    machine.stick = None
    machine.start()
    machine.until("Outpost, slot B")
    machine.until("Outpost, slot A")
    machine.until("slot A is good; slot B was not, and is not started again")
    tablet = sign_in(machine, code, tmp_path)
    assert "Version 0.9.1 did not work on this box, so it runs the one before" in tablet.ask("/status")[1]
    tablet.close()
    machine.cut()
    assert variables(machine.disk) == {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}


@release
@pytest.mark.timeout(ROUNDS * 2400)
def test_a_box_whose_power_goes_while_films_arrive_starts_every_time_and_has_every_one(
    machine: Machine, tmp_path: Path
) -> None:
    """In each round the box starts, takes films one after another, and loses its power at a moment that nobody chose."""
    chance, named, acknowledged, code = random.Random(7), 0, set[str](), ""
    for number in range(ROUNDS):
        machine.start()
        code = code or machine.until(SETUP).group(1)
        machine.until(LISTENS)
        paths = []
        for _ in range(AT_ONCE):
            named += 1
            path = tmp_path / f"film{named}.dcm"
            film(phantom.chest(named, (256, 256)), f"Film^N{named:04}", "050Y", "F").save_as(
                path, enforce_file_format=True
            )
            paths.append(path)
        command = [peer("storescu", "dcmtk"), "-v", "-aec", "KALENE", "127.0.0.1", str(machine.dicom), *map(str, paths)]
        end = time.monotonic() + chance.uniform(0, 20)
        with (tmp_path / "said").open("w+b") as said:
            sender = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            while time.monotonic() < end and sender.poll() is None:
                time.sleep(0.01)
            machine.cut()
            sender.kill()
            sender.wait()
            said.seek(0)
            done = said.read().count(b"Received Store Response (Success)")
        acknowledged |= {f"N{named - AT_ONCE + 1 + at:04}" for at in range(done)}
        print(f"round {number + 1}: {done} acknowledged, load {os.getloadavg()[0]:.0f}")
    machine.start()
    machine.until(LISTENS)
    machine.until("Join +http")
    tablet = sign_in(machine, code, tmp_path)
    parts = range(1, AT_ONCE * ROUNDS // ranking.PART + 2)
    missing, end = set(acknowledged), time.monotonic() + SECONDS + 60 * len(acknowledged)
    while missing:  # a film has its name on the list once the worker has read it
        assert time.monotonic() < end, missing
        time.sleep(5)
        listed = "".join(tablet.ask(f"/?page={part}")[1] for part in parts)
        missing = {name for name in missing if name not in listed}
    tablet.close()
    assert acknowledged
    print(f"{len(acknowledged)} films acknowledged in {ROUNDS} rounds, all there")
