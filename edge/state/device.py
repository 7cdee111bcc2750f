"""The device: its keys, made here and never leaving, and what it knows of the hub that it was enrolled with.

The keys are a file beside the database; everything else is in it. Who has a box's disk can speak for that box: one that is lost is
revoked at the hub.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from edge import durable
from edge.cards import Enrolled
from edge.errors import Tampered

FILE = "device.key"

TABLE = """
CREATE TABLE hub (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    site TEXT NOT NULL,
    programme TEXT NOT NULL,
    signing BLOB NOT NULL,
    sealing BLOB NOT NULL,
    pin TEXT NOT NULL,
    at TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


@dataclass(frozen=True)
class Hub:
    """The hub that this box belongs to."""

    site: str
    """What it calls this box's site."""
    programme: str
    signing: bytes
    sealing: bytes
    pin: str
    """Of its TLS key, in the hexadecimal digits of a SHA-256 or its beginning; empty where a public authority vouches for it."""
    at: datetime
    revoked: bool
    """It no longer accepts this box's key."""


def keys(state: Path) -> tuple[Ed25519PrivateKey, X25519PrivateKey]:
    """This box's keys for signing and for opening, made durably at their first use; the same for whoever asks at once.

    Raises `Tampered` where the file is damaged: the box then has to be enrolled again, with new keys.
    """
    path = state / FILE
    if not path.exists():
        durable.create(path, _pem(Ed25519PrivateKey.generate()) + _pem(X25519PrivateKey.generate()))
    try:
        first, end, second = path.read_bytes().partition(b"-----END PRIVATE KEY-----\n")
        signing, sealing = load_pem_private_key(first + end, None), load_pem_private_key(second, None)
        if isinstance(signing, Ed25519PrivateKey) and isinstance(sealing, X25519PrivateKey):
            return signing, sealing
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise Tampered(f"{path} is damaged. Remove it and enrol the box again: outpost enrol CODE; nothing is lost.")


def _pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def enrol(connection: sqlite3.Connection, said: Enrolled, pin: str, at: datetime) -> None:
    """Remember the hub, inside the caller's transaction; it takes the place of one before."""
    connection.execute(
        "INSERT OR REPLACE INTO hub (one, site, programme, signing, sealing, pin, at) VALUES (1, ?, ?, ?, ?, ?, ?)",
        (said.site, said.programme, said.signing, said.sealing, pin, at.isoformat()),
    )


def forget(connection: sqlite3.Connection) -> None:
    """Belong to no hub, inside the transaction that makes this box what another one was: the hub knows that one's key."""
    connection.execute("DELETE FROM hub")


def revoke(connection: sqlite3.Connection) -> None:
    """Note that the hub no longer accepts this box's key, inside the caller's transaction."""
    connection.execute("UPDATE hub SET revoked = 1")


def hub(connection: sqlite3.Connection) -> Hub | None:
    """The hub that this box was enrolled with, or None before."""
    row = connection.execute("SELECT * FROM hub").fetchone()
    if row is None:
        return None
    return Hub(
        site=row["site"],
        programme=row["programme"],
        signing=row["signing"],
        sealing=row["sealing"],
        pin=row["pin"],
        at=datetime.fromisoformat(row["at"]),
        revoked=bool(row["revoked"]),
    )
