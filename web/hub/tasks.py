"""The tables of what is to be read and of the reads: the queue's order, who has which film, and what follows from a read.

What cannot wait comes first (rank 0): what the AI calls immediate, where the site has accepted it, and what the clinic asks for.
All else goes by when it is due, its arrival and what its kind may wait, so that nothing waits for ever behind newer films; and
because what cannot wait could fill all hours, every fifth film that a reader takes is the longest overdue of the rest.
A film is leased, never popped: a reader who says nothing for some minutes has lost it to others, and what they say later is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from edge import cards
from edge.records import Outcome, Urgency
from web.hub import answers, films
from web.hub.config import Policy
from web.hub.records import Case, Entry, Film, Finding, Reader, Review, Site, Task, TaskKind, Turnaround
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    programme TEXT NOT NULL,
    film INTEGER NOT NULL,
    site TEXT NOT NULL,
    kind TEXT NOT NULL,
    language TEXT NOT NULL,
    rank INTEGER NOT NULL,
    due REAL NOT NULL,
    since REAL NOT NULL,
    weight REAL NOT NULL,
    lease_by TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    done_at REAL,
    UNIQUE (programme, film, kind)
) STRICT;
CREATE INDEX task_open ON task (programme, language, kind, rank, due) WHERE done_at IS NULL;
CREATE INDEX task_open_of_site ON task (programme, site, kind, rank, due) WHERE done_at IS NULL;
CREATE INDEX task_leased ON task (programme, lease_by) WHERE done_at IS NULL AND lease_by <> '';
CREATE TABLE review (
    id INTEGER PRIMARY KEY,
    programme TEXT NOT NULL,
    digest TEXT NOT NULL,
    film INTEGER NOT NULL,
    site TEXT NOT NULL,
    task INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reader TEXT NOT NULL,
    shown_as TEXT NOT NULL,
    finding TEXT NOT NULL,
    at REAL NOT NULL,
    final INTEGER NOT NULL,
    waited REAL,
    seen_at REAL,
    UNIQUE (programme, digest)
) STRICT;
CREATE INDEX review_of_film ON review (programme, film, reader);
CREATE INDEX review_of_reader ON review (programme, reader, id);
CREATE INDEX review_at ON review (programme, at);
CREATE TABLE review_code (
    programme TEXT NOT NULL,
    review INTEGER NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (programme, review, code)
) STRICT;
CREATE TABLE turn (
    programme TEXT NOT NULL,
    reader TEXT NOT NULL,
    taken INTEGER NOT NULL,
    PRIMARY KEY (programme, reader)
) STRICT;
"""

MAY_WAIT = {Urgency.HIGH: 4 * 3600.0, Urgency.ROUTINE: 24 * 3600.0}
"""Seconds from a film's assessment to when it is due; *soon* and *could not assess* wait as HIGH does."""
AUDIT_MAY_WAIT = 7 * 86400.0
EVERY = 5
"""Of so many films that a reader takes, one is overdue, even when others cannot wait."""
CANDIDATES = 32
"""So many of each language and kind are looked at, so that readers who ask at the same moment get different films."""

Opening = Mapping[str, object]
"""A task that is to be, by the names of its columns."""

_finding = msgspec.json.Decoder(Finding)


@dataclass(frozen=True)
class Rules:
    """What the programme has decided about reading, and the secret by which films are drawn."""

    policy: Policy
    secret: bytes

    def drawn(self, what: str, case: str, share: float) -> bool:
        """Whether a case is in a sample of that share: the same answer whenever it is asked, and nobody can foresee it."""
        drawn = hmac.digest(self.secret, f"{what} {case}".encode(), "sha256")
        return int.from_bytes(drawn[:8], "big") < share * 2**64


def place(result: cards.Result, asked: bool, since: float) -> tuple[int, float]:
    """Rank and time at which a film is due; an AI that its site has not accepted changes no order."""
    ai = None if result.shadow else result.outcome
    if asked or result.urgency is Urgency.STAT or ai is Outcome.IMMEDIATE:
        return 0, since
    soon = result.urgency is Urgency.HIGH or ai in (Outcome.SOON, Outcome.COULD_NOT_ASSESS)
    return 1, since + MAY_WAIT[Urgency.HIGH if soon else Urgency.ROUTINE]


def offer(
    db: Transaction, site: Site, film: int, result: cards.Result, asked: bool, since: float, rules: Rules
) -> list[Opening]:
    """What is to be read of a film, as far as policy says so; `put` puts it before the readers."""
    rank, due = place(result, asked, since)
    kind, weight = TaskKind.FIRST, 1.0
    if rank and result.outcome is Outcome.ROUTINE and not rules.policy.routine:
        if not rules.drawn("audit", result.case, rules.policy.audit_share):
            return []
        kind, due, weight = TaskKind.AUDIT, since + AUDIT_MAY_WAIT, 1 / rules.policy.audit_share
    opened = [_opening(site.name, site.language, film, kind, rank, due, since, weight)]
    if asked:  # also of a film that somebody has read already: they ask again
        read = db.row("SELECT 1 FROM review WHERE programme = :programme AND film = :film LIMIT 1", film=film)
        if read is not None:
            opened.append(_opening(site.name, site.language, film, TaskKind.SECOND, rank, due, since))
    return opened


def _opening(
    site: str, language: str, film: int, kind: TaskKind, rank: int, due: float, since: float, weight: float = 1.0
) -> Opening:
    return {
        "film": film,
        "site": site,
        "kind": kind.value,
        "language": language,
        "rank": rank,
        "due": due,
        "since": since,
        "weight": weight,
    }


def put(db: Transaction, opened: Sequence[Opening]) -> None:
    """Put films before the readers, inside the caller's transaction; one that waits already only ever moves forward."""
    if opened:
        db.many(
            "INSERT INTO task (programme, film, site, kind, language, rank, due, since, weight)"
            " VALUES (:programme, :film, :site, :kind, :language, :rank, :due, :since, :weight)"
            " ON CONFLICT (programme, film, kind) DO UPDATE SET"
            " rank = CASE WHEN excluded.rank < task.rank THEN excluded.rank ELSE task.rank END,"
            " due = CASE WHEN excluded.due < task.due THEN excluded.due ELSE task.due END WHERE task.done_at IS NULL",
            opened,
        )


def queue(db: Transaction, reader: Reader, at: float, limit: int = 50) -> list[Entry]:
    """What this reader may read, in order, also what others have at the moment."""
    found = _candidates(db, reader, at, limit, "")
    tasks = _tasks(db, [row["id"] for row in found[:limit]], at)
    cases = films.cases(db, [task.case for task in tasks])
    return [Entry(task=task, case=cases[task.case]) for task in tasks if task.case in cases]


def claim(db: Transaction, reader: Reader, lease_seconds: float, at: float, task: int | None = None) -> Task | None:
    """Lease a film to a reader: the one they have, else the named one, else the next; None where there is none for them."""
    if task is None:
        if (held := holds(db, reader, at)) is not None:
            return _lease(db, held.id, reader, lease_seconds, at)
        row = db.row(
            "INSERT INTO turn (programme, reader, taken) VALUES (:programme, :reader, 1)"
            " ON CONFLICT (programme, reader) DO UPDATE SET taken = turn.taken + 1 RETURNING taken",
            reader=reader.name,
        )
        assert row is not None
        if row["taken"] % EVERY == 0:
            overdue = " AND rank = 1 AND due < :at"
            if (taken := _take(db, reader, at, overdue)) is not None:
                return _lease(db, taken, reader, lease_seconds, at)
        taken = _take(db, reader, at, "")
    else:
        may, values = _rights(reader)
        row = db.row(
            "SELECT id FROM task WHERE programme = :programme AND id = :id AND done_at IS NULL"
            f" AND (lease_until <= :at OR lease_by = :reader) AND {may}{db.take}",
            id=task,
            at=at,
            **values,
        )
        taken = None if row is None else int(row["id"])
    return None if taken is None else _lease(db, taken, reader, lease_seconds, at)


_NOT_READ = (
    "NOT EXISTS (SELECT 1 FROM review WHERE review.programme = :programme"
    " AND review.film = task.film AND review.reader = :reader)"
)


def _rights(reader: Reader, but: Collection[str] = ()) -> tuple[str, dict[str, object]]:
    """What a statement on `task` has to say so that it gives only what the reader may read, and the values it needs.

    `but` names the columns of which it says so itself: said twice, a database may take the index by the list and not in its order.
    """
    said = _NOT_READ
    values: dict[str, object] = {"reader": reader.name}
    for what, allowed in (("kind", sorted(reader.kinds)), ("site", reader.sites), ("language", reader.languages)):
        if what not in but and (allowed or what == "kind"):
            names, named = _listed(what[0], [str(one) for one in allowed] or [""])
            said += f" AND {what} IN ({names})"
            values |= named
    if reader.countries:
        names, named = _listed("c", reader.countries)
        said += f" AND site IN (SELECT site FROM site WHERE programme = :programme AND country IN ({names}))"
        values |= named
    return said, values


def _candidates(db: Transaction, reader: Reader, at: float, limit: int, more: str) -> list[Row]:
    """The first of each language and kind, or of each site and kind, in the queue's order: an index has each of these in order."""
    by, among = ("site", reader.sites) if reader.sites else ("language", reader.languages)
    if not among:
        among = tuple(
            one["language"] for one in db.rows("SELECT DISTINCT language FROM site WHERE programme = :programme")
        )
    may, values = _rights(reader, (by, "kind"))
    parts = []
    for number, (one, kind) in enumerate((one, kind) for one in sorted(among) for kind in sorted(reader.kinds)):
        values |= {f"of{number}": one, f"kind{number}": kind.value}
        parts.append(
            "SELECT * FROM (SELECT id, rank, due FROM task WHERE programme = :programme AND done_at IS NULL"
            f" AND {by} = :of{number} AND kind = :kind{number}{more} AND {may}"
            f" ORDER BY rank, due LIMIT :limit) AS part{number}"
        )
    return db.rows(f"{' UNION ALL '.join(parts)} ORDER BY rank, due, id", **values, at=at, limit=limit) if parts else []


def _take(db: Transaction, reader: Reader, at: float, more: str) -> int | None:
    """Hold the first film that nobody has, for the length of the transaction."""
    size = CANDIDATES
    while True:
        found = [row["id"] for row in _candidates(db, reader, at, size, f" AND lease_until <= :at{more}")]
        for number in found:  # one by one: each is found by its key, whatever the database thinks of the others
            row = db.row(
                "SELECT id FROM task WHERE programme = :programme AND id = :id AND done_at IS NULL"
                f" AND lease_until <= :at{db.take}",
                id=number,
                at=at,
            )
            if row is not None:
                return int(row["id"])
        if len(found) < size:
            return None
        size *= 4  # others took all of these in this very moment


def _lease(db: Transaction, task: int, reader: Reader, seconds: float, at: float) -> Task:
    db.run(
        "UPDATE task SET lease_by = :reader, lease_until = :until WHERE programme = :programme AND id = :id",
        id=task,
        reader=reader.name,
        until=at + seconds,
    )
    return _tasks(db, [task], at)[0]


def holds(db: Transaction, reader: Reader, at: float) -> Task | None:
    """The film that a reader has, or None."""
    row = db.row(
        "SELECT * FROM task WHERE programme = :programme AND lease_by = :reader AND lease_by <> '' AND done_at IS NULL"
        " AND lease_until > :at ORDER BY lease_until DESC LIMIT 1",
        reader=reader.name,
        at=at,
    )
    return None if row is None else _task(row, at)


def hold(db: Transaction, reader: Reader, task: int, lease_seconds: float, at: float) -> bool:
    """The reader is still at it; False where they have lost it."""
    return (
        db.run(
            "UPDATE task SET lease_until = :until WHERE programme = :programme AND id = :id AND lease_by = :reader"
            " AND done_at IS NULL",
            id=task,
            reader=reader.name,
            until=at + lease_seconds,
        )
        == 1
    )


def release(db: Transaction, reader: Reader, task: int) -> bool:
    """The reader gives the film back to the queue; False where they did not have it."""
    return (
        db.run(
            "UPDATE task SET lease_by = '', lease_until = 0 WHERE programme = :programme AND id = :id"
            " AND lease_by = :reader AND done_at IS NULL",
            id=task,
            reader=reader.name,
        )
        == 1
    )


def release_all(db: Transaction, reader: Reader) -> int:
    """A reader signs out: whatever they have is free; gives how many that were."""
    return db.run(
        "UPDATE task SET lease_by = '', lease_until = 0 WHERE programme = :programme AND lease_by = :reader"
        " AND lease_by <> '' AND done_at IS NULL",
        reader=reader.name,
    )


def task(db: Transaction, number: int, at: float) -> Task | None:
    """The task of that number, or None."""
    found = _tasks(db, [number], at)
    return found[0] if found else None


def finish(
    db: Transaction, reader: Reader, shown_as: str, number: int, finding: Finding, key: str, rules: Rules, at: float
) -> Review | None:
    """Record a read inside the caller's transaction, tell the clinic, and open what follows from it; None for no such task.

    The same `key` again changes nothing. A read that comes after somebody else's, because the lease was lost meanwhile, is kept as
    a second one: nobody's work is lost.
    """
    lock = (
        "SELECT film.id FROM film JOIN task ON task.film = film.id WHERE film.programme = :programme AND task.id = :id"
    )
    db.row(lock + db.hold, id=number)
    row = db.row("SELECT * FROM task WHERE programme = :programme AND id = :id", id=number)
    if row is None:
        return None
    job = _task(row, at)
    digest = hashlib.sha256("\n".join((db.programme, reader.name, str(job.id), key)).encode()).hexdigest()
    if (known := _review(db, digest)) is not None:
        return known
    case = films.case(db, job.case)
    assert case is not None
    earlier = reviews(db, job.case)
    others = [one for one in earlier if one.reader != reader.name]
    kind = job.kind if job.done_at is None else TaskKind.SECOND
    follows = _follows(kind, finding, others, case, rules)
    waited = films.was_read(db, job.case, at)
    review = db.row(
        "INSERT INTO review"
        " (programme, digest, film, site, task, kind, reader, shown_as, finding, at, final, waited) VALUES"
        " (:programme, :digest, :film, :site, :task, :kind, :reader, :shown, :finding, :at, :final, :waited) RETURNING id",
        digest=digest,
        film=job.case,
        site=job.site,
        task=job.id,
        kind=kind.value,
        reader=reader.name,
        shown=shown_as,
        finding=msgspec.json.encode(finding).decode(),
        at=at,
        final=int(follows is None),
        waited=waited,
    )
    assert review is not None
    db.many(
        "INSERT INTO review_code (programme, review, code) VALUES (:programme, :review, :code)",
        [{"review": review["id"], "code": code} for code in sorted(set(finding.codes))],
    )
    if job.done_at is None:
        db.run(
            "UPDATE task SET done_at = :at, lease_by = '', lease_until = 0 WHERE programme = :programme AND id = :id",
            id=job.id,
            at=at,
        )
    if follows is not None:
        rank, due = place(case.result, case.asked, at)
        rank = 0 if finding.outcome is Outcome.IMMEDIATE or follows is TaskKind.ARBITRATION else rank
        put(db, [_opening(job.site, job.language, job.case, follows, rank, due, at)])
    answers.give(db, job.site, _card(case, digest, shown_as, finding, follows is None, at), at)
    return _review(db, digest)


def _follows(kind: TaskKind, finding: Finding, others: Sequence[Review], case: Case, rules: Rules) -> TaskKind | None:
    """What else is to be read of a case after a read of this kind."""
    if kind is TaskKind.ARBITRATION:
        return None
    if kind is TaskKind.SECOND or others:
        differs = any(
            (one.finding.outcome, set(one.finding.codes)) != (finding.outcome, set(finding.codes)) for one in others
        )
        return TaskKind.ARBITRATION if differs else None
    second = finding.second or rules.drawn("second", case.result.case, rules.policy.second_share)
    return TaskKind.SECOND if second else None


def _card(case: Case, digest: str, shown_as: str, finding: Finding, final: bool, at: float) -> cards.Read:
    return cards.Read(
        case=case.result.case,
        read=digest,
        reader=shown_as[:64],
        outcome=finding.outcome,
        codes=finding.codes,
        advice=finding.advice,
        final=final,
        at=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def want(db: Transaction, case: Case, upto: int, at: float) -> None:
    """A reader has opened a film: ask its box for the picture up to this byte, unless that was asked for already."""
    if films.wanted(db, case, upto) and case.picture is not None:
        want = cards.Want(sha256=case.picture.sha256, upto=min(upto, case.picture.size))
        answers.give(db, case.site, want, at)


def film(db: Transaction, number: int, at: float) -> Film | None:
    """A case with everything that was said of it, or None."""
    case = films.case(db, number)
    if case is None:
        return None
    rows = db.rows("SELECT * FROM task WHERE programme = :programme AND film = :film ORDER BY id", film=number)
    return Film(
        case=case,
        at_clinic=films.at_clinic(db, case),
        reviews=tuple(reviews(db, number)),
        tasks=tuple(_task(row, at) for row in rows),
    )


def reviews(db: Transaction, film: int) -> list[Review]:
    """The reads of a film, in order."""
    rows = db.rows("SELECT * FROM review WHERE programme = :programme AND film = :film ORDER BY id", film=film)
    return list(map(_read, rows))


def of_films(db: Transaction, films: Sequence[int]) -> dict[int, list[Review]]:
    """The reads of these films, in order."""
    found: dict[int, list[Review]] = {film: [] for film in films}
    if films:
        names, values = _listed("f", films)
        asked = f"SELECT * FROM review WHERE programme = :programme AND film IN ({names}) ORDER BY id"
        for row in db.rows(asked, **values):
            found[row["film"]].append(_read(row))
    return found


def of_reader(db: Transaction, reader: Reader, limit: int) -> list[Review]:
    """A reader's latest reads, the latest first."""
    rows = db.rows(
        "SELECT * FROM review WHERE programme = :programme AND reader = :reader ORDER BY id DESC LIMIT :limit",
        reader=reader.name,
        limit=limit,
    )
    return list(map(_read, rows))


def seen(db: Transaction, digest: str, at: float) -> None:
    """The clinic has opened a read."""
    db.run(
        "UPDATE review SET seen_at = :at WHERE programme = :programme AND digest = :digest AND seen_at IS NULL",
        digest=digest,
        at=at,
    )


def audited(db: Transaction, since: float) -> list[tuple[cards.Result, Finding, float]]:
    """First reads and audits since a time, oldest first: what the AI said, what the reader said, for how many films it stands."""
    rows = db.rows(
        "SELECT film.card, review.finding, task.weight FROM review"
        " JOIN task ON task.programme = review.programme AND task.id = review.task"
        " JOIN film ON film.programme = review.programme AND film.id = review.film"
        " WHERE review.programme = :programme AND review.at >= :since AND review.kind IN ('first', 'audit')"
        " ORDER BY review.at, review.id",
        since=since,
    )
    return [
        (msgspec.json.decode(row["card"], type=cards.Result), _finding.decode(row["finding"]), row["weight"])
        for row in rows
    ]


def turnaround(db: Transaction, since: float, by: str = "site") -> list[Turnaround]:
    """How long first reads took since a time, by `site` or by `code`, the longest ninetieth percentile first."""
    what, joined = {
        "site": ("review.site", ""),
        "code": (
            "review_code.code",
            " JOIN review_code ON review_code.programme = review.programme AND review_code.review = review.id",
        ),
    }[by]
    rows = db.rows(
        "SELECT of, n, place, waited FROM (SELECT"
        f" {what} AS of, review.waited AS waited, COUNT(*) OVER (PARTITION BY {what}) AS n,"
        f" ROW_NUMBER() OVER (PARTITION BY {what} ORDER BY review.waited) AS place FROM review{joined}"
        " WHERE review.programme = :programme AND review.at >= :since AND review.waited IS NOT NULL) AS placed"
        " WHERE place IN ((n + 1) / 2, (9 * n + 9) / 10, n) ORDER BY of, place",
        since=since,
    )
    found: dict[str, dict[int, float]] = {}
    counts = {}
    for row in rows:
        found.setdefault(row["of"], {})[row["place"]] = row["waited"]
        counts[row["of"]] = row["n"]
    turned = [
        Turnaround(
            of=of,
            count=(n := counts[of]),
            median=placed[(n + 1) // 2],
            ninetieth=placed[(9 * n + 9) // 10],
            longest=placed[n],
        )
        for of, placed in found.items()
    ]
    return sorted(turned, key=lambda one: -one.ninetieth)


def _review(db: Transaction, digest: str) -> Review | None:
    row = db.row("SELECT * FROM review WHERE programme = :programme AND digest = :digest", digest=digest)
    return None if row is None else _read(row)


def _tasks(db: Transaction, numbers: Sequence[int], at: float) -> list[Task]:
    if not numbers:
        return []
    names, values = _listed("n", numbers)
    rows = db.rows(
        f"SELECT * FROM task WHERE programme || '' = :programme AND id IN ({names})", **values
    )  # as in films.cases
    found = {row["id"]: _task(row, at) for row in rows}
    return [found[number] for number in numbers if number in found]


def _listed(prefix: str, values: Sequence[object]) -> tuple[str, dict[str, object]]:
    """Names for values in a statement's IN (…), and the values by these names."""
    named = {f"{prefix}{index}": value for index, value in enumerate(values)}
    return ", ".join(f":{name}" for name in named), named


def _task(row: Row, at: float) -> Task:
    leased = row["lease_until"] > at
    return Task(
        id=row["id"],
        case=row["film"],
        site=row["site"],
        kind=TaskKind(row["kind"]),
        language=row["language"],
        rank=row["rank"],
        due=row["due"],
        since=row["since"],
        weight=row["weight"],
        lease_by=row["lease_by"] if leased else "",
        lease_until=row["lease_until"] if leased else 0.0,
        done_at=row["done_at"],
    )


def _read(row: Row) -> Review:
    return Review(
        id=row["id"],
        digest=row["digest"],
        case=row["film"],
        site=row["site"],
        task=row["task"],
        kind=TaskKind(row["kind"]),
        reader=row["reader"],
        shown_as=row["shown_as"],
        finding=_finding.decode(row["finding"]),
        at=row["at"],
        final=bool(row["final"]),
        seen_at=row["seen_at"],
    )
