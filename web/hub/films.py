"""The tables of films: what their box says of them, their pictures and how much of these is here, and what the clinic said."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec

from edge import cards
from edge.records import Concern, ReadKind
from web.hub.records import Case
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE film (
    id INTEGER PRIMARY KEY,
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    case_uid TEXT NOT NULL,
    run INTEGER NOT NULL,
    patient TEXT NOT NULL,
    since REAL NOT NULL,
    received_at REAL NOT NULL,
    asked INTEGER NOT NULL,
    card TEXT NOT NULL,
    read_at REAL,
    UNIQUE (programme, site, case_uid)
) STRICT;
CREATE INDEX film_of_patient ON film (programme, site, patient);
CREATE TABLE image (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    case_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    picture TEXT,
    concern TEXT,
    PRIMARY KEY (programme, site, case_uid)
) STRICT;
CREATE INDEX image_of_object ON image (programme, sha256) WHERE sha256 <> '';
CREATE TABLE object (
    programme TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    have INTEGER NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (programme, sha256)
) STRICT;
CREATE TABLE said (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    case_uid TEXT NOT NULL,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    act TEXT NOT NULL,
    body TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (programme, site, case_uid, epoch, seq)
) STRICT;
"""

STUDIES = """
ALTER TABLE film ADD COLUMN study TEXT GENERATED ALWAYS AS (COALESCE(json_extract(card, '$.study'), case_uid)) VIRTUAL;
ALTER TABLE film ADD COLUMN day TEXT GENERATED ALWAYS AS (json_extract(card, '$.day')) VIRTUAL;
CREATE INDEX film_of_study ON film (programme, study);
"""
"""A film that does not say of what study it is, is one of its own."""

WHEN = "COALESCE(NULLIF(film.changed_at, 0), film.read_at, film.received_at)"
"""When anything was last said of a film; those of an earlier version do not say it."""

CHANGES = f"""
ALTER TABLE film ADD COLUMN changed_at REAL NOT NULL DEFAULT 0;
CREATE INDEX film_by_change ON film (programme, ({WHEN.replace("film.", "")}), id);
"""

DROPPED = """
ALTER TABLE object ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
"""
"""1 where bytes went because the film is done with; its box is told that all are here, until somebody asks for them again."""

CASE = (
    f"SELECT film.*, {WHEN} AS changed, image.picture, image.concern, object.have FROM film"
    " LEFT JOIN image ON image.programme = film.programme AND image.site = film.site AND image.case_uid = film.case_uid"
    " LEFT JOIN object ON object.programme = image.programme AND object.sha256 = image.sha256"
)

_result = msgspec.json.Decoder(cards.Result)
_picture = msgspec.json.Decoder(cards.Picture)
_said = msgspec.json.Decoder(cards.Decided)


def assessed(
    db: Transaction, site: str, results: Sequence[tuple[cards.Result, float]], at: float
) -> list[tuple[int, bool] | None]:
    """Results have come, each since when; gives each film and whether the clinic asks for a read, or None for an earlier run."""
    rows = db.each(
        "INSERT INTO film (programme, site, case_uid, run, patient, since, received_at, changed_at, asked, card)"
        " VALUES (:programme, :site, :uid, :run, :patient, :since, :at, :at, CASE WHEN EXISTS (SELECT 1 FROM said WHERE"
        " programme = :programme AND site = :site AND case_uid = :uid AND act = :refer) THEN 1 ELSE 0 END, :card)"
        " ON CONFLICT (programme, site, case_uid) DO UPDATE SET run = excluded.run, patient = excluded.patient,"
        " card = excluded.card, changed_at = excluded.changed_at"
        " WHERE excluded.run >= film.run RETURNING id, asked",
        [
            {
                "site": site,
                "uid": result.case,
                "run": result.run,
                "patient": result.patient,
                "since": since,
                "at": at,
                "refer": ReadKind.REFER.value,
                "card": cards.canonical(result).decode(),
            }
            for result, since in results
        ],
    )
    return [None if row is None else (int(row["id"]), bool(row["asked"])) for row in rows]


def pictured(db: Transaction, site: str, images: Sequence[cards.Image], at: float) -> None:
    """Pictures of films exist; their bytes come when the link allows."""
    if not images:
        return
    db.many(
        "INSERT INTO image (programme, site, case_uid, sha256, picture) VALUES (:programme, :site, :uid, :sha256, :picture)"
        " ON CONFLICT (programme, site, case_uid)"
        " DO UPDATE SET sha256 = excluded.sha256, picture = excluded.picture, concern = NULL",
        [
            {
                "site": site,
                "uid": image.case,
                "sha256": image.picture.sha256,
                "picture": cards.canonical(image.picture).decode(),
            }
            for image in images
        ],
    )
    db.many(
        "INSERT INTO object (programme, sha256, size) VALUES (:programme, :sha256, :size)"
        " ON CONFLICT (programme, sha256) DO NOTHING",
        [{"sha256": image.picture.sha256, "size": image.picture.size} for image in images],
    )
    db.many(
        "UPDATE film SET changed_at = :at WHERE programme = :programme AND site = :site AND case_uid = :uid",
        [{"site": site, "uid": image.case, "at": at} for image in images],
    )


def stays_home(db: Transaction, site: str, image: cards.StaysHome) -> None:
    """A film's picture does not leave the clinic."""
    db.run(
        "INSERT INTO image (programme, site, case_uid, sha256, concern) VALUES (:programme, :site, :uid, '', :concern)"
        " ON CONFLICT (programme, site, case_uid)"
        " DO UPDATE SET sha256 = '', picture = NULL, concern = excluded.concern",
        site=site,
        uid=image.case,
        concern=image.concern.value,
    )


def said(db: Transaction, site: str, read: cards.Decided, epoch: str, seq: int, at: float) -> int | None:
    """Somebody at the clinic said something; gives the number of a film that is here and that they ask a read of."""
    db.run(
        "INSERT INTO said (programme, site, case_uid, epoch, seq, act, body, received_at)"
        " VALUES (:programme, :site, :uid, :epoch, :seq, :act, :body, :at)"
        " ON CONFLICT (programme, site, case_uid, epoch, seq) DO NOTHING",
        site=site,
        uid=read.case,
        epoch=epoch,
        seq=seq,
        act=read.act.value,
        body=cards.canonical(read).decode(),
        at=at,
    )
    if read.act is not ReadKind.REFER:
        return None
    row = db.row(
        "UPDATE film SET asked = 1 WHERE programme = :programme AND site = :site AND case_uid = :uid RETURNING id",
        site=site,
        uid=read.case,
    )
    return None if row is None else int(row["id"])


def cases(db: Transaction, numbers: Sequence[int]) -> dict[int, Case]:
    """The films of these numbers."""
    if not numbers:
        return {}
    names = {f"n{index}": number for index, number in enumerate(numbers)}
    listed = ", ".join(f":{name}" for name in names)
    # the key finds them: `||` keeps a database that knows no better from going through all films of the programme
    rows = db.rows(f"{CASE} WHERE film.programme || '' = :programme AND film.id IN ({listed})", **names)
    return {row["id"]: _case(row) for row in rows}


def case(db: Transaction, number: int) -> Case | None:
    """The film of that number, or None."""
    return cases(db, [number]).get(number)


def of_patient(db: Transaction, site: str, patient: str, limit: int = 8) -> list[Case]:
    """The films of a pseudonym at a site, the latest first, for comparison."""
    rows = db.rows(
        f"{CASE} WHERE film.programme = :programme AND film.site = :site AND film.patient = :patient"
        " ORDER BY film.since DESC LIMIT :limit",
        site=site,
        patient=patient,
        limit=limit,
    )
    return list(map(_case, rows))


def studies(db: Transaction, where: str, values: dict[str, object], limit: int, offset: int) -> list[str]:
    """Studies with a film of which that condition holds, in the order in which they came.

    The condition is on `film`, or on `image.picture`, which is NULL where the picture stays home or has not been announced.
    """
    rows = db.rows(
        "SELECT film.study FROM film"
        " LEFT JOIN image ON image.programme = film.programme AND image.site = film.site AND image.case_uid = film.case_uid"
        f" WHERE film.programme = :programme AND {where}"
        " GROUP BY film.study ORDER BY MIN(film.id) LIMIT :limit OFFSET :offset",
        **values,
        limit=limit,
        offset=offset,
    )
    return [row["study"] for row in rows]


def of_studies(db: Transaction, uids: Sequence[str]) -> dict[str, list[Case]]:
    """The films of these studies, in the order in which they came."""
    if not uids:
        return {}
    names = {f"s{index}": uid for index, uid in enumerate(uids)}
    listed = ", ".join(f":{name}" for name in names)
    found: dict[str, list[Case]] = {uid: [] for uid in uids}
    for row in db.rows(
        f"{CASE} WHERE film.programme = :programme AND film.study IN ({listed}) ORDER BY film.id", **names
    ):
        found[row["study"]].append(_case(row))
    return found


def earlier(db: Transaction, of: Case) -> list[Case]:
    """The earlier films of the patient that have a picture, the latest first; none of its own study, and none of another sex."""
    found = [
        one
        for one in of_patient(db, of.site, of.result.patient)
        if one.picture is not None
        and one.id != of.id
        and one.result.sex == of.result.sex
        and (one.result.study is None or one.result.study != of.result.study)
        and apart(one, of) > timedelta(0)
    ]
    return sorted(found, key=lambda one: apart(one, of))


def apart(before: Case, after: Case) -> timedelta:
    """How long before one film of a patient the other was taken; of the same day, by when they came."""
    days = [date.fromisoformat(one.result.day) for one in (before, after) if one.result.day]
    if len(days) == 2 and days[0] != days[1]:
        return days[1] - days[0]
    return timedelta(seconds=after.since - before.since)


def changed(db: Transaction, begin: tuple[float, int], where: str, values: dict[str, object], limit: int) -> list[Case]:
    """Films of which that condition holds, in the order in which something was last said of them, from that time and number on."""
    rows = db.rows(
        f"{CASE} WHERE film.programme = :programme AND {WHEN} >= :at AND ({WHEN} > :at OR film.id >= :id) AND {where}"
        f" ORDER BY {WHEN}, film.id LIMIT :limit",
        **values,
        at=begin[0],
        id=begin[1],
        limit=limit,
    )
    return list(map(_case, rows))


def at_clinic(db: Transaction, case: Case) -> tuple[cards.Decided, ...]:
    """What people at the clinic said of a film, in order."""
    rows = db.rows(
        "SELECT body FROM said WHERE programme = :programme AND site = :site AND case_uid = :uid"
        " ORDER BY received_at, epoch, seq",
        site=case.site,
        uid=case.result.case,
    )
    return tuple(_said.decode(row["body"]) for row in rows)


def size(db: Transaction, site: str, sha256: str) -> tuple[int, int] | None:
    """Size of an object that the site has announced, and how many bytes of it are here, as its box is told; None for any other."""
    row = db.row(
        "SELECT size, CASE WHEN dropped = 1 THEN size ELSE have END AS have FROM object"
        " WHERE programme = :programme AND sha256 = :sha256 AND EXISTS (SELECT 1 FROM image"
        " WHERE programme = :programme AND sha256 = :sha256 AND sha256 <> '' AND site = :site)",  # or SQLite has no index
        site=site,
        sha256=sha256,
    )
    return None if row is None else (int(row["size"]), int(row["have"]))


def moved(db: Transaction, sha256: str, before: int, have: int) -> bool:
    """So many bytes of an object are durable now; False where somebody else moved it meanwhile."""
    return (
        db.run(
            "UPDATE object SET have = :have WHERE programme = :programme AND sha256 = :sha256 AND have = :before",
            sha256=sha256,
            before=before,
            have=have,
        )
        == 1
    )


def dropped(db: Transaction, sha256: str, have: int) -> None:
    """Only so many bytes of an object are here from now on; they will not be missed before somebody asks for them."""
    db.run(
        "UPDATE object SET have = :have, wanted = 0, dropped = 1 WHERE programme = :programme AND sha256 = :sha256",
        sha256=sha256,
        have=have,
    )


def objects(db: Transaction, after: str, limit: int = 1000) -> list[tuple[str, int]]:
    """Name and bytes of the objects of which there is something, in the order of their names, after one of them."""
    rows = db.rows(
        "SELECT sha256, have FROM object WHERE programme = :programme AND sha256 > :after AND have > 0"
        " ORDER BY sha256 LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [(row["sha256"], int(row["have"])) for row in rows]


def wanted(db: Transaction, case: Case, upto: int) -> bool:
    """A reader would have the picture up to this byte; True where that is more than was asked for."""
    return (
        case.picture is not None
        and db.run(
            "UPDATE object SET wanted = :upto, dropped = 0"
            " WHERE programme = :programme AND sha256 = :sha256 AND wanted < :upto AND have < :upto",
            sha256=case.picture.sha256,
            upto=min(upto, case.picture.size),
        )
        == 1
    )


def was_read(db: Transaction, number: int, at: float) -> float | None:
    """The film was read; gives how long it had waited when this is its first read."""
    db.run("UPDATE film SET changed_at = :at WHERE programme = :programme AND id = :id", id=number, at=at)
    row = db.row(
        "UPDATE film SET read_at = :at WHERE programme = :programme AND id = :id AND read_at IS NULL RETURNING since",
        id=number,
        at=at,
    )
    return None if row is None else at - float(row["since"])


def _case(row: Row) -> Case:
    return Case(
        id=row["id"],
        site=row["site"],
        result=_result.decode(row["card"]),
        since=row["since"],
        received_at=row["received_at"],
        asked=bool(row["asked"]),
        picture=_picture.decode(row["picture"]) if row["picture"] else None,
        concern=Concern(row["concern"]) if row["concern"] else None,
        have=row["have"] or 0,
        read_at=row["read_at"],
        changed_at=row["changed"],
    )
