"""The people who use the pages: who asks, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import abort, g, session

from edge.records import Account, Role
from edge.state import accounts
from web import here

CARERS = (Role.CLINICIAN, Role.LEAD)
"""Who may see patients."""

P = ParamSpec("P")
R = TypeVar("R")


def load() -> None:
    """Before each request: who asks."""
    name = session.get("account")
    account = accounts.get(here.store(), name) if isinstance(name, str) else None
    g.account = account if account is not None and account.active else None


def who() -> Account:
    """The person who asks; only where one has signed in."""
    account = g.account
    assert isinstance(account, Account)
    return account


def may(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A page for people of these roles only."""

    def decorate(page: Callable[P, R]) -> Callable[P, R]:
        @wraps(page)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if g.account is None or g.account.role not in roles:
                abort(403)
            return page(*args, **kwargs)

        return guarded

    return decorate


def anybody(page: Callable[P, R]) -> Callable[P, R]:
    """A page for everyone, signed in or not."""
    return page
