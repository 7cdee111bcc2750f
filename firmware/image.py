"""The image recipe: Debian, Outpost and a board's few lines become a disk image with two slots, its block map and signature.

    disk      1 EFI     boot loader and which slot is to start        32 MiB, FAT
              2 site    the site file's place                          4 MiB, FAT
              3 a       a slot: the system, its hashes, its last block says where those begin
              4 b       the other slot, empty
              5 data    everything that changes, encrypted; the box makes it from the rest of the disk at its first start

`build/image BOARD` runs it. It needs Debian's mirror and the package registry once; what it fetched it keeps in --cache.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.errors import Misconfigured
from edge.state.store import BUILT
from firmware import blockmap, bom, bundle, card, data, signature
from firmware.signature import SecretKey

HERE = Path(__file__).parent
ROOT = HERE.parent
MIB = 1024 * 1024
BLOCK = 4096
EPOCH = int(BUILT.timestamp())
"""No file of the image is younger (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
ESP_MIB, SITE_MIB, SLOT_MIB = 32, 4, 512
SUITE = "bookworm"
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "systemd-zram-generator", "udev", "dbus", "kmod",
    "iproute2", "nftables", "initramfs-tools", "busybox", "cryptsetup-bin", "e2fsprogs", "python3", "ca-certificates", "tzdata",
    "zstd", "rauc", "squashfs-tools", "libtss2-esys-3.0.2-0", "libtss2-rc0", "iwd", "wireless-regdb",
)  # fmt: skip
PYTHON = "3.11"
"""Of Debian's `SUITE`."""
TOP = "usr/lib/python3/dist-packages"
UNWANTED = ("bin", "pynetdicom/tests")
"""Of the Python packages: programs that nobody can start, and keys that everybody knows."""
GRUB = "var/lib/outpost-grub"
"""Where `debian/customize` leaves the boot loader's parts: in the tar, not in the slot."""
GRUB_MODULES = (
    "part_gpt", "fat", "squash4", "normal", "linux", "loadenv", "regexp", "test", "echo", "boot", "configfile", "gzio", "sleep",
    "reboot",
)  # fmt: skip


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs from board to board."""

    architecture: str
    machine: str
    kernel: str
    grub: str
    loader: str
    serial: str
    modules: tuple[str, ...]
    packages: tuple[str, ...] = ()
    """More of Debian; `NAME/SUITE` is taken from another suite, and what that needs. So may `kernel` be."""
    boot: tuple[str, ...] = ()
    """What of Debian the board's own loader reads beside GRUB, and beside the files in the folder of the board's name."""


@dataclass(frozen=True)
class Slot:
    """A system as it lies in a slot."""

    path: Path
    size: int
    """Bytes of system and hashes; the last block of the partition follows at its end."""
    last: bytes


def build(name: str, out: Path, cache: Path, key: SecretKey, authority: Path | None = None) -> Path:
    """Make the image of a board in `out`, with map, signature, public key and bill of materials beside it; the image's path.

    With an `authority` (`outpost publish authority`) the system takes its updates, and comes as one: `.raucb`.
    """
    version = _version()
    out.mkdir(parents=True, exist_ok=True)
    image = out / f"outpost-{name}-{version}.img"
    board, system, fetched = fetch(name, cache)
    folders = (fetched, outpost(out))
    more = {"etc/systemd/journald.conf.d/serial.conf": f"[Journal]\nTTYPath=/dev/{board.serial}\n".encode()}
    made = slot(system, folders, out, more if authority is None else more | trust(name, authority))
    parts = bom.debian(system, SUITE) + bom.python(folders)
    image.with_suffix(".cdx.json").write_text(bom.bill(parts, image.stem, version, EPOCH), encoding="utf-8")
    image.with_suffix(".licences.txt").write_text(bom.licences(parts), encoding="utf-8")
    shutil.rmtree(out / "outpost")
    held = disk(board, HERE / "boards" / name, system, made, image)
    if authority is not None:
        by = (authority / "signer.pem", authority / "signer.key")
        bundle.make(made.path, made.last, name, version, image.with_suffix(".raucb"), *by)
    made.path.unlink()
    content = blockmap.write(blockmap.make(image, held))
    Path(f"{image}.bmap").write_bytes(content)
    Path(f"{image}.bmap.minisig").write_text(signature.sign(content, key, image.stem), encoding="utf-8")
    Path(f"{image}.pub").write_text(signature.write_public(key.public), encoding="utf-8")
    return image


def fetch(name: str, cache: Path) -> tuple[Board, Path, Path]:
    """What the image of a board is made of: the board, Debian, and the Python packages; after this nobody else is asked."""
    board = msgspec.toml.decode((HERE / "boards" / f"{name}.toml").read_bytes(), type=Board)
    cache.mkdir(parents=True, exist_ok=True)
    return board, debian(board, cache), packages(board, cache)


def debian(board: Board, cache: Path) -> Path:
    """Debian with a kernel and the start of a box, as a tar in the cache; made again when its recipe has changed."""
    recipe = sorted((HERE / "debian").iterdir())
    files = b"".join(path.name.encode() + path.read_bytes() for path in recipe)
    named = (board.kernel, board.packages, board.modules, *board.boot)
    facts = repr((SUITE, PACKAGES, board.architecture, *named)).encode()
    tar = cache / f"debian-{board.architecture}-{hashlib.sha256(facts + files).hexdigest()[:16]}.tar"
    if not tar.exists():
        archives = cache / "archives"
        archives.mkdir(exist_ok=True)
        command = [
            "mmdebstrap", "--quiet", "--variant=minbase", f"--architectures={board.architecture}",
            "--components=main,non-free-firmware", f"--include={','.join((*PACKAGES, board.kernel, *board.packages))}",
            '--aptopt=Apt::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "bash-completion")),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *_others(board), *(f"--dpkgopt=path-include=/{path}" for path in board.boot),
            "--skip=essential/unlink", '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
            f"--setup-hook=sync-in {archives} /var/cache/apt/archives",
            f"--essential-hook={HERE / 'debian/prepare'} \"$1\"",
            f"--customize-hook=sync-out /var/cache/apt/archives {archives}",
            f"--customize-hook={HERE / 'debian/customize'} \"$1\"", SUITE, str(tar.with_suffix(".new.tar")),
        ]  # fmt: skip
        # no start yet when the kernel is unpacked: `customize` makes it
        _run(*command, MODULES=" ".join(board.modules), GRUB=f"grub-efi-{board.architecture}-bin", INITRD="No")
        tar.with_suffix(".new.tar").rename(tar)
    return tar


def suites(board: Board) -> list[str]:
    """From which suites of Debian beside `SUITE` a board has something."""
    return sorted({name.partition("/")[2] for name in (board.kernel, *board.packages)} - {""})


def _others(board: Board) -> list[str]:
    """What has mmdebstrap take from other suites only what is named as theirs, and what that needs and cannot be had otherwise."""
    options, apt = [], '"$1/etc/apt'
    for suite in suites(board):
        source = f'{apt}/sources.list" > {apt}/sources.list.d/{suite}.list"'
        options.append(f'--setup-hook=sed -n "s/ {SUITE} main/ {suite} main/p" {source}')
        pin = f"Package: *\\nPin: release n={suite}\\nPin-Priority: 100\\n"
        options.append(f'--setup-hook=printf "{pin}" > {apt}/preferences.d/{suite}"')
    if options:  # their kernels bring hooks in a second folder, where Debian 12's run-parts takes but one, and every board's tree
        options += [f"--dpkgopt=path-exclude=/{path}/*" for path in ("etc/kernel", "usr/lib/modules/*/dtb")]
    return options


def packages(board: Board, cache: Path) -> Path:
    """The Python packages of a box at the versions that were tested, each checked by its hash, as a folder in the cache."""
    lock = ROOT / "build/locks/box.txt"
    facts = lock.read_bytes() + repr(UNWANTED).encode()
    folder = cache / f"packages-{board.machine}-{hashlib.sha256(facts).hexdigest()[:16]}"
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        tags = [f"--platform=manylinux_2_{minor}_{board.machine}" for minor in range(36, 16, -1)]
        _run(
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
            "--only-binary=:all:", "--no-compile", "--implementation=cp", f"--python-version={PYTHON}", *tags,
            f"--platform=manylinux2014_{board.machine}", f"--target={fresh}", "-r", str(lock),
        )  # fmt: skip
        for name in UNWANTED:
            shutil.rmtree(fresh / name, ignore_errors=True)
        _compile(fresh)
        fresh.rename(folder)
    return folder


def outpost(out: Path) -> Path:
    """Outpost itself as it lies among the packages, as a folder."""
    folder = out / "outpost"
    shutil.rmtree(folder, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "training", "root", "debian")
    for package in ("edge", "models", "web", "firmware"):
        shutil.copytree(ROOT / package, folder / package, ignore=unwanted)
    told = folder / f"outpost_cxr-{_version()}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: outpost-cxr\nVersion: {_version()}\nLicense-Expression: Apache-2.0\n",
        encoding="utf-8",
    )
    _compile(folder)
    return folder


def _compile(folder: Path) -> None:
    """Compile what is in a folder, for a root that is never written; Python does not ask whether a source is newer (PEP 552)."""
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        raise Misconfigured(
            f"an image is built with Python {PYTHON}, as its Debian has. `PYTHON=python{PYTHON} build/setup demo`"
        )
    _run(
        sys.executable,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode=unchecked-hash",
        f"-s{folder}",
        "-p/" + TOP,
        str(folder),
    )


def trust(board: str, authority: Path) -> dict[str, bytes]:
    """What a system says of itself and whom it believes about updates, as files of its root."""
    said = msgspec.json.encode({"board": board, "version": _version()})
    held = {name: (authority / "trust" / name).read_bytes() for name in ("root.json", "keyring.pem")}
    return {f"usr/share/outpost/{name}": data for name, data in (held | {"release": said}).items()}


def slot(debian: Path, folders: tuple[Path, ...], out: Path, more: Mapping[str, bytes] = MappingProxyType({})) -> Slot:
    """Debian, Outpost and its packages, units and `more` files as squashfs with the hashes of dm-verity behind it.

    Little changes where little has changed (`chunks.py`): what changes seldom comes first, no file shares a block with another,
    and the same block has the same hash in every system.
    """
    path = out / "slot.squashfs"
    path.unlink(missing_ok=True)
    command = [
        "mksquashfs", "-", str(path), "-tar", "-noappend", "-quiet", "-no-progress", "-b", "131072", "-no-fragments",
        "-root-mode", "755", "-comp", "gzip", "-Xcompression-level", "6",
    ]  # fmt: skip
    laid = dict(_laid(folders)) | {name: _member(name, data) for name, data in more.items()}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=_environment()) as squash:
        assert squash.stdin is not None
        with tarfile.open(fileobj=squash.stdin, mode="w|", format=tarfile.PAX_FORMAT) as into:
            with tarfile.open(debian) as tar:
                for member in tar:
                    name = member.name.removeprefix("./").rstrip("/")
                    if name != "." and name not in laid and not name.startswith("var/"):  # /var is the data partition's
                        into.addfile(member, tar.extractfile(member) if member.isreg() else None)
            for member, content in laid.values():
                into.addfile(member, None if content is None else io.BytesIO(content))
    if squash.returncode:
        raise Misconfigured("the system could not be packed (mksquashfs). Is there room?")
    size = -(-path.stat().st_size // BLOCK) * BLOCK
    os.truncate(path, size)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told = _run(
        "veritysetup", "format", f"--hash-offset={size}", "--salt=-", f"--uuid={_uuid(digest)}",
        f"--data-blocks={size // BLOCK}", str(path), str(path),
    )  # fmt: skip
    (top,) = [line.split()[-1] for line in told.splitlines() if line.startswith("Root hash")]
    return Slot(path, path.stat().st_size, f"outpost-slot {size} {top}\n".encode().ljust(BLOCK, b"\0"))


def _laid(folders: tuple[Path, ...]) -> Iterator[tuple[str, tuple[tarfile.TarInfo, bytes | None]]]:
    """What is laid over Debian, in order: the files of `root/`, and what Python imports; all root's, none newer than `EPOCH`."""
    for top, under in ((HERE / "root", ""), *((folder, f"{TOP}/") for folder in folders)):
        for path in sorted(top.rglob("*")):
            name = under + path.relative_to(top).as_posix()
            yield name, _member(name, path)
    yield "usr/lib/clock-epoch", _member("usr/lib/clock-epoch", b"")
    place, _ = _member("efi", b"")
    place.type, place.mode = tarfile.DIRTYPE, 0o755
    yield "efi", (place, None)
    units = HERE / "root/usr/lib/systemd/system"
    for unit in sorted((*units.glob("*.service"), *units.glob("*.timer"))):
        for line in unit.read_text(encoding="utf-8").splitlines():
            if line.startswith("WantedBy="):
                name = f"usr/lib/systemd/system/{line.removeprefix('WantedBy=')}.wants/{unit.name}"
                link, _ = _member(name, b"")
                link.type, link.linkname, link.size = tarfile.SYMTYPE, f"../{unit.name}", 0
                yield name, (link, None)


def _member(name: str, source: Path | bytes) -> tuple[tarfile.TarInfo, bytes | None]:
    member = tarfile.TarInfo(f"./{name}")
    member.mtime, member.mode = EPOCH, 0o644
    if isinstance(source, bytes):
        member.size = len(source)
        return member, source
    if source.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        return member, None
    content = source.read_bytes()
    member.size = len(content)
    if os.access(source, os.X_OK):
        member.mode = 0o755
    return member, content


def disk(board: Board, own: Path, debian: Path, made: Slot, image: Path) -> list[tuple[int, int]]:
    """Put the partitions together; where the image holds something, as starts and ends in bytes. `own`: as in `before`."""
    if made.size + BLOCK > SLOT_MIB * MIB:
        raise Misconfigured(f"the system has {made.size / MIB:.0f} MiB, a slot {SLOT_MIB}. Enlarge SLOT_MIB.")
    sizes = {"outpost-esp": ESP_MIB, card.SITE: SITE_MIB, "outpost-a": SLOT_MIB, "outpost-b": SLOT_MIB}
    kinds = {"outpost-esp": "uefi", card.SITE: "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"}
    lines, starts, at = ["label: gpt", f"label-id: {_uuid(image.stem)}"], {}, MIB
    for name, mib in sizes.items():
        kind = kinds.get(
            name, str(_uuid("outpost-slot"))
        )  # a type of its own, else systemd-repart takes one for the data
        lines.append(
            f"start={at // 512}, size={mib * MIB // 512}, type={kind}, name={name}, uuid={_uuid(image.stem + name)}"
        )
        starts[name], at = at, at + mib * MIB
    end = at + MIB
    image.unlink(missing_ok=True)
    image.touch()
    os.truncate(image, end)
    _run("sfdisk", "--quiet", str(image), given="\n".join(lines) + "\n")
    work = image.with_suffix(".part")
    try:
        with image.open("r+b") as file:
            esp(board, own, debian, work)
            _copy(work, file, starts["outpost-esp"])
            place(work)
            _copy(work, file, starts[card.SITE])
            _copy(made.path, file, starts["outpost-a"])
            file.seek(starts["outpost-b"] - BLOCK)
            file.write(made.last)
    finally:
        work.unlink(missing_ok=True)
    a, b = starts["outpost-a"], starts["outpost-b"]
    # also what says that there is nothing in the other slot: a card that was used before may hold a system there
    return [(0, a + made.size), (b - BLOCK, b + BLOCK), (end - MIB - BLOCK, end)]


def esp(board: Board, own: Path, debian: Path, path: Path) -> None:
    """The EFI system partition: GRUB, its configuration, and the variables that say which slot starts."""
    with _volume(path, ESP_MIB, "OUTPOST-EFI") as folder:
        loader = folder / board.loader
        loader.parent.mkdir(parents=True)
        config = folder / "EFI/outpost"
        config.mkdir()
        (config / "grub.cfg").write_text(
            (HERE / "grub.cfg").read_text(encoding="utf-8").replace("@SERIAL@", board.serial), encoding="utf-8"
        )
        with tempfile.TemporaryDirectory() as modules, tarfile.open(debian) as tar:
            for member in tar:
                if member.isreg() and member.name.startswith(f"./{GRUB}/"):
                    member.name = Path(member.name).name
                    tar.extract(member, modules, filter="data")
            _run(
                "grub-mkimage", f"--directory={modules}", f"--format={board.grub}", f"--output={loader}",
                "--prefix=/EFI/outpost", *GRUB_MODULES,
            )  # fmt: skip
        _run("grub-editenv", str(config / "grubenv"), "create")
        _run("grub-editenv", str(config / "grubenv"), "set", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0")
        (config / "data.key").write_bytes(bytes(data.SIZE))  # written in place, where the box has no security chip
        before(board, own, debian, folder)


def before(board: Board, own: Path, debian: Path, folder: Path) -> None:
    """What the board's own loader reads before GRUB starts, put into the folder of the EFI partition.

    `own` is the board's folder, if it has one; a device tree's source (`.dts`) in it is compiled, as an overlay (`.dtbo`).
    """
    with tarfile.open(debian) as tar:
        files = {member.name.removeprefix("./"): member for member in tar if member.isreg()}
        for where in board.boot:
            found = fnmatch.filter(files, where)
            if not found or len({Path(name).name for name in found}) < len(found):
                raise Misconfigured(f"This board's loader reads each file {where} of Debian; it has {found or 'none'}.")
            for name in found:
                held = tar.extractfile(files[name])
                assert held is not None
                (folder / Path(name).name).write_bytes(held.read())
    for source in sorted(path for path in own.rglob("*") if path.is_file()):
        path = folder / source.relative_to(own)
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".dts":
            _run("dtc", "-q", "-I", "dts", "-O", "dtb", "-o", str(path.with_suffix(".dtbo")), str(source))
        else:
            shutil.copyfile(source, path)


def place(path: Path) -> None:
    """The partition for the site file, with a place for it that `outpost flash` finds and any computer can write to."""
    with _volume(path, SITE_MIB, "OUTPOST") as folder:
        (folder / "site.txt").write_bytes(card.MAGIC.ljust(card.PLACE, b"\n"))


@contextmanager
def _volume(path: Path, mib: int, label: str) -> Iterator[Path]:
    """A FAT volume of what the block puts into a folder."""
    folder = path.with_suffix(".files")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        path.write_bytes(bytes(mib * MIB))
        serial = hashlib.sha256(label.encode()).hexdigest()[:8]
        _run("mkfs.vfat", "--invariant", "-i", serial, "-n", label, str(path))
        for one in sorted(folder.rglob("*")):
            os.utime(one, (EPOCH, EPOCH))
        _run("mcopy", "-i", str(path), "-s", "-m", *map(str, sorted(folder.iterdir())), "::")
    finally:
        shutil.rmtree(folder)


def _copy(source: Path, into: IO[bytes], at: int) -> None:
    into.seek(at)
    with source.open("rb") as file:
        shutil.copyfileobj(file, into, 4 * MIB)


def _uuid(text: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, text)


def _version() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("version"))


def _environment() -> dict[str, str]:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return os.environ | {"PATH": path, "SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}


def _run(*command: str, given: str = "", **variables: str) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=True, env=_environment() | variables
        )
    except FileNotFoundError:
        raise Misconfigured(f"{command[0]} is missing. `build/image` says which Debian packages are needed.") from None
    except subprocess.CalledProcessError as error:
        raise Misconfigured(f"{command[0]} failed: {error.stderr.strip()[-2000:]}") from None
    return done.stdout


def _key(path: Path | None) -> SecretKey:
    """The authority that signs; without one, a key for this image alone that is kept nowhere."""
    if path is None:
        return SecretKey.generate()
    private = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(private, Ed25519PrivateKey):
        raise Misconfigured(f"{path} is no Ed25519 key.")
    return SecretKey(hashlib.sha256(private.public_key().public_bytes_raw()).digest()[:8], private)


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="build/image", description=__doc__)
    parser.add_argument("board", choices=sorted(path.stem for path in (HERE / "boards").glob("*.toml")))
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the image")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/outpost", help="what was fetched")
    parser.add_argument("--key", type=Path, help="private key (Ed25519, PEM) that signs; else one for this image alone")
    parser.add_argument("--authority", type=Path, help="of `outpost publish authority`: whose updates the image takes")
    parser.add_argument("--fetch", action="store_true", help="only fetch what it is made of into --cache")
    told = parser.parse_args()
    if told.fetch:
        fetch(told.board, told.cache)
        return
    print(build(told.board, told.out, told.cache, _key(told.key), told.authority))  # noqa: T201


if __name__ == "__main__":
    main()
