"""A film is read: what this person sees is sealed first where policy says so, then the AI's answer is shown; coded choices by keys;
what was sent can be taken back for ten seconds, then it leaves for the clinic.

No byte of the film is sent twice, neither from the clinic nor to the reader (HTTP Range, RFC 9110 14).
"""

from __future__ import annotations

import re
from datetime import timedelta

import flask
import msgspec
import numpy as np
from flask import Blueprint, Response, abort, render_template, request, url_for

from edge.cards import Picture
from edge.records import Outcome
from edge.vocabulary import ADVICE, IMPRESSIONS, Sight
from web import phrases
from web.hub import drafts, films, here, instances, people, queue, sites, taken, tasks, zoo
from web.hub.drafts import Draft
from web.hub.records import Case, Film, Finding, Task, TaskKind
from web.hub.store import now
from web.hub.transaction import Transaction
from web.languages import N_, ngettext
from web.languages import gettext as _

pages = Blueprint("read", __name__)

DECIDED = (Outcome.IMMEDIATE, Outcome.SOON, Outcome.ROUTINE)
RATIO = 20
"""A film may be read for good from a twentieth of its size at 16 bits: up to there, JPEG 2000 takes nothing from what is found in
chest films (Sung et al. 2002, J Digit Imaging 15:78)."""
KEY = re.compile(r"[\w-]{16,64}", re.ASCII)
KEYS = {
    **{code: str(place) for place, code in enumerate(IMPRESSIONS) if IMPRESSIONS[code].sight is Sight.ABNORMAL},
    "normal": "N",
    "unsure": "0",
    "immediate": "Z",
    "soon": "X",
    "routine": "C",
    "act_now": "V",
}
"""What is said by one key; Enter does the rest."""
KINDS = {"SR": N_("Report"), "KO": N_("Chosen as a key film"), "PR": N_("Marks on the film")}
"""What an archive may have sent of a film, by modality."""
RANGE = re.compile(r"bytes=(\d{1,12})-(\d{1,12})")
AT_ONCE = 1 << 20
"""Bytes in one answer."""


def enough(picture: Picture) -> int:
    """So many bytes of a film make a read final."""
    return min(picture.size, picture.rows * picture.columns * 2 // RATIO)


@pages.get("/read/<int:number>")
@people.may(*people.READERS)
def page(number: int) -> flask.typing.ResponseReturnValue:
    """The film, and the form of the read."""
    return _page(number)


@pages.get("/read/<int:number>/film")
@people.may(*people.READERS, part=True)
def film(number: int) -> Response:
    """Bytes of the film's codestream, as far as they are here; the clinic is asked for those that are not."""
    account, at = people.who(), now()
    with here.store().transaction(account.programme) as db:
        _task, case = _mine(db, number, at)
        asked = _asked(db, case, at)
    return _bytes(case, *asked)


def _asked(db: Transaction, case: Case, at: float) -> tuple[int, int]:
    """Which bytes of a film are asked for, from where to where; the clinic is asked for those that are not here."""
    asked = RANGE.fullmatch(request.headers.get("Range", ""))
    if case.picture is None or asked is None:
        abort(404)
    start, stop = int(asked[1]), min(int(asked[2]) + 1, case.picture.size, int(asked[1]) + AT_ONCE)
    if case.have < stop:
        tasks.want(db, case, stop, at)
    return start, stop


def _bytes(case: Case, start: int, stop: int) -> Response:
    """These bytes of a film, as far as they are here."""
    assert case.picture is not None
    size, stop, name = case.picture.size, min(stop, case.have), f"{people.who().programme}/{case.picture.sha256}"
    data = here.blobs().read(name, start, stop) if start < stop else b""
    if not data:
        return Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{size}", "Accept-Ranges": "bytes"}
    return Response(data, 206, headers, mimetype="image/jphc")


@pages.get("/read/<int:number>/earlier/<int:other>")
@people.may(*people.READERS, part=True)
def earlier(number: int, other: int) -> Response:
    """Bytes of an earlier film of the same patient, as of the film itself."""
    account, at = people.who(), now()
    with here.store().transaction(account.programme) as db:
        _task, case = _mine(db, number, at)
        found = next((one for one in films.earlier(db, case) if one.id == other), None)
        if found is None:
            abort(404)
        asked = _asked(db, found, at)
    return _bytes(found, *asked)


@pages.get("/read/<int:number>/map.png")
@people.may(*people.READERS, part=True)
def saliency(number: int) -> Response:
    """The map of where the score of the finding that gives the outcome comes from; for nobody who has not said what they see."""
    from edge.stages import png

    with here.store().reading(people.who().programme) as db:
        _task, case = _mine(db, number, now())
        draft = drafts.get(db, number, people.reader())
    map_ = case.result.saliency
    if map_ is None or draft is None or hides(case, draft):
        abort(404)
    cells = np.frombuffer(map_.cells, np.uint8).reshape(-1, map_.columns)
    return Response(png.heat_map(np.minimum(cells / np.float32(200), 1)), mimetype="image/png")


@pages.post("/read/<int:number>/impression")
@people.may(*people.READERS)
def impression(number: int) -> flask.typing.ResponseReturnValue:
    """Seal what the person sees, then show what the AI found."""
    account, at = people.who(), now()
    with here.store().transaction(account.programme) as db:
        _task, case = _mine(db, number, at)
        found, wrong = _finding(case)
        if found is not None:
            drafts.opened(db, number, people.reader(), at)
            drafts.seal(db, number, people.reader(), found)
    if found is None:
        return _page(number, wrong), 422
    if "Outpost-Part" in request.headers:
        return render_template("hub/ai.html", **_shown(number))
    return flask.redirect(url_for("read.page", number=number, _anchor="answer"), 303)


@pages.post("/read/<int:number>/send")
@people.may(*people.READERS)
def send(number: int) -> flask.typing.ResponseReturnValue:
    """Take the read, which leaves in ten seconds, and open the next film."""
    key, account, reader, at = request.form.get("request", ""), people.who(), people.reader(), now()
    if not KEY.fullmatch(key):
        abort(400)
    wrong, status, following = "", 0, None
    with here.store().transaction(account.programme) as db:
        drafts.flush(db, here.hub().rules, at)
        draft = drafts.get(db, number, reader)
        if draft is None or draft.finding is None:  # else it was sent already: a second tap changes nothing
            _task, case = _mine(db, number, at)
            draft = drafts.opened(db, number, reader, at)
            found, wrong = _finding(case)
            status = 422
            if hides(case, draft):
                wrong, status = _("Say what you see first; then the AI’s answer is shown."), 409
            elif found is not None:
                seconds = round(at - draft.opened_at, 1)
                whole = msgspec.structs.replace(found, before_ai=draft.impression, seconds=seconds)
                drafts.leave(db, number, reader, account, whole, key, at)
        if not wrong:
            following = queue.claimed(db, account, reader, at, None)
    if wrong:
        return _page(number, wrong), status
    if following is None:
        return flask.redirect(url_for("queue.page", none=1), 303)
    return flask.redirect(url_for("read.page", number=following.id), 303)


@pages.post("/read/<int:number>/back")
@people.may(*people.READERS)
def take_back(number: int) -> flask.typing.ResponseReturnValue:
    """Take one's own read back before it leaves; the film that was opened meanwhile goes back to the queue."""
    account, reader, at = people.who(), people.reader(), now()
    with here.store().transaction(account.programme) as db:
        tasks.release_all(db, reader)
        back = drafts.take_back(db, number, reader, here.config().policy.lease_minutes * 60, at)
    if not back:
        sentence = _(
            "It is too late: the read is on its way to the clinic. Ask for the film again if it has to be corrected."
        )
        return render_template("hub/error.html", sentence=sentence), 409
    return flask.redirect(url_for("read.page", number=number), 303)


@pages.post("/read/<int:number>/release")
@people.may(*people.READERS)
def release(number: int) -> flask.typing.ResponseReturnValue:
    """Give the film back to the queue."""
    with here.store().transaction(people.who().programme) as db:
        tasks.release(db, people.reader(), number)
    return flask.redirect(url_for("queue.page"), 303)


@pages.post("/read/<int:number>/hold")
@people.may(*people.READERS, part=True)
def hold(number: int) -> Response:
    """The person is still at it; 410 where others have the film by now."""
    with here.store().transaction(people.who().programme) as db:
        held = tasks.hold(db, people.reader(), number, here.config().policy.lease_minutes * 60, now())
    people.note()
    return Response(status=204 if held else 410)


def hides(case: Case, draft: Draft) -> bool:
    """Whether the AI's answer is kept from the person until they have said what they see, if there is one."""
    return here.config().policy.impression_first and case.result.reason is None and draft.impression is None


def _mine(db: Transaction, number: int, at: float) -> tuple[Task, Case]:
    """The task that this person has, and its film; else a page that says who has it."""
    task = tasks.task(db, number, at)
    if task is None:
        abort(404)
    if task.lease_by != people.who().name or task.done_at is not None:
        abort(410)
    case = films.case(db, task.case)
    assert case is not None
    return task, case


def _shown(number: int) -> dict[str, object]:
    account, reader, at = people.who(), people.reader(), now()
    with here.store().transaction(account.programme) as db:
        drafts.flush(db, here.hub().rules, at)
        task, case = _mine(db, number, at)
        tasks.hold(db, reader, number, here.config().policy.lease_minutes * 60, at)
        draft = drafts.opened(db, number, reader, at)
        if case.picture is not None:
            tasks.want(db, case, enough(case.picture), at)
        before = films.earlier(db, case)
        beside = next((one for one in before if str(one.id) == request.args.get("beside")), None)
        if beside is not None and beside.picture is not None:
            tasks.want(db, beside, enough(beside.picture), at)
        study = instances.study(case)
        came = taken.of_studies(db, [study])[study]
        whole = tasks.film(db, task.case, at)
        assert isinstance(whole, Film)
        site = sites.get(db, task.site)
        leaving = drafts.leaving(db, reader, at)
    return {
        "task": task,
        "case": case,
        "result": case.result,
        "site": site,
        "draft": draft,
        "hidden": hides(case, draft),
        "others": whole.reviews if task.kind is TaskKind.ARBITRATION else (),
        "at_clinic": whole.at_clinic,
        "came": came,
        "KINDS": KINDS,
        "labels": zoo.labels(),
        "enough": enough,
        "before": before,
        "beside": beside,
        "since": lambda one: _ago(films.apart(one, case)),
        "leaving": leaving,
        "at": at,
    }


def _ago(apart: timedelta) -> str:
    days = apart.days
    return (
        ngettext("%(num)s day", "%(num)s days", days) % {"num": phrases.number(days)}
        if days
        else phrases.duration(apart)
    )


def _page(number: int, wrong: str = "") -> str:
    return render_template("hub/read.html", **_shown(number), wrong=wrong, typed=request.form)


def _finding(case: Case) -> tuple[Finding | None, str]:
    """What the form says of the film, or what is wrong with it."""
    codes = tuple(code for code in IMPRESSIONS if code in request.form.getlist("codes"))
    advice = tuple(one for one in ADVICE if one in request.form.getlist("advice"))
    outcome, urgent = request.form.get("outcome", ""), "act_now" in advice
    sights = {IMPRESSIONS[code].sight for code in codes}
    if not codes:
        return None, _("Choose what you see on the film; nothing was sent.")
    if len(codes) > 1 and sights != {Sight.ABNORMAL}:
        return None, _("“Nothing abnormal” and “I cannot tell” stand alone; nothing was sent.")
    if sights == {Sight.NORMAL}:
        outcome = Outcome.ROUTINE.value
    elif urgent:
        outcome = Outcome.IMMEDIATE.value
    elif sights == {Sight.UNSURE} and outcome != Outcome.IMMEDIATE:
        outcome = Outcome.SOON.value  # what nobody could tell is never routine
    if outcome not in list(DECIDED):
        return None, _("Choose how urgent it is; nothing was sent.")
    if urgent and sights == {Sight.NORMAL}:
        return None, _("“Nothing abnormal” and “act now” do not go together; nothing was sent.")
    rough = _rough(case)
    if sights != {Sight.UNSURE} and case.picture is None:
        return None, _("Without the film only “I cannot tell” can be sent.")
    if rough and outcome == Outcome.ROUTINE and request.endpoint == "read.send":
        return None, _("The film is still too rough to call it routine. Wait for more of it, or send “I cannot tell”.")
    return (
        Finding(
            outcome=Outcome(outcome),
            codes=codes,
            advice=advice,
            second=rough or "second" in request.form,
        ),
        "",
    )


def _rough(case: Case) -> bool:
    """Whether less of the film was on the person's screen than a final read needs."""
    if case.picture is None:
        return False
    seen = request.form.get("seen", "0")
    shown = int(seen) if seen.isdecimal() and len(seen) < 13 else 0
    return min(shown, case.have) < enough(case.picture)
