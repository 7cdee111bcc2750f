"""The bad link for real: packets from one namespace to the other, counted at both ends and by the carrier."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.netem import ADDRESSES, FAR, NEAR, Link, Profile
from tests.box import PATIENCE, until
from tests.conftest import needs_bad_link

pytestmark = [pytest.mark.peer, needs_bad_link]

HEADERS = 28  # of IPv4 and UDP
SIZE = 500

SENDER = """
import socket, sys, time
address, port, packets, size = sys.argv[1], *map(int, sys.argv[2:])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    for number in range(packets):
        way.sendto(f"{number} {time.monotonic()} ".encode().ljust(size, b"."), (address, port))
"""
LISTENER = """
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    way.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    way.bind(("", 0))
    print(way.getsockname()[1], flush=True)
    sys.stdin.readline()
    way.setblocking(False)
    came = []
    while True:
        try:
            number, sent = way.recv(2000).split()[:2]
        except BlockingIOError:
            break
        came.append((int(number), float(sent)))
    print(json.dumps(came))
"""


def send(link: Link, packets: int, size: int = SIZE) -> Any:
    """Send so many packets to the far end, wait until none is under way, and give those that came: number, and when sent."""
    listener = subprocess.Popen(
        link.command(FAR, sys.executable, "-c", LISTENER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    port = listener.stdout.readline().strip()
    before = link.count()[0]
    sender = link.command(NEAR, sys.executable, "-c", SENDER, ADDRESSES[FAR], port, str(packets), str(size))
    subprocess.run(sender, check=True)

    def settled() -> bool:
        count = link.count()[0]
        ended = count.delivered + count.lost + count.overflowed + count.cut
        return ended == count.offered == before.offered + packets

    until(settled, "every packet came or was dropped")
    return json.loads(listener.communicate("\n")[0])


def test_what_the_carrier_counts_is_what_the_ends_see() -> None:
    with Link(Profile(rate=1e6, delay=0.01, loss=0.2, queue=1 << 20)) as link:
        came = send(link, 200)
        count, back = link.count()
        assert len(came) == count.delivered == 200 - count.lost
        assert 15 <= count.lost <= 70  # 40 expected; outside of this once in a million links
        assert [number for number, _ in came] == sorted(number for number, _ in came)
        assert count.carried == 200 * (SIZE + HEADERS)
        assert count.received == count.delivered * (SIZE + HEADERS)
        assert back.offered == 0


def test_no_packet_is_faster_than_the_link() -> None:
    # only lower bounds: a busy machine makes a link slower, never faster
    with Link(Profile(rate=80_000, delay=0.2, queue=1 << 20)) as link:
        came = send(link, 20)
        assert len(came) == 20
        sent = min(at for _, at in came)
        assert link.start + link.elapsed() - sent >= 0.2 + 20 * (SIZE + HEADERS) * 8 / 80_000


def test_the_queue_drops_its_tail() -> None:
    with Link(Profile(rate=8_000, delay=0, queue=2_000)) as link:
        came = [number for number, _ in send(link, 40)]
        count = link.count()[0]
        assert count.overflowed > 0
        assert len(came) == 40 - count.overflowed
        assert came[:3] == [0, 1, 2]


def test_nothing_passes_while_it_is_cut() -> None:
    with Link(Profile(rate=1e6, delay=0)) as link:
        link.cut()
        assert send(link, 10) == []
        link.restore()
        assert len(send(link, 10)) == 10
        link.change(Profile(rate=1e6, delay=0, loss=1.0))
        assert send(link, 10) == []
        assert link.count()[0].lost == 10


def test_the_far_end_has_a_door_beside_the_link() -> None:
    server = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); s.accept()"
    with Link(Profile(rate=1e6, loss=1.0), door=True) as link:
        command = link.command(FAR, sys.executable, "-c", server)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as far:
            assert far.stdout is not None
            socket.create_connection((link.beside, int(far.stdout.readline())), PATIENCE).close()
        assert link.count()[0].offered == 0


def test_nothing_is_left_when_the_carrier_is_killed() -> None:
    link = Link(Profile(), door=True).__enter__()
    door = Path(f"/sys/class/net/outpost{link._carrier.pid}")
    assert door.exists()
    link._carrier.kill()
    link.__exit__(None, None, None)
    until(lambda: not door.exists(), "the door is gone")
