"""A computer under test: a disk, UEFI, a cable; emulated by QEMU.

KVM is not used: inside a virtual machine it often only seems to be there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import urllib3

from edge.box import free_port
from firmware import card
from firmware.image import ROOT
from tests.box import until
from tests.conftest import peer

SECONDS = 1200
"""For the slowest of machines; nothing here waits longer than it has to."""
NAME = "outpost.local"
MAC = "02:00:00:00:00:20"
"""Of a container's end of its cable; its link-local address follows from it (RFC 4291 A)."""


@dataclass(frozen=True)
class Board:
    """How QEMU emulates a computer that a board's image is for."""

    program: tuple[str, str]
    """And its package, as of the firmware."""
    firmware: tuple[str, str]
    variables: str
    options: tuple[str, ...]
    port: str = ""
    """How the board's device tree names its serial port, where U-Boot is its UEFI."""


BOARDS = {
    "generic-x86-64": Board(
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
        ("-machine", "q35", "-cpu", "max", "-m", "1024"),
    ),
    "arm64": Board(
        ("qemu-system-aarch64", "qemu-system-arm"),
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "qemu-efi-aarch64"),
        "/usr/share/AAVMF/AAVMF_VARS.fd",
        ("-machine", "virt", "-cpu", "cortex-a72", "-m", "2048"),  # a Raspberry Pi 4's processor
    ),
    "raspberry-pi-5": Board(  # its processor and its way to start, in a computer that has little else of it
        ("qemu-system-aarch64", "qemu-system-arm"),
        ("/usr/lib/u-boot/qemu_arm64/u-boot.bin", "u-boot-qemu"),
        "",
        # with ACPI there are no GPIO pins, but in the tree that is dumped, and the kernel reads where nothing is
        ("-machine", "virt,acpi=off", "-cpu", "cortex-a76", "-m", "2048", "-smp", "2"),
        "serial10",
    ),
}


class Machine:
    """A computer with one disk, its network reachable from here and reaching nobody."""

    def __init__(self, disk: Path, board: Board) -> None:
        self.disk, self.board = disk, board
        self.serial = disk.with_suffix(".serial")
        self.variables = disk.with_suffix(".vars")
        if board.variables:
            shutil.copy(board.variables, self.variables)
        self.dicom, self.https, self.http = (free_port() for _ in range(3))
        self.stick: Path | None = None
        """What is in its USB port when it is switched on."""
        self.chip: Path | None = None
        """What its security chip (TPM 2) remembers, a folder; without one it has none."""
        self._process: subprocess.Popen[bytes] | None = None
        self._seal: subprocess.Popen[bytes] | None = None
        self._read = 0

    def start(self) -> None:
        """Switch it on."""
        ports = {self.dicom: 11112, self.https: 443, self.http: 80}
        forwarded = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in ports.items())
        command = [
            peer(*self.board.program), *self.board.options, "-accel", "tcg,thread=multi",
            "-smp", "2", "-display", "none", "-monitor", "none", "-no-user-config", "-nodefaults",
            *(self._uboot() if self.board.port else self._uefi()),
            "-drive", f"file={self.disk},format=raw,if=virtio,cache=writethrough",
            "-netdev", f"user,id=cable,restrict=on{forwarded}", "-device", "virtio-net-pci,netdev=cable,romfile=",
            "-object", "rng-random,filename=/dev/urandom,id=noise", "-device", "virtio-rng-pci,rng=noise",
            "-chardev", f"file,id=serial,path={self.serial},append=on", "-serial", "chardev:serial",
            "-device", "qemu-xhci",  # with or without a stick, else the disk moves and the firmware no longer finds it
        ]  # fmt: skip
        if self.stick is not None:
            command += ["-drive", f"file={self.stick},format=raw,if=none,id=stick"]
            command += ["-device", "usb-storage,drive=stick,removable=on"]
        if self.chip is not None:
            self.chip.mkdir(exist_ok=True)
            port = self.chip / "port"
            port.unlink(missing_ok=True)
            told = ["socket", "--tpm2", f"--tpmstate=dir={self.chip}", f"--ctrl=type=unixio,path={port}", "--terminate"]
            self._seal = subprocess.Popen([peer("swtpm", "swtpm"), *told], stdin=subprocess.DEVNULL)
            until(port.exists, "a security chip")
            command += ["-chardev", f"socket,id=chip,path={port}", "-tpmdev", "emulator,id=tpm,chardev=chip"]
            command += ["-device", "tpm-crb,tpmdev=tpm"]
        self._read = self.serial.stat().st_size if self.serial.exists() else 0
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _uefi(self) -> list[str]:
        drive = "if=pflash,format=raw,unit"
        return [
            "-drive", f"{drive}=0,readonly=on,file={self.board.firmware[0]}", "-drive", f"{drive}=1,file={self.variables}"
        ]  # fmt: skip

    def _uboot(self) -> list[str]:
        """U-Boot, and the device tree as the board's own loader leaves it: with what lies on the disk laid over."""
        plain, laid = self.disk.with_suffix(".dtb"), self.disk.with_suffix(".laid.dtb")
        dump = [peer(*self.board.program), *self.board.options, "-machine", f"dumpdtb={plain}", "-display", "none"]
        subprocess.run(dump, check=True, capture_output=True)
        put, overlay = (peer(name, "device-tree-compiler") for name in ("fdtput", "fdtoverlay"))
        port = subprocess.run(
            [peer("fdtget", "device-tree-compiler"), plain, "/chosen", "stdout-path"], capture_output=True, check=True
        ).stdout.strip()
        subprocess.run([put, "-c", plain, "/aliases"], check=True)
        subprocess.run([put, "-t", "s", plain, "/aliases", self.board.port, port], check=True)
        with self.disk.open("rb") as file:
            ((begin, _),) = [
                (begin, end) for name, begin, end in card.partitions(file.fileno()) if name == "outpost-esp"
            ]
        lies = [peer("mtype", "mtools"), "-i", f"{self.disk}@@{begin}", "::overlays/outpost.dtbo"]
        over = self.disk.with_suffix(".dtbo")
        over.write_bytes(subprocess.run(lies, capture_output=True, check=True).stdout)
        subprocess.run([overlay, "-i", plain, "-o", laid, over], check=True)
        return ["-bios", self.board.firmware[0], "-dtb", str(laid)]

    def cut(self) -> None:
        """Take the power away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._seal is not None:
            self._seal.terminate()
            self._seal.wait()
            self._seal = None

    def said(self) -> str:
        """What came out of the serial port since it was switched on."""
        with self.serial.open("rb") as file:
            file.seek(self._read)
            return file.read().decode("utf-8", "replace")

    def until(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Wait until the serial port has said it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.serial.exists() and (found := re.search(pattern, self.said(), re.MULTILINE)):
                return found
            assert self._process is not None and self._process.poll() is None, f"it is off:\n{self.said()[-3000:]}"
            time.sleep(0.2)
        raise AssertionError(f"never said {pattern!r}:\n{self.said()[-6000:]}")

    def tablet(self, authority: Path) -> Tablet:
        """A tablet that has joined."""
        return Tablet(self, authority)


class Tablet:
    """A browser that believes the box's authority, and nobody else, by the box's name."""

    def __init__(self, machine: Machine, authority: Path) -> None:
        self._pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", machine.https, ca_certs=str(authority), server_hostname=NAME, assert_hostname=NAME,
            timeout=60, retries=urllib3.Retry(30, backoff_factor=0.5, backoff_max=5, redirect=0, allowed_methods=None),
        )  # fmt: skip
        self._cookies: dict[str, str] = {}

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a page."""
        headers = {"Host": NAME, "Origin": f"https://{NAME}", "Accept-Language": "en"}
        headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self._cookies.items())
        method = "GET" if form is None else "POST"
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = None if form is None else urllib.parse.urlencode(form)
        answer = self._pool.urlopen(method, path, body, headers, redirect=False)
        for cookie in answer.headers.getlist("Set-Cookie"):
            key, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[key] = value
        return answer.status, answer.data.decode()

    def close(self) -> None:
        """Put it away."""
        self._pool.close()


class Container:
    """A slot of an image, started without kernel and disk in namespaces of its own (systemd-nspawn): its units in seconds.

    As root only, and where a cgroup2 hierarchy can be mounted.
    """

    def __init__(self, image: Path, site: Path, folder: Path) -> None:
        self._root, self._var = folder / "root", folder / "var"
        self.brought = {"/run/outpost-site/site.txt": site}
        """What lies where in it when it starts."""
        for one in (self._root, self._var):
            one.mkdir()
        with image.open("rb") as file:
            ((begin, _),) = [(begin, end) for name, begin, end in card.partitions(file.fileno()) if name == "outpost-a"]
        subprocess.run(["mount", "-o", f"ro,loop,offset={begin}", image, self._root], check=True)
        self._log = (folder / "log").open("w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self._first = 0

    def start(self) -> None:
        """Start its systemd."""
        brought = [f"--bind-ro={here}:{there}" for there, here in self.brought.items()]
        nspawn = [
            str(peer("systemd-nspawn", "systemd-container")), "--quiet", f"--directory={self._root}", "--read-only",
            f"--bind={self._var}:/var", "--bind-ro=/dev/null:/etc/fstab", *brought,
            "--private-network", "--register=no", "--keep-unit", "--console=pipe", "--boot",
        ]  # fmt: skip
        inside = f"mount -t cgroup2 none /sys/fs/cgroup && exec {shlex.join(nspawn)}"
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", inside],
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")

        def began() -> bool:
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self._first = int(child)
            return self._first > 0

        until(began, "a systemd in namespaces of its own")

    def run(self, *command: str, network: bool = False) -> str:
        """What a program says that runs in there; with `network` a program from here, in its network."""
        into = ["--net"] if network else ["--mount", "--pid", "--net", "--ipc", "--uts"]
        enter = ["nsenter", f"--target={self._first}", *into, *command]
        return subprocess.run(enter, capture_output=True, text=True, check=False, timeout=SECONDS).stdout

    def scanned(self, *addresses: str) -> list[str]:
        """Which TCP ports of each of its addresses answer a computer at the other end of its cable, there called `cable`."""
        network, ip = f"outpost-{os.getpid()}", str(peer("ip", "iproute2"))
        inside = [ip, "netns", "exec", network]
        subprocess.run([ip, "netns", "add", network], check=True)
        try:
            for command in (
                f"link add cable txqueuelen 10000 type veth peer name outside address {MAC} netns {self._first}",
                "address add 192.168.7.1/24 dev cable",
                "link set cable up",
            ):
                subprocess.run([ip, "-n", network, *command.split()], check=True)
            self.run(ip, "link", "set", "outside", "up", network=True)
            scan = [*inside, sys.executable, "-m", "tests.firmware.scan", *addresses]
            found = subprocess.run(scan, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
            near = subprocess.run([ip, "-n", network, "neigh"], capture_output=True, text=True, check=True).stdout
            assert near.count(MAC) >= len(addresses), f"it was there, whatever answered: {near}"
            return found
        finally:
            subprocess.run([ip, "netns", "delete", network], check=True)

    def journal(self) -> str:
        """What its units have said."""
        return self.run("/bin/journalctl", "--no-pager", "-o", "cat")

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until a unit has said it."""
        end = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.journal(), re.MULTILINE)) is None:
            assert self._process is not None and self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < end, self.journal()[-6000:]
            time.sleep(0.3)
        return found

    def stop(self) -> None:
        """End it and take its disk away."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._log.close()
        subprocess.run(["umount", self._root], check=True)
