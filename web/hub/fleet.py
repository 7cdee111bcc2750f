"""The fleet, for leads: how it stands with each clinic's box, the worst first, in one sentence and one thing to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import flask
from flask import Blueprint, abort, render_template, request, url_for

from edge import config as settings
from edge import words
from edge.cards import Status, What
from edge.errors import Misconfigured
from edge.health import HOT, Level
from edge.records import Carried
from web import phrases
from web.hub import here, ledger, people, rollouts, sites
from web.hub.accounts import Role
from web.hub.records import Contact, Rollout
from web.hub.rollouts import Stage, Trouble
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
AT_ONCE = 100
"""Clinics on one page, those in trouble first."""
SHOWN, ORDERS = 50, 20
"""Lines of the ledger, and roll-outs that are over; orders of one clinic."""

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

_ORDERS = {
    What.MODEL: N_("The model"),
    What.ROLLBACK: N_("Back to the model before"),
    What.SETTINGS: N_("Settings of the link"),
    What.KEEP: N_("Stay as it is"),
}
_STAGES = {
    Stage.TROUBLE: N_("In trouble"),
    Stage.ORDERED: N_("Ordered"),
    Stage.WATCHED: N_("Done, and watched"),
    Stage.GOOD: N_("Good"),
    Stage.LATER: N_("Later"),
}
_TROUBLES: dict[str, tuple[str, str]] = {
    Trouble.SILENT: (N_("Nothing was heard of its box for too long."), CALL),
    Trouble.AI_STOPPED: (N_("The AI is stopped there."), N_("Read the films without it, and call the technician now.")),
    Trouble.OTHER_MODEL: (
        N_("Its box runs another model than the one it was ordered."),
        N_("Ask who changed it there."),
    ),
}
_ACTS = {
    "model": N_("added a model"),
    "start": N_("began a roll-out"),
    "wave": N_("went on to the next wave"),
    "halted": N_("halted the roll-out"),
    "going": N_("went on with the roll-out"),
    "ended": N_("ended the roll-out"),
    "done": N_("finished the roll-out"),
    "drop": N_("let old pictures go"),
    "no_model": N_("removed a model"),
    "archive": N_("added an archive"),
    "no_archive": N_("removed an archive"),
}


@dataclass(frozen=True)
class Word:
    """What is to be said of a box: the worst of it, in one sentence, and what to do."""

    level: Level
    sentence: str
    action: str


@pages.get("/fleet")
@people.may(Role.LEAD)
def page() -> str:
    """All clinics, those first whose box needs somebody."""
    at = now()
    with here.store().transaction(people.who().programme) as db:
        rollouts.advance(db, at, now=True)
        contacts, rolling = sites.contacts(db), rollouts.current(db)
    rows = sorted(
        ((one, word(one, at)) for one in contacts),
        key=lambda row: (-list(Level).index(row[1].level), row[0].heard_at or 0.0, row[0].site.title),
    )
    asked = request.args.get("from", "")
    first = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 7 else 0
    return render_template(
        "hub/fleet.html",
        rows=[(one, said, facts(one, at)[:6]) for one, said in rows[first : first + AT_ONCE]],
        following=first + AT_ONCE if first + AT_ONCE < len(rows) else None,
        well=sum(said.level is Level.GOOD for _one, said in rows),
        number=len(rows),
        LEVELS=levels(),
        rolling=rolling,
        state=None if rolling is None else _state(rolling, {one.site.name: one.site.title for one in contacts}),
    )


@pages.get("/fleet/box/<site>")
@people.may(Role.LEAD)
def of(site: str) -> str:
    """Everything that a clinic's box has said of itself."""
    at = now()
    with here.store().reading(people.who().programme) as db:
        contact = next((one for one in sites.contacts(db) if one.site.name == site), None)
        orders = rollouts.given(db, site, ORDERS)
    if contact is None:
        abort(404)
    said = list(_words(contact, at))
    return render_template(
        "hub/box.html",
        contact=contact,
        said=said[:-1] or said,
        facts=facts(contact, at),
        orders=[
            (_order(what, name), _ago(given, at), *_came(result, about)) for what, name, given, result, about in orders
        ],
        LEVELS=levels(),
    )


@pages.get("/fleet/rollout")
@people.may(Role.LEAD)
def rollout() -> str:
    """The open roll-out and how far it is, or the form that begins one; and what was done before."""
    return _rollout()


@pages.post("/fleet/rollout/start")
@people.may(Role.LEAD)
def start() -> flask.typing.ResponseReturnValue:
    """Begin a roll-out."""
    form, at = request.form, now()
    kind, _colon, sha256 = form.get("what", "").partition(":")
    if kind not in list(What) or kind == What.KEEP or not form.get("request"):
        abort(400)
    values = _settings() if kind == What.SETTINGS else {}
    hours, days = _number("hours", 0, 720), _number("days", 1, 365)
    if values is None or (kind == What.SETTINGS and not values):
        return _rollout(_("A box could not take these settings. Correct them.")), 422
    if hours is None or days is None:
        return _rollout(_("Say for how many hours a box has to be good, and for how many days it may be silent.")), 422
    with here.store().transaction(people.who().programme) as db:
        heard = [one.site.name for one in sites.contacts(db) if one.heard_at is not None]
        first = form.get("first", "")
        if first not in heard or (kind == What.MODEL and rollouts.model(db, sha256) is None):
            abort(400)
        begun = rollouts.start(
            db,
            hashlib.sha256(form["request"].encode()).hexdigest()[:16],
            What(kind),
            [first] if form.get("only") else heard,
            first,
            people.who().name,
            at,
            settings=values,
            sha256=sha256,
            good_seconds=hours * 3600,
            silent_seconds=days * 86400,
        )
    if not begun:
        return _rollout(_("Another roll-out is open. End it first.")), 409
    return flask.redirect(url_for("fleet.rollout"), 303)


@pages.post("/fleet/rollout/act")
@people.may(Role.LEAD)
def act() -> flask.typing.ResponseReturnValue:
    """Stop a roll-out, go on with it, or end it."""
    what = request.form.get("act", "")
    if what not in {"stop", "resume", "end"}:
        abort(400)
    with here.store().transaction(people.who().programme) as db:
        done = rollouts.act(db, request.form.get("rollout", ""), what, people.who().name, now())
    if not done:
        return _rollout(_("That was changed in the meantime, so nothing was done. This is how it stands now.")), 409
    return flask.redirect(url_for("fleet.rollout"), 303)


def _rollout(wrong: str = "") -> str:
    at = now()
    with here.store().transaction(people.who().programme) as db:
        rollouts.advance(db, at, now=True)
        titles = {one.site.name: one.site.title for one in sites.contacts(db) if one.heard_at is not None}
        rolling, models = rollouts.current(db), rollouts.models(db)
        found = [] if rolling is None else rollouts.members(db, rolling, at)
        past, acts, names = rollouts.past(db, SHOWN), ledger.acts(db, SHOWN), rollouts.names(db)
        whole = ledger.broken(db) is None
    return render_template(
        "hub/rollout.html",
        wrong=wrong,
        rolling=rolling,
        state=None if rolling is None else _state(rolling, titles),
        what="" if rolling is None else _what(rolling, names),
        counts=[(_(text), sum(one.stage is stage for one in found)) for stage, text in _STAGES.items()],
        watched=[
            (titles.get(one.site, one.site), _(_STAGES[one.stage]), _why(one.why, one.about)[0] if one.why else "")
            for one in sorted(found, key=lambda one: list(_STAGES).index(one.stage))
            if one.stage in (Stage.ORDERED, Stage.WATCHED, Stage.TROUBLE)
        ][:AT_ONCE],
        models=models,
        titles=titles,
        past=[(_what(one, names), phrases.day(datetime.fromtimestamp(one.made_at, UTC)), one.state) for one in past],
        acts=[
            (phrases.clock(datetime.fromtimestamp(one.at, UTC)), one.actor or _("Hub"), _(_ACTS[one.act]))
            for one in acts
        ],
        whole=whole,
        typed=request.form,
        LEVELS=levels(),
    )


def _settings() -> dict[str, bool | int | float | str] | None:
    """The settings that were typed, in a form that a box takes; None where it takes them not."""
    values: dict[str, bool | int | float | str] = {}
    for key in settings.ORDERABLE:
        typed = request.form.get(key, "").strip()
        if typed in ("true", "false"):
            values[key] = typed == "true"
        elif typed and key != "hub.metered":
            try:
                values[key] = int(typed)
            except ValueError:
                return None
        elif typed:
            values[key] = "" if typed == "-" else typed
    try:
        for key, value in values.items():
            settings.with_setting(settings.Config(), key, value)
    except Misconfigured:
        return None
    return values


def _number(name: str, least: int, most: int) -> int | None:
    typed = request.form.get(name, "")
    return int(typed) if typed.isascii() and typed.isdigit() and least <= int(typed[:6]) <= most else None


def _state(rolling: Rollout, titles: Mapping[str, str]) -> Word:
    """How it stands with the open roll-out, in words."""
    if rolling.state == "going":
        sentence = _("It goes on: wave %(num)s.") % {"num": phrases.number(rolling.wave + 1)}
        return Word(Level.GOOD, sentence, _("Nothing to do."))
    if not rolling.why:
        return Word(Level.LOOK, _("A person has halted it."), _("Go on with it, or end it."))
    sentence, action = _why(rolling.why, rolling.about)
    halted = _("It has halted at %(site)s.") % {"site": titles.get(rolling.site, rolling.site)}
    return Word(Level.ACT, f"{halted} {sentence}", action)


def _why(why: str, about: str) -> tuple[str, str]:
    if why in {*Carried}:
        sentence, action = words.ORDERS[Carried(why)]
    else:
        sentence, action = _TROUBLES.get(why, (why, ""))  # a newer box has words of its own
    sentence, action = _(sentence), _(action) if action else ""
    return (f"{sentence} ({about})" if about else sentence), action


def _came(result: str | None, about: str) -> tuple[str, str]:
    if result is None:
        return _("The box has not said yet what came of it."), ""
    return _why(result, about)


def _what(one: Rollout, names: Mapping[str, str]) -> str:
    said = ", ".join(f"{key} = {value}" for key, value in one.settings.items())
    return f"{_order(one.what, names.get(one.sha256, ''))}{': ' if said else ''}{said}"


def _order(what: str, name: str) -> str:
    return f"{_(_ORDERS[What(what)])}{' ' if name else ''}{name}"


def _ago(then: float, at: float) -> str:
    return _("%(time)s ago") % {"time": phrases.duration(timedelta(seconds=max(0.0, at - then)))}


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
    if rollouts.STOPPED & {*status.notices}:
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
