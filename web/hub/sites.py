"""The tables of programmes, their sites, the boxes enrolled there, the codes that enrol one, and when a box was last heard of."""

from __future__ import annotations

import secrets
from enum import StrEnum

import msgspec

from edge import cards, pins
from edge.stages.parcel import Public
from web.hub.records import Contact, Device, Site
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE programme (
    programme TEXT PRIMARY KEY,
    title TEXT NOT NULL
) STRICT;
CREATE TABLE site (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    title TEXT NOT NULL,
    language TEXT NOT NULL,
    timezone TEXT NOT NULL,
    country TEXT NOT NULL DEFAULT '',
    epoch TEXT NOT NULL,
    answers INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (programme, site)
) STRICT;
CREATE TABLE device (
    fingerprint TEXT PRIMARY KEY,
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    signing BLOB NOT NULL,
    sealing BLOB NOT NULL,
    enrolled_at REAL NOT NULL,
    revoked_at REAL
) STRICT;
CREATE INDEX device_of_site ON device (programme, site);
CREATE TABLE enrolment (
    begins TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    expires_at REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE contact (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    heard_at REAL NOT NULL,
    status TEXT,
    status_at REAL,
    epoch TEXT NOT NULL DEFAULT '',
    seq INTEGER NOT NULL DEFAULT 0,
    told_epoch TEXT NOT NULL DEFAULT '',
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (programme, site)
) STRICT;
CREATE TABLE stick (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    identifier TEXT NOT NULL,
    differs TEXT NOT NULL,
    objects TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (programme, site, identifier)
) STRICT;
"""

TRIES = 5
"""So often a code may be tried with a wrong second half before it is void."""
CODE_SECONDS = 7 * 86400
"""So long a code can be used: a technician travels."""


def programmes(db: Transaction) -> list[str]:
    """The names of all programmes."""
    return [row["programme"] for row in db.rows("SELECT programme FROM programme ORDER BY programme")]


def add_programme(db: Transaction, programme: str, title: str) -> None:
    """A programme, unless there is one of that name already."""
    db.run(
        "INSERT INTO programme (programme, title) VALUES (:name, :title) ON CONFLICT (programme) DO NOTHING",
        name=programme,
        title=title,
    )


def add(db: Transaction, site: Site) -> None:
    """A site, or what people call one that is known."""
    db.run(
        "INSERT INTO site (programme, site, title, language, timezone, country, epoch)"
        " VALUES (:programme, :site, :title, :language, :timezone, :country, :epoch) ON CONFLICT (programme, site) DO UPDATE"
        " SET title = excluded.title, language = excluded.language, timezone = excluded.timezone, country = excluded.country",
        site=site.name,
        title=site.title,
        language=site.language,
        timezone=site.timezone,
        country=site.country,
        epoch=secrets.token_hex(8),
    )


def get(db: Transaction, name: str) -> Site | None:
    """The site of that name, or None."""
    row = db.row("SELECT * FROM site WHERE programme = :programme AND site = :site", site=name)
    return None if row is None else _site(row)


def epoch(db: Transaction, name: str) -> str:
    """The epoch of what that site's box is told."""
    row = db.row("SELECT epoch FROM site WHERE programme = :programme AND site = :site", site=name)
    assert row is not None, name
    return str(row["epoch"])


def keep(db: Transaction, name: str) -> None:
    """Count that bytes of the site's films were kept, in the transaction that says so."""
    db.run("UPDATE site SET kept = kept + 1 WHERE programme = :programme AND site = :site", site=name)


def kept(db: Transaction, name: str) -> int:
    """How often bytes of the site's films were kept: its box sees by it that this database was restored."""
    row = db.row("SELECT kept FROM site WHERE programme = :programme AND site = :site", site=name)
    assert row is not None, name
    return int(row["kept"])


def lose(db: Transaction) -> None:
    """Have all boxes of the programme ask what is here of their films, because some of it is gone."""
    db.run("UPDATE site SET kept = 0 WHERE programme = :programme")


def contacts(db: Transaction) -> list[Contact]:
    """All sites of the programme, and how it stands with the box of each."""
    rows = db.rows(
        "SELECT site.*, contact.heard_at, contact.status, contact.status_at FROM site LEFT JOIN contact"
        " ON contact.programme = site.programme AND contact.site = site.site"
        " WHERE site.programme = :programme ORDER BY site.site"
    )
    return [
        Contact(
            site=_site(row),
            heard_at=row["heard_at"],
            status=msgspec.json.decode(row["status"], type=cards.Status) if row["status"] else None,
            status_at=row["status_at"],
        )
        for row in rows
    ]


def heard(db: Transaction, site: str, at: float) -> None:
    """The site's box was heard of."""
    db.run(
        "INSERT INTO contact (programme, site, heard_at) VALUES (:programme, :site, :at)"
        " ON CONFLICT (programme, site) DO UPDATE SET heard_at = excluded.heard_at",
        site=site,
        at=at,
    )


def told(db: Transaction, site: str, epoch: str, upto: int) -> None:
    """The site's box has this epoch's answers to this number."""
    db.run(
        "UPDATE contact SET told_epoch = :epoch, told = :upto WHERE programme = :programme AND site = :site",
        site=site,
        epoch=epoch,
        upto=upto,
    )


def was_told(db: Transaction, site: str) -> tuple[str, int]:
    """Which epoch's answers the site's box had when it was last heard of, and to which number."""
    row = db.row("SELECT told_epoch, told FROM contact WHERE programme = :programme AND site = :site", site=site)
    return ("", 0) if row is None else (row["told_epoch"], int(row["told"]))


def took_stick(
    db: Transaction, site: str, identifier: str, differs: dict[str, tuple[int, ...]], objects: set[str], at: float
) -> None:
    """A stick was taken in; the next that goes to the site says so. The same again changes nothing but the time."""
    db.run(
        "INSERT INTO stick (programme, site, identifier, differs, objects, at)"
        " VALUES (:programme, :site, :identifier, :differs, :objects, :at) ON CONFLICT (programme, site, identifier)"
        " DO UPDATE SET differs = excluded.differs, objects = excluded.objects, at = excluded.at",
        site=site,
        identifier=identifier,
        differs=msgspec.json.encode(differs).decode(),
        objects=msgspec.json.encode(sorted(objects)).decode(),
        at=at,
    )


def sticks(db: Transaction, site: str, most: int = 50) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], list[str]]:
    """The sticks of a site that were taken in of late: their identifiers, what differed, and the objects they spoke of."""
    rows = db.rows(
        "SELECT * FROM stick WHERE programme = :programme AND site = :site ORDER BY at DESC LIMIT :most",
        site=site,
        most=most,
    )
    differs: dict[str, set[int]] = {}
    objects: set[str] = set()
    for row in rows:
        for epoch, seqs in msgspec.json.decode(row["differs"], type=dict[str, tuple[int, ...]]).items():
            differs.setdefault(epoch, set()).update(seqs)
        objects |= {*msgspec.json.decode(row["objects"], type=list[str])}
    return (
        tuple(row["identifier"] for row in rows),
        {epoch: tuple(sorted(seqs)) for epoch, seqs in differs.items()},
        sorted(objects),
    )


def stands(db: Transaction, site: str, status: cards.Status, epoch: str, seq: int, at: float) -> None:
    """What the site's box says of itself; one that was overtaken on the way changes nothing."""
    db.run(
        "UPDATE contact SET status = :status, status_at = :at, epoch = :epoch, seq = :seq"
        " WHERE programme = :programme AND site = :site AND (epoch <> :epoch OR seq < :seq)",
        site=site,
        status=cards.canonical(status).decode(),
        epoch=epoch,
        seq=seq,
        at=at,
    )


def invite(db: Transaction, programme: str, site: str, at: float) -> str:
    """A one-time code that enrols the site's box; only its hash is kept. An earlier code of the site is void."""
    db.run("DELETE FROM enrolment WHERE programme = :of AND site = :site", of=programme, site=site)
    while True:
        begins, _, secret = pins.one_time_code().partition("-")
        added = db.run(
            "INSERT INTO enrolment (begins, secret, programme, site, expires_at)"
            " VALUES (:begins, :secret, :of, :site, :expires) ON CONFLICT (begins) DO NOTHING",
            begins=begins,
            secret=pins.hashed(secret),
            of=programme,
            site=site,
            expires=at + CODE_SECONDS,
        )
        if added:
            return f"{begins}-{secret}"


class CodeState(StrEnum):
    """Whether a code enrols, and why not."""

    UNKNOWN = "unknown"
    USED = "used"
    ELSEWHERE = "elsewhere"
    """The box is another site's."""
    EXPIRED = "expired"
    TRIED = "tried"
    GOOD = "good"


def try_code(db: Transaction, code: str, at: float) -> tuple[CodeState, tuple[str, str, str] | None]:
    """Count a try of a code before it is checked; gives the hash that its second half must fit, its programme and its site."""
    begins = pins.plain(code).upper().partition("-")[0]
    row = db.row("UPDATE enrolment SET tries = tries + 1 WHERE begins = :begins RETURNING *", begins=begins)
    if row is None:
        return CodeState.UNKNOWN, None
    if row["used"]:
        return CodeState.USED, None
    if row["expires_at"] <= at:
        return CodeState.EXPIRED, None
    if row["tries"] > TRIES:
        return CodeState.TRIED, None
    return CodeState.GOOD, (row["secret"], row["programme"], row["site"])


def enrol(db: Transaction, code: str, programme: str, site: str, public: Public, at: float) -> CodeState:
    """The site's box from now on, in the place of any other; the code is used up.

    Nothing changes where somebody else has used the code first, or where the box is another site's.
    """
    begins = pins.plain(code).upper().partition("-")[0]
    unused = "SELECT begins FROM enrolment WHERE begins = :begins AND site = :site AND used = 0" + db.hold
    if db.row(unused, begins=begins, site=site) is None:
        return CodeState.USED
    taken = db.run(
        "INSERT INTO device (fingerprint, programme, site, signing, sealing, enrolled_at)"
        " VALUES (:fingerprint, :of, :site, :signing, :sealing, :at) ON CONFLICT (fingerprint) DO UPDATE"
        " SET sealing = excluded.sealing, enrolled_at = excluded.enrolled_at, revoked_at = NULL"
        " WHERE device.programme = excluded.programme AND device.site = excluded.site",
        fingerprint=public.fingerprint,
        of=programme,
        site=site,
        signing=public.signing,
        sealing=public.sealing,
        at=at,
    )
    if not taken:
        return CodeState.ELSEWHERE
    db.run("UPDATE enrolment SET used = 1 WHERE begins = :begins", begins=begins)
    db.run(
        "UPDATE device SET revoked_at = :at"
        " WHERE programme = :of AND site = :site AND fingerprint <> :fingerprint AND revoked_at IS NULL",
        of=programme,
        site=site,
        fingerprint=public.fingerprint,
        at=at,
    )
    return CodeState.GOOD


def device(db: Transaction, fingerprint: str) -> Device | None:
    """The box of that fingerprint, revoked or not; None for a stranger."""
    row = db.row("SELECT * FROM device WHERE fingerprint = :fingerprint", fingerprint=fingerprint)
    return None if row is None else _device(row)


def devices(db: Transaction, programme: str, site: str) -> list[Device]:
    """The boxes that were enrolled at a site, the latest first."""
    rows = db.rows(
        "SELECT * FROM device WHERE programme = :of AND site = :site ORDER BY enrolled_at DESC", of=programme, site=site
    )
    return list(map(_device, rows))


def revoke(db: Transaction, programme: str, site: str, at: float) -> int:
    """The site's box is no longer heard; gives how many there were."""
    return db.run(
        "UPDATE device SET revoked_at = :at WHERE programme = :of AND site = :site AND revoked_at IS NULL",
        of=programme,
        site=site,
        at=at,
    )


def _site(row: Row) -> Site:
    return Site(
        programme=row["programme"],
        name=row["site"],
        title=row["title"],
        language=row["language"],
        timezone=row["timezone"],
        country=row["country"],
    )


def _device(row: Row) -> Device:
    return Device(
        fingerprint=row["fingerprint"],
        programme=row["programme"],
        site=row["site"],
        public=Public(bytes(row["signing"]), bytes(row["sealing"])),
        enrolled_at=row["enrolled_at"],
        revoked_at=row["revoked_at"],
    )
