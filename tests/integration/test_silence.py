"""The connection to a hub when nothing is heard of it: given up long before TCP or the settings would, and begun again."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from edge import wire
from edge.config import Hub
from edge.link import Lost
from edge.netem import ADDRESSES, FAR, NEAR, Link, Profile
from edge.records import Trouble
from edge.wire import Wire
from tests.box import PATIENCE, until
from tests.conftest import needs_bad_link

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextlib.contextmanager
def server(folder: Path, answers: int) -> Iterator[Hub]:
    """A TLS server that answers so many requests on each connection and then says nothing more; settings to reach it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    held: list[socket.socket] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            secure = context.wrap_socket(plain, server_side=True)
            held.append(secure)
            for _ in range(answers):
                if secure.recv(65536):
                    secure.sendall(ANSWER)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        yield Hub(url=f"https://127.0.0.1:{port}", ca=str(folder / "ca.pem"), seconds=PATIENCE)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in held:
        one.close()


def test_an_answer_that_does_not_come_is_not_waited_for_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.5)
    with server(tmp_path, answers=1) as settings, contextlib.closing(Wire(settings, lambda: "")) as way:
        assert way.post("/a", {}, b"body").status == 204
        with pytest.raises(Lost) as lost:
            way.post("/a", {}, b"body")
        assert lost.value.trouble is Trouble.HANGS
        assert way._patience == 1.0, "a hub that is only slow gets more time with each try"
        assert way.post("/a", {}, b"body").status == 204, "on a connection of its own"
        assert way._patience == 0.5


def test_silence_is_what_the_kernel_says() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as one,
        listening.accept()[0],
    ):
        until(lambda: wire.silence(one)[0] > 0.2, "time passes")
        heard = wire.silence(one)[0]
        one.sendall(b"x")
        until(lambda: wire.silence(one)[0] < heard and not wire.silence(one)[1], "an acknowledgement is heard")


SERVER = """
import socket, sys
with socket.create_server(("", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    one, _ = listening.accept()
    while one.recv(65536):
        pass
"""
CLIENT = """
import socket, sys
from edge import wire
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as one:
    print("connected", flush=True)
    sys.stdin.readline()
    one.sendall(b"x" * 2000)
    silent = 0.0
    while silent < 1.5:
        silent, waiting = wire.silence(one)
    print(waiting, flush=True)
"""


@pytest.mark.peer
@needs_bad_link
def test_bytes_on_their_way_over_a_dead_link_are_seen() -> None:
    with Link(Profile(rate=1e6, delay=0.01)) as link:
        command = link.command(FAR, sys.executable, "-c", SERVER)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as far:
            assert far.stdout is not None
            port = far.stdout.readline().strip()
            command = link.command(NEAR, sys.executable, "-c", CLIENT, ADDRESSES[FAR], port)
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as near:
                assert near.stdout is not None and near.stdout.readline() == "connected\n"
                link.cut()
                assert near.communicate("\n")[0] == "True\n"
            far.kill()
