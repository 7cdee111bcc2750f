"""A trial from its registration to its export: what is drawn, what holds in both arms, what is told when, and of whom."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge import evidence, trial
from edge.cli import main
from edge.config import save
from edge.errors import Tampered
from edge.records import Arm, Assessment, Decision, Finding, Header, Outcome, ReadKind, Role, Unit, Urgency
from edge.state import acceptances, arrivals, audit, reads, results, trials
from edge.state.audit import Event
from edge.state.store import now, transaction
from edge.validity.randomize import arm as drawn
from edge.validity.randomize import commitment
from edge.validity.trial import gained
from tests import seeds
from tests.people import PIN, sign_in
from tests.unit.test_languages import Pseudo, left_out
from tests.unit.test_web import ACCEPTED, OWN, Box
from web import languages

FORM = {"title": "Order <b>trial</b>", "unit": "film", "size": "40", "last_day": "", "pin": PIN}
FINDING = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.72, 0.58, 0.83, "balanced", 0.3, 0.7)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        sign_in(box.client, Path(box.config.state), "Lina", Role.LEAD)
        box.accept()
        yield box


def post(box: Box, path: str, **form: str) -> int:
    return int(box.client.post(path, data=form, headers=OWN).status_code)


def begin(box: Box, **changed: str) -> trials.Trial:
    assert post(box, "/trial", **{**FORM, **changed}) == 303
    found = trials.running(box.store)
    assert found is not None
    return found


def came(box: Box, outcome: Outcome | None = None, minutes: float = 0, days: float = 0,
         header: Header | None = None, urgency: Urgency = Urgency.ROUTINE, uid: str = "") -> int:  # fmt: skip
    """A film as intake takes it in, then assessed."""
    box.count += 1
    at = now() - timedelta(minutes=minutes) + timedelta(days=days)
    with transaction(box.store):
        film, _ = arrivals.add(box.store, uid or f"1.3.{box.count}", f"{box.count:064x}", "XRAY", at, urgency)  # type: ignore[arg-type]
        trial.allocate(box.config, box.store, film, uid or f"1.3.{box.count}", at)
    if outcome is not None:
        with transaction(box.store):
            decision = Decision(outcome, (FINDING,), "m", ACCEPTED)
            results.add(box.store, film, 1, Assessment(header or Header(PatientID="P"), decision, None, {}), now())
    return film


def until(box: Box, arm: Arm, outcome: Outcome, minutes: float) -> int:
    """Films until one is in that arm; those before it are decided at once."""
    running = trials.running(box.store)
    assert running is not None
    while trials.arms(box.store, running, [film := came(box, outcome, minutes)])[film] is not arm:
        with transaction(box.store):
            reads.add(box.store, film, 1, ReadKind.CONFIRM, "Amina", now(), f"k{film}", outcome=outcome)
    return film


def test_only_a_lead_with_the_pin_and_an_accepted_model(box: Box, tmp_path: Path) -> None:
    assert post(box, "/trial", **{**FORM, "pin": "000000"}) == 422
    for changed in ({"title": " "}, {"size": ""}, {"size": "2"}, {"size": "many"}, {"last_day": "2020-01-01"}):
        assert post(box, "/trial", **{**FORM, **changed}) == 422
    with transaction(box.store):
        audit.append(box.store, Event.MODEL_CHANGED, "worker", now(), device_uid="2.25.9")
    assert post(box, "/trial", **FORM) == 409
    assert trials.latest(box.store) is None
    sign_in(box.client, Path(box.config.state), "Clara", Role.CLINICIAN)
    assert box.client.get("/trial").status_code == 403 and post(box, "/trial", **FORM) == 403


def test_the_seed_is_told_to_nobody_before_the_end_and_to_all_after(box: Box) -> None:
    running = begin(box)
    films = [came(box, Outcome.SOON) for _ in range(6)]
    told = [one for one in audit.records(box.store) if one.event is Event.TRIAL_REGISTERED]
    assert told[0].detail["commitment"] == commitment(running.seed)
    secret = running.seed.hex()
    shown = box.text("/trial") + box.text("/ledger") + repr(running) + "".join(map(str, audit.records(box.store)))
    assert secret not in shown and commitment(running.seed) in shown
    assert post(box, "/trial/export", kind="csv") == 404
    with pytest.raises(ValueError, match="not ended"):
        evidence.gather(box.config, box.store, running)
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    assert secret in box.text("/trial") and audit.latest(box.store, Event.TRIAL_STOPPED) is not None
    assert evidence.proof(box.store, running) == []
    given = [one for one in audit.records(box.store) if one.event is Event.RANDOMIZED]
    assert [(one.arrival_id, one.detail["place"], one.detail["arm"]) for one in given] == [
        (film, place, drawn(running.seed, place)) for place, film in enumerate(films)
    ]
    with transaction(box.store):
        audit.append(box.store, Event.RANDOMIZED, "intake", now(), films[0], trial=running.id, place=6,
                     arm=next(one for one in Arm if one is not drawn(running.seed, 6)))  # fmt: skip
    assert evidence.proof(box.store, running) != []


def test_in_order_of_arrival_soon_keeps_its_turn_and_immediate_does_not(box: Box) -> None:
    first = came(box, Outcome.ROUTINE, minutes=50)
    begin(box)
    soon = until(box, Arm.ARRIVAL_ORDER, Outcome.SOON, 30)
    assert box.order() == [first, soon]
    ranked = until(box, Arm.AI_RANKED, Outcome.SOON, 20)
    assert box.order() == [ranked, first, soon]
    immediate = until(box, Arm.ARRIVAL_ORDER, Outcome.IMMEDIATE, 10)
    assert box.order() == [immediate, ranked, first, soon]
    stat = came(box, Outcome.ROUTINE, minutes=5, urgency=Urgency.STAT)
    assert box.order() == [immediate, stat, ranked, first, soon]
    assert post(box, "/trial/end", trial="1", pin=PIN) == 303
    assert box.order() == [immediate, stat, soon, ranked, first]


def test_the_units_are_films_or_days_and_the_plan_is_kept(box: Box) -> None:
    running = begin(box, unit=Unit.DAY, size="4")
    for days in (0, 0, 1, 1, 0, 2, 3, 3, 4, 5):
        came(box, days=days)
    places = [one.place for one in trials.allocations(box.store, running)]
    assert places == [0, 0, 1, 1, 0, 2, 3, 3], "days after the fourth are not of the trial"
    begun = trial.complete(box.config, box.store, running, now() + timedelta(days=4))
    assert begun and not trial.complete(box.config, box.store, running, now() + timedelta(days=3))
    with transaction(box.store):
        trial.end(box.config, box.store, "Lina", now() + timedelta(days=4))
    assert audit.latest(box.store, Event.TRIAL_ENDED) is not None and trials.running(box.store) is None


def test_films_of_another_model_or_that_were_here_are_left_out_and_counted(box: Box) -> None:
    running = begin(box)
    came(box, uid="1.9")
    came(box, uid="1.9")
    with transaction(box.store):
        acceptances.sign(box.store, "2.25.2", "balanced", "Lina", now())
    came(box)
    assert evidence.counts(box.store, running) == (3, {"twice": 1, "model": 1})


def test_the_end_waits_for_no_clock(box: Box) -> None:
    running = begin(box, size="", last_day=trial.today(box.config, now()).isoformat())
    came(box, days=400)
    assert trials.running(box.store) is not None and trials.allocations(box.store, running) == []
    came(box)
    assert len(trials.allocations(box.store, running)) == 1


def test_what_is_exported_names_nobody_and_has_no_date(box: Box) -> None:
    begin(box)
    draw, people = random.Random(7), []
    for number in range(40):
        who = seeds.person(draw, list(seeds.SCRIPTS)[number % len(seeds.SCRIPTS)])
        people.append(who)
        header = Header(
            SOPInstanceUID=f"1.2.{who.telephone}", StudyInstanceUID=f"1.2.826.{who.telephone}",
            PatientName=f"{who.family}^{who.given}",
            PatientID=who.number, IssuerOfPatientID=who.address, PatientBirthDate=who.born, StudyDate=who.taken,
            PatientSex="F" if number % 2 else who.given, StudyDescription=who.address, AccessionNumber=who.number,
            ReferringPhysicianName=who.family, Manufacturer=who.family, age_years=40.0,
        )  # fmt: skip
        film = came(box, Outcome.SOON, minutes=60, header=header, uid=header.SOPInstanceUID)
        kind = ReadKind.OVERRIDE if number % 3 else ReadKind.CONFIRM
        with transaction(box.store):
            audit.append(box.store, Event.VIEWED, who.family, now(), film)
            reads.add(box.store, film, 1, kind, f"{who.given} {who.family}", now(), f"key {film}",
                      outcome=Outcome.ROUTINE if number % 3 else Outcome.SOON, reason=who.family)  # fmt: skip
    assert post(box, "/trial/end", trial="1", pin=PIN) == 303
    table, summary = (
        box.client.post("/trial/export", data={"kind": kind}, headers=OWN).data for kind in ("csv", "json")
    )
    for who in people:
        assert seeds.hunt(table + summary, who) == set()
    assert f"{now():%Y-%m-%d}".encode() not in table + summary and b"Lina" not in table + summary
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert len(rows) == len({row["film"] for row in rows}) == len({row["patient"] for row in rows}) == 40
    assert {row["sex"] for row in rows} == {"", "F"} and {row["age_band"] for row in rows} == {"40-65"}
    assert {row["minutes_to_decision"] for row in rows} <= {"60", "61"} and {row["looks"] for row in rows} == {"1"}
    told = json.loads(summary)
    assert (told["arrived"], told["randomized"], told["excluded"]) == (40, 40, {})
    assert sum(one["analysed"] for one in told["arms"].values()) == 40
    assert sum(one["agreed"]["count"] for one in told["arms"].values()) == 14
    seed = bytes.fromhex(told["randomization"]["seed"])
    assert [row["arm"] for row in rows] == [drawn(seed, int(row["place"])) for row in rows]
    assert audit.latest(box.store, Event.TRIAL_EXPORTED) is not None
    leaky = replace(evidence.gather(box.config, box.store, trials.latest(box.store)).films[0], reader=people[0].family)  # type: ignore[arg-type]
    assert seeds.hunt(str(leaky).encode(), people[0]), "the hunt would find a name"


def test_results_are_shown_after_the_end_only_and_all_in_words(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(box)
    for number in range(12):
        film = came(box, Outcome.SOON, minutes=30)
        with transaction(box.store):
            reads.add(box.store, film, 1, ReadKind.OVERRIDE, "A", now(), f"key {film}", outcome=Outcome.ROUTINE,
                      reason="missed" if number % 2 else "")  # fmt: skip
    page = box.text("/trial")
    assert "<b>trial</b>" not in page and "Until somebody decided" not in page
    assert post(box, "/trial/end", trial="1", pin=PIN) == 303
    page = box.text("/trial")
    assert "Until somebody decided" in page and "The AI missed something" in page
    monkeypatch.setattr(languages, "_catalogue", lambda code: Pseudo())
    assert left_out(box.text("/trial")) == []


def test_what_was_decided_counts_from_the_first_decision_and_only_until_the_end(box: Box) -> None:
    running = begin(box)
    twice, late = (came(box, Outcome.SOON, minutes=60) for _ in range(2))
    at = now()
    with transaction(box.store) as store:
        for film, kind, minutes in (
            (twice, ReadKind.CONFIRM, -50), (twice, ReadKind.OVERRIDE, -20), (late, ReadKind.CONFIRM, 90)
        ):  # fmt: skip
            reads.add(store, film, 1, kind, "Amina", at + timedelta(minutes=minutes), f"{film} {kind}",
                      outcome=Outcome.ROUTINE)  # fmt: skip
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    of_twice, of_late = gathered(box, running).films
    assert of_twice.minutes_to_decision in range(10, 20) and of_twice.decision == "override", "the first ended the wait"
    assert (of_late.minutes_to_decision, of_late.decision) == (None, "")
    assert of_late.minutes_undecided in range(60, 65), "until the end of the trial, not until it was decided"
    assert [sum(getattr(arm, name) for arm in gathered(box, running).arms) for name in ("analysed", "lost")] == [1, 1]


def test_nothing_that_came_after_the_end_is_told(box: Box) -> None:
    running = begin(box)
    film = came(box)
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    later = now() + timedelta(minutes=5)
    with transaction(box.store) as store:
        assessment = Assessment(Header(PatientID="P"), Decision(Outcome.SOON, (FINDING,), "m", ACCEPTED), None, {})
        results.add(store, film, 1, assessment, later)
        audit.append(store, Event.VIEWED, "Amina", later, film)
        reads.add(store, film, 1, ReadKind.IMPRESSION, "Amina", later, "i", codes=("effusion",), seal="s")
    (told,) = gathered(box, running).films
    assert (told.ai_outcome, told.same_model, told.minutes_to_ai) == ("", None, None)
    assert (told.impression, told.looks, told.minutes_to_look) == ("", 0, None)
    assert sum(arm.unassessed for arm in gathered(box, running).arms) == 1


@pytest.mark.parametrize(("slow", "word"), [(Arm.ARRIVAL_ORDER, "earlier"), (Arm.AI_RANKED, "later")])
def test_which_arm_waits_less_is_said_the_right_way_round(box: Box, slow: Arm, word: str) -> None:
    running = begin(box)
    for place in range(30):
        film = came(box, Outcome.SOON, minutes=210 if drawn(running.seed, place) is slow else 15)
        with transaction(box.store):
            reads.add(box.store, film, 1, ReadKind.CONFIRM, "Amina", now(), f"k{film}", outcome=Outcome.SOON)
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    assert re.search(rf"half of the films are decided at least 3 h( \d+ min)? {word}", box.text("/trial"))
    low, high = gained(gathered(box, running).films) or (0.0, 0.0)
    assert (low > 0) is (high > 0) is (word == "earlier") and abs(low) == pytest.approx(195, abs=10)
    arms = {one.arm: one for one in gathered(box, running).arms}
    waits = {arm: one.to_decision.median for arm, one in arms.items() if one.to_decision is not None}
    assert waits[slow] > 200 > 30 > min(waits.values())


def test_a_blind_read_agrees_where_the_ai_raised_what_was_called_abnormal(box: Box) -> None:
    running = begin(box)
    said = [
        (Outcome.SOON, "effusion"), (Outcome.IMMEDIATE, "effusion"), (Outcome.ROUTINE, "normal"),
        (Outcome.ROUTINE, "effusion"), (Outcome.SOON, "unsure"), (Outcome.COULD_NOT_ASSESS, "effusion"),
    ]  # fmt: skip
    for outcome, code in said:
        film = came(box, outcome)
        with transaction(box.store) as store:
            reads.add(store, film, 1, ReadKind.IMPRESSION, "Amina", now(), f"i{film}", codes=(code,), seal="s")
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    shares = [one.agreed_blind for one in gathered(box, running).arms]
    assert (sum(one.count for one in shares), sum(one.of for one in shares)) == (3, 4)


def test_a_referral_neither_agrees_nor_overrides(box: Box) -> None:
    running = begin(box)
    for kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE, ReadKind.REFER):
        film = came(box, Outcome.SOON, minutes=10)
        with transaction(box.store) as store:
            reads.add(store, film, 1, kind, "Amina", now(), f"k{film}", outcome=Outcome.SOON)
    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    arms = gathered(box, running).arms
    assert (sum(one.agreed.count for one in arms), sum(one.agreed.of for one in arms)) == (1, 2)
    assert [sum(getattr(one, name) for one in arms) for name in ("referred", "analysed", "lost")] == [1, 3, 0]


def outpost(box: Box, *arguments: str, status: int = 0) -> str:
    path = Path(box.config.state) / "test.toml"
    save(box.config, path)
    ran = CliRunner().invoke(main, ["--config", str(path), "commission", "trial", *arguments], catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.output


def test_the_commands_tell_nothing_before_the_end_and_everything_after(box: Box, tmp_path: Path) -> None:
    assert "No trial was registered on this box" in outpost(box, "show", status=78)
    running = begin(box)
    for number in range(5):
        film = came(box, Outcome.SOON, minutes=30, header=Header(PatientName="Silva^Ana", PatientID=f"P{number}"))
        with transaction(box.store):
            reads.add(box.store, film, 1, ReadKind.CONFIRM, "Amina", now(), f"k{film}", outcome=Outcome.SOON)
    said = outpost(box, "show")
    assert "it runs. 5 films came; left out: 0" in said and "arm" not in said
    folder = tmp_path / "out"
    for arguments in (("export", "--out", str(folder), "--by", "Lina"), ("verify",)):
        assert "The trial runs" in outpost(box, *arguments, status=78)
    assert not folder.exists() and audit.latest(box.store, Event.TRIAL_EXPORTED) is None

    assert post(box, "/trial/end", trial=str(running.id), pin=PIN) == 303
    assert set(json.loads(outpost(box, "show"))) == set(json.loads(evidence.summary(gathered(box, running))))
    assert "Every arm follows from the seed" in outpost(box, "verify")
    assert "5 randomized films written" in outpost(box, "export", "--out", str(folder), "--by", "Lina")
    written = (folder / "trial.csv").read_text() + (folder / "trial.json").read_text()
    assert "Silva" not in written and "Amina" not in written
    assert len(list(csv.DictReader(io.StringIO((folder / "trial.csv").read_text())))) == 5
    record = audit.latest(box.store, Event.TRIAL_EXPORTED)
    assert record is not None and record.actor == "Lina"
    (tmp_path / "file").write_text("in the way")
    assert "Give a folder" in outpost(box, "export", "--out", str(tmp_path / "file/out"), "--by", "Lina", status=78)
    with transaction(box.store):
        wrong = next(one for one in Arm if one is not drawn(running.seed, 5))
        audit.append(box.store, Event.RANDOMIZED, "intake", now(), 1, trial=running.id, place=5, arm=wrong)
    assert "the arms are not those of the seed" in outpost(box, "verify", status=Tampered.exit_status)


def gathered(box: Box, running: trials.Trial) -> evidence.Evidence:
    ended = trials.latest(box.store)
    assert ended is not None and ended.id == running.id
    return evidence.gather(box.config, box.store, ended)
