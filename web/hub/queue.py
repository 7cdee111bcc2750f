"""The queue: what waits to be read, in order; the next film by one key; what a person has read, and whether the clinic saw it."""

from __future__ import annotations

from datetime import UTC, datetime

import flask
from flask import Blueprint, render_template, request, url_for

from web.hub import drafts, here, people, sites, tasks
from web.hub.accounts import Account
from web.hub.records import Entry, Reader, Task
from web.hub.store import now
from web.hub.transaction import Transaction

pages = Blueprint("queue", __name__)

SHOWN = 50
OWN = 50


@pages.get("/")
@people.may(*people.READERS)
def page() -> str:
    """What waits, and the film that this person has."""
    account, reader, at = people.who(), people.reader(), now()
    with here.store().transaction(account.programme) as db:
        drafts.flush(db, here.hub().rules, at)
        listed = tasks.queue(db, reader, at, SHOWN + 1)
        held = tasks.holds(db, reader, at)
        leaving = drafts.leaving(db, reader, at)
        titles = {one.site.name: one.site.title for one in sites.contacts(db)}
    return render_template(
        "hub/queue.html",
        entries=[entry for entry in listed[:SHOWN] if free(entry, reader)],
        more=len(listed) > SHOWN,
        held=held,
        leaving=leaving,
        titles=titles,
        at=at,
        none="none" in request.args,
    )


def free(entry: Entry, reader: Reader) -> bool:
    """Whether this person may take the film: nobody else has it."""
    return not entry.task.lease_until or entry.task.lease_by == reader.name


@pages.post("/next")
@people.may(*people.READERS)
def take() -> flask.typing.ResponseReturnValue:
    """Take the next film, or the one that was chosen, and open it."""
    asked = request.form.get("task", "")
    return flask.redirect(to_next(int(asked) if asked.isdecimal() and len(asked) < 16 else None), 303)


def to_next(number: int | None = None) -> str:
    """Take a film, and say where it is read; the queue where there is none."""
    account, reader, at = people.who(), people.reader(), now()
    with here.store().transaction(account.programme) as db:
        drafts.flush(db, here.hub().rules, at)
        task = claimed(db, account, reader, at, number)
    return url_for("read.page", number=task.id) if task else url_for("queue.page", none=1)


def claimed(db: Transaction, account: Account, reader: Reader, at: float, number: int | None) -> Task | None:
    """Lease a film to this person inside the caller's transaction; what they had before goes back where they choose another."""
    if number is not None:
        tasks.release_all(db, reader)
    return tasks.claim(db, reader, here.config().policy.lease_minutes * 60, at, number)


def at(seconds: float) -> datetime:
    """A moment of the hub's clock, as a filter."""
    return datetime.fromtimestamp(seconds, UTC)


@pages.get("/reads")
@people.may(*people.READERS)
def own() -> str:
    """This person's latest reads, and when the clinic opened each."""
    account, reader, at = people.who(), people.reader(), now()
    with here.store().transaction(account.programme) as db:
        drafts.flush(db, here.hub().rules, at)
        reads = tasks.of_reader(db, reader, OWN)
        titles = {one.site.name: one.site.title for one in sites.contacts(db)}
    return render_template("hub/reads.html", reads=reads, titles=titles)
