"""The fleet, for leads: how it stands with each clinic's box, the worst first, in one sentence and one thing to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from flask import Blueprint, abort, render_template, request

from edge import words
from edge.cards import Status
from edge.health import HOT, Level
from web import phrases
from web.hub import here, people, sites
from web.hub.accounts import Role
from web.hub.records import Contact
from web.hub.store import now
from web.languages import N_, current, ngettext
from web.languages import gettext as _

pages = Blueprint("fleet", __name__)

QUIET, SILENT = timedelta(days=1), timedelta(days=7)
"""A box of which nothing was heard for so long is asked about; then somebody calls the clinic."""
STUCK_HOURS = 48
"""Films that wait longer for the link are asked about."""
LITTLE_PERCENT, NONE_PERCENT = 15, 5
"""Free space on a box's disk that is soon used up, and is."""
STOPPED = frozenset({"worker", "phantom"})
"""Of the processes of a box that complain, those that stop the AI."""
AT_ONCE = 100
"""Clinics on one page."""

CALL = N_("Call the clinic: is the box on, and has it a link?")
TECHNICIAN = N_("Tell the technician this week.")

_CLOCKS = {
    "synchronized": N_("set by the network"),
    "alone": N_("nobody can tell"),
    "behind": N_("wrong"),
}
_DRIFTS = {
    "learning": N_("still learning what is usual"),
    "quiet": N_("as usual"),
    "changed": N_("changed"),
}


@dataclass(frozen=True)
class Word:
    """What is to be said of a box: the worst of it, in one sentence, and what to do."""

    level: Level
    sentence: str
    action: str


@dataclass(frozen=True)
class Row:
    """A clinic's box."""

    contact: Contact
    word: Word
    facts: list[tuple[str, str]]


@pages.get("/fleet")
@people.may(Role.LEAD)
def page() -> str:
    """All clinics, those first whose box needs somebody."""
    at = now()
    with here.store().reading(people.who().programme) as db:
        contacts = sites.contacts(db)
    rows = sorted(
        (Row(one, word(one, at), facts(one, at)[:6]) for one in contacts),
        key=lambda row: (-list(Level).index(row.word.level), row.contact.heard_at or 0.0, row.contact.site.title),
    )
    asked = request.args.get("from", "")
    first = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 7 else 0
    return render_template(
        "hub/fleet.html",
        rows=rows[first : first + AT_ONCE],
        following=first + AT_ONCE if first + AT_ONCE < len(rows) else None,
        well=sum(row.word.level is Level.GOOD for row in rows),
        number=len(rows),
        LEVELS=levels(),
    )


@pages.get("/fleet/<site>")
@people.may(Role.LEAD)
def of(site: str) -> str:
    """Everything that a clinic's box has said of itself."""
    at = now()
    with here.store().reading(people.who().programme) as db:
        contact = next((one for one in sites.contacts(db) if one.site.name == site), None)
    if contact is None:
        abort(404)
    said = list(_words(contact, at))
    return render_template(
        "hub/box.html", contact=contact, said=said[:-1] or said, facts=facts(contact, at), LEVELS=levels()
    )


def levels() -> dict[Level, tuple[str, str]]:
    """Each level's sign and word."""
    return {
        Level.GOOD: ("✓", _("Good")),
        Level.UNKNOWN: ("–", _("Not known")),
        Level.LOOK: ("!", _("Have a look")),
        Level.ACT: ("✗", _("Act now")),
    }


def word(contact: Contact, at: float) -> Word:
    """The worst that is to be said of a box."""
    return max(_words(contact, at), key=lambda one: list(Level).index(one.level))


def _words(contact: Contact, at: float) -> Iterator[Word]:
    """What is to be said of a box; of several things as bad the one that others may follow from comes first."""
    status = contact.status
    if contact.heard_at is None:
        yield Word(
            Level.UNKNOWN,
            _("Nothing was heard of its box yet."),
            _("Enrol the box there: outpost hub enrol %(site)s gives a code.") % {"site": contact.site.name},
        )
        return
    silent = timedelta(seconds=max(0.0, at - contact.heard_at))
    if silent >= QUIET:
        sentence = _("Nothing was heard of its box for %(time)s.") % {"time": phrases.duration(silent)}
        yield Word(Level.ACT if silent >= SILENT else Level.LOOK, sentence, _(CALL))
    if status is not None:
        yield from _of_status(status)
    yield Word(Level.GOOD, _("All is well there."), _("Nothing to do."))


def _of_status(status: Status) -> Iterator[Word]:
    if STOPPED & {*status.notices}:
        yield Word(Level.ACT, _(words.AI_STOPPED), _("Read the films without it, and call the technician now."))
    if status.disk_free_percent is not None and status.disk_free_percent < LITTLE_PERCENT:
        full = status.disk_free_percent < NONE_PERCENT
        sentence = _("Of the box's disk %(percent)s are free.") % {"percent": _percent(status.disk_free_percent)}
        action = _("Call the technician now.") if full else _(TECHNICIAN)
        yield Word(Level.ACT if full else Level.LOOK, sentence, action)
    if status.clock == "behind":
        sentence = _("The box's clock is wrong: it shows an earlier time than it has written before.")
        yield Word(Level.ACT, sentence, _("Have the technician set the clock now."))
    if status.degrees is not None and status.degrees >= HOT:
        sentence = _("The box is too hot: %(degrees)s °C.") % {"degrees": phrases.number(status.degrees)}
        yield Word(Level.ACT, sentence, _("Put it in the shade, away from walls, and clear its air holes."))
    if "update" in status.notices:
        yield Word(Level.LOOK, _(words.FALLEN_BACK), _(TECHNICIAN))
    if status.drift == "changed":
        yield Word(Level.LOOK, _("Its films have changed."), _("Look at the page of changed films."))
    if status.unsent_hours >= STUCK_HOURS:
        sentence = ngettext(
            "%(num)s film waits there for the link, since %(time)s.",
            "%(num)s films wait there for the link, the oldest since %(time)s.",
            status.unsent,
        ) % {"num": phrases.number(status.unsent), "time": phrases.duration(timedelta(hours=status.unsent_hours))}
        yield Word(Level.LOOK, sentence, _("Have a USB stick brought, or the link mended."))
    if not status.accepted:
        yield Word(
            Level.LOOK,
            _("Shadow mode: the model has changed since this site accepted it, so it does not rank.")
            if status.before
            else _("Shadow mode: this site has not accepted the model yet, so it computes but does not rank."),
            _("Have the clinic's lead accept the model with films that were read there."),
        )


def facts(contact: Contact, at: float) -> list[tuple[str, str]]:
    """What a box has said of itself, each with its name; those that belong on a list come first."""
    told: list[tuple[str, str]] = []
    if contact.heard_at is not None:
        silent = timedelta(seconds=max(0.0, at - contact.heard_at))
        told.append((_("Last contact"), _("%(time)s ago") % {"time": phrases.duration(silent)}))
    if (status := contact.status) is None:
        return told
    unsent = phrases.number(status.unsent)
    if status.unsent and status.unsent_hours:
        since = {"num": unsent, "time": phrases.duration(timedelta(hours=status.unsent_hours))}
        unsent = _("%(num)s, the oldest for %(time)s") % since
    told += [
        (_("Not sent yet"), unsent),
        (_("Model"), f"{status.model or '–'} ({_('it ranks') if status.accepted else _('shadow mode')})"),
        (_("Films"), _(_DRIFTS.get(status.drift, status.drift))),
        (_("Free on the disk"), "–" if status.disk_free_percent is None else _percent(status.disk_free_percent)),
        (_("Version"), status.version),
        (_("Clock"), _(_CLOCKS.get(status.clock, status.clock))),
        (_("Temperature"), "–" if status.degrees is None else f"{phrases.number(status.degrees)} °C"),
        (_("Last back-up"), _backup(status.backup_days)),
        (_("Films in all"), phrases.number(status.films)),
        (_("What runs the model"), status.runtime or "–"),
        (_("The model's hash"), status.bundle[:16] or "–"),
    ]
    if contact.status_at is not None:
        said = timedelta(seconds=max(0.0, at - contact.status_at))
        told.append((_("It said so"), _("%(time)s ago") % {"time": phrases.duration(said)}))
    return told


def _backup(days: int | None) -> str:
    if days is None:
        return _("never")
    return ngettext("%(num)s day ago", "%(num)s days ago", days) % {"num": phrases.number(days)}


def _percent(value: int) -> str:
    return current().percent.format(phrases.number(value))
