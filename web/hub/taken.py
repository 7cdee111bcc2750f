"""The table of what archives next door sent about films: reports, key objects, presentation states; nameless (`stow.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from web.hub.records import Taken
from web.hub.transaction import Transaction

TABLE = """
CREATE TABLE taken (
    programme TEXT NOT NULL,
    uid TEXT NOT NULL,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    class_uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    came TEXT NOT NULL,
    archive TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (programme, uid)
) STRICT;
CREATE INDEX taken_of_study ON taken (programme, study);
"""


def keep(db: Transaction, one: Taken) -> bool:
    """Note an object whose bytes are kept; the same again changes nothing. False where another one has its UID."""
    fresh = db.run(
        "INSERT INTO taken (programme, uid, study, series, class_uid, modality, sha256, size, came, archive, received_at)"
        " VALUES (:programme, :uid, :study, :series, :class_uid, :modality, :sha256, :size, :came, :archive, :received_at)"
        " ON CONFLICT (programme, uid) DO NOTHING",
        **msgspec.structs.asdict(one),
    )
    if fresh:
        db.run(
            "UPDATE film SET changed_at = :at WHERE programme = :programme AND study = :study",
            study=one.study,
            at=one.received_at,
        )
        return True
    there = db.row("SELECT came, sha256 FROM taken WHERE programme = :programme AND uid = :uid", uid=one.uid)
    return there is not None and (there["came"] == one.came or there["sha256"] == one.sha256)


def of_studies(db: Transaction, uids: Sequence[str]) -> dict[str, list[Taken]]:
    """What came about these studies, in the order in which it came."""
    found: dict[str, list[Taken]] = {uid: [] for uid in uids}
    if uids:
        names = {f"s{index}": uid for index, uid in enumerate(uids)}
        listed = ", ".join(f":{name}" for name in names)
        asked = f"SELECT * FROM taken WHERE programme = :programme AND study IN ({listed}) ORDER BY received_at, uid"
        for row in db.rows(asked, **names):
            found[row["study"]].append(Taken(**{field: row[field] for field in Taken.__struct_fields__}))
    return found


def after(db: Transaction, uid: str, limit: int = 1000) -> list[Taken]:
    """All that came, in the order of the UIDs, after one of them."""
    rows = db.rows(
        "SELECT * FROM taken WHERE programme = :programme AND uid > :uid ORDER BY uid LIMIT :limit",
        uid=uid,
        limit=limit,
    )
    return [Taken(**{field: row[field] for field in Taken.__struct_fields__}) for row in rows]


def forget(db: Transaction, uid: str) -> None:
    """An object is no longer here; who sent it may send it again."""
    db.run("DELETE FROM taken WHERE programme = :programme AND uid = :uid", uid=uid)
