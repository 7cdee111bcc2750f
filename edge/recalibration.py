"""Re-calibration of the model in use from what people here read without seeing it: proposed, shown, used once a lead signs.

The network stays as it is; only what is made of its output changes. With the calibration the Device UID changes, so everything
that an acceptance asks of a new model is asked of it too, on the same films, and going back is one more signature.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge import acceptance, passport
from edge.config import Config
from edge.errors import Misconfigured
from edge.state import acceptances, audit, calibrations
from edge.state.calibrations import Proposed
from edge.state.store import transaction
from edge.validity import recalibrate
from edge.validity.calibration import Calibration, Fitted, Platt
from edge.validity.recalibrate import Label
from models.bundle import load

READS = 20_000
"""So many of the newest reads a calibration is made from, at most."""


@dataclass(frozen=True)
class Lacking:
    """A finding with too few reads to be calibrated here."""

    label: str
    reads: int
    more: int


def propose(config: Config, store: sqlite3.Connection, by: str, at: datetime) -> tuple[Calibration, list[Lacking]]:
    """Make a calibration from this site's reads and keep it; also says what has too few.

    Raises `Misconfigured` where no finding has enough.
    """
    bundle = load(passport.folder(config))
    kept = acceptance.retained(store, passport.devices(store, bundle), READS)
    fitted: dict[str, Fitted] = {}
    lacking = []
    for finding in bundle.manifest.findings:
        labels = labels_of(kept, finding.key)
        points = {name: point.soon for name, point in finding.operating_points.items()}
        made = recalibrate.fit(labels, points)
        if made is None:
            lacking.append(Lacking(finding.label, len(labels), recalibrate.lacking(labels)))
        elif _slope(made) <= 0:
            raise Misconfigured(
                f"{finding.label}: the more probable the AI says it is, the rarer people find it. That is no matter of "
                "calibration: nothing was proposed. Tell whoever maintains the model."
            )
        else:
            fitted[finding.key] = made
    if not fitted:
        raise Misconfigured("nothing was proposed. " + " ".join(map(too_few, lacking)))
    calibration = Calibration(bundle.digest, acceptance.digest_of(kept), fitted)
    with transaction(store):
        if calibrations.add(store, bundle.digest, Proposed(calibration.digest, calibration.document, by, at)):
            reads = {key: one.held.reads for key, one in fitted.items()}
            detail: dict[str, Any] = {"calibration": calibration.digest, "set": calibration.set, "reads": reads}
            audit.append(store, audit.Event.CALIBRATION_PROPOSED, by, at, **detail)
    return calibration, lacking


def too_few(one: Lacking) -> str:
    """The sentence for a finding that has too few reads."""
    return (
        f"{one.label}: {one.reads} films were read here without seeing the AI; at least {one.more} more are needed "
        f"({recalibrate.AT_LEAST} in all, {recalibrate.OF_EACH} abnormal and {recalibrate.OF_EACH} normal among them)."
    )


def labels_of(kept: list[acceptance.Retained], finding: str) -> list[Label]:
    """The films of this finding's domain with their readers' word, which is what an acceptance judges by: normal or abnormal."""
    return [
        Label(_patient(one), acceptance.as_shipped(said), one.abnormal)
        for one in kept
        if one.decision is not None
        for said in one.decision.findings
        if said.finding == finding
    ]


def before(config: Config, store: sqlite3.Connection) -> acceptance.Proposal:
    """What was accepted before what is accepted now, of the model in use. Raises `Misconfigured` where there is none."""
    history = acceptances.history(store)
    bundle = load(passport.folder(config))
    devices = passport.devices(store, bundle)
    earlier = [one for one in history if one.device_uid in devices and one.device_uid != history[-1].device_uid]
    found = [one for one in acceptance.proposals(config, store) if earlier and one.device_uid == earlier[-1].device_uid]
    if not found:
        raise Misconfigured("there is nothing to go back to: nothing else was accepted here with this model.")
    return found[0]


def _slope(made: Fitted) -> float:
    """Above 0 where the map rises; an isotonic one does, unless it is level."""
    if isinstance(made.map, Platt):
        return made.map.slope
    return made.map.values[-1] - made.map.values[0]


def _patient(one: acceptance.Retained) -> str:
    said = one.film.header
    return f"{said.IssuerOfPatientID}\n{said.PatientID}" if said.PatientID else f"film {one.film.arrival.id}"
