"""What people say of a film: their own impression, then the AI's beside it, then their decision; and what they learn from it.

Every act is a new row and a record in the ledger, in one transaction. A page draws the key of the act it offers (`request`): the
same key again, from a second tap or a repeated sending, changes nothing and leads to the same place.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import flask
from flask import Blueprint, abort, g, render_template, request, url_for

from edge import outside, surveillance
from edge.records import Film, Outcome, Read, ReadKind
from edge.state import audit, outbox, reads, results
from edge.state.audit import Event
from edge.state.store import now, transaction
from edge.vocabulary import IMPRESSIONS, NOT_ASSESSED, OVERRIDES, Impression, Sight
from web import here, people
from web.languages import gettext as _

pages = Blueprint("reads", __name__)

EVENTS = {
    ReadKind.CONFIRM: Event.CONFIRMED,
    ReadKind.OVERRIDE: Event.OVERRIDDEN,
    ReadKind.REFER: Event.REFERRED,
}
KEY = re.compile(r"[\w-]{16,64}", re.ASCII)
DECIDED = (Outcome.IMMEDIATE, Outcome.SOON, Outcome.ROUTINE)
"""What a person can decide; *could not assess* is the AI's alone."""


@dataclass(frozen=True)
class Said:
    """What people said of one film, as one reader may see it."""

    acts: list[Read]
    standing: Read | None
    """The decision that stands, of the latest assessment."""
    impression: Read | None
    """This reader's own, of the latest assessment."""
    hidden: bool
    """The reader is not shown yet what the AI found."""
    done: bool
    """A person has decided, so the film is off the list."""


def said(film: Film) -> Said:
    """What people said of a film, for the person who asks."""
    acts = reads.of_film(here.store(), film.arrival.id)
    standing = reads.decision(acts)
    impression = reads.impression(acts, people.who().name, film.run) if g.account else None
    return Said(
        acts,
        standing,
        impression,
        _hides(film) and impression is None,
        standing is not None and standing.run >= film.run,
    )


def hides(film: Film) -> bool:
    """Whether this film's findings are kept from the person who asks until they have said what they see."""
    if not _hides(film):
        return False
    if "impressions" not in g:
        own = reads.of_reader(here.store(), people.who().name) if g.account else []
        g.impressions = {(act.arrival_id, act.run) for act in own if act.kind is ReadKind.IMPRESSION}
    return (film.arrival.id, film.run) not in g.impressions


def _hides(film: Film) -> bool:
    return here.config().policy.impression_first and film.decision is not None and film.decision.refusal is None


def key() -> str:
    """The key of an act that a page offers; that of the form before, where it came too late and is offered again."""
    offered = request.args.get("request", "")
    again = KEY.fullmatch(offered) and reads.find(here.store(), offered) is None
    return offered if again else secrets.token_urlsafe(18)


@pages.post("/films/<int:number>/impression")
@people.may(*people.CARERS)
def impression(number: int) -> flask.typing.ResponseReturnValue:
    """Seal what a person sees, then show what the AI found."""
    film, key = here.film_or_404(number), _key()
    choice = IMPRESSIONS.get(request.form.get("choice", ""))
    if choice is None:
        return _refused(number, 422, _("Touch what you see on the film; nothing was saved yet."))
    with transaction(here.store()) as store:
        film, at, reader = here.film_or_404(number), now(), people.who().name
        if reads.find(store, key) is None and not _run_is(film):
            return _refused(number, 409, _("The film was assessed again in the meantime. Look at it once more."))
        if reads.impression(reads.of_film(store, number), reader, film.run) is None:
            seal = reads.seal(film.arrival.sha256, film.run, reader, at, (choice.key,))
            act, new = reads.add(
                store, number, film.run, ReadKind.IMPRESSION, reader, at, key, codes=(choice.key,), seal=seal
            )
            if new:
                outside.tell_read(store, here.config(), act)
                audit.append(store, Event.SEALED, reader, at, number, run=film.run, codes=[choice.key], seal=seal)
                audit.append(store, Event.REVEALED, reader, at, number, run=film.run)
    return flask.redirect(url_for("film.page", number=number, _anchor="decide"), 303)


@pages.post("/films/<int:number>/decision")
@people.may(*people.CARERS)
def decide(number: int) -> flask.typing.ResponseReturnValue:
    """Take a person's decision; the film leaves the list and its result goes on its way."""
    key, act = _key(), request.form.get("act", "")
    if act not in [kind.value for kind in EVENTS]:
        abort(400)
    with transaction(here.store()) as store:
        film, at, reader = here.film_or_404(number), now(), people.who().name
        done = reads.find(store, key)
        if done is None:
            told = said(film)
            if not _run_is(film):
                return _refused(number, 409, _("The film was assessed again in the meantime. Look at it once more."))
            if request.form.get("standing", "0") != str(told.standing.id if told.standing else 0):
                return _refused(
                    number, 409, _("Somebody else has decided in the meantime. Look at their decision first.")
                )
            if told.hidden and act != ReadKind.REFER:
                return _refused(number, 409, _("Say what you see on the film first; then the AI's answer is shown."))
            outcome, reason, wrong = _chosen(film, ReadKind(act))
            if wrong:
                return _refused(number, 422, wrong)
            done, _new = reads.add(
                store, number, film.run, ReadKind(act), reader, at, key, outcome=outcome, reason=reason
            )
            outbox.of_read(store, here.config(), done)
            outside.tell_read(store, here.config(), done)
            if done.kind is not ReadKind.REFER:
                surveillance.count_read(store, here.config(), film, done.kind is ReadKind.OVERRIDE)
            audit.append(
                store, EVENTS[done.kind], reader, at, number, run=film.run, outcome=outcome, reason=reason, read=done.id
            )
        elif done.arrival_id != number or done.reader != reader:
            abort(400)
    return flask.redirect(url_for("worklist.home", done=done.id), 303)


def _chosen(film: Film, kind: ReadKind) -> tuple[Outcome | None, str, str]:
    """The outcome, its coded reason, and what is wrong with the form, if anything."""
    assessed = film.decision.outcome if film.decision and film.decision.refusal is None else None
    if kind is ReadKind.REFER:
        return None, "", ""
    if kind is ReadKind.CONFIRM:
        return assessed, "", "" if assessed else _("There is no outcome of the AI to confirm. Choose one yourself.")
    chosen = request.form.get("outcome", "")
    if chosen not in list(DECIDED):
        return None, "", _("Choose how urgent the film is; nothing was saved yet.")
    reason = request.form.get("reason", "") if assessed else NOT_ASSESSED.key
    if assessed and reason not in OVERRIDES:
        return None, "", _("Choose why you change it; nothing was saved yet.")
    return Outcome(chosen), reason, ""


@pages.post("/films/<int:number>/withdraw")
@people.may(*people.CARERS)
def withdraw(number: int) -> flask.typing.ResponseReturnValue:
    """Take one's own decision back, within ten seconds; the film is on the list again."""
    key = _key()
    with transaction(here.store()) as store:
        film, at, reader = here.film_or_404(number), now(), people.who().name
        if reads.find(store, key) is None:
            standing = reads.decision(reads.of_film(store, number))
            if standing is None or standing.reader != reader or request.form.get("read") != str(standing.id):
                return _refused(number, 409, _("That decision no longer stands, so there is nothing to take back."))
            if not undoable(standing, at):
                return _refused(
                    number, 409, _("It is too late to take the decision back. Open the film and decide anew.")
                )
            outbox.take_back(store, standing)
            outside.take_back(store, standing)
            reads.add(store, number, film.run, ReadKind.WITHDRAW, reader, at, key)
            if standing.kind is not ReadKind.REFER and standing.run == film.run:
                overridden = standing.kind is ReadKind.OVERRIDE
                surveillance.count_read(store, here.config(), film, overridden, back=True)
            audit.append(store, Event.WITHDRAWN, reader, at, number, read=standing.id)
    return flask.redirect(url_for("film.page", number=number), 303)


def undoable(read: Read, at: datetime) -> bool:
    """Whether a decision can still be taken back; a clock that was set back does not keep it open."""
    return abs(at - read.at) <= reads.UNDO


def seconds_left(read: Read) -> int:
    """How long a decision can still be taken back, in whole seconds."""
    return max(1, int((reads.UNDO - abs(now() - read.at)).total_seconds()))


def just_done(number: str) -> Read | None:
    """The decision that the worklist offers to take back: this person's own, a moment ago."""
    if not re.fullmatch(r"\d{1,18}", number):
        return None
    try:
        read = reads.get(here.store(), int(number))
    except KeyError:
        return None
    standing = reads.decision(reads.of_film(here.store(), read.arrival_id))
    own = g.account is not None and read.reader == g.account.name
    return read if own and standing == read and undoable(read, now()) else None


def _key() -> str:
    key = request.form.get("request", "")
    if not KEY.fullmatch(key):
        abort(400)
    return key


def _run_is(film: Film) -> bool:
    return request.form.get("run") == str(film.run)


def _refused(number: int, status: int, sentence: str) -> tuple[str, int]:
    return render_template("error.html", sentence=sentence, film=here.film_or_404(number)), status


@dataclass(frozen=True)
class Lesson:
    """A film on which a person and the AI said something about the same thing."""

    film: Film
    impression: Impression
    raised: bool
    """The AI put the film before others."""
    final: Read | None

    @property
    def agreed(self) -> bool:
        """Both saw something, or neither did."""
        return (self.impression.sight is Sight.ABNORMAL) is self.raised


@pages.get("/learning")
@people.may(*people.CARERS)
def learning() -> str:
    """A reader's own impressions beside the AI's answers; for themselves alone, and no ranking of people."""
    store = here.store()
    standing = reads.standing(store)
    sealed = {
        act.arrival_id: act
        for act in reads.of_reader(store, people.who().name)
        if act.kind is ReadKind.IMPRESSION and IMPRESSIONS[act.codes[0]].sight is not Sight.UNSURE
    }
    lessons = []
    for film in map(lambda number: results.film(store, number), sealed):
        decision = film.decision
        if decision is None or decision.refusal is not None or film.run != sealed[film.arrival.id].run:
            continue
        choice = IMPRESSIONS[sealed[film.arrival.id].codes[0]]
        raised = decision.outcome is not Outcome.ROUTINE
        lessons.append(Lesson(film, choice, raised, standing.get(film.arrival.id)))
    months = Counter(sealed[lesson.film.arrival.id].at.strftime("%Y-%m") for lesson in lessons)
    agreed = Counter(sealed[lesson.film.arrival.id].at.strftime("%Y-%m") for lesson in lessons if lesson.agreed)
    return render_template(
        "learning.html",
        lessons=[lesson for lesson in reversed(lessons) if not lesson.agreed][:50],
        months=[(datetime.strptime(month, "%Y-%m"), agreed[month], months[month]) for month in sorted(months)],
        agreed=sum(agreed.values()),
        total=len(lessons),
    )
