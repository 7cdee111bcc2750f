"""Wire: the one connection from a box to its hub, HTTP/1.1 over TLS, made when it is needed and kept for as long as it holds.

It is made for a slow link that loses much and is often down. BBR, where the kernel has it, does not take every lost packet for
congestion: at 15 % it still carries what others no longer do. Little waits unsent in the kernel, so that what is urgent is not
behind it. And no silence is waited out: TCP doubles the time to its next try again and again (RFC 6298 5.5), so that after an
outage of 20 seconds it may be silent for 20 more; a connection that hears nothing is given up, and short tries to connect find the
link again within seconds. That costs nothing but the handshake, because whatever was on its way is asked for and goes on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.config import Hub
from edge.link import Lost, Reply
from edge.records import Trouble
from edge.sinks import encryption

UNSENT = 4 * 1024
"""Bytes that wait in the kernel for their turn."""
LOOK_SECONDS = 0.25
STILL_SECONDS = 9.0
"""So long nothing may be heard while bytes are on their way: four tries of TCP over a link of 600 ms. Where 30 % is lost each way,
three fail together once in seven times: with 5 seconds a fifth fewer bytes were kept there, and with 14 too."""
ANSWER_SECONDS = 12.0
"""And so long at first, up to `hub.seconds`, while nothing but the answer is awaited: a hub may be slow."""
CONNECT_SECONDS = (3.0, 3.0, 3.0, 12.0)
"""How long tries to connect take, in turn: short ones find a link that has just come up, a long one a link that is very slow."""
LAST_ACK, UNACKED = 56, 24
"""Where `struct tcp_info` (linux/tcp.h) has the milliseconds since something was heard, and the packets on their way."""
LONGEST = 8 * 2**20
"""No answer that means anything is longer."""
PIN = 20
"""Characters of a pin."""


def pin_of(certificate: bytes) -> str:
    """What a hub's TLS key is known by, from its certificate (DER): the beginning of its hash in base32 (SubjectPublicKeyInfo)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    told = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(told).digest()).decode().lower()[:PIN]


class Wire:
    """The connection to a hub."""

    def __init__(self, settings: Hub, pin: Callable[[], str]) -> None:
        """`pin` says by which TLS key the hub is known, when it is connected to; empty where authorities vouch for its name."""
        self.settings, self._pin = settings, pin
        place = urlsplit(settings.url)
        self.host, self.port = place.hostname or "", place.port or 443
        self._open: http.client.HTTPConnection | None = None
        self._tries = 0
        self._patience = min(ANSWER_SECONDS, settings.seconds)

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Hand over a body and wait for the answer. Raises `Lost`."""
        return self._ask("POST", path, dict(headers) | {"Content-Type": "application/octet-stream"}, body)

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask for something. Raises `Lost`."""
        return self._ask("GET", path, dict(headers), b"")

    def patch(self, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        """Hand over a body part by part, for as long as there are any, and wait for the answer. Raises `Lost`."""
        sent = dict(headers) | {"Content-Type": "application/offset+octet-stream", "Transfer-Encoding": "chunked"}
        return self._ask("PATCH", path, sent, parts)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _give_up(self) -> None:
        """End the connection at once: what the kernel still holds shall not be on the link before what comes next."""
        if self._open is not None and self._open.sock is not None:
            self._open.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | Iterator[bytes]) -> Reply:
        if self._open is not None and _ended(self._open.sock):
            self.close()
        try:
            if self._open is None:
                self._open = self._connected()
            assert self._open.sock is not None
            with self._listening(self._open.sock):
                self._open.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes))
                answer = self._open.getresponse()
                said = answer.read(LONGEST)
            self._patience = min(ANSWER_SECONDS, self.settings.seconds)
            if answer.will_close or not answer.isclosed():
                self.close()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, said)
        except ssl.SSLError as error:
            self._give_up()
            raise Lost(Trouble.TLS, encryption.failed(error)) from None
        except TimeoutError:
            self._give_up()
            raise Lost(Trouble.HANGS) from None
        except (OSError, http.client.HTTPException) as error:
            self._give_up()
            raise Lost(Trouble.CLOSED, type(error).__name__) from None
        except BaseException:
            self._give_up()
            raise

    def _connected(self) -> http.client.HTTPConnection:
        seconds = min(CONNECT_SECONDS[self._tries % len(CONNECT_SECONDS)], self.settings.seconds)
        self._tries += 1
        try:
            plain = socket.create_connection((self.host, self.port), seconds)
        except OSError as error:
            raise Lost(Trouble.UNREACHABLE, type(error).__name__) from None
        self._tries = 0
        try:
            plain.settimeout(self.settings.seconds)
            tune(plain, self.settings.seconds)
            made = http.client.HTTPConnection(self.host, self.port, timeout=self.settings.seconds)
            with self._listening(plain):
                made.sock = self._secured(plain)
        except BaseException:
            plain.close()
            raise
        return made

    @contextlib.contextmanager
    def _listening(self, connection: socket.socket) -> Iterator[None]:
        """Break a connection off that hears nothing for too long while the block waits for it, which then raises TimeoutError."""
        done, silent = threading.Event(), threading.Event()
        began = time.monotonic()
        descriptor = socket.socket(fileno=os.dup(connection.fileno()))

        def listen() -> None:
            while not done.wait(LOOK_SECONDS):
                since, waiting = silence(descriptor)
                if min(since, time.monotonic() - began) > (STILL_SECONDS if waiting else self._patience):
                    if not waiting:
                        self._patience = min(2 * self._patience, self.settings.seconds)
                    silent.set()
                    descriptor.shutdown(socket.SHUT_RDWR)
                    return

        thread = threading.Thread(target=listen, name="wire", daemon=True)
        thread.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if silent.is_set():
                raise TimeoutError from None
            raise
        finally:
            done.set()
            thread.join()
            descriptor.close()

    def _secured(self, plain: socket.socket) -> ssl.SSLSocket:
        pin = self._pin()
        try:
            context = ssl.create_default_context(cafile=self.settings.ca or None)
        except OSError:
            raise Lost(Trouble.NOT_CONFIGURED, self.settings.ca) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if pin:  # the key is known, so that neither its name nor a date on a wrong clock matters
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        secure = context.wrap_socket(plain, server_hostname=self.host)
        if pin and pin_of(secure.getpeercert(binary_form=True) or b"") != pin:
            secure.close()
            raise Lost(Trouble.TLS, "it has another key than the hub that this box was enrolled with")
        return secure


def tune(connection: socket.socket, seconds: float) -> None:
    """Make a connection good for a slow link; what a kernel lacks, it does without."""
    wanted: list[tuple[int, int | bytes]] = [
        (socket.TCP_NODELAY, 1),
        (socket.TCP_NOTSENT_LOWAT, UNSENT),
        (socket.TCP_USER_TIMEOUT, int(seconds * 1000)),
        (socket.TCP_CONGESTION, b"bbr"),
    ]
    for option, value in wanted:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def silence(connection: socket.socket) -> tuple[float, bool]:
    """For how many seconds nothing was heard of the other side, and whether bytes are on their way; none where no kernel tells."""
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_ACK + 4)
    except OSError:
        return 0.0, False
    (heard,), (unacked,) = struct.unpack_from("=I", told, LAST_ACK), struct.unpack_from("=I", told, UNACKED)
    return heard / 1000, unacked > 0


def _ended(connection: socket.socket | None) -> bool:
    """Whether the other side has ended an idle connection: nothing else than its end can be there to be read."""
    return connection is None or bool(select.select([connection], [], [], 0)[0])
