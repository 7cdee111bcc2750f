"""What a request needs of the box: its settings, this request's connection, a film by its number."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flask import abort, current_app, g

from edge.config import Config
from edge.errors import OutpostError
from edge.records import Film
from edge.state import notices, results
from edge.state.objects import Objects
from edge.state.store import open_store


def config() -> Config:
    """The box's settings."""
    settings = current_app.extensions["outpost"]
    assert isinstance(settings, Config)
    return settings


def store() -> sqlite3.Connection:
    """This request's connection."""
    if "store" not in g:
        g.store = open_store(Path(config().state))
    connection = g.store
    assert isinstance(connection, sqlite3.Connection)
    return connection


def close_store(_error: BaseException | None) -> None:
    """Close this request's connection when the request ends."""
    if (connection := g.pop("store", None)) is not None:
        connection.close()


def current_notices() -> list[str]:
    """What is wrong with the box, for every page; nothing on the page that says that the state cannot be opened."""
    try:
        return notices.current(store())
    except OutpostError:
        return []


def film_or_404(number: int) -> Film:
    """The film of that number, or the page that says there is none."""
    try:
        return results.film(store(), number)
    except (KeyError, OverflowError):
        abort(404)


def objects() -> Objects:
    """The box's object store."""
    kept = current_app.extensions["objects"]
    assert isinstance(kept, Objects)
    return kept
