"""How long films wait for their first read, for leads: median, ninetieth percentile and longest, by site and by finding."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, render_template, request

from edge.vocabulary import IMPRESSIONS
from web.hub import drafts, here, people, sites, tasks
from web.hub.accounts import Role
from web.hub.store import now
from web.languages import translated

pages = Blueprint("turnaround", __name__)

DAYS = (7, 30, 90, 365)


@pages.get("/turnaround")
@people.may(Role.LEAD)
def page() -> str:
    """From a film's assessment at the clinic to its first read here, whatever the link did in between."""
    asked = request.args.get("days", "")
    days = int(asked) if asked in map(str, DAYS) else 30
    programme, at = people.who().programme, now()
    with here.store().transaction(programme) as db:
        drafts.flush(db, here.hub().rules, at)
        by_site = tasks.turnaround(db, at - days * 86400, "site")
        by_code = tasks.turnaround(db, at - days * 86400, "code")
        titles = {one.site.name: one.site.title for one in sites.contacts(db)}
    findings = {key: translated(choice.text) for key, choice in IMPRESSIONS.items()}
    return render_template(
        "hub/turnaround.html",
        by_site=by_site,
        by_code=by_code,
        titles=titles,
        findings=findings,
        days=days,
        choices=DAYS,
    )


def seconds(value: float) -> timedelta:
    """Seconds as a duration, as a filter."""
    return timedelta(seconds=value)
