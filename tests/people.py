"""A person at the pages under test."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from flask.testing import FlaskClient

from edge.records import Role
from edge.state import accounts
from edge.state.store import now, open_store, transaction


def sign_in(
    client: FlaskClient, state: Path, name: str = "Amina", role: Role = Role.CLINICIAN, language: str = "en"
) -> None:
    """Give the client the session of a person, who gets an account if there is none of that name."""
    with closing(open_store(state)) as store, transaction(store):
        accounts.add(store, name, role, language, "no hash: nobody signs in with it", now())
    with client.session_transaction() as session:
        session["account"] = name
