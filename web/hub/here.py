"""What a request needs of the hub: settings, database, pictures, keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flask import abort, current_app, request
from werkzeug.datastructures import WWWAuthenticate

from edge.stages.parcel import Keys
from web.hub import accounts, archives
from web.hub import blobs as pictures
from web.hub import keys as own
from web.hub.blobs import Blobs
from web.hub.config import Config
from web.hub.keys import Seal
from web.hub.store import Store, open_store
from web.hub.tasks import Rules

NAME = "outpost.hub"


@dataclass(frozen=True)
class Hub:
    """A hub at work."""

    config: Config
    store: Store
    blobs: Blobs
    keys: Keys
    seal: Seal
    rules: Rules


def open_hub(config: Config) -> Hub:
    """The hub of these settings. Raises `Misconfigured` or `Tampered`."""
    held = own.keys(Path(config.state))
    secret = hashlib.sha256(b"outpost sample" + held.signing.private_bytes_raw()).digest()
    store, seal = open_store(config), own.Seal(held)
    with store.reading() as db:
        plain = accounts.unsealed(db)
    if plain:  # by an earlier version
        with store.transaction() as db:
            accounts.seal_all(db, seal, plain)
    return Hub(config, store, pictures.open_blobs(config), held, seal, Rules(config.policy, secret))


def hub() -> Hub:
    """The hub that answers this request."""
    held = current_app.extensions[NAME]
    assert isinstance(held, Hub)
    return held


def config() -> Config:
    """The hub's settings."""
    return hub().config


def store() -> Store:
    """The hub's database."""
    return hub().store


def blobs() -> Blobs:
    """The hub's pictures."""
    return hub().blobs


def archive() -> str:
    """The programme whose archive asks, by its token; ends the request where none does."""
    return neighbour()[1]


def neighbour() -> tuple[str, str]:
    """Name and programme of the archive that asks, by its token; ends the request where none does."""
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        with store().reading() as db:
            found = archives.known(db, given.token)
        if found is not None:
            return found
    needed = WWWAuthenticate("bearer", {"realm": "hub"})
    return abort(401, "An archive says by its token who it is: outpost hub archive add NAME.", www_authenticate=needed)
