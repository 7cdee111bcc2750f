"""The first start: a one-time code that only somebody at the box can read makes the first lead; there is no default password.

`outpost serve` prints the code, and it lies in the state folder, for the box's own user and root alone, until it is used. The
database holds its hash, so a file that was left behind opens nothing.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from edge import pins
from edge.config import Config
from edge.records import Role
from edge.state import accounts, setup_code
from edge.state.store import now, open_store, transaction


def file(config: Config) -> Path:
    """Where the code lies until it is used."""
    return Path(config.state) / "setup-code"


def code(config: Config) -> str | None:
    """The code that counts, made where the box has no lead and none yet; None once it is used."""
    with closing(open_store(Path(config.state))) as store:
        secret = setup_code.get(store)
        lead = any(account.active and account.role is Role.LEAD for account in accounts.everyone(store))
    if secret is None and lead:
        used(config)
        return None
    try:
        written = file(config).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        written = ""
    return written if secret is not None and pins.fits(written, secret) else renew(config)


def renew(config: Config) -> str:
    """Make a new code; the one before is void."""
    drawn, path = pins.one_time_code(), file(config)
    secret = pins.hashed(drawn)
    with closing(open_store(path.parent)) as store, transaction(store):
        setup_code.put(store, secret, now())
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(f"{drawn}\n")
            out.flush()
            os.fsync(out.fileno())
        new.rename(path)
    return drawn


def used(config: Config) -> None:
    """Take the file away; the database has forgotten the code already."""
    file(config).unlink(missing_ok=True)
