"""The worklist: the page that people work from, and the part of it that changes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import flask
from flask import Blueprint, Response, g, render_template, request

from edge import health
from edge.state import outbox, sync
from edge.state.store import files_of, now
from web import here, languages, people, ranking, reads
from web.ranking import Show

SETTLED = timedelta(milliseconds=100)
"""Two commits closer together than this may carry the same time on disk."""

SOUGHT_CHARACTERS = 80

pages = Blueprint("worklist", __name__)


@pages.get("/")
@people.may(*people.CARERS)
def home() -> str:
    """The worklist."""
    done = reads.just_done(request.args.get("done", ""))
    return render_template("worklist.html", **_worklist(), done=done, left=reads.seconds_left(done) if done else 0)


@pages.get("/worklist")
@people.may(*people.CARERS, part=True)
def rows() -> Response:
    """The worklist's part that changes, for the page to fetch; 304 while nothing has."""
    stamp = stamp_of("worklist")
    if stamp is not None and request.if_none_match.contains(stamp):
        response = Response(status=304)
    else:
        response = flask.make_response(render_template("rows.html", **_worklist()))
    if stamp is not None:
        response.set_etag(stamp)
    return response


def stamp_of(page: str) -> str | None:
    """Names what a page that is asked again and again would say now; None while a commit is so fresh that another could look
    the same.

    Taken from the database's files, because a poll every second from every tablet must not read 5,000 films each time.
    """
    written = files_of(Path(here.config().state))
    at = now()
    if not written or at.timestamp() - max(status.st_mtime for status in written) < SETTLED.total_seconds():
        return None
    parts = [part for status in written for part in (status.st_mtime_ns, status.st_size)]
    tick = int(at.timestamp() // 20)  # waiting times go on while nothing is written
    account = g.account.name if g.account else ""
    asked = f"{page}?{request.query_string.decode('ascii', 'replace')} {account} {languages.current().code}"
    return "-".join([*map(str, [*parts, tick]), asked.encode().hex()])


def _worklist() -> dict[str, object]:
    asked = request.args.get("show", "")
    show = Show(asked) if asked in list(Show) else Show.OPEN
    sought = " ".join(request.args.get("q", "").split())[:SOUGHT_CHARACTERS]
    asked_page = request.args.get("page", "1")
    number = int(asked_page) if re.fullmatch(r"[1-9]\d{0,5}", asked_page, re.ASCII) else 1
    wait_cap = timedelta(minutes=here.config().worklist.wait_cap_minutes)
    at = now()
    raised = here.config().policy.immediate_always_raised
    listed = ranking.build(here.store(), at, wait_cap, number, show, sought, raised)
    page = None if listed.page == 1 else listed.page
    query = {"show": None if show is Show.OPEN else show, "q": sought or None, "page": page}
    waits = [*outbox.unsent(here.store()).items(), *sync.unsent(here.store()).items()]
    return {
        "unsent": len({number for number, _since in waits}),
        "oldest": min((since for _number, since in waits), default=None),
        "returned": sync.unseen(here.store()),
        "list": listed,
        "query": query,
        "wait_cap": wait_cap,
        "clock_behind": health.clock(here.store(), at).state == "behind",
    }
