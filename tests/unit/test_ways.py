"""The status page about the ways out: each by its named state, with what waits and when it is tried next."""

from __future__ import annotations

import html
import re
from contextlib import closing
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path

import pytest

from edge import cards, words
from edge.config import FolderSink
from edge.records import Carried, Outcome, Receipt, Trouble
from edge.state import ordered, outbox, updates
from edge.state.store import now, transaction
from tests.unit.test_web import Box
from web import phrases

SINK = FolderSink(name="the archive", path="/nowhere")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, sinks=(SINK,))


def result(box: Box) -> None:
    """A film whose result waits to be sent."""
    number = box.film(Outcome.SOON)
    with transaction(box.store):
        outbox.of_result(box.store, box.config, number, 1, Outcome.SOON, now())


def attempt(box: Box, receipt: Receipt) -> None:
    with transaction(box.store):
        delivery = outbox.claim(box.store, {SINK.name}, now())
        assert delivery is not None
        # it ends in five minutes, so that the next is not due while the page is made, however slowly that goes
        outbox.settle(box.store, delivery, receipt, now() + timedelta(minutes=5))


def line(box: Box) -> str:
    """What the page says of the way out, as text."""
    page = box.client.get("/status").text
    (found,) = re.findall(r"<li [^>]*>(?:(?!</li>).)*Results to the archive.*?</li>", page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found).split()).replace("&#39;", "'")


def test_nothing_waits_then_something_does(box: Box) -> None:
    assert "Good" in line(box) and "Every result has arrived there." in line(box)
    result(box)
    result(box)
    assert "2 results are not there yet, the oldest since " in line(box)
    assert "Good" in line(box) and "next attempt" not in line(box)


def test_a_box_without_a_way_out_says_so(tmp_path: Path) -> None:
    with closing((alone := Box(tmp_path)).store):
        page = alone.client.get("/status").text
        assert "Sync" in page and "Results stay on this box" in page and "ask the technician" in page


@pytest.mark.parametrize(
    "trouble", [trouble for trouble in Trouble if trouble not in (Trouble.WARNED, Trouble.INTERRUPTED)]
)
def test_each_trouble_by_its_name_with_what_to_do_and_the_next_attempt(box: Box, trouble: Trouble) -> None:
    result(box)
    attempt(box, Receipt(trouble, "A700"))
    sentence, action = words.TROUBLES[trouble]
    said = line(box)
    assert sentence in said and action.replace("“", "“") in said and "A700" in said
    assert "1 result is not there yet, since " in said
    (way,) = outbox.ways(box.store, box.config)
    assert way.next_at is not None and way.next_at > now()
    with box.client.application.test_request_context():
        assert f"The next attempt is at {phrases.clock(way.next_at)}." in said
    assert ("1 of them was refused." in said) == (trouble not in outbox.OF_THE_PEER)


def test_a_warning_stays_to_be_seen(box: Box) -> None:
    result(box)
    attempt(box, Receipt(Trouble.WARNED, "sr: B000", ("1.2.3",)))
    assert "sr: B000" in line(box)
    assert words.TROUBLES[Trouble.WARNED][0] in line(box) and "Every result has arrived there." in line(box)


def test_what_came_of_the_hubs_latest_order_is_said(box: Box) -> None:
    assert "Orders of the hub" not in box.client.get("/status").text
    order = cards.ordered(
        "north", cards.Order(order="0" * 64, number=5, what="settings", settings={"hub.metered": "x"})
    )
    with transaction(box.store):
        ordered.take(box.store, order, now())
    assert "An order of the hub is on its way." in box.client.get("/status").text
    with transaction(box.store):
        ordered.settle(box.store, order.order, Carried.BAD_VALUE, "hub.metered", now())
    page = box.client.get("/status").text
    sentence, action = words.ORDERS[Carried.BAD_VALUE]
    assert sentence in page and action in page and ">hub.metered</code>" in page


def test_what_came_of_updates_of_system_and_model_stands_there_in_words(box: Box) -> None:
    assert "Updates of the model" not in box.client.get("/status").text
    for system, model in zip_longest(words.UPDATES, words.MODELS):
        updates.write(
            Path(box.config.state), updates.Record(state=system, version="0.2.0", model=model, model_version="0.3.0")
        )
        page = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", box.client.get("/status").text)).split())
        said = [("0.2.0", words.UPDATES[system]), *([("0.3.0", words.MODELS[model])] if model else [])]
        for version, (sentence, action) in said:
            assert f"{sentence % {'version': version}} {action}" in page
