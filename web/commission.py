"""The acceptance of a model by its site: the AI against films that were read here, in pictures, and a lead's signature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import flask
from flask import Blueprint, render_template, request, url_for

from edge import acceptance, passport
from edge.acceptance import Hindrance, Proposal
from edge.errors import Misconfigured
from edge.records import Role
from edge.state import acceptances
from edge.state.store import now, transaction
from edge.validity.accuracy import AGE_BANDS, AT_LEAST, Accuracy, Share, Threshold, accuracy, needed, strata, thresholds
from edge.validity.calibration import Place
from edge.validity.doubt import Doubt, doubt
from edge.validity.fairness import SMALL
from models.bundle import load
from web import here, people, phrases, signing
from web.languages import gettext as _

pages = Blueprint("commission", __name__)


@dataclass(frozen=True)
class Group:
    """The films of one sex or age, or all, in words."""

    name: str
    told: Accuracy
    films: int


@dataclass(frozen=True)
class Truth:
    """How true a finding's probabilities are, before and after a calibration, on films that it was not made from."""

    finding: str
    reads: int
    off: tuple[float, float]
    """Root mean square error, before and after."""
    lines: tuple[str, str]
    """The points of both reliability curves, for a picture of 100 by 100."""


@dataclass(frozen=True)
class Shown:
    """One operating point, as the page shows it."""

    proposal: Proposal
    truths: list[Truth]
    """Of a calibration of this site's own."""
    groups: list[Group]
    hidden: int
    """Groups too small to show."""
    needed: int
    costs: dict[str, list[Threshold]]
    """By finding, the cost at every threshold."""
    doubts: dict[str, Doubt | None]
    """By finding, which films it should be silent about."""


@pages.get("/commission")
@people.may(Role.LEAD)
def page() -> str:
    """How the AI does on the films that were read here, and the form to accept it."""
    return _page()


@pages.post("/commission")
@people.may(Role.LEAD)
def sign() -> flask.typing.ResponseReturnValue:
    """Accept the model at one operating point; the PIN is asked for, because this changes the order for everybody."""
    lead = people.who()
    chosen = request.form.get("device_uid", "")
    wrong = signing.unproven(request.form.get("pin", ""))
    if wrong:
        return _page(wrong), 422
    with transaction(here.store()) as store:
        proposal = next((one for one in acceptance.proposals(here.config(), store) if one.device_uid == chosen), None)
        if proposal is None or proposal.digest != request.form.get("set"):
            return _page(_("The films or the model have changed since this page was made. Look at it once more.")), 409
        try:
            acceptance.sign(store, proposal, lead.name, now())
        except Misconfigured:
            return _page(), 409
    return flask.redirect(url_for("commission.page"), 303)


def _page(wrong: str = "") -> str:
    signed = acceptances.latest(here.store())
    proposed = acceptance.proposals(here.config(), here.store())
    return render_template(
        "commission.html",
        signed=signed,
        shown=[_shown(one) for one in proposed],
        at_least=AT_LEAST,
        wrong=wrong,
        obstacle=obstacle,
    )


def _shown(proposal: Proposal) -> Shown:
    groups = [Group(_("All films"), accuracy(proposal.films), len(proposal.films))]
    bands = {f"{low}-{high}": band(low, high) for low, high in AGE_BANDS}
    named = strata(proposal.films)
    groups += [Group(bands.get(name) or phrases.sex(name), told, told.abstained.of) for name, told in named.items()]
    findings = sorted({film.finding for film in proposal.films if film.finding})
    return Shown(
        proposal=proposal,
        truths=_truths(proposal),
        groups=[group for group in groups if group.films >= SMALL],
        hidden=sum(group.films < SMALL for group in groups[1:]),
        needed=needed(proposal.films),
        costs={finding: thresholds(proposal.films, finding) for finding in findings},
        doubts={finding: doubt(proposal.films, finding) for finding in findings},
    )


def _truths(proposal: Proposal) -> list[Truth]:
    if proposal.calibration is None:
        return []
    labels = {finding.key: finding.label for finding in load(passport.folder(here.config())).manifest.findings}
    return [
        Truth(
            finding=labels[key],
            reads=held.reads,
            off=(math.sqrt(held.brier[0]), math.sqrt(held.brier[1])),
            lines=(_line(held.curves[0]), _line(held.curves[1])),
        )
        for key, fitted in proposal.calibration.findings.items()
        for held in [fitted.held]
    ]


def _line(curve: tuple[Place, ...]) -> str:
    return " ".join(f"{100 * place.said:.1f},{100 - 100 * place.abnormal / place.of:.1f}" for place in curve)


def band(low: int, high: int) -> str:
    """An age band in words."""
    if high > 120:
        return _("%(low)s years and older") % {"low": phrases.number(low)}
    return _("%(low)s to under %(high)s years") % {"low": phrases.number(low), "high": phrases.number(high)}


def obstacle(proposal: Proposal) -> str:
    """Why a proposal cannot be signed yet, in the reader's language; empty where it can."""
    match proposal.hindrance:
        case None:
            return ""
        case Hindrance.PENDING:
            return _("The AI has not assessed %(num)s of the films yet. It does so by itself; wait until it has.") % {
                "num": phrases.number(proposal.pending)
            }
        case Hindrance.TOO_FEW:
            return _("Too few films: %(num)s of at least %(least)s.") % {
                "num": phrases.number(len(proposal.films)),
                "least": phrases.number(AT_LEAST),
            }
        case Hindrance.NOT_TRUER:
            return _("On films that it was not made from, this calibration is no truer. Keep what is there.")
        case Hindrance.FINDS_FEWER:
            return _("With this calibration the AI would put fewer abnormal films first. Keep what is there.")
        case Hindrance.MAY_BE_WORSE:
            return _("These films do not rule out that the new model is worse than the accepted one. Read more films.")


def share(share: Share) -> str:
    """A share as people say it: so many of so many, with what it may really be."""
    if not share.of:
        return _("no film")
    low, high = share.interval
    return _("%(count)s of %(total)s; it may be %(low)s to %(high)s") % {
        "count": phrases.number(share.count),
        "total": phrases.number(share.of),
        "low": phrases.percent(low),
        "high": phrases.percent(high),
    }
