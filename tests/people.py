"""A person at the pages under test."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from argon2 import PasswordHasher
from flask.testing import FlaskClient

from edge.records import Role
from edge.state import accounts, sessions
from edge.state.store import now, open_store, transaction

PIN = "482615"
SECRET = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PIN)
"""Its hash, cheap: it protects nobody."""
TABLET = "the-tablet-under-test"


def person(state: Path, name: str = "Amina", role: Role = Role.CLINICIAN, language: str = "en") -> None:
    """Give a person an account with `PIN`, if there is none of that name."""
    with closing(open_store(state)) as store, transaction(store):
        accounts.add(store, name, role, language, SECRET, now())


def cookies(state: Path, name: str = "Amina", role: Role = Role.CLINICIAN, language: str = "en") -> dict[str, str]:
    """What a browser holds that a person has signed in on."""
    person(state, name, role, language)
    with closing(open_store(state)) as store, transaction(store):
        return {"signed_in": sessions.start(store, name, sessions.hash_of(TABLET), now()), "tablet": TABLET}


def sign_in(
    client: FlaskClient, state: Path, name: str = "Amina", role: Role = Role.CLINICIAN, language: str = "en"
) -> None:
    """Give the client the session of a person, who gets an account if there is none of that name."""
    for key, value in cookies(state, name, role, language).items():
        client.set_cookie(key, value)
