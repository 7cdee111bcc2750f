"""The daily test: synthesized films of the bundle in use go the whole way that a patient's film goes, from C-STORE to SR.

At each start of the worker, and every night after three by the clinic's clock, the worker makes them of the bundle's golden films,
intake sends them to its own port, and the worker assesses what came in and makes the report. Where a probability is farther off
than the bundle allows, the AI stops: films end as *could not assess*, are shown as before, and are assessed again once it passes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from edge import config as settings
from edge import words
from edge.config import Config
from edge.errors import Transient
from edge.records import Arrival, Assessment, Film, Reason, Sha256, Source, Urgency
from edge.state import audit, notices, phantoms, queue, reads, results
from edge.state.audit import Event
from edge.state.objects import Objects
from edge.state.phantoms import Phantom
from edge.state.store import transaction
from models.bundle import Bundle

if TYPE_CHECKING:  # the pages ask only how the test stands
    from pydicom import Dataset

log = logging.getLogger(__name__)

HOUR = time(3)
"""When the night's test is due, by the clinic's clock."""
AGAIN = timedelta(hours=1)
"""After a test that failed, the next one is due that soon."""
LATE = timedelta(hours=36)
"""A test that is older says nothing of today."""
NAME = "phantom"
"""Under this name the test is in the ledger and among the notices."""


def due(made_at: datetime | None, stopped: bool, at: datetime, zone: ZoneInfo) -> bool:
    """Whether a test is due, by when the last one was made; one of the future was made by a wrong clock."""
    if made_at is None or made_at > at or (stopped and at - made_at >= AGAIN):
        return True
    return made_at < _three(at, zone)


def _three(at: datetime, zone: ZoneInfo) -> datetime:
    """The latest three o'clock at night."""

    def of(day: date) -> datetime:
        return datetime.combine(day, HOUR, zone).astimezone(UTC)

    today = at.astimezone(zone).date()
    return of(today) if of(today) <= at else of(today - timedelta(days=1))


def make(store: sqlite3.Connection, bundle: Bundle, at: datetime) -> None:
    """Make the films of a test, for intake to send; all are expected by the hash of their data sets before any is sent."""
    films = list(_films(bundle, at))
    with transaction(store):
        phantoms.give_up(store)
        for number, (uid, file) in enumerate(films):
            phantoms.add(store, bundle.digest, number, uid, data_set(file), file, at)


def _films(bundle: Bundle, at: datetime) -> Iterator[tuple[str, bytes]]:
    """SOP Instance UID and file of each golden film, as a patient of each domain's middle age in turn."""
    from edge.samples import film  # needs numpy, and intake, which only sends, does without
    from models.model import WHITE, load_golden

    for number, stored in enumerate(load_golden(bundle).films):
        domain = bundle.manifest.domains[number % len(bundle.manifest.domains)]
        age = int((domain.age_min + domain.age_max) / 2)
        dataset = film(stored / WHITE, "Phantom^Outpost", f"{age:03}Y", "O")
        digest = hashlib.sha256(f"{bundle.digest} {number} {at.isoformat()}".encode()).digest()
        dataset.SOPInstanceUID = f"2.25.{int.from_bytes(digest[:16])}"  # PS3.5 B.2
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        yield dataset.SOPInstanceUID, file.getvalue()


def data_set(file: bytes) -> Sha256:
    """SHA-256 of a DICOM file's data set: what travels by C-STORE; the meta group is each receiver's own (PS3.10 7.1)."""
    begin = 144 + int.from_bytes(file[140:144], "little")
    return Sha256(hashlib.sha256(file[begin:]).hexdigest())


def send(config: Config, store: sqlite3.Connection, objects: Objects, port: int) -> None:
    """Send the films of a test that did not come in yet to this box's own port, as a modality would."""
    for uid, file in phantoms.to_send(store):
        from edge.sending import send

        with tempfile.NamedTemporaryFile(dir=objects.incoming) as copy:
            copy.write(file)
            copy.flush()
            try:
                host = "127.0.0.1" if config.intake.host == "0.0.0.0" else config.intake.host  # noqa: S104
                send(host, port, config.intake.ae_title, Path(copy.name), config.intake.ae_title)
            except Transient as error:
                log.warning("the test film %s was not taken: %s", uid, error)
                return


def arrives(store: sqlite3.Connection, objects: Objects, file: Path) -> bool:
    """Whether a finished file of the incoming folder is an expected test film, which is then kept durably.

    Only its content tells: a name or a sender's title anybody can choose.
    """
    expected = phantoms.expected(store)
    if not expected or (known := data_set(file.read_bytes())) not in expected:
        return False
    stored = objects.adopt(file)
    with transaction(store):
        phantoms.arrive(store, known, stored.sha256)
    return True


def stopped(store: sqlite3.Connection, bundle: Bundle) -> bool:
    """Whether the latest test of this bundle has failed, and so the AI is stopped."""
    found = phantoms.verdict(store, bundle.digest)
    return found is not None and found.why != ""


def conclude(
    config: Config, store: sqlite3.Connection, bundle: Bundle, phantom: Phantom, said: Assessment | None, at: datetime
) -> None:
    """Judge a film by its assessment, None where there is none to be had; say it, stop the AI or let it work again."""
    off, why = (None, f"given up after {queue.ATTEMPTS} attempts")
    if said is not None:
        off, why = difference(bundle, phantom.film, said)
        why = why or _reported(config, phantom, said, at)
    with transaction(store):
        before = stopped(store, bundle)
        phantoms.judge(store, phantom, off, why, at)
        detail = {"film": phantom.film, "off": off, "allowed": bundle.manifest.self_test.tolerance}
        event = Event.TEST_FAILED if why else Event.TEST_PASSED
        audit.append(store, event, NAME, at, None, **detail, **({"why": why} if why else {}))
        tell(store, bundle, at)
        if before and not stopped(store, bundle):
            _assess_again(store, at)


def tell(store: sqlite3.Connection, bundle: Bundle, at: datetime) -> None:
    """Say on every page whether the test of this bundle has stopped the AI, inside the caller's transaction."""
    if stopped(store, bundle):
        notices.post(store, NAME, words.AI_STOPPED, at)
    else:
        notices.clear(store, NAME)


def difference(bundle: Bundle, film: int, said: Assessment) -> tuple[float | None, str]:
    """How far an assessment lies from a golden film's, and what is wrong with it, in English; empty where nothing is.

    A site's own calibration is left out of it: the golden probabilities are by the bundle's.
    """
    from edge.acceptance import as_shipped
    from models.model import load_golden

    if said.decision.refusal is not None:
        return None, f"film {film} could not be assessed: {said.decision.refusal.reason}"
    golden = load_golden(bundle).probabilities[film]
    domain = bundle.manifest.domains[film % len(bundle.manifest.domains)].key
    known = {one.key: golden[place] for place, one in enumerate(bundle.manifest.findings) if one.domain == domain}
    found = {one.finding: as_shipped(one) for one in said.decision.findings}
    if found.keys() != known.keys():
        return None, f"film {film} has {', '.join(found) or 'nothing'}, and should have {', '.join(known)}"
    off = max(abs(found[key] - float(known[key])) for key in known)
    allowed = bundle.manifest.self_test.tolerance
    return off, "" if off <= allowed else f"film {film} is off by {off:.4f}, {allowed} allowed"


def _reported(config: Config, phantom: Phantom, said: Assessment, at: datetime) -> str:
    """What is wrong with the report that a PACS would get, in English; empty where it says what was found."""
    from pydicom import dcmread

    from edge.stages import report
    from edge.stages.report import terms

    assert phantom.sha256 is not None
    arrival = Arrival(0, phantom.sop_instance_uid, phantom.sha256, NAME, at, Urgency.ROUTINE, conflict=False)
    film = Film(
        arrival=arrival,
        run=1,
        header=said.header,
        decision=said.decision,
        decided_at=at,
        milliseconds={},
        supplied_age=None,
        again=False,
        rendition=None,
        preview=None,
        display=None,
        saliency=said.saliency,
        failed="",
    )
    made = report.documents(Source(film, None, settings.station(config)), ("sr",))
    told = [round(value, 1) for one in made for value in _probabilities(dcmread(io.BytesIO(one.data)))]
    meant = [terms.percent(one.probability) for one in said.decision.findings]
    return "" if told == meant else f"film {phantom.film}: the report says {told} %, and should say {meant} %"


def _probabilities(item: Dataset) -> Iterator[float]:
    """Every probability in a report, in percent and in order."""
    from edge.stages.report import terms

    if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == terms.PROBABILITY.code:
        yield float(item.MeasuredValueSequence[0].NumericValue)
    for inner in item.get("ContentSequence", ()):
        yield from _probabilities(inner)


def _assess_again(store: sqlite3.Connection, at: datetime) -> None:
    """Have the films assessed that came while the AI was stopped and wait for a decision, inside the caller's transaction."""
    decided = reads.standing(store)
    for arrival_id in results.refused(store, Reason.AI_STOPPED):
        film = results.film(store, arrival_id)
        if not film.again and arrival_id not in decided:
            queue.add(store, arrival_id, film.arrival.urgency, at, run=queue.next_run(store, arrival_id))
