"""The tables of who reads at the hub: accounts, who is signed in, and failed tries.

They are asked before anybody knows whose programme it is: a name is given once in the whole hub. A browser holds a random token,
the hub its hash; of a pass phrase the hub keeps its Argon2id hash, and what an app shares with it is sealed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

import msgspec

from edge import pins
from edge.state import tries
from web.hub.keys import SEALED, Seal
from web.hub.records import Record, TaskKind
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE account (
    folded TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    programme TEXT NOT NULL,
    role TEXT NOT NULL,
    language TEXT NOT NULL,
    languages TEXT NOT NULL,
    kinds TEXT NOT NULL,
    sites TEXT NOT NULL,
    countries TEXT NOT NULL,
    secret TEXT NOT NULL,
    one_time INTEGER NOT NULL,
    totp TEXT NOT NULL DEFAULT '',
    totp_step INTEGER NOT NULL DEFAULT 0,
    issuer TEXT NOT NULL DEFAULT '',
    subject TEXT NOT NULL DEFAULT '',
    active INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX account_elsewhere ON account (issuer, subject) WHERE issuer <> '';
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    folded TEXT NOT NULL,
    created_at REAL NOT NULL,
    seen_at REAL NOT NULL
) STRICT;
CREATE INDEX session_of_account ON session (folded);
CREATE TABLE browser (
    id TEXT NOT NULL,
    folded TEXT NOT NULL,
    PRIMARY KEY (id, folded)
) STRICT;
CREATE TABLE tries (
    whom TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    locked_until REAL NOT NULL,
    at REAL NOT NULL
) STRICT;
"""

STRANGER = "stranger "
"""What the tries of names begin with that nobody has."""
STRANGER_SECONDS = 86400
"""So long such a name is remembered."""


class Role(StrEnum):
    """What a person at the hub may do."""

    READER = "reader"
    LEAD = "lead"
    """A reader who also sees turnaround and sites."""
    ADMIN = "admin"
    """Gives accounts; reads nothing."""


class Account(Record, frozen=True, kw_only=True):
    """A person who may use the hub's pages."""

    name: str
    programme: str
    role: Role
    language: str = "en"
    """The one that the pages speak."""
    languages: tuple[str, ...] = ()
    """The languages of the sites that the person reads for; empty for all."""
    kinds: tuple[TaskKind, ...] = (TaskKind.FIRST, TaskKind.AUDIT)
    """The reads the person has the right to make."""
    sites: tuple[str, ...] = ()
    """The sites whose films the person may see; empty for all."""
    countries: tuple[str, ...] = ()
    """Where the person's licence holds (ISO 3166-1 alpha-2); empty for everywhere."""
    secret: str = ""
    """The encoded Argon2 hash of the pass phrase, or of the one-time code; empty where another provider signs the person in."""
    one_time: bool = False
    """The secret was given by somebody else: the person chooses their own before anything else."""
    totp: str = ""
    """What the person's authenticator app holds too (base32), sealed for their folded name (`keys.Seal`)."""
    totp_step: int = 0
    """The step of the last code that was accepted."""
    issuer: str = ""
    subject: str = ""
    """By what an OpenID provider knows the person."""
    active: bool = True


class Session(Record, frozen=True, kw_only=True):
    """Somebody who is signed in."""

    id: str
    """SHA-256 of the token that the browser holds."""
    folded: str
    created_at: float
    seen_at: float


def folded(name: str) -> str:
    """A name as it is compared, however its letters are capitalized."""
    return name.casefold()


def everyone(db: Transaction, programme: str) -> list[Account]:
    """All accounts of a programme."""
    return [
        _account(row) for row in db.rows("SELECT * FROM account WHERE programme = :of ORDER BY folded", of=programme)
    ]


def get(db: Transaction, name: str) -> Account | None:
    """The account of a name, or None."""
    row = db.row("SELECT * FROM account WHERE folded = :folded", folded=folded(name))
    return None if row is None else _account(row)


def elsewhere(db: Transaction, issuer: str, subject: str) -> Account | None:
    """The account of a person whom an OpenID provider knows, or None."""
    row = db.row(
        "SELECT * FROM account WHERE issuer = :issuer AND subject = :subject AND issuer <> ''",
        issuer=issuer,
        subject=subject,
    )
    return None if row is None else _account(row)


def add(db: Transaction, account: Account) -> bool:
    """A new account; False where somebody has the name already."""
    columns = _columns(account)
    added = db.run(
        f"INSERT INTO account (programme, {', '.join(columns)}) VALUES (:of, {', '.join(f':{one}' for one in columns)})"
        " ON CONFLICT (folded) DO NOTHING",
        of=account.programme,
        **columns,
    )
    return added == 1


def put(db: Transaction, account: Account, before: Account) -> bool:
    """The account as it is from now on; False where it was changed in the meantime, or its owner at the provider is another's."""
    columns = {key: value for key, value in _columns(account).items() if key not in ("folded", "name", "totp_step")}
    if account.issuer:
        held = elsewhere(db, account.issuer, account.subject)
        if held is not None and folded(held.name) != folded(account.name):
            return False
    changed = db.run(
        f"UPDATE account SET {', '.join(f'{one} = :{one}' for one in columns)}"
        " WHERE folded = :folded AND secret = :was_secret AND role = :was_role AND active = :was_active AND totp = :was_totp",
        **columns,
        folded=folded(account.name),
        was_secret=before.secret,
        was_role=before.role.value,
        was_active=int(before.active),
        was_totp=before.totp,
    )
    return changed == 1


def unsealed(db: Transaction) -> list[Row]:
    """The rows in which an earlier version has kept an app's secret as it is."""
    return db.rows("SELECT folded, totp FROM account WHERE totp <> '' AND totp NOT LIKE :sealed", sealed=f"{SEALED}%")


def seal_all(db: Transaction, seal: Seal, rows: Sequence[Row]) -> None:
    """Seal the secrets of those rows inside the caller's transaction."""
    for row in rows:
        db.run(
            "UPDATE account SET totp = :sealed WHERE folded = :folded AND totp = :was",
            sealed=seal.close(row["totp"], row["folded"]),
            folded=row["folded"],
            was=row["totp"],
        )


def unreadable(db: Transaction, seal: Seal) -> list[str]:
    """The people whose app the hub cannot check, because their secrets are sealed under another key."""
    rows = db.rows("SELECT folded, name, totp FROM account WHERE totp <> '' ORDER BY folded")
    return [row["name"] for row in rows if seal.open(row["totp"], row["folded"]) is None]


def invite(db: Transaction, account: Account) -> str | None:
    """Make an account inside the caller's transaction; gives the one-time code, of which only the hash is kept."""
    code = pins.one_time_code()
    made = msgspec.structs.replace(account, secret=pins.hashed(code), one_time=True)
    return code if add(db, made) else None


def reset(db: Transaction, account: Account) -> str:
    """Give a person a new one-time code inside the caller's transaction; what they had no longer lets anybody in."""
    code = pins.one_time_code()
    fresh = msgspec.structs.replace(
        account, secret=pins.hashed(code), one_time=True, totp="", issuer="", subject="", active=True
    )
    put(db, fresh, account)
    forget(db, person(account.name))
    return code


def person(name: str) -> str:
    """What a person's wrong tries are counted under; those in a browser of their own are counted apart."""
    return f"person {folded(name)}"


def speak(db: Transaction, name: str, language: str) -> None:
    """The pages speak another language to this person."""
    db.run("UPDATE account SET language = :language WHERE folded = :folded", language=language, folded=folded(name))


def use_code(db: Transaction, name: str, step: int) -> bool:
    """Accept a one-time password of that step; False where one of it or of a later one was accepted already."""
    return (
        db.run(
            "UPDATE account SET totp_step = :step WHERE folded = :folded AND totp_step < :step",
            step=step,
            folded=folded(name),
        )
        == 1
    )


def start(db: Transaction, name: str, at: float) -> str:
    """Sign a person in; gives the token for the browser."""
    token = secrets.token_urlsafe(32)
    db.run(
        "INSERT INTO session (id, folded, created_at, seen_at) VALUES (:id, :folded, :at, :at)",
        id=hash_of(token),
        folded=folded(name),
        at=at,
    )
    return token


def session(db: Transaction, token: str) -> tuple[Session, Account] | None:
    """Who holds a token, or None."""
    row = db.row(
        "SELECT account.*, session.id AS id, session.created_at AS created_at, session.seen_at AS seen_at"
        " FROM session JOIN account ON account.folded = session.folded WHERE session.id = :id",
        id=hash_of(token),
    )
    if row is None:
        return None
    return (
        Session(id=row["id"], folded=row["folded"], created_at=row["created_at"], seen_at=row["seen_at"]),
        _account(row),
    )


def seen(db: Transaction, held: Session, at: float) -> None:
    """The person did something."""
    db.run("UPDATE session SET seen_at = :at WHERE id = :id", id=held.id, at=at)


def end(db: Transaction, held: Session) -> None:
    """Sign out."""
    db.run("DELETE FROM session WHERE id = :id", id=held.id)


def knows(db: Transaction, browser: str, name: str) -> bool:
    """Whether the person has signed in on this browser before, by the token that it is known by."""
    found = db.row(
        "SELECT 1 AS one FROM browser WHERE id = :id AND folded = :folded", id=hash_of(browser), folded=folded(name)
    )
    return found is not None


def remember(db: Transaction, browser: str, name: str) -> None:
    """The person has signed in on this browser."""
    db.run(
        "INSERT INTO browser (id, folded) VALUES (:id, :folded) ON CONFLICT (id, folded) DO NOTHING",
        id=hash_of(browser),
        folded=folded(name),
    )


def end_all(db: Transaction, name: str) -> None:
    """Sign a person out everywhere."""
    db.run("DELETE FROM session WHERE folded = :folded", folded=folded(name))


def end_older(db: Transaction, before: float) -> None:
    """Forget the sessions that nobody has used since."""
    db.run("DELETE FROM session WHERE seen_at < :before", before=before)


def begin_try(
    db: Transaction, whom: str, at: float, free: int = tries.FREE, longest: timedelta = tries.LONGEST
) -> timedelta:
    """Count a try inside the caller's transaction before it is checked; gives how long to wait instead, zero when it may be.

    The rules are the box's (`edge.state.tries`): the wait grows to an hour and no further, and nobody is locked out for ever.
    """
    row = db.row(f"SELECT failures, locked_until FROM tries WHERE whom = :whom{db.hold}", whom=whom)
    failures = int(row["failures"]) if row else 0
    left = timedelta(seconds=row["locked_until"] - at) if row else timedelta(0)
    if timedelta(0) < left <= tries.wait(failures, free, longest):
        return left
    imposed = tries.wait(failures + 1, free, longest).total_seconds()
    db.run(
        "INSERT INTO tries (whom, failures, locked_until, at) VALUES (:whom, 1, :until, :at) ON CONFLICT (whom) DO UPDATE"
        " SET failures = tries.failures + 1, locked_until = excluded.locked_until, at = excluded.at",
        whom=whom,
        until=at + imposed if imposed else 0.0,
        at=at,
    )
    return timedelta(0)


def imposed(db: Transaction, whom: str) -> timedelta:
    """How long the wrong tries so far make one wait."""
    row = db.row("SELECT failures FROM tries WHERE whom = :whom", whom=whom)
    return tries.wait(int(row["failures"])) if row else timedelta(0)


def forget(db: Transaction, whom: str) -> None:
    """A try was right, or an admin has given a new code: there is nothing to wait for."""
    db.run("DELETE FROM tries WHERE whom = :whom OR whom LIKE :on", whom=whom, on=f"{whom} on %")


def forget_strangers(db: Transaction, at: float) -> None:
    """Forget the names that nobody has after a day."""
    db.run(
        "DELETE FROM tries WHERE whom LIKE :like AND at < :before", like=f"{STRANGER}%", before=at - STRANGER_SECONDS
    )


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _columns(account: Account) -> dict[str, str | int]:
    return {
        "folded": folded(account.name),
        "name": account.name,
        "role": account.role.value,
        "language": account.language,
        "languages": " ".join(account.languages),
        "kinds": " ".join(account.kinds),
        "sites": " ".join(account.sites),
        "countries": " ".join(account.countries),
        "secret": account.secret,
        "one_time": int(account.one_time),
        "totp": account.totp,
        "totp_step": account.totp_step,
        "issuer": account.issuer,
        "subject": account.subject,
        "active": int(account.active),
    }


def _account(row: Row) -> Account:
    return Account(
        name=row["name"],
        programme=row["programme"],
        role=Role(row["role"]),
        language=row["language"],
        languages=tuple(row["languages"].split()),
        kinds=tuple(map(TaskKind, row["kinds"].split())),
        sites=tuple(row["sites"].split()),
        countries=tuple(row["countries"].split()),
        secret=row["secret"],
        one_time=bool(row["one_time"]),
        totp=row["totp"],
        totp_step=int(row["totp_step"]),
        issuer=row["issuer"],
        subject=row["subject"],
        active=bool(row["active"]),
    )
