"""Evidence: what a trial that has ended leaves, for people outside: a file without names, its counts, and the proof of its lots."""

from __future__ import annotations

import csv
import io
import json
import math
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from edge import trial as trials_here
from edge.config import Config
from edge.records import Arm, Film, Read, ReadKind
from edge.stages.deidentify import Door
from edge.state import audit, pseudonyms, reads, results, trials
from edge.state.audit import Event
from edge.state.trials import Allocation, Trial
from edge.validity import randomize
from edge.validity.accuracy import age_band
from edge.validity.trial import Followed, Told, gained, told
from edge.vocabulary import IMPRESSIONS, OVERRIDES

COUNTED = {
    Event.VIEWED: "looks",
    Event.REVEALED: "revealed",
    Event.WITHDRAWN: "taken_back",
    Event.ALERT_ACKNOWLEDGED: "alerts_acknowledged",
    Event.AGE_SUPPLIED: "ages_supplied",
}
"""What people did with a film and the AI's answer, beside deciding (DECIDE-AI item 13)."""


@dataclass(frozen=True)
class Evidence:
    """A trial and what came of it."""

    trial: Trial
    arrived: int
    excluded: dict[str, int]
    """By reason, films that came during it and were in no arm."""
    films: list[Followed]

    @property
    def arms(self) -> list[Told]:
        """What came of each arm."""
        return [told(arm, self.films) for arm in Arm]


def counts(store: sqlite3.Connection, trial: Trial) -> tuple[int, dict[str, int]]:
    """How many films came during a trial, and how many were left out, by reason: all that is told while it runs."""
    came = trials.allocations(store, trial)
    return len(came), dict(Counter(one.excluded for one in came if one.excluded))


def gather(config: Config, store: sqlite3.Connection, trial: Trial) -> Evidence:
    """What came of a trial that has ended. Raises ValueError while it runs: who knows results can no longer run it blindly."""
    if trial.ended_at is None:
        raise ValueError("the trial has not ended")
    until = trial.ended_at
    arrived, excluded = counts(store, trial)
    door = Door(pseudonyms.key(Path(config.state)))
    randomized = [one for one in trials.allocations(store, trial) if one.arm is not None]
    decided = reads.decisions(store)
    blind = {read.arrival_id: read for read in reads.blind(store, 2**31)}
    done: dict[int, dict[Event, audit.Counted]] = {}
    for one in audit.counted(store, [film.arrival_id for film in randomized], list(COUNTED), until):
        done.setdefault(one.arrival_id, {})[one.event] = one
    first_day = trials_here.today(config, trial.registered_at)
    films = [
        _followed(
            trial,
            one,
            (one.day - first_day).days,
            results.film(store, one.arrival_id),
            [read for read in decided.get(one.arrival_id, []) if read.at <= until],
            blind.get(one.arrival_id),
            done.get(one.arrival_id, {}),
            until,
            door,
        )
        for one in randomized
    ]
    return Evidence(trial, arrived, excluded, films)


def _followed(
    trial: Trial,
    given: Allocation,
    day: int,
    film: Film,
    decided: list[Read],
    blind: Read | None,
    done: dict[Event, audit.Counted],
    until: datetime,
    door: Door,
) -> Followed:
    assert given.arm is not None
    assert given.place is not None
    said, decision = film.header, film.decision if film.decided_at and film.decided_at <= until else None
    last = decided[-1] if decided else None
    sight = IMPRESSIONS[blind.codes[0]].sight.value if blind is not None and blind.at <= until else ""
    whose = any((said.PatientID, said.PatientName, said.StudyInstanceUID, said.SOPInstanceUID))

    def minutes(at: datetime | None) -> int | None:
        return None if at is None else max(round((at - film.arrival.received_at).total_seconds() / 60), 0)

    return Followed(
        film=door.name("film", film.arrival.sha256),
        patient=door.patient(said).pseudonym if whose else "",
        arm=given.arm,
        place=given.place,
        day=day,
        age_band=age_band(said.age_years if film.supplied_age is None else film.supplied_age),
        sex=said.PatientSex if said.PatientSex in ("F", "M", "O") else "",
        urgency=film.arrival.urgency.value,
        ai_outcome=decision.outcome.value if decision else "",
        ai_reason=decision.refusal.reason.value if decision and decision.refusal else "",
        same_model=decision.device_uid == trial.protocol.device_uid if decision else None,
        impression=sight,
        decision=last.kind.value if last else "",
        decided_outcome=last.outcome.value if last and last.outcome else "",
        override_reason=last.reason if last and last.kind is ReadKind.OVERRIDE and last.reason in OVERRIDES else "",
        reader=door.person(last.reader) if last else "",
        minutes_to_ai=minutes(film.decided_at if decision else None),
        minutes_to_look=minutes(done[Event.VIEWED].first if Event.VIEWED in done else None),
        minutes_to_decision=minutes(decided[0].at if decided else None),
        minutes_undecided=None if decided else minutes(until),
        **{name: done[event].times if event in done else 0 for event, name in COUNTED.items()},
    )


def table(evidence: Evidence) -> str:
    """The films of a trial as CSV, one a line, without anything that says whose they are or when it was."""
    file = io.StringIO()
    written = csv.DictWriter(file, [one.name for one in fields(Followed)], lineterminator="\n")
    written.writeheader()
    written.writerows(asdict(film) for film in evidence.films)
    return file.getvalue()


def summary(evidence: Evidence) -> str:
    """The counts and times of a trial as JSON, in the order of CONSORT-AI, with the seed that proves its lots; no dates."""
    plan, trial = evidence.trial.protocol, evidence.trial
    first = gained(evidence.films)
    return json.dumps(
        {
            "title": plan.title,
            "ai": {"model": plan.model, "operating_point": plan.operating_point, "device_uid": plan.device_uid},
            "unit": plan.unit,
            "planned_units": plan.size,
            "immediate_raised_in_both_arms": plan.immediate_raised,
            "randomization": {
                "method": randomize.METHOD,
                "commitment": randomize.commitment(trial.seed),
                "seed": trial.seed.hex(),
            },
            "arrived": evidence.arrived,
            "excluded": evidence.excluded,
            "randomized": len(evidence.films),
            "arms": {one.arm.value: _plain(one) for one in evidence.arms},
            "minutes_gained_by_ai_ranking": None if first is None else [_finite(one) for one in first],
        },
        ensure_ascii=False,
        indent=2,
    )


def _plain(one: Told) -> dict[str, Any]:
    plain = {key: _known(value) for key, value in asdict(one).items() if key != "arm"}
    return {**plain, "not_decided": one.lost}


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(one) for one in value]
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def proof(store: sqlite3.Connection, trial: Trial) -> list[str]:
    """What in the ledger's records of a trial that has ended does not follow from its seed, in English; empty where all does."""
    told_of = [one for one in audit.records(store) if one.detail.get("trial") == trial.id]
    registered = next(one for one in told_of if one.event is Event.TRIAL_REGISTERED)
    ended = next((one for one in told_of if one.event in (Event.TRIAL_ENDED, Event.TRIAL_STOPPED)), None)
    if ended is None:
        raise ValueError("the trial has not ended")
    given = [(one.detail["place"], Arm(one.detail["arm"])) for one in told_of if one.event is Event.RANDOMIZED]
    return randomize.differs(bytes.fromhex(ended.detail["seed"]), registered.detail["commitment"], given)
