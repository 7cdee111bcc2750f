"""When a batch of the ledger counts as read: peers that rsyslog cannot be made to play."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trustme

from edge import syslog
from edge.config import Audit, Config
from edge.records import Receipt, Trouble
from edge.state import audit, forwarding
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction
from tests.box import PATIENCE

MESSAGES = [b"x" * 100] * 50

Peer = Callable[[ssl.SSLSocket, threading.Event, threading.Event], None]
"""What a repository does, knowing when everything was sent, and when the test is over."""


def reads_all(secure: ssl.SSLSocket, _sent: threading.Event, _over: threading.Event) -> None:
    while secure.recv(65536):
        pass


def reads_nothing(_secure: ssl.SSLSocket, sent: threading.Event, _over: threading.Event) -> None:
    sent.wait()  # everything lies in this machine's buffers by then


def reads_some(secure: ssl.SSLSocket, sent: threading.Event, _over: threading.Event) -> None:
    sent.wait()
    secure.recv(10)


def hangs(_secure: ssl.SSLSocket, _sent: threading.Event, over: threading.Event) -> None:
    over.wait()


@contextmanager
def peer(folder: Path, behaves: Peer, sent: threading.Event, version: ssl.TLSVersion) -> Iterator[Audit]:
    """A repository for one connection."""
    authority, over = trustme.CA(), threading.Event()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("localhost").configure_cert(context)

    def serve() -> None:
        connection, _ = listening.accept()
        with closing(connection):
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    behaves(secure, sent, over)
            except OSError:
                pass

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        seconds = 1.0 if behaves is hangs else PATIENCE
        yield Audit("localhost", listening.getsockname()[1], str(folder / "ca.pem"), seconds=seconds)
        over.set()
        thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("behaves", "trouble"),
    [(reads_all, None), (reads_nothing, Trouble.CLOSED), (reads_some, Trouble.CLOSED), (hangs, Trouble.HANGS)],
)
def test_only_what_the_peer_has_read_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion, behaves: Peer, trouble: Trouble | None
) -> None:
    sent, close = threading.Event(), syslog._close
    monkeypatch.setattr(syslog, "_close", lambda secure: (sent.set(), close(secure)))
    with peer(tmp_path, behaves, sent, version) as settings:
        assert syslog.deliver(settings, MESSAGES).trouble is trouble


def test_a_peer_that_is_gone_soon_after_a_batch_gets_it_again(state: Path) -> None:
    gone = Receipt(Trouble.UNREACHABLE, "refused")
    with closing(open_store(state)) as store, transaction(store):
        at = now()
        forwarding.taken(store, "a", 10, at)
        forwarding.taken(store, "a", 20, at)
        forwarding.failed(store, "a", gone, at + timedelta(seconds=5))
        assert forwarding.standing(store, "a").id == 10
        forwarding.failed(store, "a", gone, at + timedelta(seconds=9))
        assert forwarding.standing(store, "a").id == 10
        forwarding.taken(store, "a", 20, at)
        forwarding.failed(store, "a", gone, at + 2 * forwarding.DOUBT)
        assert forwarding.standing(store, "a").id == 20


def test_the_wait_grows_and_survives_a_clock_that_was_wrong(state: Path) -> None:
    waits: list[timedelta] = []
    with closing(open_store(state)) as store, transaction(store):
        at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        for _ in range(14):
            forwarding.failed(store, "a", Receipt(Trouble.HANGS), at)
            stood = forwarding.standing(store, "a")
            assert stood.due_at is not None and not stood.due(at) and stood.due(stood.due_at)
            waits.append(stood.due_at - at)
        assert waits[0] < timedelta(seconds=3) and timedelta(minutes=11) < waits[-1] <= timedelta(minutes=15)
        assert stood.due(at - timedelta(days=1)), "the moment was written under a clock that was wrong"


def test_another_repository_gets_the_whole_ledger(state: Path) -> None:
    with closing(open_store(state)) as store, transaction(store):
        forwarding.taken(store, "first:6514", 20, now())
        assert forwarding.standing(store, "second:6514").id == 0


def test_without_a_repository_nothing_is_sent(state: Path) -> None:
    with closing(open_store(state)) as store:
        with transaction(store):
            audit.append(store, Event.STARTED, "box", now())
        assert not syslog.step(Config(state=str(state)), store)
        assert store.execute("SELECT COUNT(*) FROM forwarding").fetchone()[0] == 0
