"""Peers that misbehave, each in one way that is met in the field; on free ports of loopback."""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, StoragePresentationContexts, _config, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from edge.sinks import commitment
from tests.box import PATIENCE


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers of this process take what they say they take, also where a box of this process once took everything."""
    monkeypatch.setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", False)


@dataclass
class Pacs:
    """A DICOM peer: what it answers to each C-STORE, and what it was given."""

    port: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    """By SOP Class UID; success for those that are not there."""
    poison: frozenset[str] = frozenset()
    """Objects over which it aborts the association."""
    got: list[str] = field(default_factory=list)
    """The SOP Instance UIDs of each C-STORE."""
    asked: list[Dataset] = field(default_factory=list)
    """What it was asked to commit to."""
    associations: int = 0


@contextmanager
def pacs(
    *,
    classes: tuple[str, ...] | None = None,
    callers: tuple[str, ...] = (),
    hangs: threading.Event | None = None,
    aborts: bool = False,
    commits: Callable[[Dataset], Dataset] | None = None,
    **answers: Any,
) -> Iterator[Pacs]:
    """A PACS that takes only some classes or callers, answers with statuses, hangs until it is let go, aborts, or commits."""
    peer = Pacs(**answers)

    def store(event: evt.Event) -> int:
        peer.got.append(str(event.request.AffectedSOPInstanceUID))
        if hangs is not None:
            hangs.wait(PATIENCE)
        if aborts or peer.got[-1] in peer.poison:
            event.assoc.abort()
        return peer.statuses.get(str(event.request.AffectedSOPClassUID), 0x0000)

    def commit(event: evt.Event) -> tuple[int, None]:
        peer.asked.append(event.action_information)
        if commits is not None:
            report = commits(event.action_information)
            threading.Thread(target=tell, args=(event.assoc, report)).start()
        return 0x0000, None

    def tell(association: Any, report: Dataset) -> None:
        event_type = 2 if "FailedSOPSequence" in report else 1
        association.send_n_event_report(report, event_type, commitment.CLASS, commitment.INSTANCE)

    def established(event: evt.Event) -> None:
        peer.associations += 1

    ae = AE("PACS")
    ae.require_calling_aet = list(callers)
    ae.add_supported_context(Verification)
    for one in classes if classes is not None else [context.abstract_syntax for context in StoragePresentationContexts]:
        ae.add_supported_context(one)
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34") if classes is None else None
    if commits is not None:
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, commit), (evt.EVT_ESTABLISHED, established)]
    server = ae.start_server(("127.0.0.1", peer.port), block=False, evt_handlers=handlers)
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        if hangs is not None:
            hangs.set()
        server.shutdown()


@contextmanager
def silent() -> Iterator[int]:
    """A port where the connection is accepted and nothing is ever said."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def mllp(
    answer: Callable[[bytes], bytes | None], secure: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """An HL7 engine: `answer` is given each message and says what is sent back; None cuts the connection."""
    got: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            buffer = b""
            while received := self.request.recv(65536):
                buffer += received
                while b"\x1c\r" in buffer:
                    message, _, buffer = buffer.partition(b"\x1c\r")
                    got.append(message.lstrip(b"\x0b"))
                    said = answer(got[-1])
                    if said is None:
                        return
                    self.request.sendall(said)

    with _serving(Handler, secure) as port:
        yield port, got


def acknowledgement(message: bytes, code: str = "AA", error: str = "", control: str | None = None) -> bytes:
    """An ACK of a message (HL7 v2.5.1 2.9.2), framed."""
    header = message.split(b"\r")[0].decode().split("|")
    said = f"MSH|^~\\&|EHR||OUTPOST||20261125||ACK|1|P|2.5.1\rMSA|{code}|{header[9] if control is None else control}\r"
    said += f"ERR|||{error}|E||||Patient Diallo is not known\r" if error else ""
    return b"\x0b" + said.encode() + b"\x1c\r"


@dataclass
class Web:
    """An HTTP peer that answers each request with the next of its answers, and the last of them for ever."""

    answers: list[tuple[int, bytes]]
    url: str = ""
    got: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def web(*answers: tuple[int, bytes], secure: ssl.SSLContext | None = None, slow: float = 0) -> Iterator[Web]:
    """An HTTP server that gives these answers."""
    peer = Web(list(answers))

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            peer.got.append((self.command, self.path, dict(self.headers), body))
            time.sleep(slow)
            status, said = peer.answers.pop(0) if len(peer.answers) > 1 else peer.answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler, secure) as port:
        peer.url = f"http{'s' if secure else ''}://localhost:{port}"
        yield peer


class _Server(socketserver.ThreadingTCPServer):
    """Any number of peers at once, with TLS where there is a context for it."""

    daemon_threads = True
    allow_reuse_address = True
    secure: ssl.SSLContext | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side may go at any time."""

    def get_request(self) -> Any:
        connection, address = super().get_request()
        if self.secure is None:
            return connection, address
        connection.settimeout(PATIENCE)
        return self.secure.wrap_socket(connection, server_side=True), address


@contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler], secure: ssl.SSLContext | None) -> Iterator[int]:
    server = _Server(("127.0.0.1", 0), handler)
    server.secure = secure
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
