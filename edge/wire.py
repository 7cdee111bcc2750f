"""Wire: the one connection from a box to its hub, HTTP/1.1 over TLS, made when it is needed and kept for as long as it holds.

Three settings of the socket make it good for a slow link that loses much. BBR, where the kernel has it, does not take every lost
packet for congestion: at 15 % it still carries what others no longer do. Little waits unsent in the kernel, so that what is urgent
is not behind it. And a silence that is shorter than `hub.seconds` breaks nothing: most outages are.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.config import Hub
from edge.link import Lost, Reply
from edge.records import Trouble
from edge.sinks import encryption

UNSENT = 8 * 1024
"""Bytes that wait in the kernel for their turn."""
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

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Hand over a body and wait for the answer. Raises `Lost`."""
        return self._ask("POST", path, dict(headers) | {"Content-Type": "application/octet-stream"}, body)

    def patch(self, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        """Hand over a body part by part, for as long as there are any, and wait for the answer. Raises `Lost`."""
        sent = dict(headers) | {"Content-Type": "application/offset+octet-stream", "Transfer-Encoding": "chunked"}
        return self._ask("PATCH", path, sent, parts)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | Iterator[bytes]) -> Reply:
        if self._open is not None and _ended(self._open.sock):
            self.close()
        try:
            if self._open is None:
                self._open = self._connected()
            self._open.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes))
            answer = self._open.getresponse()
            said = answer.read(LONGEST)
            if answer.will_close or not answer.isclosed():
                self.close()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, said)
        except ssl.SSLError as error:
            self.close()
            raise Lost(Trouble.TLS, encryption.failed(error)) from None
        except TimeoutError:
            self.close()
            raise Lost(Trouble.HANGS) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost(Trouble.CLOSED, type(error).__name__) from None
        except BaseException:
            self.close()
            raise

    def _connected(self) -> http.client.HTTPConnection:
        try:
            plain = socket.create_connection((self.host, self.port), self.settings.seconds)
        except OSError as error:
            raise Lost(Trouble.UNREACHABLE, type(error).__name__) from None
        try:
            tune(plain, self.settings.seconds)
            made = http.client.HTTPConnection(self.host, self.port, timeout=self.settings.seconds)
            made.sock = self._secured(plain)
        except BaseException:
            plain.close()
            raise
        return made

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


def _ended(connection: socket.socket | None) -> bool:
    """Whether the other side has ended an idle connection: nothing else than its end can be there to be read."""
    return connection is None or bool(select.select([connection], [], [], 0)[0])
