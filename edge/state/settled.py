"""The table of the settings that were in force at the last start, so that a change of them is seen and recorded."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime

import msgspec

from edge.config import Config
from edge.state import audit

TABLE = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


def note(connection: sqlite3.Connection, config: Config, at: datetime) -> None:
    """Record inside the caller's transaction which settings have changed since the last start, if any; never their values."""
    now = dict(_flat("", msgspec.to_builtins(config)))
    then = dict(map(tuple, connection.execute("SELECT key, value FROM setting")))
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if not changed:
        return
    connection.execute("DELETE FROM setting")
    connection.executemany("INSERT INTO setting VALUES (?, ?)", now.items())
    whole = hashlib.sha256(msgspec.json.encode(now, order="sorted")).hexdigest()
    audit.append(connection, audit.Event.CONFIGURED, "box", at, settings=whole, changed=changed if then else [])


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
        for one in value:
            yield from _flat(f"{prefix}.{one.get('name', '')}", one)
    else:
        yield prefix, msgspec.json.encode(value).decode()
