"""The archives next door: other systems that may read a programme's films and reads, and send what was made of them there
(`dicomweb.py`, `stow.py`, `fhir.py`).

Each has a token that is told once; its hash is kept. A token is no cookie and opens no page.
"""

from __future__ import annotations

import hashlib
import secrets

from web.hub.transaction import Transaction

TABLE = """
CREATE TABLE archive (
    name TEXT PRIMARY KEY,
    programme TEXT NOT NULL,
    token TEXT NOT NULL UNIQUE
) STRICT;
"""


def add(db: Transaction, name: str) -> str | None:
    """A new archive of the transaction's programme; gives its token, or None where there is one of that name."""
    token = secrets.token_urlsafe(32)
    added = db.run(
        "INSERT INTO archive (name, programme, token) VALUES (:name, :programme, :token) ON CONFLICT (name) DO NOTHING",
        name=name,
        token=_hashed(token),
    )
    return token if added else None


def remove(db: Transaction, name: str) -> bool:
    """An archive of the programme is refused from now on; False where there is none of that name."""
    return db.run("DELETE FROM archive WHERE name = :name AND programme = :programme", name=name) == 1


def listed(db: Transaction) -> list[str]:
    """The archives of the programme."""
    return [row["name"] for row in db.rows("SELECT name FROM archive WHERE programme = :programme ORDER BY name")]


def known(db: Transaction, token: str) -> tuple[str, str] | None:
    """Name and programme of the archive that has that token, or None."""
    row = db.row("SELECT name, programme FROM archive WHERE token = :token", token=_hashed(token))
    return None if row is None else (str(row["name"]), str(row["programme"]))


def _hashed(token: str) -> str:
    """It has 256 random bits: nobody finds it by trying."""
    return hashlib.sha256(token.encode()).hexdigest()
