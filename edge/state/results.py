"""The table of assessments: one row per film and run, never changed; the latest run is what people see."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime

import msgspec

from edge.records import Arrival, Assessment, Decision, Display, Film, Header, Letterhead, Outcome, Reason, Sha256
from edge.state import arrivals

TABLE = """
CREATE TABLE result (
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    run INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('immediate', 'soon', 'routine', 'could_not_assess')),
    header TEXT NOT NULL,
    decision TEXT NOT NULL,
    milliseconds TEXT NOT NULL,
    saliency BLOB,
    decided_at TEXT NOT NULL,
    PRIMARY KEY (arrival_id, run)
) STRICT;
CREATE TABLE rendition (arrival_id INTEGER PRIMARY KEY REFERENCES arrival, sha256 TEXT NOT NULL) STRICT;
"""

RENDITIONS = """
DROP TABLE rendition;
CREATE TABLE rendition (
    arrival_id INTEGER PRIMARY KEY REFERENCES arrival,
    sha256 TEXT NOT NULL,
    preview TEXT NOT NULL,
    display TEXT NOT NULL
) STRICT;
UPDATE job SET state = 'ready' WHERE kind = 'render' AND state = 'done';
"""
"""Pictures became neutral ones with a preview; those made before are made again."""

LETTERHEAD = """
ALTER TABLE result ADD COLUMN letterhead TEXT;
"""
"""What the settings put into a result is kept with it; for those made before, nobody wrote it down."""

PATIENTS = """
CREATE INDEX result_of_patient ON result (header ->> '$.PatientID');
"""


def add(
    connection: sqlite3.Connection,
    arrival_id: int,
    run: int,
    assessment: Assessment,
    decided_at: datetime,
    letterhead: Letterhead | None = None,
) -> None:
    """Record the outcome of one run inside the caller's transaction; a second outcome for a run is an error."""
    connection.execute(
        "INSERT INTO result (arrival_id, run, outcome, header, decision, milliseconds, saliency, decided_at, letterhead)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            arrival_id,
            run,
            assessment.decision.outcome,
            _json(assessment.header),
            _json(assessment.decision),
            _json(assessment.milliseconds),
            assessment.saliency,
            decided_at.isoformat(),
            None if letterhead is None else _json(letterhead),
        ),
    )


def letterhead(connection: sqlite3.Connection, arrival_id: int, run: int) -> Letterhead | None:
    """What the settings were when that run ended; None where it was not written down then."""
    row = connection.execute(
        "SELECT letterhead FROM result WHERE arrival_id = ? AND run = ? AND letterhead IS NOT NULL", (arrival_id, run)
    ).fetchone()
    return None if row is None else msgspec.json.decode(row["letterhead"], type=Letterhead)


def add_rendition(
    connection: sqlite3.Connection, arrival_id: int, sha256: Sha256, preview: Sha256, display: Display
) -> None:
    """Record the picture that people look at, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO rendition (arrival_id, sha256, preview, display) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET sha256 = excluded.sha256, preview = excluded.preview, display = excluded.display",
        (arrival_id, sha256, preview, _json(display)),
    )


def runs(connection: sqlite3.Connection, arrival_id: int) -> int:
    """How many outcomes this film has had; the next run has the next number."""
    row = connection.execute("SELECT COALESCE(MAX(run), 0) FROM result WHERE arrival_id = ?", (arrival_id,)).fetchone()
    return int(row[0])


def current_runs(connection: sqlite3.Connection) -> dict[int, int]:
    """By film, the number of its latest outcome."""
    return dict(map(tuple, connection.execute("SELECT arrival_id, MAX(run) FROM result GROUP BY arrival_id")))


def newest_device(connection: sqlite3.Connection) -> str | None:
    """The device UID of the model that decided last, or None where none has."""
    row = connection.execute(
        "SELECT decision ->> '$.device_uid' FROM result WHERE decision ->> '$.device_uid' <> ''"
        " ORDER BY decided_at DESC LIMIT 1"
    ).fetchone()
    return None if row is None else str(row[0])


def newest_decision(connection: sqlite3.Connection) -> Decision | None:
    """What was decided last by a model, or None where none has."""
    row = connection.execute(
        "SELECT decision FROM result WHERE decision ->> '$.device_uid' <> '' ORDER BY decided_at DESC LIMIT 1"
    ).fetchone()
    return None if row is None else msgspec.json.decode(row["decision"], type=Decision)


def latest(connection: sqlite3.Connection, outcome: Outcome, device_uid: str) -> list[tuple[int, int]]:
    """The films whose latest outcome is this one, by this model, each with its run, oldest first."""
    rows = connection.execute(
        "SELECT arrival_id, run FROM result JOIN arrival ON arrival.id = arrival_id"
        " WHERE outcome = ? AND decision ->> '$.device_uid' = ? AND arrival.source <> ?"
        " AND run = (SELECT MAX(run) FROM result AS other WHERE other.arrival_id = result.arrival_id)"
        " ORDER BY arrival_id",
        (outcome, device_uid, arrivals.FOR_ACCEPTANCE),
    )
    return [(row["arrival_id"], row["run"]) for row in rows]


def refused(connection: sqlite3.Connection, reason: Reason) -> list[int]:
    """The films whose latest outcome is *could not assess* for this reason, oldest first."""
    rows = connection.execute(
        "SELECT arrival_id FROM result WHERE outcome = 'could_not_assess' AND decision ->> '$.refusal.reason' = ?"
        " AND run = (SELECT MAX(run) FROM result AS other WHERE other.arrival_id = result.arrival_id)"
        " ORDER BY arrival_id",
        (reason,),
    )
    return [row["arrival_id"] for row in rows]


_LATEST = "(SELECT MAX(run) FROM result WHERE result.arrival_id = arrival.id)"
_FILMS = f"""
SELECT {arrivals.COLUMNS}, COALESCE(result.run, 0) AS run,
    result.header, result.decision, result.milliseconds, result.saliency, result.decided_at,
    rendition.sha256 AS rendition, rendition.preview,
    rendition.display, COALESCE(job.last_error, '') AS failed, COALESCE(job.run > result.run, 0) AS again
FROM arrival
LEFT JOIN result ON result.arrival_id = arrival.id
    AND result.run = {_LATEST}
LEFT JOIN rendition ON rendition.arrival_id = arrival.id
LEFT JOIN job ON job.arrival_id = arrival.id AND job.kind = 'assess'
    AND job.run = (SELECT MAX(run) FROM job WHERE job.arrival_id = arrival.id AND job.kind = 'assess')
"""


def films(connection: sqlite3.Connection, but: Collection[int] = ()) -> Iterator[Film]:
    """Every film of a patient here but those named, with its latest outcome, in order of arrival.

    People's order is `edge.stages.decide.rank`.
    """
    chosen = " WHERE arrival.id NOT IN (SELECT value FROM json_each(?)) AND arrival.source <> ?"
    asked = (_json(list(but)), arrivals.FOR_ACCEPTANCE)
    return map(_film, connection.execute(_FILMS + chosen + " ORDER BY arrival.id", asked))


def came(connection: sqlite3.Connection, since: datetime) -> Iterator[Film]:
    """Every film of a patient that came since then, with its latest outcome, in order of arrival."""
    chosen = " WHERE arrival.received_at >= ? AND arrival.source <> ?"
    asked = (since.isoformat(), arrivals.FOR_ACCEPTANCE)
    return map(_film, connection.execute(_FILMS + chosen + " ORDER BY arrival.id", asked))


def film(connection: sqlite3.Connection, arrival_id: int, run: int | None = None) -> Film:
    """One film with its latest outcome, or that of one run as it was then. Raises KeyError when there is no such film or run."""
    chosen = _FILMS if run is None else _FILMS.replace(_LATEST, ":run")
    row = connection.execute(chosen + " WHERE arrival.id = :id", {"id": arrival_id, "run": run}).fetchone()
    if row is None or (run is not None and row["run"] != run):
        raise KeyError(arrival_id, run)
    found = _film(row)
    if run is None or found.decision is None or found.decision.refusal is None:
        return found
    # the age is supplied once, after the run that ended for want of it: made again, that run's result is the same
    unknown = found.decision.refusal.reason is Reason.AGE_UNKNOWN
    return replace(found, supplied_age=None) if unknown else found


def of_patient(connection: sqlite3.Connection, header: Header) -> Iterator[Film]:
    """The films under this patient ID of this issuer, in order of arrival; none for a film without an ID.

    Whether they are of the same person is for `edge.stages.match` to say: an ID alone may be mistyped.
    """
    if not header.PatientID:
        return iter(())
    chosen = " WHERE result.header ->> '$.PatientID' = ? AND result.header ->> '$.IssuerOfPatientID' = ?"
    rows = connection.execute(_FILMS + chosen + " ORDER BY arrival.id", (header.PatientID, header.IssuerOfPatientID))
    return map(_film, rows)


def headers(connection: sqlite3.Connection, since: datetime) -> dict[int, Header]:
    """By film, what those say of themselves that came since then and have an outcome."""
    rows = connection.execute(
        "SELECT arrival_id, header FROM result JOIN arrival ON arrival.id = arrival_id WHERE received_at >= ?"
        " AND run = (SELECT MAX(run) FROM result AS other WHERE other.arrival_id = result.arrival_id)",
        (since.isoformat(),),
    )
    return {row["arrival_id"]: msgspec.json.decode(row["header"], type=Header) for row in rows}


def unassessed(connection: sqlite3.Connection) -> dict[int, Sha256]:
    """By film, the content of those that have no outcome yet."""
    rows = connection.execute(
        "SELECT id, sha256 FROM arrival WHERE NOT EXISTS (SELECT 1 FROM result WHERE arrival_id = arrival.id)"
    )
    return {row["id"]: Sha256(row["sha256"]) for row in rows}


def same_instance(connection: sqlite3.Connection, arrival: Arrival) -> list[int]:
    """The other films with the same SOP Instance UID and different bytes: a conflict that a person settles."""
    rows = connection.execute(
        "SELECT id FROM arrival WHERE sop_instance_uid = ? AND sop_instance_uid <> '' AND id <> ? ORDER BY id",
        (arrival.sop_instance_uid, arrival.id),
    )
    return [int(row["id"]) for row in rows]


def _film(row: sqlite3.Row) -> Film:
    decided = row["decision"] is not None
    return Film(
        arrival=arrivals.read(row),
        run=row["run"],
        header=msgspec.json.decode(row["header"], type=Header) if decided else Header(),
        decision=msgspec.json.decode(row["decision"], type=Decision) if decided else None,
        decided_at=datetime.fromisoformat(row["decided_at"]) if decided else None,
        milliseconds=msgspec.json.decode(row["milliseconds"], type=dict[str, float]) if decided else {},
        supplied_age=row["supplied_age"],
        again=bool(row["again"]),
        rendition=row["rendition"],
        preview=row["preview"],
        display=None if row["display"] is None else msgspec.json.decode(row["display"], type=Display),
        saliency=row["saliency"],
        failed=row["failed"],
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
