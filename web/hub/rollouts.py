"""The tables of the models that can be ordered, of roll-outs and their waves, and of the orders that were given.

A roll-out goes in waves: one clinic, a tenth of them, all. A wave is ordered once every box of the one before has been good for
some time; the first trouble stops it, and what was ordered and not carried out yet is called off. One is open at a time, so that
nobody has to think about two. It moves on when a box is heard of or somebody looks: the hub has no clock that wakes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from edge import cards
from edge.cards import Order, Status, What
from edge.errors import Misconfigured
from edge.records import Carried
from models import bundle as bundles
from models.bundle import Bundle
from web.hub import answers, ledger
from web.hub.records import Model, Rollout
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE model (
    programme TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    name TEXT NOT NULL,
    added_at REAL NOT NULL,
    PRIMARY KEY (programme, sha256)
) STRICT;
CREATE TABLE rollout (
    programme TEXT NOT NULL,
    rollout TEXT NOT NULL,
    what TEXT NOT NULL,
    settings TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    good_seconds REAL NOT NULL,
    silent_seconds REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('going', 'halted', 'ended', 'done')),
    wave INTEGER NOT NULL,
    why TEXT NOT NULL DEFAULT '',
    about TEXT NOT NULL DEFAULT '',
    site TEXT NOT NULL DEFAULT '',
    made_by TEXT NOT NULL,
    made_at REAL NOT NULL,
    looked_at REAL NOT NULL,
    PRIMARY KEY (programme, rollout)
) STRICT;
CREATE UNIQUE INDEX rollout_open ON rollout (programme) WHERE state IN ('going', 'halted');
CREATE TABLE member (
    programme TEXT NOT NULL,
    rollout TEXT NOT NULL,
    site TEXT NOT NULL,
    wave INTEGER NOT NULL,
    ordered TEXT NOT NULL DEFAULT '',
    ordered_at REAL,
    PRIMARY KEY (programme, rollout, site)
) STRICT;
CREATE TABLE given (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    number INTEGER NOT NULL,
    ordered TEXT NOT NULL,
    what TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (programme, site, number)
) STRICT;
"""

REMOVED = """
ALTER TABLE model ADD COLUMN removed_at REAL;
"""
"""A model that is gone keeps its name, which orders of then have."""

STOPPED = frozenset({"worker", "phantom"})
"""Of the processes of a box that complain, those that stop the AI."""
LOOK_SECONDS = 15.0
"""So often at most it is looked whether a wave is over, however many boxes are heard of."""
SETTLE_SECONDS = 600.0
"""So long after a box said that a model is in use it may still name the one before."""
SHARE = 10
"""The second wave is one in so many."""


class Trouble(StrEnum):
    """Why a roll-out halts, beside what a box says (`edge.records.Carried`)."""

    SILENT = "silent"
    """Nothing was heard of the box for too long."""
    AI_STOPPED = "ai_stopped"
    OTHER_MODEL = "other_model"
    """The box runs another model than it said it had put into use."""


class Stage(StrEnum):
    """How far a clinic is in a roll-out."""

    LATER = "later"
    """Its wave is not ordered yet."""
    ORDERED = "ordered"
    WATCHED = "watched"
    """Its box has carried the order out, and is watched."""
    GOOD = "good"
    TROUBLE = "trouble"


@dataclass(frozen=True)
class Member:
    """A clinic in a roll-out."""

    site: str
    wave: int
    stage: Stage
    why: str
    """A `Carried` or a `Trouble`, where there is trouble."""
    about: str


def signed(folder: Path) -> Bundle:
    """A bundle that may be offered. Raises `Misconfigured` where it is not what its manifest says, or nobody has signed it."""
    try:
        (folder / "manifest.sig").read_bytes()
        return bundles.load(folder)
    except (bundles.Mismatch, OSError, ValueError) as error:
        raise Misconfigured(f"{folder}: {error}. No box would take it.") from None


def add_model(db: Transaction, data: bytes, found: Bundle, at: float) -> Model:
    """Note a bundle whose bytes in one file are kept."""
    sha256, manifest = hashlib.sha256(data).hexdigest(), found.manifest
    db.run(
        "INSERT INTO model (programme, sha256, size, bundle, name, added_at)"
        " VALUES (:programme, :sha256, :size, :bundle, :name, :at)"
        " ON CONFLICT (programme, sha256) DO UPDATE SET removed_at = NULL",
        sha256=sha256,
        size=len(data),
        bundle=found.digest,
        name=f"{manifest.id} {manifest.version}",
        at=at,
    )
    return Model(sha256=sha256, size=len(data), bundle=found.digest, name=f"{manifest.id} {manifest.version}")


def models(db: Transaction) -> list[Model]:
    """The models that can be ordered, the latest first."""
    asked = "SELECT * FROM model WHERE programme = :programme AND removed_at IS NULL ORDER BY added_at DESC, name"
    return list(map(_model, db.rows(asked)))


def names(db: Transaction) -> dict[str, str]:
    """What the models are called by their hashes, also those that are gone."""
    return {row["sha256"]: row["name"] for row in db.rows("SELECT * FROM model WHERE programme = :programme")}


def model(db: Transaction, sha256: str) -> Model | None:
    """The model of that hash, or None."""
    asked = "SELECT * FROM model WHERE programme = :programme AND sha256 = :sha256 AND removed_at IS NULL"
    row = db.row(asked, sha256=sha256)
    return None if row is None else _model(row)


def needed(db: Transaction, sha256: str) -> str:
    """Who waits for a model: the open roll-out, and sites whose boxes were ordered it last and have not said what came of it."""
    db.rows("SELECT programme FROM programme WHERE programme = :programme" + db.hold)  # none begins meanwhile
    going = current(db)
    rows = db.rows(
        "SELECT given.site FROM given LEFT JOIN applied ON applied.programme = given.programme AND applied.site = given.site"
        " AND applied.ordered = given.ordered WHERE given.programme = :programme AND given.sha256 = :sha256"
        " AND applied.ordered IS NULL AND given.number = (SELECT MAX(later.number) FROM given AS later"
        " WHERE later.programme = :programme AND later.site = given.site) ORDER BY given.site",
        sha256=sha256,
    )
    waits = [row["site"] for row in rows]
    return ", ".join((["the open roll-out"] if going is not None and going.sha256 == sha256 else []) + waits)


def remove_model(db: Transaction, sha256: str, at: float) -> None:
    """A model can no longer be ordered."""
    db.run("UPDATE model SET removed_at = :at WHERE programme = :programme AND sha256 = :sha256", sha256=sha256, at=at)


def wanted(db: Transaction, site: str) -> Model | None:
    """The model that a site's box was ordered last and has said nothing of yet."""
    row = db.row(
        "SELECT given.*, applied.result FROM given LEFT JOIN applied ON applied.programme = given.programme"
        " AND applied.site = given.site AND applied.ordered = given.ordered"
        " WHERE given.programme = :programme AND given.site = :site ORDER BY given.number DESC LIMIT 1",
        site=site,
    )
    return None if row is None or row["result"] is not None or not row["sha256"] else model(db, row["sha256"])


def given(db: Transaction, site: str, most: int) -> list[tuple[str, str, float, str | None, str]]:
    """The orders of a site, the latest first: what, the model's name, when; what came of it, and the setting it is about."""
    rows = db.rows(
        "SELECT given.what, given.at, applied.result, applied.about, model.name FROM given"
        " LEFT JOIN applied ON applied.programme = given.programme AND applied.site = given.site"
        " AND applied.ordered = given.ordered"
        " LEFT JOIN model ON model.programme = given.programme AND model.sha256 = given.sha256"
        " WHERE given.programme = :programme AND given.site = :site ORDER BY given.number DESC LIMIT :most",
        site=site,
        most=most,
    )
    return [(row["what"], row["name"] or "", row["at"], row["result"], row["about"] or "") for row in rows]


def waves(sites: Collection[str], first: str, name: str) -> dict[str, int]:
    """The wave of each site, from 0: the one that was chosen, a tenth of all, the rest; by lot, and the same lot each time."""
    others = sorted({*sites} - {first}, key=lambda site: hashlib.sha256(f"{name} {site}".encode()).digest())
    second = -(-len(sites) // SHARE)
    return {first: 0} | {site: 1 if place < second else 2 for place, site in enumerate(others)}


def start(
    db: Transaction,
    name: str,
    what: What,
    sites: Collection[str],
    first: str,
    by: str,
    at: float,
    *,
    settings: dict[str, bool | int | float | str] | None = None,
    sha256: str = "",
    good_seconds: float,
    silent_seconds: float,
) -> bool:
    """Begin a roll-out and order its first wave; the same name again changes nothing. False where another one is open."""
    db.rows("SELECT programme FROM programme WHERE programme = :programme" + db.hold)
    if get(db, name) is not None:
        return True
    if current(db) is not None:
        return False
    db.run(
        "INSERT INTO rollout (programme, rollout, what, settings, sha256, good_seconds, silent_seconds, state, wave, made_by,"
        " made_at, looked_at) VALUES (:programme, :name, :what, :settings, :sha256, :good, :silent, 'going', 0, :by, :at, :at)",
        name=name,
        what=what.value,
        settings=msgspec.json.encode(settings or {}, order="sorted").decode(),
        sha256=sha256,
        good=good_seconds,
        silent=silent_seconds,
        by=by,
        at=at,
    )
    db.many(
        "INSERT INTO member (programme, rollout, site, wave) VALUES (:programme, :name, :site, :wave)",
        [{"name": name, "site": site, "wave": wave} for site, wave in waves(sites, first, name).items()],
    )
    ledger.append(
        db,
        by,
        "start",
        at,
        rollout=name,
        what=what.value,
        settings=settings or {},
        sha256=sha256,
        sites=len(sites),
        first=first,
    )
    _order_wave(db, _found(db, name), at)
    return True


def get(db: Transaction, name: str) -> Rollout | None:
    """The roll-out of that name, or None."""
    row = db.row("SELECT * FROM rollout WHERE programme = :programme AND rollout = :name", name=name)
    return None if row is None else _rollout(row)


def current(db: Transaction) -> Rollout | None:
    """The roll-out that is open, if one is."""
    row = db.row("SELECT * FROM rollout WHERE programme = :programme AND state IN ('going', 'halted')")
    return None if row is None else _rollout(row)


def past(db: Transaction, most: int) -> list[Rollout]:
    """Those that are over, the latest first."""
    rows = db.rows(
        "SELECT * FROM rollout WHERE programme = :programme AND state IN ('ended', 'done') ORDER BY made_at DESC LIMIT :most",
        most=most,
    )
    return list(map(_rollout, rows))


def advance(db: Transaction, at: float, *, now: bool = False) -> None:
    """Move the open roll-out on, or halt it, inside the caller's transaction; with `now` however short ago that was looked at."""
    going = current(db)
    if going is None or going.state != "going" or not (now or abs(at - going.looked_at) >= LOOK_SECONDS):
        return
    db.run(
        "UPDATE rollout SET looked_at = :at WHERE programme = :programme AND rollout = :name", name=going.name, at=at
    )
    if not _due(members(db, going, at), going.wave):
        return
    db.rows("SELECT rollout FROM rollout WHERE programme = :programme AND rollout = :name" + db.hold, name=going.name)
    going = _found(db, going.name)
    found = members(db, going, at)
    if going.state != "going" or not _due(found, going.wave):
        return  # somebody else was faster
    wrong = next((one for one in found if one.stage is Stage.TROUBLE), None)
    if wrong is not None:
        _call_off(db, going, found, at)
        _turn(db, going, "halted", ledger.HUB, at, why=wrong.why, about=wrong.about, site=wrong.site)
    elif any(one.stage is Stage.LATER for one in found):
        wave = min(one.wave for one in found if one.stage is Stage.LATER)
        db.run(
            "UPDATE rollout SET wave = :wave WHERE programme = :programme AND rollout = :name",
            name=going.name,
            wave=wave,
        )
        ledger.append(db, ledger.HUB, "wave", at, rollout=going.name, wave=wave)
        _order_wave(db, _found(db, going.name), at)
    else:
        _turn(db, going, "done", ledger.HUB, at)


def act(db: Transaction, name: str, what: str, by: str, at: float) -> bool:
    """What a person does to a roll-out: `stop`, `resume` or `end` it. False where it is no longer such that they could."""
    db.rows("SELECT rollout FROM rollout WHERE programme = :programme AND rollout = :name" + db.hold, name=name)
    one = get(db, name)
    if one is None or one.state not in {"stop": ("going",), "resume": ("halted",), "end": ("going", "halted")}[what]:
        return False
    found = members(db, one, at)
    if what == "resume":
        _turn(db, one, "going", by, at)
        again = [member.site for member in found if member.stage is Stage.ORDERED or _refused(member)]
        for site in again:
            _order(db, site, one, at)
        return True
    _call_off(db, one, found, at)
    _turn(db, one, "halted" if what == "stop" else "ended", by, at, why=one.why, about=one.about, site=one.site)
    return True


def members(db: Transaction, rollout: Rollout, at: float) -> list[Member]:
    """How far each clinic of a roll-out is, by wave and name."""
    wanted = model(db, rollout.sha256)
    rows = db.rows(
        "SELECT member.*, applied.result, applied.about, applied.at AS applied_at, contact.heard_at, contact.status,"
        " contact.status_at FROM member"
        " LEFT JOIN applied ON applied.programme = member.programme AND applied.site = member.site"
        " AND applied.ordered = member.ordered"
        " LEFT JOIN contact ON contact.programme = member.programme AND contact.site = member.site"
        " WHERE member.programme = :programme AND member.rollout = :name ORDER BY member.wave, member.site",
        name=rollout.name,
    )
    return [_member(row, rollout, "" if wanted is None else wanted.bundle, at) for row in rows]


def _member(row: Row, rollout: Rollout, bundle: str, at: float) -> Member:
    def stands(stage: Stage, why: str = "", about: str = "") -> Member:
        return Member(row["site"], row["wave"], stage, why, about)

    if not row["ordered"]:
        return stands(Stage.LATER)
    heard, result = row["heard_at"] or 0.0, row["result"]
    if result is not None and result != Carried.DONE:
        return stands(Stage.TROUBLE, result, row["about"])
    status = msgspec.json.decode(row["status"], type=Status) if row["status"] else None
    if result is not None and status is not None and STOPPED & {*status.notices}:
        return stands(Stage.TROUBLE, Trouble.AI_STOPPED)
    if row["wave"] < rollout.wave:
        return stands(Stage.GOOD)
    since = max(heard, row["ordered_at"])
    if result is None:
        return stands(Stage.TROUBLE, Trouble.SILENT) if at - since > rollout.silent_seconds else stands(Stage.ORDERED)
    runs = not bundle or (status is not None and status.bundle == bundle)
    if not runs and row["status_at"] is not None and row["status_at"] > row["applied_at"] + SETTLE_SECONDS:
        return stands(Stage.TROUBLE, Trouble.OTHER_MODEL)
    if runs and heard >= row["applied_at"] + rollout.good_seconds:
        return stands(Stage.GOOD)
    return stands(Stage.TROUBLE, Trouble.SILENT) if at - since > rollout.silent_seconds else stands(Stage.WATCHED)


def _due(found: list[Member], wave: int) -> bool:
    """Whether a roll-out halts or goes on."""
    trouble = any(one.stage is Stage.TROUBLE for one in found)
    return trouble or all(one.stage is Stage.GOOD for one in found if one.wave <= wave)


def _refused(member: Member) -> bool:
    """An order anew may help; where the order was carried out it is the box that has to be mended."""
    return member.stage is Stage.TROUBLE and member.why != Trouble.AI_STOPPED


def _order_wave(db: Transaction, rollout: Rollout, at: float) -> None:
    rows = db.rows(
        "SELECT site FROM member WHERE programme = :programme AND rollout = :name AND wave = :wave AND ordered = ''"
        " ORDER BY site",
        name=rollout.name,
        wave=rollout.wave,
    )
    for row in rows:
        _order(db, row["site"], rollout, at)


def _order(db: Transaction, site: str, rollout: Rollout, at: float) -> None:
    found = model(db, rollout.sha256)
    name = _give(db, site, What(rollout.what), at, rollout.settings, found)
    db.run(
        "UPDATE member SET ordered = :ordered, ordered_at = :at"
        " WHERE programme = :programme AND rollout = :name AND site = :site",
        name=rollout.name,
        site=site,
        ordered=name,
        at=at,
    )


def _call_off(db: Transaction, rollout: Rollout, found: list[Member], at: float) -> None:
    """Have boxes that have not carried the order out yet leave it."""
    for one in found:
        if one.stage is Stage.ORDERED or (one.stage is Stage.TROUBLE and one.why == Trouble.SILENT):
            _give(db, one.site, What.KEEP, at, {}, None)


def _give(
    db: Transaction,
    site: str,
    what: What,
    at: float,
    settings: dict[str, bool | int | float | str],
    found: Model | None,
) -> str:
    """Order something of a site's box; its number is higher than any before, also where this database was restored."""
    row = db.row("SELECT MAX(number) AS last FROM given WHERE programme = :programme AND site = :site", site=site)
    last = 0 if row is None else int(row["last"] or 0)
    order = Order(
        order="0" * 64,
        number=max(last + 1, int(at)),
        what=what,
        settings=settings,
        sha256="" if found is None else found.sha256,
        size=0 if found is None else found.size,
    )
    order = cards.ordered(site, order)
    db.run(
        "INSERT INTO given (programme, site, number, ordered, what, sha256, at)"
        " VALUES (:programme, :site, :number, :ordered, :what, :sha256, :at)",
        site=site,
        number=order.number,
        ordered=order.order,
        what=what.value,
        sha256=order.sha256,
        at=at,
    )
    answers.give(db, site, order, at)
    return order.order


def _turn(
    db: Transaction, rollout: Rollout, state: str, by: str, at: float, *, why: str = "", about: str = "", site: str = ""
) -> None:
    db.run(
        "UPDATE rollout SET state = :state, why = :why, about = :about, site = :site"
        " WHERE programme = :programme AND rollout = :name",
        name=rollout.name,
        state=state,
        why=why,
        about=about,
        site=site,
    )
    ledger.append(db, by, state, at, rollout=rollout.name, why=why, about=about, site=site)


def _found(db: Transaction, name: str) -> Rollout:
    found = get(db, name)
    assert found is not None, name
    return found


def _model(row: Row) -> Model:
    return Model(sha256=row["sha256"], size=row["size"], bundle=row["bundle"], name=row["name"])


def _rollout(row: Row) -> Rollout:
    return Rollout(
        name=row["rollout"],
        what=row["what"],
        settings=msgspec.json.decode(row["settings"]),
        sha256=row["sha256"],
        good_seconds=row["good_seconds"],
        silent_seconds=row["silent_seconds"],
        state=row["state"],
        wave=row["wave"],
        why=row["why"],
        about=row["about"],
        site=row["site"],
        made_by=row["made_by"],
        made_at=row["made_at"],
        looked_at=row["looked_at"],
    )
