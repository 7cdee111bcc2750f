"""How pages are served: cheroot, and TLS with the box's own certificate (`edge/state/trust.py`).

No HSTS is sent: it would reach every port of the name, the join page's too, which a tablet needs again when a box's authority is
new; and nothing is lost without it, since plain HTTP has no pages, no forms and no cookies here.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cheroot.makefile import StreamReader, StreamWriter
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.wsgi import Server
from flask import Flask

from edge.config import Config
from edge.errors import Misconfigured
from edge.state import trust
from edge.state.store import now

log = logging.getLogger(__name__)

THREADS = 4
BODY_BYTES = 16 * 1024
"""No form of the box is larger."""
SECONDS = 10.0
"""So long a connection may be silent."""


class Tls(Adapter):
    """TLS for the pages; the certificate is renewed, and learns the address a tablet came by, between two connections."""

    def __init__(self, config: Config, clock: Callable[[], datetime] = now) -> None:
        self._config = config
        self._clock = clock
        self.join_port = 0 if config.web.join_port == "none" else config.web.join_port
        self.trust = trust.ensure(Path(config.state), config.web.names, None, clock())
        self.context = context(self.trust.file)

    def bind(self, sock: Any) -> Any:
        """The listening socket stays as it is."""
        return sock

    def wrap(self, sock: Any) -> tuple[Any, dict[str, str]]:
        """Prepare a connection; the tablet is spoken to in the connection's own thread, so that a slow one delays nobody."""
        address, at = trust.address_of(sock.getsockname()[0]), self._clock()
        if self.trust.due(at) or not self.trust.covers(address):
            try:
                self.trust = trust.ensure(Path(self._config.state), self._config.web.names, address, at)
                self.context = context(self.trust.file)
            except OSError:  # a full disk: the old certificate is better than none
                log.exception("the certificate could not be made anew")
        secured = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return secured, {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: Any, mode: str = "r", bufsize: int = -1) -> Any:
        """The stream of a connection, as cheroot wants it."""
        return (StreamReader if "r" in mode else StreamWriter)(sock, mode, bufsize)

    def get_environ(self) -> dict[str, str]:
        """Nothing that is the same for every connection."""
        return {}


class _Connection(HTTPConnection):
    def communicate(self) -> bool:
        """Shake hands, where that was not done yet, and answer; whoever speaks no TLS or does not trust the box is let go."""
        try:
            self.socket.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._lead_to_join_page()
            return False
        except OSError:
            return False
        try:
            return bool(super().communicate())  # type: ignore[no-untyped-call]
        except OSError:  # nobody hears that something went wrong
            return False

    def _lead_to_join_page(self) -> None:
        """Answer plain HTTP, in plain HTTP, with where to go, and with nothing of what was asked."""
        address, _, *_ = self.socket.getsockname()
        host, port = f"[{address}]" if ":" in address else address, self.server.ssl_adapter.join_port
        lead = f"303 See Other\r\nLocation: http://{host}:{port}/" if port else "400 Bad Request"
        try:
            socket.socket.send(
                self.socket, f"HTTP/1.1 {lead}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            socket.socket.recv(
                self.socket, BODY_BYTES
            )  # the rest of the question: unread, it would take the answer with it
        except OSError:
            return


class _Server(Server):
    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Take down what went wrong; of a connection that was cut, which links do all day, one line says enough."""
        if isinstance(error := sys.exception(), OSError):
            log.warning("a connection was cut (%s)", error)
        else:
            log.log(level, msg, exc_info=traceback)


def context(file: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the certificate and key of that file."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(file)
    return made


def serve(
    app: Flask,
    setting: str,
    host: str,
    port: int,
    stop: threading.Event,
    ready: Callable[[int], None],
    tls: Tls | None = None,
    *,
    threads: int = THREADS,
    body: int = BODY_BYTES,
    seconds: float = SECONDS,
) -> None:
    """Serve an application until `stop` is set; `ready` gets the port once it can be reached.

    No request is longer than `body` bytes, and a connection that is silent for `seconds` is closed.

    Raises `Misconfigured` when the address of that setting cannot be used.
    """
    server = _Server((host, port), app, numthreads=threads, server_name="Outpost")
    server.max_request_body_size, server.timeout = body, seconds
    if tls is not None:
        server.ssl_adapter = tls
        server.ConnectionClass = _Connection
    try:
        server.prepare()
    except OSError as error:
        raise Misconfigured(
            f"{setting}: {host}:{port} cannot be used ({error}). Choose another port in the settings."
        ) from None
    serving = threading.Thread(target=server.serve, name=setting)
    serving.start()
    try:
        ready(int(server.bind_addr[1]))
        stop.wait()
    finally:
        server.stop()
        serving.join()
