"""Trial: the AI's order against order of arrival, drawn by lot, for as long as a lead lets it run.

What must be raised is raised in both arms: what was ordered as urgent, what waits too long, what the AI could not assess, and,
unless the site's policy says otherwise, what the AI calls immediate. Nothing of the results is told before the trial has ended.
"""

from __future__ import annotations

import secrets
import sqlite3
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from edge.config import Config
from edge.errors import Misconfigured
from edge.records import Protocol, Unit
from edge.state import acceptances, arrivals, audit, trials
from edge.state.audit import Event
from edge.state.trials import Trial
from edge.validity import randomize

TITLE = 200
"""So many characters a title has at most."""
FEWEST = 4
"""Units that a trial has at least."""


class Exclusion(StrEnum):
    """Why a film that came during a trial is in no arm."""

    MODEL = "model"
    """The model at work was not the one that the trial is of."""
    TWICE = "twice"
    """A film with the same identifier was here before."""


class Obstacle(StrEnum):
    """Why a trial cannot be registered."""

    RUNNING = "running"
    NOT_ACCEPTED = "not_accepted"
    """No model ranks here."""
    TITLE = "title"
    END = "end"
    """Neither a size nor a day ends it."""
    SIZE = "size"
    DAY = "day"
    """The last day is over."""


OBSTACLES = {
    Obstacle.RUNNING: "Another trial is running. End it first.",
    Obstacle.NOT_ACCEPTED: "No model ranks here, so there is nothing to compare. Accept one first.",
    Obstacle.TITLE: f"Give the trial a title of at most {TITLE} letters.",
    Obstacle.END: "Say how many films or days are planned, or the last day.",
    Obstacle.SIZE: f"Plan at least {FEWEST} films or days.",
    Obstacle.DAY: "The last day is over already.",
}


def today(config: Config, at: datetime) -> date:
    """The day by the clinic's clock."""
    return at.astimezone(ZoneInfo(config.site.timezone)).date()


def at_work(store: sqlite3.Connection) -> acceptances.Acceptance | None:
    """The acceptance of the model that ranks here now; None in shadow mode, or where another model is in use."""
    signed = acceptances.latest(store)
    changed = audit.latest(store, Event.MODEL_CHANGED)
    if signed is None or (changed is not None and changed.detail["device_uid"] != signed.device_uid):
        return None
    return signed


def obstacle(
    config: Config, store: sqlite3.Connection, title: str, size: int | None, last_day: date | None, at: datetime
) -> Obstacle | None:
    """What stands in the way of a trial, or None."""
    if trials.running(store) is not None:
        return Obstacle.RUNNING
    if at_work(store) is None:
        return Obstacle.NOT_ACCEPTED
    if not title or len(title) > TITLE:
        return Obstacle.TITLE
    if size is None and last_day is None:
        return Obstacle.END
    if size is not None and size < FEWEST:
        return Obstacle.SIZE
    return Obstacle.DAY if last_day is not None and last_day < today(config, at) else None


def register(
    config: Config,
    store: sqlite3.Connection,
    title: str,
    unit: Unit,
    size: int | None,
    last_day: date | None,
    by: str,
    at: datetime,
) -> Trial:
    """Begin a trial inside the caller's transaction: from now on every film that comes is in an arm.

    Raises `Misconfigured` with what stands in the way.
    """
    if (found := obstacle(config, store, title, size, last_day, at)) is not None:
        raise Misconfigured(OBSTACLES[found])
    signed = at_work(store)
    assert signed is not None
    protocol = Protocol(
        title=title,
        unit=unit,
        size=size,
        last_day=last_day,
        immediate_raised=config.policy.immediate_always_raised,
        device_uid=signed.device_uid,
        operating_point=signed.operating_point,
        model=str(signed.passport.get("model", "")),
    )
    begun = trials.register(store, protocol, secrets.token_bytes(randomize.SEED_BYTES), by, at)
    audit.append(
        store,
        Event.TRIAL_REGISTERED,
        by,
        at,
        trial=begun.id,
        title=title,
        unit=unit,
        size=size,
        last_day=last_day.isoformat() if last_day else None,
        immediate_raised=protocol.immediate_raised,
        device_uid=protocol.device_uid,
        operating_point=protocol.operating_point,
        method=randomize.METHOD,
        commitment=randomize.commitment(begun.seed),
    )
    return begun


def complete(config: Config, store: sqlite3.Connection, trial: Trial, at: datetime) -> bool:
    """Whether everything was randomized that was planned: no further film is, and a lead can end it."""
    plan, day = trial.protocol, today(config, at)
    if plan.last_day is not None and day > plan.last_day:
        return True
    if plan.size is None or trials.units(store, trial) < plan.size:
        return False
    return plan.unit is Unit.FILM or trials.place_of(store, trial, day) is None


def allocate(config: Config, store: sqlite3.Connection, arrival_id: int, sop_instance_uid: str, at: datetime) -> None:
    """Draw the arm of a film that has just arrived, if a trial is running, inside the transaction of its arrival.

    Nobody has seen the film, nor has the AI. The end of a trial is not decided here: a clock that jumps must not reveal its seed.
    """
    trial = trials.running(store)
    if trial is None or complete(config, store, trial, at):
        return
    day = today(config, at)
    excluded = _excluded(store, trial, sop_instance_uid)
    if excluded is not None:
        trials.allocate(store, trial, arrival_id, day, None, None, excluded)
        audit.append(store, Event.NOT_RANDOMIZED, "intake", at, arrival_id, trial=trial.id, why=excluded)
        return
    known = trials.place_of(store, trial, day) if trial.protocol.unit is Unit.DAY else None
    place = trials.units(store, trial) if known is None else known
    arm = randomize.arm(trial.seed, place)
    trials.allocate(store, trial, arrival_id, day, place, arm)
    audit.append(store, Event.RANDOMIZED, "intake", at, arrival_id, trial=trial.id, place=place, arm=arm)


def _excluded(store: sqlite3.Connection, trial: Trial, sop_instance_uid: str) -> Exclusion | None:
    signed = at_work(store)
    if signed is None or signed.device_uid != trial.protocol.device_uid:
        return Exclusion.MODEL
    return Exclusion.TWICE if len(arrivals.of_instance(store, sop_instance_uid)) > 1 else None


def end(config: Config, store: sqlite3.Connection, by: str, at: datetime) -> Trial | None:
    """End the running trial inside the caller's transaction and reveal its seed: the AI ranks every film again.

    Returns it as it was, or None where none is running.
    """
    trial = trials.running(store)
    if trial is None:
        return None
    planned = complete(config, store, trial, at)
    trials.end(store, trial, by, at)
    audit.append(
        store,
        Event.TRIAL_ENDED if planned else Event.TRIAL_STOPPED,
        by,
        at,
        trial=trial.id,
        units=trials.units(store, trial),
        seed=trial.seed.hex(),
    )
    return trial
