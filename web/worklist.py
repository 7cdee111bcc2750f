"""The worklist: the page that people work from, and the part of it that changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import flask
from flask import Blueprint, Response, render_template, request

from edge.state.store import files_of, now
from web import here, ranking

SETTLED = timedelta(milliseconds=100)
"""Two commits closer together than this may carry the same time on disk."""

pages = Blueprint("worklist", __name__)


@pages.get("/")
def home() -> str:
    """The worklist."""
    return render_template("worklist.html", **_worklist())


@pages.get("/worklist")
def rows() -> Response:
    """The worklist's part that changes, for the page to fetch; 304 while nothing has."""
    stamp = _stamp()
    if stamp is not None and request.if_none_match.contains(stamp):
        response = Response(status=304)
    else:
        response = flask.make_response(render_template("rows.html", **_worklist()))
    if stamp is not None:
        response.set_etag(stamp)
    return response


def _worklist() -> dict[str, object]:
    everything = "all" in request.args
    limit = None if everything else ranking.FIRST
    wait_cap = timedelta(minutes=here.config().worklist.wait_cap_minutes)
    return {"list": ranking.build(here.store(), now(), wait_cap, limit), "everything": everything, "wait_cap": wait_cap}


def _stamp() -> str | None:
    """Names what `/worklist` would say now; None while a commit is so fresh that another could look the same.

    Taken from the database's files, because a poll every second from every tablet must not read 5,000 films each time.
    """
    written = files_of(Path(here.config().state))
    at = now()
    if not written or at.timestamp() - max(status.st_mtime for status in written) < SETTLED.total_seconds():
        return None
    parts = [part for status in written for part in (status.st_mtime_ns, status.st_size)]
    tick = int(at.timestamp() // 20)  # waiting times go on while nothing is written
    return "-".join(str(part) for part in [*parts, tick, int("all" in request.args)])
