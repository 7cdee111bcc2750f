"""Testing the box's neighbours when a person asks on the box's page: the courier calls each, as it would with a result."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from functools import partial
from pathlib import Path

from edge.config import Config, DicomSink, Modality, Sink
from edge.records import Receipt, Trouble
from edge.sinks import open_sink
from edge.state import connections
from edge.state.store import now, open_store, transaction

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
SECONDS = 10.0
"""An X-ray unit that has not answered by then does not answer."""
AT_ONCE = 4


def echo(modality: Modality, ae_title: str) -> Receipt:
    """C-ECHO to an X-ray unit (PS3.7 9.1.5), from the box's AE title."""
    asked = DicomSink(
        name=modality.ae_title, host=modality.host, port=modality.port, ae_title=modality.ae_title,
        calling_ae_title=ae_title, send=(), seconds=SECONDS,
    )  # fmt: skip
    return open_sink(asked).probe()


def unit(modality: Modality) -> str:
    """The name under which the test of an X-ray unit is kept."""
    return f"unit {modality.ae_title} {modality.host}:{modality.port}"


def way(sink: str) -> str:
    """The name under which the test of a way out is kept."""
    return f"way {sink}"


def peers(config: Config) -> Mapping[str, Callable[[], Receipt]]:
    """Everyone whom the box can call, and how."""
    units = {unit(one): partial(echo, one, config.intake.ae_title) for one in config.modalities if one.host}
    return units | {way(sink.name): partial(_probe, sink) for sink in config.sinks}


def _probe(sink: Sink) -> Receipt:
    return open_sink(sink).probe()


def step(config: Config, store: sqlite3.Connection) -> bool:
    """Test whom a person has asked for, and say whether there was anybody; one who hangs keeps no other waiting."""
    if not (asked := connections.asked(store)):
        return False
    known = peers(config)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_tested, known.get(peer)): peer for peer in asked}
        for test in as_completed(running):
            with transaction(store):
                connections.ended(store, running[test], test.result(), now())
    return True


def _tested(test: Callable[[], Receipt] | None) -> Receipt:
    if test is None:  # it was taken out of the settings
        return Receipt(Trouble.NOT_CONFIGURED)
    try:
        return test()
    except Exception as error:
        log.exception("a neighbour could not be tested")
        return Receipt(Trouble.NOT_CONFIGURED, type(error).__name__)


def run(config: Config, stop: threading.Event) -> None:
    """Test whom people ask for, until `stop` is set."""
    with closing(open_store(Path(config.state))) as store:
        while not stop.is_set():
            try:
                step(config, store)
            except sqlite3.Error:
                log.exception("the tests of the neighbours could not use the state; they go on")
            stop.wait(LOOK_SECONDS)
