"""In which clinics the films have changed, and whether the AI still finds what readers find; one sentence and one picture each.

The packets of all sites add up exactly (`edge/validity/pooling.py`), so an X-ray unit that several have is looked at as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from flask import Blueprint, render_template

from edge import cards, words
from edge.errors import Unreadable
from edge.health import Level
from edge.records import Outcome
from edge.validity import packet, pooling
from edge.validity.packet import Packet
from edge.validity.sensitivity import Audited, Estimate, chart, estimate, limit
from edge.validity.verdict import Chart
from edge.vocabulary import IMPRESSIONS, Sight
from web import phrases
from web.drift import NAMES, place
from web.hub import here, packets, people, sites, tasks
from web.hub.accounts import Role
from web.hub.records import Contact, Finding
from web.hub.store import now
from web.languages import N_, ngettext
from web.languages import gettext as _

pages = Blueprint("drift", __name__)

DAYS = 120
"""So far back the packets are looked at."""
YEAR_SECONDS = 365 * 86400
SEED = 20261126

NOTHING = N_("Nothing to do.")


@dataclass(frozen=True)
class Row:
    """A clinic, or an X-ray unit that several have."""

    title: str
    level: Level
    sentence: str
    action: str
    picture: Chart | None


@dataclass(frozen=True)
class Found:
    """How many of the abnormal films that were read here a model had raised."""

    model: str
    estimate: Estimate
    fewer: bool
    """It raises fewer than it did."""


@pages.get("/drift")
@people.may(Role.LEAD)
def page() -> str:
    """Clinics, those that changed first; then X-ray units of several; then models."""
    at = now()
    since = (datetime.fromtimestamp(at, UTC) - timedelta(days=DAYS)).date().isoformat()
    with here.store().reading(people.who().programme) as db:
        contacts = sites.contacts(db)
        sent = {one.site.name: _read(packets.days(db, one.site.name, since)) for one in contacts}
        read = tasks.audited(db, at - YEAR_SECONDS)
    units: dict[tuple[str, str], list[Packet]] = defaultdict(list)
    clinics: dict[tuple[str, str], set[str]] = defaultdict(set)
    for site, days in sent.items():
        for unit, some in pooling.by_unit(days).items():
            units[unit] += some
            clinics[unit].add(site)
    shared = {unit: pooling.by_day(some) for unit, some in units.items() if len(clinics[unit]) > 1}
    told = {name: pooling.change(days) for rows in (sent, shared) for name, days in rows.items()}
    named = pooling.named({name: value for name, value in told.items() if value is not None})
    return render_template(
        "hub/drift.html",
        clinics=_sorted(_clinic(one, sent[one.site.name], one.site.name in named) for one in contacts),
        units=_sorted(_unit(unit, days, len(clinics[unit]), unit in named) for unit, days in shared.items()),
        found=found(read),
        NAMES=NAMES,
        MARKS={Level.GOOD: "✓", Level.UNKNOWN: "–", Level.LOOK: "!", Level.ACT: "✗"},
        place=place,
    )


def _read(days: Sequence[cards.Packet]) -> list[Packet]:
    """The packets of the model that a site has now, oldest first; one that cannot be read is left out."""
    found_ = [one for one in (_decoded(day.data) for day in days) if one is not None]
    return [one for one in found_ if one.edges == found_[-1].edges]


@lru_cache(maxsize=50_000)
def _decoded(data: bytes) -> Packet | None:
    try:
        return packet.decode(data)
    except Unreadable:
        return None


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-list(Level).index(row.level), row.title))


def _clinic(contact: Contact, days: list[Packet], named: bool) -> Row:
    title, picture = contact.site.title, pooling.picture(days)
    if named:
        return _changed(title, days, picture)
    if contact.status is not None and contact.status.drift == "changed":
        sentence = _("Its box says that its films have changed; among all clinics that may be chance.")
        return Row(title, Level.LOOK, sentence, _("Ask the clinic what the page of its box says."), picture)
    return _quiet(title, days, picture)


def _unit(unit: tuple[str, str], days: list[Packet], clinics: int, named: bool) -> Row:
    title = ngettext("X-ray unit %(unit)s, at %(num)s clinic", "X-ray unit %(unit)s, at %(num)s clinics", clinics) % {
        "unit": unit[1],
        "num": phrases.number(clinics),
    }
    picture = pooling.picture(days)
    return _changed(title, days, picture) if named else _quiet(title, days, picture)


def _changed(title: str, days: list[Packet], picture: Chart | None) -> Row:
    sentence, action = words.CAUSES[pooling.likely(days)]
    changed = _("The films have changed in the last two weeks.")
    return Row(title, Level.ACT, f"{changed} {_(sentence)}", _(action), picture)


def _quiet(title: str, days: list[Packet], picture: Chart | None) -> Row:
    if not days:
        return Row(title, Level.UNKNOWN, _("No day of films has come from there yet."), _(NOTHING), None)
    lacking = pooling.LEAST + pooling.RECENT - len(days)
    if lacking > 0:
        sentence = ngettext(
            "Too few days to say: %(count)s more is needed.", "Too few days to say: %(count)s more are needed.", lacking
        ) % {"count": phrases.number(lacking)}
        return Row(title, Level.UNKNOWN, sentence, _(NOTHING), None)
    return Row(title, Level.GOOD, _("The films are such as they were before."), _(NOTHING), picture)


def found(read: Sequence[tuple[cards.Result, Finding, float]]) -> list[Found]:
    """By model, over all clinics: of the films that readers called abnormal without the AI's answer, how many it had raised.

    A film that could not be assessed is neither: it is read whatever it shows.
    """
    seen: dict[tuple[str, str], list[Audited]] = defaultdict(list)
    for result, finding, weight in read:
        blind = finding.before_ai
        abnormal = blind is not None and any(IMPRESSIONS[code].sight is Sight.ABNORMAL for code in blind.codes)
        if abnormal and result.outcome is not Outcome.COULD_NOT_ASSESS:
            raised = result.outcome is not Outcome.ROUTINE
            seen[result.model, result.device_uid].append(Audited(raised, 1.0 if raised else 1 / weight))
    told = []
    for (model, _uid), films in sorted(seen.items()):
        value = estimate(films)
        assert value is not None
        told.append(Found(model, value, _fewer(tuple(films))))
    return told


@lru_cache(maxsize=64)
def _fewer(films: tuple[Audited, ...]) -> bool:
    """Whether the chart of a model's reads stands above its limit; a miss has the share that applies to all."""
    lots = [film.share for film in films if not film.detected]
    if not lots:
        return False
    share = sum(lots) / len(lots)
    even = [Audited(film.detected, share) for film in films]
    return chart(even)[-1] > limit([share], max(len(films), 100), SEED)
