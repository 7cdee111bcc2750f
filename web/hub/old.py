"""What is old: pictures of films that are done with keep their first 32 KiB, and the rest of their bytes goes.

A picture is done with once every film that has it is read, nobody is to read it again, its clinic has the reads, and nothing was
said of it for so long. Its box keeps it, is told that the hub has all of it, so that it sends nothing by itself, and sends the rest
again once somebody asks. What was said of films stays: a clinic may ask about one again.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge.cards import PREFIX
from web.hub import films
from web.hub.blobs import Blobs
from web.hub.store import Store
from web.hub.transaction import Transaction

AT_ONCE = 100
"""Pictures that one transaction looks at: nobody waits long for it."""

TOLD = (
    "COALESCE((SELECT contact.told FROM contact JOIN site ON site.programme = contact.programme AND site.site = contact.site"
    " WHERE contact.programme = :programme AND contact.site = film.site AND contact.told_epoch = site.epoch), 0)"
)
"""To which number a film's clinic has the hub's answers; those of an epoch that is over count for nothing."""

LARGE = "object.programme = :programme AND object.have > :prefix AND object.wanted <= object.have"


def _done_with(among: str = "") -> str:
    """What a statement on `object` says of pictures that are done with, where `among` names some, only of these.

    It names them twice: told once, a database may go through all images for them. A read goes to its clinic as the answer of that
    very moment.
    """
    these = f" AND image.sha256 IN ({among})" if among else ""
    return (
        f"{LARGE}{these.replace('image.', 'object.')} AND EXISTS (SELECT 1 FROM image"
        f" WHERE image.programme = :programme AND image.sha256 = object.sha256 AND image.sha256 <> ''{these})"
        " AND NOT EXISTS (SELECT 1 FROM image LEFT JOIN film ON film.programme = image.programme AND film.site = image.site"
        " AND film.case_uid = image.case_uid WHERE image.programme = :programme AND image.sha256 = object.sha256"
        f" AND image.sha256 <> ''{these} AND (film.read_at IS NULL OR {films.WHEN} >= :before"
        " OR EXISTS (SELECT 1 FROM task WHERE task.programme = :programme AND task.film = film.id AND task.done_at IS NULL)"
        " OR EXISTS (SELECT 1 FROM review WHERE review.programme = :programme AND review.film = film.id AND review.at >="
        " (SELECT MIN(answer.made_at) FROM answer WHERE answer.programme = :programme AND answer.site = film.site"
        f" AND answer.seq > {TOLD}))))"
    )


def count(db: Transaction, before: float) -> tuple[int, int]:
    """Of how many pictures bytes would go that are done with since before that time, and how many bytes."""
    row = db.row(
        f"SELECT COUNT(*) AS pictures, COALESCE(SUM(object.have - :prefix), 0) AS bytes FROM object WHERE {_done_with()}",
        prefix=PREFIX,
        before=before,
    )
    assert row is not None
    return int(row["pictures"]), int(row["bytes"])


def drop(store: Store, blobs: Blobs, programme: str, before: float) -> Iterator[tuple[int, int]]:
    """Let them go, some at a time; gives how many went with each step, and of how many bytes.

    Bytes go before the transaction ends that says so; where it is cut off between the two, the same again goes on. Raises
    `Transient`.
    """
    after = ""
    while True:
        with store.transaction(programme) as db:
            large = db.rows(
                f"SELECT sha256 FROM object WHERE {LARGE} AND sha256 > :after ORDER BY sha256 LIMIT :most",
                prefix=PREFIX,
                after=after,
                most=AT_ONCE,
            )
            if not large:
                return
            named = {f"s{index}": row["sha256"] for index, row in enumerate(large)}
            condition = _done_with(", ".join(f":{name}" for name in named))
            asked = f"SELECT sha256, have FROM object WHERE {condition}{db.hold}"
            rows = db.rows(asked, prefix=PREFIX, before=before, **named)
            for row in rows:
                blobs.shorten(f"{programme}/{row['sha256']}", PREFIX)
                films.dropped(db, row["sha256"], PREFIX)
        after = large[-1]["sha256"]
        yield len(rows), sum(int(row["have"]) - PREFIX for row in rows)
