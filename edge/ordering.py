"""Ordering: how orders, films and modalities meet. What was ordered as urgent is urgent, whichever comes first, order or film.

`meet` gives a film its order; intake, worker and RIS call it, each when it learns something. `find` answers a modality that asks
this box for its worklist (Modality Worklist SCP, PS3.4 K).
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom import Dataset

from edge.config import Config, station
from edge.records import Header, Order, Reason
from edge.stages import header, match, query
from edge.state import arrivals, audit, orders, queue, results
from edge.state.objects import Objects
from edge.state.store import now, transaction
from edge.vocabulary import PROCEDURES

if TYPE_CHECKING:
    from pynetdicom.events import Event

log = logging.getLogger(__name__)

WORKLIST = "1.2.840.10008.5.1.4.31"
"""Modality Worklist Information Model - FIND."""
PENDING, PENDING_WARNING, CANCELLED = 0xFF00, 0xFF01, 0xFE00  # PS3.4 Table K.4-2
OUT_OF_RESOURCES, NOT_A_QUERY, UNABLE_TO_PROCESS = 0xA700, 0xA900, 0xC000


def meet(store: sqlite3.Connection, arrival_id: int, said: Header, by: str, at: datetime) -> Order | None:
    """Find the order that a film was taken for and do as it says, inside the caller's transaction.

    The film becomes as urgent as was ordered, never less; one whose age nobody knew is assessed again if the order tells it.
    """
    found = _order_of(store, said, at)
    if found is None:
        return None
    news = orders.bind(store, arrival_id, found, at)
    raised = arrivals.hasten(store, arrival_id, found.urgency)
    queue.hasten(store, arrival_id, found.urgency)
    film = results.film(store, arrival_id)
    refusal = None if film.decision is None else film.decision.refusal
    again = (
        refusal is not None
        and refusal.reason is Reason.AGE_UNKNOWN
        and film.supplied_age is None
        and not film.again
        and match.complete(film.header, found).age_years is not None
    )
    if again:
        queue.add(store, arrival_id, film.arrival.urgency, at, run=queue.next_run(store, arrival_id))
    if news or raised or again:
        audit.append(
            store,
            audit.Event.ORDER_MET,
            by,
            at,
            arrival_id,
            order=found.id,
            source=found.source,
            urgency=found.urgency,
            assessed_again=again,
        )
    return found


def meet_all(store: sqlite3.Connection, objects: Objects, by: str, at: datetime) -> int:
    """Give every film of late its order, once new or changed orders are known; says how many have one."""
    if not orders.any_findable(store, at):
        return 0
    said = results.headers(store, at - orders.LATE)
    for arrival_id, sha256 in results.unassessed(store).items():
        said[arrival_id] = header.identify(objects.path(sha256))
    known = {arrival_id: film for arrival_id, film in said.items() if _order_of(store, film, at) is not None}
    with transaction(store):
        return sum(meet(store, arrival_id, film, by, at) is not None for arrival_id, film in known.items())


def _order_of(store: sqlite3.Connection, said: Header, at: datetime) -> Order | None:
    return match.order_of(
        said, orders.sharing(store, said.StudyInstanceUID, said.AccessionNumber, said.RequestedProcedureID, at)
    )


def identifiers(request: str) -> tuple[str, str]:
    """The Study Instance UID and the accession number of a registration; derived, so that a second tap makes no second ones.

    `2.25.` and a 128-bit number (PS3.5 B.2); `OP` and 60 bits in base 32 that no clinic's own numbers look like.
    """
    digest = hashlib.sha256(b"outpost order " + request.encode()).digest()
    letters, number = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", int.from_bytes(digest[16:])
    short = "".join(letters[number >> shift & 31] for shift in range(0, 60, 5))
    return f"2.25.{int.from_bytes(digest[:16])}", f"OP{short}"


def find(event: Event, config: Config, store: sqlite3.Connection) -> Iterator[tuple[int, Dataset | None]]:
    """Answer a modality's query (C-FIND, PS3.4 K.4.1.2): the registered patients that it asks for, with the keys it asks for."""
    try:
        asked = event.identifier
        known = query.well_formed(asked)
    except Exception:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        yield UNABLE_TO_PROCESS, None
        return
    if not known:
        yield NOT_A_QUERY, None
        return
    try:
        listed = orders.listed(store, now())
    except sqlite3.Error:
        log.exception("the worklist could not be read")
        yield OUT_OF_RESOURCES, None
        return
    caller = str(event.assoc.requestor.ae_title).strip()
    for order in listed:
        if event.is_cancelled:
            yield CANCELLED, None
            return
        procedure = PROCEDURES[order.procedure]
        whole = query.item(order, (procedure.scheme, procedure.code, procedure.text), station(config), caller, asked)
        if query.matches(asked, whole):
            yield PENDING if query.supports(asked, whole) else PENDING_WARNING, query.answer(asked, whole)
