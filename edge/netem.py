"""A bad link on one machine: two network namespaces, a TUN device in each, and one process that carries the packets between them.

Kernels come without netem, so the carrier does what netem does: it delays, loses, limits the rate, queues with tail drop and cuts.
It holds both namespaces, so that its end removes everything. Used by `outpost bench --sync`, `outpost demo --hub` and the tests.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.errors import Misconfigured

CLONE_NEWNET = 0x40000000  # sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
TUN = Path("/dev/net/tun")
MTU = 1500
IPV4 = 4
NEAR, FAR = 0, 1
"""The two ends of a link: the clinic's and the hub's."""
ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Of the ends, from the block that is set aside for measuring networks (RFC 2544 C.2.2)."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How bad a link is, each way alike.

    Lost packets come alone (`loss`), or in bursts when `burst` is more than one: Gilbert's model, whose bad state loses every
    packet and lasts `burst` packets on average, with the same share lost in all. A lost packet has used the link; one that finds
    the queue full, or the link down, has not.
    """

    rate: float = 64_000.0
    """Bits a second."""
    delay: float = 0.3
    """Seconds one way."""
    jitter: float = 0.0
    """Seconds more, at most, evenly distributed; packets keep their order."""
    loss: float = 0.0
    """Share of packets, from 0 to 1."""
    burst: float = 1.0
    """Mean length of a burst of lost packets."""
    queue: int = 16_000
    """Bytes that wait for the link at most: two seconds at 64 kbit/s."""
    up: float = 0.0
    """Seconds up, then `down` seconds down, again and again from the start; 0 is always up."""
    down: float = 0.0

    def is_up(self, elapsed: float) -> bool:
        """Whether the link is up so many seconds after its start."""
        return not self.up or elapsed % (self.up + self.down) < self.up

    def up_seconds(self, first: float, last: float) -> float:
        """For how many of the seconds between two moments after its start the link was up."""

        def until(elapsed: float) -> float:
            cycles, within = divmod(elapsed, self.up + self.down)
            return cycles * self.up + min(within, self.up)

        return until(last) - until(first) if self.up else last - first


TWO_G = Profile(loss=0.10, up=45, down=20)
HOSTILE = Profile(loss=0.30, up=45, down=20)
VSAT = Profile(rate=1_000_000, loss=0.05, queue=125_000)


@dataclass
class Count:
    """What became of the packets of one direction; every packet offered is in one of the others, or still on its way."""

    offered: int = 0
    delivered: int = 0
    lost: int = 0
    overflowed: int = 0
    cut: int = 0
    carried: int = 0
    """Bytes that used the link."""
    received: int = 0
    """Bytes that came out of it."""


@dataclass
class Direction:
    """One way of a link, on any clock: what it is offered it gives back when it is due, or never."""

    profile: Profile
    random: random.Random
    count: Count = field(default_factory=Count)
    _flying: deque[tuple[float, float, bytes]] = field(default_factory=deque)
    _free_at: float = 0.0
    _bad: bool = False

    def offer(self, packet: bytes, elapsed: float, is_up: bool = True) -> None:
        """Take a packet at a time in seconds after the link's start."""
        self.count.offered += 1
        if not is_up:
            self.count.cut += 1
            return
        seconds = len(packet) * 8 / self.profile.rate
        sent = max(elapsed, self._free_at) + seconds
        if (sent - seconds - elapsed) * self.profile.rate / 8 > self.profile.queue:
            self.count.overflowed += 1
            return
        self._free_at = sent
        self.count.carried += len(packet)
        if self._loses():
            self.count.lost += 1
            return
        due = sent + self.profile.delay + self.random.uniform(0, self.profile.jitter)
        if self._flying:
            due = max(due, self._flying[-1][0])
        self._flying.append((due, sent, packet))

    def _loses(self) -> bool:
        loss, burst = self.profile.loss, self.profile.burst
        if burst <= 1:
            return self.random.random() < loss
        # Gilbert 1960: out of the bad state with 1/burst, into it so that the share in it is `loss`
        self._bad = self.random.random() < (1 - 1 / burst if self._bad else loss / (1 - loss) / burst)
        return self._bad

    def due(self, elapsed: float) -> list[bytes]:
        """The packets that have arrived by that time, in order."""
        arrived = []
        while self._flying and self._flying[0][0] <= elapsed:
            arrived.append(self._flying.popleft()[2])
        self.count.delivered += len(arrived)
        self.count.received += sum(map(len, arrived))
        return arrived

    def next(self) -> float | None:
        """When the next packet arrives."""
        return self._flying[0][0] if self._flying else None

    def cut(self) -> None:
        """Drop everything that is under way: the link went down."""
        self.count.cut += len(self._flying)
        self._flying.clear()
        self._free_at = 0.0


class Link:
    """A bad link for the length of a block; `command` makes a command run at one of its ends.

    `door` joins the far end with this machine by a good link, as a reader's browser sits beside the hub: `beside` is then the
    address of the far end from here. Raises `Misconfigured` where a link cannot be had.
    """

    def __init__(self, profile: Profile, seed: int = 0, door: bool = False) -> None:
        self.profile = profile
        self.seed = seed
        self.door = door

    def __enter__(self) -> Link:
        if why := missing():
            raise Misconfigured(f"a bad link cannot be made: {why}")
        arguments = json.dumps({"profile": asdict(self.profile), "seed": self.seed, "door": self.door})
        self._carrier = subprocess.Popen(
            [sys.executable, "-m", "edge.netem", arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._carrier.stdout is not None
        line = self._carrier.stdout.readline()
        if not line:
            self.__exit__(None, None, None)
            raise Misconfigured(
                "a bad link cannot be made: see above; a container may not be allowed to make namespaces"
            )
        began = json.loads(line)
        self.start: float = began["start"]
        self.beside: str = began["beside"]
        self._namespaces: list[int] = began["namespaces"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._carrier.stdin is not None and self._carrier.stdout is not None
        self._carrier.stdin.close()
        self._carrier.wait()
        self._carrier.stdout.close()

    def command(self, end: int, *command: str) -> list[str]:
        """The command that runs another one at that end."""
        return [_program("nsenter"), f"--net=/proc/{self._carrier.pid}/fd/{self._namespaces[end]}", "--", *command]

    def elapsed(self) -> float:
        """Seconds since the link's start, on the clock by which it is cut."""
        return time.monotonic() - self.start

    def ask(self, what: str) -> Any:
        """Give an order to the carrier, and wait until it is done: `count`, `down`, `up`, or `profile` and its JSON."""
        assert self._carrier.stdin is not None and self._carrier.stdout is not None
        self._carrier.stdin.write(what + "\n")
        self._carrier.stdin.flush()
        return json.loads(self._carrier.stdout.readline())

    def count(self) -> tuple[Count, Count]:
        """What became of the packets so far: from the near end, and from the far end."""
        near, far = self.ask("count")
        return Count(**near), Count(**far)

    def cut(self) -> None:
        """Take the link down until it is told to come up again, whatever its profile says."""
        self.ask("down")

    def restore(self) -> None:
        """Bring the link up again."""
        self.ask("up")

    def change(self, profile: Profile) -> None:
        """Make it as good or bad as another profile, from now on."""
        self.profile = profile
        self.ask("profile " + json.dumps(asdict(profile)))


def missing() -> str:
    """What this machine lacks for a bad link, in words with what to do; empty where there is nothing."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux"
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root (sudo)"
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if not _program(program):
            return f"{program} is missing: apt-get install {package}"
    if not TUN.exists():
        return f"{TUN} is missing: modprobe tun (a container needs --device {TUN} and the capabilities NET_ADMIN, SYS_ADMIN)"
    return ""


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.defpath}:/usr/sbin:/sbin") or ""


def _namespace(end: int) -> tuple[int, int]:
    """Move this process into a namespace of its own with a TUN device: the namespace, and the device, as descriptors."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"bad0", IFF_TUN | IFF_NO_PI))
    _ip("link", "set", "lo", "up")
    _ip("address", "add", ADDRESSES[end], "peer", ADDRESSES[1 - end], "dev", "bad0")
    _ip("link", "set", "bad0", "mtu", str(MTU), "up")
    return namespace, device


def _open_door() -> str:
    """Join this process's namespace, the far end, with the one in which its parent runs; gives the far end's address there."""
    here, outside = os.getpid(), [_program("nsenter"), f"--net=/proc/{os.getppid()}/ns/net", "--"]
    name = f"outpost{here}"
    near, far = (f"198.19.{here >> 7 & 255}.{(here & 127) * 2 + end}" for end in (NEAR, FAR))
    _ip("link", "add", "door0", "type", "veth", "peer", "name", name, "netns", str(os.getppid()))
    _ip("address", "add", far, "peer", near, "dev", "door0")
    _ip("link", "set", "door0", "up")
    _ip("address", "add", near, "peer", far, "dev", name, within=outside)
    _ip("link", "set", name, "up", within=outside)
    return far


def _ip(*arguments: str, within: list[str] | None = None) -> None:
    subprocess.run([*(within or []), _program("ip"), *arguments], check=True)


class Carrier:
    """The process between the ends: reads packets, asks their direction when they are due, and writes them."""

    def __init__(self, profile: Profile, seed: int, devices: list[int]) -> None:
        self.profile = profile
        self.devices = devices
        self.directions = [Direction(profile, random.Random(f"{seed} {end}")) for end in (NEAR, FAR)]
        self.start = time.monotonic()
        self.held = False
        """Whether somebody has taken the link down by hand."""
        self._was_up = True

    def run(self, orders: int, answer: Callable[[str], None]) -> None:
        """Carry packets until `orders` ends."""
        text = b""
        while True:
            ready, _, _ = select.select([orders, *self.devices], [], [], self._wait())
            self._turn()
            for end in (NEAR, FAR):
                if self.devices[end] in ready:
                    self._read(end)
            if orders in ready:
                more = os.read(orders, 4096)
                if not more:
                    return
                *lines, text = (text + more).split(b"\n")
                for line in lines:
                    answer(json.dumps(self._obey(line.decode())))

    def _elapsed(self) -> float:
        return time.monotonic() - self.start

    def _is_up(self) -> bool:
        return not self.held and self.profile.is_up(self._elapsed())

    def _wait(self) -> float:
        """Seconds until something is due: a packet, or a look at whether the link is up."""
        due = [at for direction in self.directions if (at := direction.next()) is not None]
        return min(0.05, *(max(0.0, at - self._elapsed()) for at in due), 0.05)

    def _turn(self) -> None:
        """Deliver what is due; drop what is under way when the link goes down."""
        if self._was_up and not (up := self._is_up()):
            for direction in self.directions:
                direction.cut()
            self._was_up = up
        self._was_up = self._is_up()
        for end, direction in enumerate(self.directions):
            for packet in direction.due(self._elapsed()):
                try:
                    os.write(self.devices[1 - end], packet)
                except OSError:  # the end is going down
                    direction.count.cut += 1

    def _read(self, end: int) -> None:
        while True:
            try:
                packet = os.read(self.devices[end], MTU + 100)
            except BlockingIOError:
                return
            if packet[0] >> 4 == IPV4:  # the kernel's own IPv6 chatter uses no link
                self.directions[end].offer(packet, self._elapsed(), self._is_up())

    def _obey(self, order: str) -> Any:
        what, _, rest = order.partition(" ")
        if what == "profile":
            self.profile = Profile(**json.loads(rest))
            for direction in self.directions:
                direction.profile = self.profile
        if what in ("down", "up"):
            self.held = what == "down"
            self._turn()
        return [asdict(direction.count) for direction in self.directions]


def main() -> None:
    """The carrier's process: makes both ends, says which descriptors they are, and carries until its input ends."""
    asked = json.loads(sys.argv[1])
    namespaces, devices = [], []
    for end in (NEAR, FAR):
        namespace, device = _namespace(end)
        namespaces.append(namespace)
        devices.append(device)
    beside = _open_door() if asked["door"] else ""
    with suppress(OSError):
        os.nice(-10)  # a link is as bad on a busy machine as on an idle one
    carrier = Carrier(Profile(**asked["profile"]), asked["seed"], devices)
    print(json.dumps({"start": carrier.start, "beside": beside, "namespaces": namespaces}), flush=True)  # noqa: T201  the answer on the pipe
    carrier.run(sys.stdin.fileno(), lambda line: print(line, flush=True))  # noqa: T201


if __name__ == "__main__":
    main()
