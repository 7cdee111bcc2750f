"""The RIS: asks regularly what has been ordered (Modality Worklist SCU, PS3.4 K), and gives the films that are here their orders.

A thread of the courier, which alone talks out. A RIS that cannot be asked is a named state on the status page; films go on in
their order of arrival, and it is asked less and less often.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.association import Association

from edge import ordering
from edge.config import Config, DicomSink, Ris
from edge.records import Order, Receipt, Trouble
from edge.sinks.dicom import Dicom
from edge.stages import scheduled
from edge.state import orders
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction

log = logging.getLogger(__name__)

_config.LOG_RESPONSE_IDENTIFIERS = False  # patients are in no log, and what cannot be printed can still be read

CONTEXTS = {ordering.WORKLIST: (ExplicitVRLittleEndian, ImplicitVRLittleEndian)}
MODALITIES = ("DX", "CR")
DAYS = timedelta(days=1)
"""Orders from so long before today to so long after it are asked for: a night's work crosses midnight."""
MOST = 5000
"""A RIS that names more orders is not the clinic's."""
PATIENCE = 4
"""So many times the wait for one answer may all answers together take."""
SELDOM = timedelta(hours=1)
"""A RIS that gives no proper answer is asked at least this often."""
LOOK_SECONDS = 1.0
JITTER = timedelta(minutes=1)

SUCCESS, PENDING, OUT_OF_RESOURCES = 0x0000, (0xFF00, 0xFF01), 0xA700  # PS3.4 Table K.4-2


@dataclass
class Answer:
    """What a RIS has said so far."""

    orders: list[Order] = field(default_factory=list)
    cancelled: list[Order] = field(default_factory=list)
    trouble: Trouble | None = None
    detail: str = ""
    """For the technician, in English; never a patient's data."""


def ask(config: Config, at: datetime) -> Answer:
    """What is ordered from yesterday to tomorrow, as far as the RIS tells; never raises for what it answers."""
    ris, answer = config.ris, Answer()
    peer = Dicom(
        DicomSink(
            name="RIS",
            host=ris.host,
            port=ris.port,
            ae_title=ris.ae_title,
            calling_ae_title=ris.calling_ae_title,
            seconds=ris.seconds,
        )
    )
    with peer.associated(CONTEXTS) as association:
        if isinstance(association, Receipt):
            answer.trouble, answer.detail = association.trouble, association.detail
            return answer
        end = time.monotonic() + PATIENCE * ris.seconds
        today = at.astimezone(ZoneInfo(config.site.timezone)).date()
        for modality in MODALITIES:
            question = scheduled.question(modality, today - DAYS, today + DAYS)
            if not _hear(peer, association, question, answer, end, config, at):
                break
    return answer


def _hear(
    peer: Dicom, association: Association, question: Dataset, answer: Answer, end: float, config: Config, at: datetime
) -> bool:
    """Add what the RIS answers to one question, and say whether it may be asked another."""
    began = time.monotonic()
    try:
        for said, found in association.send_c_find(question, ordering.WORKLIST):
            status = said.get("Status")
            if status is None:
                answer.trouble, answer.detail = peer.ended(began).trouble, ""
                return False
            if status not in PENDING:
                if status != SUCCESS:
                    answer.trouble = Trouble.BUSY if status == OUT_OF_RESOURCES else Trouble.REJECTED
                    answer.detail = f"{status:04X}"
                return True
            _note(found, answer, config, at)
            began = time.monotonic()
            if began > end or len(answer.orders) > MOST:
                answer.trouble = Trouble.HANGS if began > end else Trouble.GARBLED
                answer.detail = "does not come to an end"
                association.abort()
                return False
    except RuntimeError:  # the peer has ended the association since the last answer
        answer.trouble = Trouble.CLOSED
    return False


def _note(found: Dataset | None, answer: Answer, config: Config, at: datetime) -> None:
    try:
        named = list(scheduled.read(found, config.ris.ae_title, at, config.site.timezone)) if found else []
    except Exception as error:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        named, found = [], None
        answer.detail = type(error).__name__
    if not named:
        answer.trouble = Trouble.GARBLED
        answer.detail = answer.detail or ("no identifiers" if found else "no data set")
    for order, cancelled in named:
        (answer.cancelled if cancelled else answer.orders).append(order)


def step(config: Config, store: sqlite3.Connection, objects: Objects) -> bool:
    """Ask if it is time to, do as the orders say, and say whether it was."""
    at, before = now(), orders.asked(store)
    # a clock that was set back must not put off the next question
    if before is not None and before.asked_at - JITTER <= at < before.next_at:
        return False
    answer = ask(config, at)
    well, at = answer.trouble is None, now()
    failures = 0 if well else 1 + (before.failures if before else 0)
    with transaction(store):
        orders.follow(store, answer.orders, answer.cancelled, at, whole=well)
        orders.forget(store, at)
        orders.note(
            store,
            orders.Asked(
                asked_at=at,
                answered_at=at if well else before.answered_at if before else None,
                orders=len(answer.orders) if well else before.orders if before else 0,
                trouble=answer.trouble,
                detail=answer.detail,
                failures=failures,
                next_at=at + pause(config.ris, failures),
            ),
        )
    ordering.meet_all(store, objects, "ris", at)
    return True


def pause(ris: Ris, failures: int) -> timedelta:
    """How long until the RIS is asked again: after each failure twice as long, up to an hour."""
    every = timedelta(minutes=ris.every_minutes)
    return min(every * float(2 ** min(failures, 20)), max(every, SELDOM))


def run(config: Config, stop: threading.Event) -> None:
    """Ask the RIS until `stop` is set. Whatever goes wrong costs this time and is tried again."""
    objects = Objects(Path(config.state))
    with closing(open_store(Path(config.state))) as store:
        while not stop.is_set():
            try:
                step(config, store, objects)
            except (OSError, sqlite3.Error):  # a full disk, a lock held for too long
                log.exception("the orders of the RIS could not be taken; it is asked again")
            stop.wait(LOOK_SECONDS)
