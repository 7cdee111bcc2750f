"""What leaves the screen on paper: a sheet for whoever takes over, a slip for the patient, and the proof that a sheet is genuine.

A sheet's code is the beginning of its record's hash in the ledger, so nothing but this box's ledger can make one.
"""

from __future__ import annotations

import re
import unicodedata

import flask
import segno
from flask import Blueprint, render_template, request
from markupsafe import Markup

from edge.records import Film
from edge.state import audit
from edge.state.audit import Event, Record
from edge.state.store import now, transaction
from web import here, languages, people
from web.reads import Said, said

pages = Blueprint("handoff", __name__)

CODE_CHARACTERS = 16
"""64 bits of the hash: nobody guesses one at a screen that knows only the sheets that were made."""


@pages.get("/films/<int:number>/sheet")
@people.may(*people.CARERS)
def sheet(number: int) -> str:
    """The hand-off sheet, A5 or A4, readable in black and white."""
    film = here.film_or_404(number)
    told = said(film)
    record = _handed_off(film, told)
    return render_template(
        "sheet.html", film=film, said=told, code=_code(record), at=record.at, square=_square(film, told, record)
    )


@pages.get("/films/<int:number>/slip")
@people.may(*people.CARERS)
def slip(number: int) -> str:
    """A slip for the patient, in the patient's language: what happens next, and nothing of what was found."""
    film = here.film_or_404(number)
    asked = request.args.get("language", languages.current().code)
    spoken = languages.LANGUAGES.get(asked, languages.current())
    with languages.speaking(spoken.code):
        inner = Markup(render_template("slip_text.html", film=film, spoken=spoken))  # noqa: S704  the template escapes
    return render_template("slip.html", film=film, spoken=spoken, inner=inner)


@pages.get("/verify")
@people.may(*people.CARERS)
def verify() -> flask.typing.ResponseReturnValue:
    """Whether a sheet came from this box, and whether what it says still stands."""
    typed = request.args.get("code", "")
    code = "".join(re.findall(r"[0-9a-f]", unicodedata.normalize("NFKC", typed).lower()))[-CODE_CHARACTERS:]
    record = audit.starting(here.store(), Event.HANDED_OFF, code) if len(code) == CODE_CHARACTERS else None
    film = here.film_or_404(record.arrival_id) if record is not None and record.arrival_id is not None else None
    still = record is not None and film is not None and record.detail == _detail(film, said(film))
    return render_template("verify.html", typed=typed[:80], record=record, film=film, still=still)


def _detail(film: Film, told: Said) -> dict[str, object]:
    """What a sheet says, for the ledger."""
    decided = told.standing if told.done else None
    return {
        "run": film.run,
        "proposal": film.decision.outcome if film.decision else None,
        "read": decided.id if decided else 0,
        "outcome": decided.outcome if decided else None,
        "film": film.arrival.sha256,
    }


def _handed_off(film: Film, told: Said) -> Record:
    """The record of this very sheet; one that says the same is the same sheet, however often it is printed."""
    detail = _detail(film, told)
    store = here.store()
    with transaction(store):
        for record in reversed(list(audit.records(store, arrival_id=film.arrival.id))):
            if record.event is Event.HANDED_OFF and record.detail == detail:
                return record
        number = audit.append(store, Event.HANDED_OFF, people.who().name, now(), film.arrival.id, **detail)
        return next(audit.records(store, after=number - 1))


def _code(record: Record) -> str:
    """The code as people type it: four groups of four."""
    code = record.hash[:CODE_CHARACTERS]
    return " ".join(code[at : at + 4] for at in range(0, CODE_CHARACTERS, 4))


def _square(film: Film, told: Said, record: Record) -> Markup:
    """The same in a QR code that any phone shows as text, without a network and without the patient's name."""
    decided = told.standing if told.done else None
    proposal = film.decision.outcome if film.decision and not told.hidden else None
    outcome = decided.outcome or proposal if decided else proposal
    who = f"{decided.kind} by {decided.reader}" if decided else "preliminary: a person decides"
    text = "\n".join(
        (
            f"Outpost film {film.arrival.id}, {record.at:%Y-%m-%d %H:%M} UTC",
            f"{outcome or 'no outcome'}, {who}",
            "Decision support, not a diagnosis.",
            f"code {_code(record)}",
        )
    )
    drawn = segno.make(text, error="m", micro=False)
    return Markup(drawn.svg_inline(scale=4, border=4, omitsize=True, svgclass="qr", lineclass="dark"))  # noqa: S704
