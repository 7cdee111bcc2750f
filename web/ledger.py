"""The ledger on the tablet: who did what and when, in words; and the record that a person looked at a film."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, abort, g, render_template, request

from edge import words
from edge.records import Film, Outcome, Reason, Role
from edge.state import audit, results
from edge.state.audit import Break, Event, Record
from edge.state.store import now, transaction
from edge.vocabulary import OVERRIDES
from web import here, people, phrases, reads
from web.languages import N_
from web.languages import gettext as _

SHOWN = 50
RECENT = 1000
"""So many of the last records are checked each time the page is opened; all of them only on demand, which takes seconds."""

pages = Blueprint("ledger", __name__)

SAYS: dict[Event, str] = {
    Event.ASSESSED: N_("The AI assessed the film"),
    Event.VIEWED: N_("Opened the film"),
    Event.REVEALED: N_("Was shown what the AI says"),
    Event.SEALED: N_("Said what they see, before the AI’s answer was shown"),
    Event.CONFIRMED: N_("Confirmed the AI’s outcome"),
    Event.OVERRIDDEN: N_("Chose another outcome"),
    Event.REFERRED: N_("Asked a teleradiologist"),
    Event.WITHDRAWN: N_("Took the decision back"),
    Event.AGE_SUPPLIED: N_("Entered the age"),
    Event.ORDER_REGISTERED: N_("Registered a patient"),
    Event.ORDER_WITHDRAWN: N_("Took a patient off the X-ray unit’s list"),
    Event.ORDER_MET: N_("Found the film’s order"),
    Event.ALERT_ACKNOWLEDGED: N_("Took note of the alert"),
    Event.ALERT_TESTED: N_("Tested the sound alert"),
    Event.CONNECTIONS_TESTED: N_("Tested the connections"),
    Event.HANDED_OFF: N_("Made a hand-off sheet"),
    Event.EXPORTED: N_("A result was sent"),
    Event.EXPORT_REFUSED: N_("A result was refused"),
    Event.SIGNED_IN: N_("Signed in"),
    Event.SIGN_IN_FAILED: N_("Could not sign in"),
    Event.SIGNED_OUT: N_("Signed out"),
    Event.LOCKED_OUT: N_("Was locked out for a time"),
    Event.ACCOUNT_CHANGED: N_("Made or changed an account"),
    Event.CONFIGURED: N_("The settings changed"),
    Event.ENROLLED: N_("Joined the box to a hub"),
    Event.ORDERED: N_("Carried out or refused an order of the hub"),
    Event.MODEL_CHANGED: N_("Another AI model is in use"),
    Event.CALIBRATION_PROPOSED: N_("Proposed a calibration of the AI from the films read here"),
    Event.ACCEPTED: N_("Accepted the AI model for this site"),
    Event.TEST_PASSED: N_("Passed a film of the daily test of the AI"),
    Event.TEST_FAILED: N_("Failed a film of the daily test: the AI is stopped"),
    Event.DRIFT_FOUND: N_("Found that films have changed"),
    Event.DRIFT_ENDED: N_("The alarm about changed films ended"),
    Event.TRIAL_REGISTERED: N_("Registered a trial"),
    Event.RANDOMIZED: N_("Drew lots for the film’s place in the trial"),
    Event.NOT_RANDOMIZED: N_("Left the film out of the trial"),
    Event.TRIAL_ENDED: N_("Ended the trial as planned"),
    Event.TRIAL_STOPPED: N_("Stopped the trial"),
    Event.TRIAL_EXPORTED: N_("Exported the trial’s data without names"),
    Event.STARTED: N_("The box started"),
    Event.STOPPED: N_("The box was stopped"),
    Event.TAMPERED: N_("Something on the box was changed from outside"),
    Event.BACKED_UP: N_("Made a back-up"),
    Event.RESTORED: N_("Restored the box from a back-up"),
    Event.READ_OUT: N_("Exported the ledger"),
}
"""Each event in words, after the name of who did it; a test holds the two sets together."""

PROCESSES = {
    "box": N_("The box"),
    "worker": N_("The AI"),
    "courier": N_("The box"),
    "intake": N_("The box"),
    "ris": N_("The box"),
    "hub": N_("Hub"),
    "phantom": N_("The AI"),
}


@dataclass(frozen=True)
class Entry:
    """A record as people see it."""

    id: int
    at: datetime
    who: str
    says: str
    more: str
    arrival_id: int | None


@pages.get("/ledger")
@people.may(*people.CARERS)
def page() -> str:
    """The last records; of one film or one person where asked. Who treats patients sees a film's, a lead sees all."""
    film, person = _number("film"), " ".join(request.args.get("person", "").split())[:80]
    if film is None and people.who().role is not Role.LEAD:
        abort(403)
    store = here.store()
    about = None if film is None else here.film_or_404(film)
    before = _number("before") or 2**62
    found = audit.page(store, SHOWN + 1, before, film, person)
    number, _hash = audit.head(store)
    whole = "check" in request.args
    broken = audit.verify(store) if whole else recent()
    return render_template(
        "ledger.html",
        entries=_entries(found[:SHOWN]),
        older=found[SHOWN - 1].id if len(found) > SHOWN else None,
        film=film,
        about=about,
        person=person,
        people=audit.actors(store) if people.who().role is Role.LEAD else [],
        named=named,
        broken=broken,
        meaning=words.BREAKS[broken.why] if broken else None,
        checked=number if whole else min(number, RECENT),
        total=number,
    )


def recent() -> Break | None:
    """Where the last records are broken, if they are."""
    number, _hash = audit.head(here.store())
    return audit.verify(here.store(), after=max(0, number - RECENT))


def look(number: int) -> None:
    """Record that the person who asks looks at a film; once for as long as they go to and fro."""
    store = here.store()
    if g.account is None or audit.looked(store, people.who().name, number, now()):
        return
    with transaction(store):
        audit.view(store, people.who().name, number, now())


def named(actor: str) -> str:
    """Who did it: a person by name, a process of the box in words."""
    return _(PROCESSES[actor]) if actor in PROCESSES else actor


def _number(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None


def _entries(records: list[Record]) -> list[Entry]:
    films: dict[int, Film] = {}
    entries = []
    for record in records:
        number = record.arrival_id
        if number is not None and number not in films:
            films[number] = results.film(here.store(), number)
        hidden = number is not None and reads.hides(films[number])
        more = "" if hidden else _more(record)
        entries.append(Entry(record.id, record.at, named(record.actor), _(SAYS[record.event]), more, number))
    return entries


def _more(record: Record) -> str:
    """What the record tells beyond its event; nothing that is only for machines."""
    told, said = record.detail, []
    if told.get("outcome") in list(Outcome):
        said.append(_(words.OUTCOMES[Outcome(told["outcome"])]))
    if told.get("reason") in list(Reason):
        said.append(_(words.REASONS[Reason(told["reason"])][0]))
    if told.get("reason") in OVERRIDES:
        said.append(_(OVERRIDES[told["reason"]].text))
    if "years" in told:
        said.append(_("%(num)s years") % {"num": phrases.number(told["years"])})
    if "heard" in told:
        said.append(_("heard") if told["heard"] else _("not heard"))
    said += [str(told[key]) for key in ("sink", "account", "title", "model", "to") if told.get(key)]
    said += told.get("changed") or []
    return ", ".join(said)
