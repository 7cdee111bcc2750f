"""The box about itself, for people who are no engineers: one sentence and one action for each thing; and what the model is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flask
from flask import Blueprint, render_template

from edge import health, syslog, words
from edge.health import Level, Reading
from edge.records import Carried, Trouble, Way
from edge.state import acceptances, audit, device, forwarding, notices, ordered, orders, outbox, queue, sync
from edge.state.store import now
from web import alerts, drift, here, ledger, limits, people, phrases, ranking
from web.languages import N_, ngettext
from web.languages import gettext as _

LONG_QUEUE = 20
"""More films than this to assess means that the AI does not keep up."""

pages = Blueprint("status", __name__)


@dataclass(frozen=True)
class Line:
    """One thing about the box, in words."""

    subject: str
    title: str
    level: Level
    sentence: str
    action: str
    detail: str = ""
    """For the technician, in English: codes."""


@pages.get("/status")
@people.may(*people.EVERYONE)
def page() -> str:
    """How the box is."""
    lines = sorted(_lines(), key=lambda line: list(Level).index(line.level), reverse=True)
    return render_template("status.html", lines=lines, LEVELS=levels())


def levels() -> dict[Level, tuple[str, str]]:
    """Sign and word of each level."""
    return {
        Level.GOOD: ("✓", _("Good")),
        Level.UNKNOWN: ("–", _("Not known")),
        Level.LOOK: ("!", _("Have a look")),
        Level.ACT: ("✗", _("Act now")),
    }


def _lines() -> list[Line]:
    store, config, at = here.store(), here.config(), now()
    return [
        *(
            Line("notice", _("The box needs help"), Level.ACT, _(text), "")
            for text in notices.current(store)
            if text != words.DRIFT
        ),
        _model(),
        _reading(health.daily(config, store, at)),
        _assessing(),
        _alert(),
        *_ways(),
        *_hub(),
        *_ordered(),
        _drift(),
        _ledger(),
        *_ris(),
        *map(
            _reading,
            (
                health.disk(config),
                health.encryption(),
                health.clock(store, at),
                health.certificate(Path(config.state), at),
                health.power(),
                health.warmth(),
                health.starts(store),
                health.backup(store, at),
                health.system(Path(config.state)),
                *health.model(Path(config.state)),
            ),
        ),
    ]


def _model() -> Line:
    store = here.store()
    accepted = acceptances.accepted(store)
    title = _("AI model")
    match ranking.mode(store, accepted):
        case ranking.Mode.RANKING:
            signed = acceptances.latest(store)
            assert signed is not None
            sentence = _("Accepted for this site by %(name)s on %(date)s: it ranks the films.") % {
                "name": signed.signed_by,
                "date": phrases.day(signed.signed_at),
            }
            return Line("model", title, Level.GOOD, sentence, _("Nothing to do."))
        case ranking.Mode.CHANGED:
            return Line(
                "model",
                title,
                Level.LOOK,
                _("Shadow mode: the model has changed since this site accepted it, so it does not rank."),
                _("Ask the programme lead to accept the new model."),
            )
        case ranking.Mode.SHADOW:
            return Line(
                "model",
                title,
                Level.LOOK,
                _("Shadow mode: this site has not accepted the model yet, so it computes but does not rank."),
                _("Ask the programme lead to accept the model with films that were read here."),
            )


def _assessing() -> Line:
    waiting = queue.open_jobs(here.store(), "assess")
    sentence = ngettext("%(num)s film waits for the AI.", "%(num)s films wait for the AI.", waiting) % {
        "num": phrases.number(waiting)
    }
    title = _("Assessing films")
    if waiting > LONG_QUEUE:
        return Line(
            "assessing", title, Level.LOOK, sentence, _("Do not wait for the AI; read the films in their order.")
        )
    return Line("assessing", title, Level.GOOD, sentence, _("Nothing to do."))


_OF_ITSELF = {Trouble.UNREACHABLE, Trouble.HANGS, Trouble.CLOSED, Trouble.BUSY, Trouble.WARNED, Trouble.INTERRUPTED}
"""Troubles that often pass without anybody's doing."""


def _ways() -> list[Line]:
    """Every way out; or that there is none, which is nobody's fault but should be known."""
    if ways := outbox.ways(here.store(), here.config()):
        return list(map(_way, ways))
    sentence = _("Results stay on this box: its settings name no other system that gets them.")
    action = _("If they should go to a PACS or the hospital’s system, ask the technician.")
    return [Line("way", _("Sync"), Level.UNKNOWN, sentence, action)]


def _way(way: Way) -> Line:
    """One way out: its state by name, what waits, and when it is asked next."""
    trouble = way.trouble or way.refusal or (Trouble.WARNED if way.warned else None)
    sentence, action = words.TROUBLES[trouble] if trouble is not None else ("", N_("Nothing to do."))
    told = [_(sentence)] if sentence else []
    if way.oldest is None:
        told.append(_("Every result has arrived there."))
    else:
        told.append(
            ngettext(
                "%(num)s result is not there yet, since %(moment)s.",
                "%(num)s results are not there yet, the oldest since %(moment)s.",
                way.waiting,
            )
            % {"num": phrases.number(way.waiting), "moment": phrases.clock(way.oldest)}
        )
    if way.refused:
        told.append(
            ngettext("%(num)s of them was refused.", "%(num)s of them were refused.", way.refused)
            % {"num": phrases.number(way.refused)}
        )
    if way.next_at is not None and trouble is not None:
        told.append(_("The next attempt is at %(moment)s.") % {"moment": phrases.clock(max(way.next_at, now()))})
    level = Level.GOOD if trouble is None else Level.LOOK if trouble in _OF_ITSELF else Level.ACT
    title = _("Results to %(name)s") % {"name": way.sink}
    return Line("way", title, level, " ".join(told), _(action), way.detail if trouble is not None else "")


def _hub() -> list[Line]:
    """How it stands with the hub, if there is one: what has not arrived there, and why."""
    store, config, title = here.store(), here.config(), _("Hub")
    if not config.hub.url:
        return []
    if device.hub(store) is None:
        sentence = _("The box is not enrolled with its hub yet; what it should know waits here.")
        return [Line("hub", title, Level.ACT, sentence, _("Have the technician enrol it: outpost enrol CODE."))]
    stood, waits = sync.standing(store), sync.unsent(store)
    told = [] if stood.trouble is None else [_(words.HUB[stood.trouble][0])]
    if waits:
        told.append(
            ngettext(
                "%(num)s film has not arrived there yet, since %(moment)s.",
                "%(num)s films have not arrived there yet, the oldest since %(moment)s.",
                len(waits),
            )
            % {"num": phrases.number(len(waits)), "moment": phrases.clock(min(waits.values()))}
        )
    else:
        told.append(_("Everything has arrived there."))
    if stood.answered_at is not None:
        told.append(_("It last answered at %(moment)s.") % {"moment": phrases.clock(stood.answered_at)})
    if stood.trouble is None:
        level, action = Level.GOOD if stood.answered_at is not None else Level.UNKNOWN, _("Nothing to do.")
    else:
        level = Level.LOOK if stood.trouble in _OF_ITSELF else Level.ACT
        action = _(words.HUB[stood.trouble][1])
    return [Line("hub", title, level, " ".join(told), action, stood.detail)]


def _ordered() -> list[Line]:
    """What came of the hub's latest order, if there was one."""
    last, title = ordered.latest(here.store()), _("Orders of the hub")
    if last is None:
        return []
    if last.result is None:
        return [Line("ordered", title, Level.GOOD, _("An order of the hub is on its way."), _("Nothing to do."))]
    sentence, action = words.ORDERS[last.result]
    level = Level.GOOD if last.result in (Carried.DONE, Carried.OVERTAKEN) else Level.LOOK
    return [Line("ordered", title, level, f"{_(sentence)} ({phrases.clock(last.at)})", _(action), last.about)]


def _ledger() -> Line:
    """Whether the ledger is whole, and how it stands with the audit record repository."""
    store, settings, title = here.store(), here.config().audit, _("Ledger")
    number, _hash = audit.head(store)
    if (broken := ledger.recent()) is not None:
        sentence = _("The ledger is broken at record %(number)s.") % {"number": phrases.number(broken.id)}
        action = _("Leave the box as it is and tell the technician.")
        return Line("ledger", title, Level.ACT, f"{sentence} {_(words.BREAKS[broken.why][0])}", action)
    held = ngettext("It has %(count)s record.", "It has %(count)s records.", number) % {"count": phrases.number(number)}
    if not settings.host:
        return Line("ledger", title, Level.GOOD, held, _("Nothing to do."))
    stood = forwarding.standing(store, syslog.repository(settings))
    if stood.trouble is None:
        left = max(0, number - stood.id)
        sentence = ngettext(
            "The audit record repository lacks %(count)s of them.",
            "The audit record repository lacks %(count)s of them.",
            left,
        ) % {"count": phrases.number(left)}
        return Line("ledger", title, Level.GOOD, f"{held} {sentence}", _("Nothing to do."))
    sentence, action = words.TROUBLES[stood.trouble]
    told = [_("The audit record repository does not take the records; they are kept here."), _(sentence)]
    if stood.due_at is not None:
        told.append(_("The next attempt is at %(moment)s.") % {"moment": phrases.clock(max(stood.due_at, now()))})
    level = Level.LOOK if stood.trouble in _OF_ITSELF else Level.ACT
    return Line("ledger", title, level, " ".join(told), _(action), stood.detail)


def _ris() -> list[Line]:
    """Where the orders come from, if not from this box."""
    if not here.config().ris.host:
        return []
    title, asked = _("Orders from the RIS"), orders.asked(here.store())
    if asked is None:
        return [Line("ris", title, Level.UNKNOWN, _("It was not asked yet."), _("Nothing to do."))]
    last = []
    if asked.answered_at is not None:
        last.append(
            ngettext("At %(moment)s it named %(num)s order.", "At %(moment)s it named %(num)s orders.", asked.orders)
            % {"num": phrases.number(asked.orders), "moment": phrases.clock(asked.answered_at)}
        )
    if asked.trouble is None:
        return [Line("ris", title, Level.GOOD, " ".join(last), _("Nothing to do."))]
    sentence, action = words.RIS[asked.trouble]
    moment = {"moment": phrases.clock(max(asked.next_at, now()))}
    told = [_(sentence), _("Films go on without it."), *last, _("The next attempt is at %(moment)s.") % moment]
    return [Line("ris", title, Level.LOOK, " ".join(told), _(action), asked.detail)]


def _alert() -> Line:
    title, tested = _("Sound alert"), alerts.last_test()
    if tested is None:
        return Line("alert", title, Level.LOOK, _("The sound alert was never tested."), _("Test it now, below."))
    at, heard = tested
    when = {"moment": phrases.clock(at)}
    if not heard:
        sentence = _("At the last test, %(moment)s, the alert was not heard.") % when
        return Line("alert", title, Level.ACT, sentence, _("Turn the tablet's volume up and test it again, below."))
    if now() - at > alerts.TEST_EVERY:
        sentence = _("The alert was last tested at %(moment)s.") % when
        return Line("alert", title, Level.LOOK, sentence, _("Test it once a day: now, below."))
    return Line("alert", title, Level.GOOD, _("The alert was heard at %(moment)s.") % when, _("Nothing to do."))


def _drift() -> Line:
    told = drift.told()
    return Line("drift", _("Changed films"), told.level, told.sentence, told.action)


def _reading(reading: Reading) -> Line:
    title, sentences = _READINGS[reading.subject]
    sentence, action = sentences[reading.state]
    shown = {name: _SHOWN[name](value) if name in _SHOWN else value for name, value in reading.values.items()}
    return Line(reading.subject, _(title), reading.level, _(sentence) % shown, _(action))


_SHOWN: dict[str, Callable[..., str]] = {
    "now": phrases.clock,
    "written": phrases.clock,
    "until": phrases.day,
    "at": phrases.clock,
    "free_gib": phrases.number,
    "films": phrases.number,
    "percent": phrases.number,
    "degrees": phrases.number,
}


_NOTHING = N_("Nothing to do.")

_READINGS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "daily": (
        N_("Daily test of the AI"),
        {
            "none": (N_("The first test films are still on their way."), _NOTHING),
            "passed": (N_("The test films came out right at %(at)s."), _NOTHING),
            "failed": (
                N_("The test films came out wrong at %(at)s, so the AI is stopped."),
                N_("Read the films without it, and call the technician now."),
            ),
            "late": (N_("No test film has come through since %(at)s."), N_("Tell the technician this week.")),
        },
    ),
    "disk": (
        N_("Disk"),
        {
            "good": (N_("There is room for about %(films)s more films (%(free_gib)s GiB free)."), _NOTHING),
            "low": (
                N_("The disk has room for only about %(films)s more films (%(free_gib)s GiB free)."),
                N_("Tell the technician this week."),
            ),
            "full": (
                N_("The disk is full (%(free_gib)s GiB free): the X-ray unit keeps its films."),
                N_("Call the technician now."),
            ),
        },
    ),
    "encryption": (
        N_("Disk encryption"),
        {
            "chip": (
                N_(
                    "The disk is encrypted and its key is in the box’s security chip: the disk alone shows nobody a film. "
                    "Whoever takes the whole box can still start it."
                ),
                N_("Keep the box locked away."),
            ),
            "file": (
                N_(
                    "The disk is encrypted and its key is on the same disk: it can be erased at once, but whoever takes the disk "
                    "or the box can read the films."
                ),
                N_("Keep the box locked away."),
            ),
            "unknown": (
                N_("Outpost did not encrypt this computer’s disk and cannot tell whether somebody else did."),
                N_("Ask whoever set up the computer; keep it locked away."),
            ),
        },
    ),
    "clock": (
        N_("Clock"),
        {
            "synchronized": (N_("The clock is set by the network: %(now)s."), _NOTHING),
            "alone": (
                N_("The box's clock shows %(now)s; nothing tells whether that is right."),
                N_("Compare it with a watch; if it is wrong, tell the technician."),
            ),
            "behind": (
                N_("The clock is wrong: it shows %(now)s, but the box wrote something at %(written)s."),
                N_("Have the technician set the clock now. Waiting times are wrong until then."),
            ),
        },
    ),
    "certificate": (
        N_("Certificate"),
        {
            "good": (N_("Tablets can be sure of this box until %(until)s; it renews that by itself."), _NOTHING),
            "clock": (
                N_(
                    "The clock shows %(now)s, when the box’s certificate is not good: tablets may warn you of this box."
                ),
                N_("Have the technician set the clock now."),
            ),
            "ending": (
                N_("On %(until)s the box’s certificate ends for good."),
                N_("Have the technician make a new one before; then every tablet joins again."),
            ),
            "none": (N_("These pages come without the box’s certificate."), N_("Tell the technician.")),
        },
    ),
    "power": (
        N_("Power"),
        {
            "mains": (N_("The box runs on mains power."), _NOTHING),
            "battery": (
                N_("The box runs on its battery: %(percent)s %% left."),
                N_("Look at the films marked immediate first, and bring the power back."),
            ),
            "weak": (
                N_("The power supply is too weak for the box."),
                N_("Use the power supply that came with the box."),
            ),
            "unknown": (N_("This box cannot measure its power supply."), _NOTHING),
        },
    ),
    "warmth": (
        N_("Temperature"),
        {
            "good": (N_("The box is at %(degrees)s °C."), _NOTHING),
            "hot": (
                N_("The box is too hot: %(degrees)s °C."),
                N_("Put it in the shade, away from walls, and clear its air holes."),
            ),
            "unknown": (N_("This box cannot measure its temperature."), _NOTHING),
        },
    ),
    "start": (
        N_("Last start"),
        {
            "first": (N_("The box has not been restarted yet."), _NOTHING),
            "proper": (N_("The box was last started at %(at)s, after it had been stopped properly."), _NOTHING),
            "cut": (
                N_("The box started at %(at)s after its power was cut. No film that it had accepted was lost."),
                N_("If this happens often, have the power supply checked."),
            ),
        },
    ),
    "backup": (
        N_("Back-up"),
        {
            "made": (N_("The last back-up was made at %(at)s."), _NOTHING),
            "old": (
                N_("The last back-up is old: it was made at %(at)s."),
                N_("Ask the technician to make one this week."),
            ),
            "never": (N_("No back-up was made yet."), N_("Ask the technician to make one this week.")),
        },
    ),
    "system": (
        N_("Updates of the box"),
        {"none": (N_("No update was installed on this box yet."), _NOTHING)}
        | {str(state): said for state, said in words.UPDATES.items()},
    ),
    "model_update": (N_("Updates of the model"), {str(state): said for state, said in words.MODELS.items()}),
}


@pages.get("/model")
@people.may(*people.EVERYONE)
def model() -> str:
    """What the model is and is not: the card of the bundle in use."""
    card = limits.bundle() / "card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else _("This model came without a card.")
    return render_template("model.html", blocks=re.split(r"\n\s*\n", re.sub(r"\n +(?=\S)", " ", text.strip())))


@pages.get("/health")
@people.anybody
def healthy() -> flask.typing.ResponseReturnValue:
    """Whether the pages reach the box's state, for the box to watch itself."""
    return {"status": "ok", "to_assess": queue.open_jobs(here.store(), "assess")}
