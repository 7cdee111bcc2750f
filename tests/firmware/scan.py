"""Prints the TCP ports that answer, a line an address: `python -m tests.firmware.scan ADDRESS…`, from the network it runs in."""

from __future__ import annotations

import resource
import socket
import sys
import time
from contextlib import suppress

AT_ONCE = 4096
PATIENCE = 8
"""Seconds for an answer; what was lost on the way is asked for four times in these (RFC 6298 2.1, RFC 9293 3.8.1)."""


def scan(address: str) -> list[int]:
    """The ports that answer, of all; the kernel goes on asking, however seldom this process has its turn."""
    ((family, kind, _, _, (host, _, *more)),) = socket.getaddrinfo(address, 1, type=socket.SOCK_STREAM)
    found = []
    for first in range(1, 65536, AT_ONCE):
        asked = [(port, socket.socket(family, kind)) for port in range(first, min(first + AT_ONCE, 65536))]
        for port, one in asked:
            one.setblocking(False)
            one.connect_ex((host, port, *more))
        time.sleep(PATIENCE)
        for port, one in asked:
            with suppress(OSError):  # where nobody answered nobody is there
                one.getpeername()
                found.append(port)
            one.close()
    return found


def wait(address: str) -> None:
    """Wait until somebody has that address: a cable that was just put in."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            socket.create_connection((address, 443), 2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (AT_ONCE + 100, AT_ONCE + 100))
    wait(sys.argv[1])
    for each in sys.argv[1:]:
        print(*scan(each))
