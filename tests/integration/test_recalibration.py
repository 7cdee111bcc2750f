"""A site's own calibration: from reads to a proposal, a signature, the worker that follows, and back."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge import acceptance, passport, recalibration
from edge.acceptance import Hindrance
from edge.cli import main
from edge.config import Config, Intake, save
from edge.errors import Misconfigured, Tampered
from edge.intake import Intake as Door
from edge.records import Assessment, Decision, Finding, Header, Outcome, ReadKind, Role, Sha256
from edge.samples import film
from edge.stages import decide
from edge.state import acceptances, accounts, arrivals, audit, calibrations, queue, reads, results
from edge.state.store import now, open_store, transaction
from edge.validity.accuracy import Difference, Judged, needed
from edge.validity.calibration import Calibration, Fitted, Held, Platt
from edge.worker import Worker, run
from models import phantom
from models.bundle import SHIPPED, load
from tests.box import ROOT
from tests.people import PIN, SECRET, sign_in
from web import clinic

FILMS = 240
BUNDLE = load(SHIPPED)
CHILD = next(finding for finding in BUNDLE.manifest.findings if finding.domain == "child")


@pytest.fixture
def config(state: Path) -> Config:
    """A box in use: a lead, and nothing read yet."""
    with closing(open_store(state)) as store, transaction(store):
        accounts.add(store, "Lindiwe", Role.LEAD, "en", SECRET, now())
    return Config(state=str(state), intake=Intake(disk_floor_mib=0))


def said(probability: float) -> Decision:
    """What the shipped model would have said, had its network put out this."""
    point = CHILD.operating_points["balanced"]
    described = (CHILD.key, CHILD.label, CHILD.scheme, CHILD.code)
    finding = Finding(*described, probability, 0.0, 1.0, "balanced", point.soon, point.immediate)
    return decide.decide([finding], "cxr-lite0 0.1.0", passport.device_uid(BUNDLE, "balanced"))


RARER = (1.0, -2.1)
"""Slope and shift of a site where fewer children are ill than the model supposes."""
SURER = (2.5, -0.4)
"""Where the model is too hesitant, on both sides of about the threshold: put right, hardly a film changes sides."""


def live(config: Config, truth: tuple[float, float] = RARER, number: int = FILMS, blind: bool = True) -> None:
    """A site of children with films that were assessed, and read without seeing the AI or after it."""
    draw = np.random.default_rng(4)
    with closing(open_store(Path(config.state))) as store, transaction(store):
        begun = store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0]
        for n in range(begun, begun + number):
            logit = float(draw.normal(0.5, 2.0))
            probability = 1 / (1 + np.exp(-logit))
            abnormal = bool(draw.random() < 1 / (1 + np.exp(-truth[0] * logit - truth[1])))
            at = now() - timedelta(minutes=begun + number - n)
            film, _ = arrivals.add(store, f"1.2.3.{n}", Sha256(f"{n:064x}"), "MODALITY", at)
            queue.add(store, film, arrivals.read(arrivals.get(store, film)).urgency, at)
            job = queue.claim(store, now(), 60)
            assert job is not None
            queue.finish(store, job)
            header = Header(PatientID=f"{n // 2}", PatientSex="F", age_years=3.0)
            results.add(store, film, 1, Assessment(header, said(float(probability)), None, {}), at)
            codes = ("consolidation" if abnormal else "normal",)
            if blind:
                seal = reads.seal(Sha256(f"{n:064x}"), 1, "Amina", at, codes)
                reads.add(store, film, 1, ReadKind.IMPRESSION, "Amina", at, f"key-{n}", codes=codes, seal=seal)
            else:
                outcome = Outcome.SOON if abnormal else Outcome.ROUTINE
                reads.add(store, film, 1, ReadKind.CONFIRM, "Amina", at, f"key-{n}", outcome=outcome, codes=codes)


def outpost(config: Config, *arguments: str, status: int = 0) -> str:
    from click.testing import CliRunner

    path = Path(config.state) / "test.toml"
    save(config, path)
    ran = CliRunner().invoke(main, ["--config", str(path), *arguments], catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.output


def propose(config: Config) -> Calibration:
    with closing(open_store(Path(config.state))) as store:
        return recalibration.propose(config, store, "Lindiwe", now())[0]


def sign(config: Config, *arguments: str) -> str:
    return outpost(config, "commission", "sign", "--by", "Lindiwe", "--pin", PIN, *arguments)


def accepted(config: Config) -> str | None:
    with closing(open_store(Path(config.state))) as store:
        return acceptances.accepted(store)


def test_too_few_reads_change_nothing_and_the_number_needed_is_said(config: Config) -> None:
    live(config, number=90)
    told = outpost(config, "commission", "recalibrate", "--by", "Lindiwe", status=78)
    assert "Pneumonia: 90 films were read here without seeing the AI; at least 10 more are needed" in told
    assert "Lung opacity: 0 films were read here" in told
    with closing(open_store(Path(config.state))) as store:
        assert calibrations.of_bundle(store, BUNDLE.digest) == []
        assert audit.latest(store, audit.Event.CALIBRATION_PROPOSED) is None


def test_reads_of_people_who_saw_the_ai_teach_nothing(config: Config) -> None:
    live(config, blind=False)
    with pytest.raises(
        Misconfigured, match="Pneumonia: 0 films were read here without seeing the AI; at least 100 more"
    ):
        propose(config)
    live(config, number=120)
    held = propose(config).findings[CHILD.key].held
    assert held.reads == 120
    assert held.patients == 60


def test_a_proposal_changes_nothing_until_a_lead_signs_and_can_be_taken_back(config: Config) -> None:
    live(config)
    sign(config, "--calibration", "own")
    own = passport.device_uid(BUNDLE, "balanced")
    told = outpost(config, "commission", "recalibrate", "--by", "Lindiwe")
    assert "240 films of 120 patients read without seeing the AI" in told
    assert "Lung opacity: 0 films" in told
    with closing(open_store(Path(config.state))) as store:
        kept = calibrations.of_bundle(store, BUNDLE.digest)
        proposed = passport.calibration(store, kept[-1].digest)
        worker = Worker(config, store)
        worker.follow()
        assert worker.reader.device_uid == own == accepted(config), "nobody has signed it"
        made = proposed.findings[CHILD.key]
        assert isinstance(made.map, Platt)
        assert made.map.intercept < -0.5, "here fewer are ill than the model supposes"
        assert made.held.truer

        point = "sensitive" if made.held.keeps("sensitive") else "balanced"
        [chosen] = [
            one
            for one in acceptance.proposals(config, store)
            if one.calibration == proposed and one.operating_point == point
        ]
        assert len(chosen.films) == FILMS
        assert chosen.sensitivity is not None, "old and new are compared on the films read here"


def test_the_worker_follows_a_signature_and_the_way_back(config: Config) -> None:
    live(config, SURER)
    sign(config, "--calibration", "own")
    outpost(config, "commission", "recalibrate", "--by", "Lindiwe")
    own = passport.device_uid(BUNDLE, "balanced")
    with closing(open_store(Path(config.state))) as store:
        proposed = passport.calibration(store, calibrations.of_bundle(store, BUNDLE.digest)[-1].digest)
    assert "calibration " + proposed.digest[:12] in sign(config, "--calibration", "proposed")
    ours = passport.device_uid(BUNDLE, "balanced", proposed.digest)
    assert accepted(config) == ours != own

    with closing(open_store(Path(config.state))) as store:
        door = Door(config)
        path = Path(config.state) / "new.dcm"
        film(phantom.chest(77, size=(256, 256)), "New^Film", "003Y", "F").save_as(path, enforce_file_format=True)
        number, _ = door.accept_copy(path, "MODALITY")
        door.store.close()
        worker = Worker(config, store)
        assert worker.reader.device_uid == ours, "also after a restart"
        worker.step()
        decision = results.film(store, number).decision
        assert decision is not None
        assert decision.device_uid == ours
        [found] = decision.findings
        assert found.as_shipped is not None
        expected = proposed.apply(CHILD.key, found.as_shipped)
        assert expected is not None
        assert (found.probability, found.low, found.high) == expected
        assert found.probability != found.as_shipped

        outpost(config, "commission", "revert", "--by", "Lindiwe", "--pin", PIN)
        assert accepted(config) == own
        worker.follow()
        assert worker.reader.device_uid == own
        outpost(config, "commission", "revert", "--by", "Lindiwe", "--pin", PIN)
        assert accepted(config) == ours, "and forth: each is one more signature"
        worker.follow()
        assert worker.reader.calibration == proposed
        told = [
            (record.event, record.actor, record.detail.get("calibration"))
            for record in audit.records(store)
            if record.event in (audit.Event.ACCEPTED, audit.Event.CALIBRATION_PROPOSED)
            and "calibration" in record.detail
        ]
        assert told == [
            (audit.Event.ACCEPTED, "Lindiwe", ""),
            (audit.Event.CALIBRATION_PROPOSED, "Lindiwe", proposed.digest),
            (audit.Event.ACCEPTED, "Lindiwe", proposed.digest),
            (audit.Event.ACCEPTED, "Lindiwe", ""),
            (audit.Event.ACCEPTED, "Lindiwe", proposed.digest),
        ]
        assert audit.verify(store) is None
        # films that were assessed with it teach the next one by what the model itself said
        kept = acceptance.retained(store, passport.devices(store, BUNDLE))
        assert propose(config) == proposed
        assert len(kept) == FILMS


def test_a_calibration_that_finds_fewer_cannot_be_signed(config: Config) -> None:
    live(config)
    sign(config, "--calibration", "own")
    made = propose(config)
    lost = [point for point in made.findings[CHILD.key].held.found if not made.findings[CHILD.key].held.keeps(point)]
    assert lost, "with fewer ill children the thresholds of the bundle raise fewer"
    told = outpost(
        config, "commission", "sign", "--by", "Lindiwe", "--pin", PIN, "--calibration", "proposed",
        "--operating-point", lost[0], status=78,
    )  # fmt: skip
    assert "fewer abnormal films would be put first" in told
    assert accepted(config) == passport.device_uid(BUNDLE, "balanced")


def test_what_stands_in_the_way_of_a_signature_comes_in_order() -> None:
    """The films that are not there yet first; what was accepted here before needs no proof; truth before numbers found."""
    one = Judged(abnormal=True, outcome=Outcome.SOON, finding="x", probability=0.5, sex="F", age_years=3.0)
    right, wrong = Held(100, 10, 90, (0.2, 0.1), {"balanced": (8, 8)}, ((), ())), Difference(-0.2, -0.3, -0.15, 60)
    whole = acceptance.Proposal(
        operating_point="balanced", device_uid="2.25.1", model="m 1", calibration=None, stood=False, films=[one] * 60,
        pending=0, digest="", sensitivity=wrong, specificity=None,
    )  # fmt: skip

    def with_(held: Held, **changed: object) -> acceptance.Proposal:
        fitted = Fitted(Platt(1.0, 0.0, (0.0, 0.0, 0.0)), held)
        return replace(whole, calibration=Calibration("b", "s", {"x": fitted}), **changed)  # type: ignore[arg-type]

    less, fewer = (
        msgspec.structs.replace(right, **new) for new in ({"brier": (0.1, 0.2)}, {"found": {"balanced": (8, 7)}})
    )
    both = msgspec.structs.replace(less, found={"balanced": (8, 7)})
    assert with_(both, pending=1, films=[]).hindrance is Hindrance.PENDING
    assert with_(both, films=[one] * 49).hindrance is Hindrance.TOO_FEW
    assert with_(both, stood=True).hindrance is None
    assert [with_(held).hindrance for held in (both, less, fewer)] == [
        Hindrance.NOT_TRUER, Hindrance.NOT_TRUER, Hindrance.FINDS_FEWER,
    ]  # fmt: skip
    assert with_(right).hindrance is whole.hindrance is Hindrance.MAY_BE_WORSE
    assert with_(right, sensitivity=None, specificity=wrong).hindrance is Hindrance.MAY_BE_WORSE
    assert with_(right, sensitivity=replace(wrong, low=-0.09)).hindrance is None
    assert {with_(both, films=[one] * 49).obstacle, with_(less).obstacle, with_(fewer).obstacle, ""} == {
        "Too few films were read here: 49 of at least 50. Read " + str(needed([one] * 49)) + " more.",
        "On films that it was not made from, this calibration is no truer. Keep what is there; read more.",
        "With this calibration fewer abnormal films would be put first. Keep what is there.",
        "",
    }


def test_readings_that_contradict_the_model_are_no_matter_of_calibration(config: Config) -> None:
    live(config, (-1.0, 0.0))
    told = outpost(config, "commission", "recalibrate", "--by", "Lindiwe", status=78)
    assert "the rarer people find it" in told
    with closing(open_store(Path(config.state))) as store:
        assert calibrations.of_bundle(store, BUNDLE.digest) == []


def test_a_calibration_that_was_changed_on_disk_stops_the_ai_until_one_goes_back(config: Config) -> None:
    live(config, SURER)
    sign(config, "--calibration", "own")
    propose(config)
    sign(config, "--calibration", "proposed")
    with closing(open_store(Path(config.state))) as store:
        with transaction(store):
            store.execute("""UPDATE calibration SET document = REPLACE(document, '"slope":', '"slope":0')""")
            store.execute("""UPDATE calibration SET document = REPLACE(document, '"slope":0', '"slope":9')""")
        with pytest.raises(Tampered, match="is not what was signed"):
            run(config, threading.Event())
        recorded = audit.latest(store, audit.Event.TAMPERED)
        assert recorded is not None
        assert "calibration" in recorded.detail["why"]
        sign(config, "--calibration", "own")
        assert Worker(config, store).reader.calibration is None


def test_the_page_shows_both_lines_and_one_sentence(config: Config) -> None:
    live(config, SURER)
    sign(config, "--calibration", "own")
    made = propose(config)
    client = clinic.create(config).test_client()
    sign_in(client, Path(config.state), "Lindiwe", Role.LEAD)
    page = client.get("/commission").text
    assert made.digest[:12] in page
    assert "the nearer a line is to the diagonal, the truer" in page
    assert page.count('class="before"') == 2, "at each of two operating points"
    device = passport.device_uid(BUNDLE, "balanced", made.digest)
    form = {"device_uid": device, "set": made.set, "pin": PIN}
    assert client.post("/commission", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert accepted(config) == device
    page = client.get("/commission").text
    assert "It was accepted here before: you can go back to it." in page


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_power_cut_while_proposing_leaves_a_whole_proposal_or_none(config: Config, when: str) -> None:
    live(config)
    path = Path(config.state) / "test.toml"
    save(config, path)
    command = ["--config", str(path), "commission", "recalibrate", "--by", "Lindiwe"]
    killer = [sys.executable, str(ROOT / "tests/fault/killer.py"), when, "1", "calibration", "--", *command]
    assert subprocess.run(killer, cwd=ROOT, check=False, capture_output=True).returncode == -9
    with closing(open_store(Path(config.state))) as store:
        known = calibrations.of_bundle(store, BUNDLE.digest)
        assert len(known) == (when == "after")
        assert (audit.latest(store, audit.Event.CALIBRATION_PROPOSED) is not None) is (when == "after")
    made = propose(config)
    with closing(open_store(Path(config.state))) as store:
        assert [one.digest for one in calibrations.of_bundle(store, BUNDLE.digest)] == [made.digest]
        assert audit.verify(store) is None
