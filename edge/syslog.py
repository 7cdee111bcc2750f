"""Sends the ledger to an audit record repository, record by record, in order, by syslog over TLS (RFC 5425, PS3.15 A.6).

Syslog knows no acknowledgement. So each batch has a connection of its own that both sides close: once everything has been taken by
the peer's kernel and the peer then closes without a reset, it has read all of it. In any doubt the batch is sent again.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import socket
import sqlite3
import ssl
import struct
import termios
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from edge import atna
from edge.config import Audit, Config, station
from edge.errors import Misconfigured
from edge.records import Header, Receipt, Trouble
from edge.sinks import encryption
from edge.state import audit, forwarding, results
from edge.state.audit import Record
from edge.state.store import now, open_store, transaction

log = logging.getLogger(__name__)

BATCH = 200
POLL_SECONDS = 1.0


def step(config: Config, store: sqlite3.Connection) -> bool:
    """Send the next records if there are any and the repository may be asked; say whether it took them."""
    name = repository(config.audit)
    stood = forwarding.standing(store, name)
    if not config.audit.host or not stood.due(now()):
        return False
    batch = list(itertools.islice(audit.records(store, after=stood.id), BATCH))
    if not batch:
        return False
    receipt = deliver(config.audit, [atna.line(*each, station(config)) for each in told(store, batch)])
    with transaction(store):
        if receipt.trouble is None:
            forwarding.taken(store, name, batch[-1].id, now())
        else:
            log.warning("audit record repository %s: %s %s", name, receipt.trouble, receipt.detail)
            forwarding.failed(store, name, receipt, now())
    return receipt.trouble is None


def repository(settings: Audit) -> str:
    """What the repository is called here; another one gets the whole ledger."""
    return f"{settings.host}:{settings.port}"


def told(store: sqlite3.Connection, batch: Iterable[Record]) -> Iterator[tuple[Record, Header | None]]:
    """The records, each with what its film says of itself."""
    known: dict[int, Header] = {}
    for record in batch:
        number = record.arrival_id
        if number is not None and number not in known:
            known[number] = results.film(store, number).header
        yield record, None if number is None else known[number]


def probe(config: Config) -> Receipt:
    """Whether the repository lets this box in; nothing is sent."""
    return deliver(config.audit, [])


def deliver(settings: Audit, messages: list[bytes]) -> Receipt:
    """Hand the messages over, and say whether the repository has read them all."""
    try:
        context = encryption.context(settings)
    except Misconfigured as error:
        return Receipt(Trouble.NOT_CONFIGURED, str(error))
    try:
        plain = socket.create_connection((settings.host, settings.port), settings.seconds)
    except OSError as error:
        return Receipt(Trouble.UNREACHABLE, str(error))
    with closing(plain):
        try:
            secure = context.wrap_socket(plain, server_hostname=settings.host)
        except TimeoutError as error:
            return Receipt(Trouble.HANGS, str(error))
        except ssl.SSLError as error:
            return Receipt(Trouble.TLS, encryption.failed(error))
        except OSError as error:
            return Receipt(Trouble.CLOSED, str(error))
        with closing(secure):
            return _hand_over(secure, messages)


def _hand_over(secure: ssl.SSLSocket, messages: list[bytes]) -> Receipt:
    try:
        for message in messages:
            secure.sendall(atna.framed(message))
        _close(secure)
    except TimeoutError as error:
        return Receipt(Trouble.HANGS, str(error))
    except ssl.SSLError as error:  # TLS 1.3: a client's certificate is refused only after the handshake
        return Receipt(Trouble.TLS, encryption.failed(error))
    except OSError as error:
        return Receipt(Trouble.CLOSED, str(error))
    if _unacknowledged(secure):
        return Receipt(Trouble.CLOSED, "it closed before it had read everything")
    return Receipt()


def _close(secure: ssl.SSLSocket) -> None:
    """Say that this was all, and wait for the peer to close; raises where it resets the connection instead."""
    try:
        secure.unwrap()
    except ssl.SSLEOFError:
        pass  # it closes without saying so (GnuTLS as a server)
    except TimeoutError:
        raise
    except OSError as error:  # without a number it is the same, as older OpenSSL says it
        if error.errno:
            raise


def _unacknowledged(secure: ssl.SSLSocket) -> int:
    """How many octets the peer's kernel has not taken (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(secure.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


def run(config: Config, stop: threading.Event) -> None:
    """Send the ledger as it grows until `stop` is set."""
    with closing(open_store(Path(config.state))) as store:
        while not stop.is_set():
            try:
                if step(config, store):
                    continue
            except sqlite3.Error:  # a full disk, a lock held for too long: it is sent again
                log.exception("the ledger could not be read or its sending noted; it goes on")
            stop.wait(POLL_SECONDS)
