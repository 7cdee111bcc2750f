"""The whole chain on one box: shadow mode, acceptance, another model, acceptance, an alarm with its cause, re-calibration, back."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from edge import acceptance, passport, surveillance
from edge.cli import main
from edge.config import Config, Intake, save
from edge.intake import Intake as Door
from edge.records import Role
from edge.samples import film
from edge.state import acceptances, accounts, audit, calibrations, notices, results
from edge.state.arrivals import FOR_ACCEPTANCE
from edge.state.audit import Event
from edge.state.store import BUILT, now, open_store, transaction
from edge.validity.calibration import logit
from edge.validity.verdict import Cause
from edge.worker import Worker, assess
from models import phantom
from models.bundle import SHIPPED, load
from models.model import Model, golden_outputs, load_golden
from tests import bundles
from tests.box import ROOT
from tests.people import PIN, SECRET
from web import ranking

FILMS = 110
"""Enough to calibrate by."""
USUAL, SINCE = 40, 6
"""Days of a site's history, and since its detector was changed."""

BOLD = 20
"""How many times as sure another model says that it is."""

Gray = npt.NDArray[np.float32]
Case = tuple[Gray, str, bool | None]
"""A film, its patient's age, and whether it was read as abnormal; None where that is drawn, so that the model is mostly right."""


def synthesized() -> Iterator[Case]:
    """Adults with an opacity, which the model puts first, and as many without; who reads them is mostly right."""
    for number in range(FILMS):
        yield phantom.chest(number, size=(300, 250), opacity=number % 2 == 1), "041Y", None


def real() -> Iterator[Case]:
    """Films of patients that the shipped model was not made from, as physicians read them: half of each."""
    folder = ROOT.parent / "shared/data/kermany"
    if not folder.is_dir():
        pytest.skip(f"needs the real films in {folder}")
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    for wanted in "01":
        for row in [row for row in rows if row["pneumonia"] == wanted][: FILMS // 2]:
            with Image.open(folder / row["file"]) as picture:
                yield np.asarray(picture.convert("L"), np.float32) / np.float32(255), "003Y", wanted == "1"


def another_detector(gray: Gray) -> Gray:
    """The same chest, flatter and noisier; the unit says nothing of it."""
    draw = np.random.default_rng(int(gray.sum()))
    noisy = 0.5 + 0.7 * (gray - 0.5) + draw.normal(0, 0.04, gray.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


class Site:
    """A clinic with a box, as its people use it: by the command line."""

    def __init__(self, folder: Path, cases: list[Case]) -> None:
        self.folder, self.cases = folder, cases
        self.films = folder / "films"
        self.films.mkdir()
        for number, (gray, age, _) in enumerate(cases):
            path = self.films / f"{number:03}.dcm"
            film(gray, f"Film^{number}", age, "F").save_as(path, enforce_file_format=True)
        self.config = Config(state=str(folder / "box"), intake=Intake(disk_floor_mib=0))
        self.store = open_store(Path(self.config.state))
        with transaction(self.store):
            accounts.add(self.store, "Lindiwe", Role.LEAD, "en", SECRET, now())

    def outpost(self, *arguments: str) -> str:
        path = self.folder / "outpost.toml"
        save(self.config, path)
        ran = CliRunner().invoke(main, ["--config", str(path), *arguments], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.output

    def sign(self, *arguments: str) -> str:
        return self.outpost("commission", "sign", "--by", "Lindiwe", "--pin", PIN, *arguments)

    def work(self) -> Worker:
        """A worker starts here and does everything there is to do."""
        worker = Worker(self.config, self.store)
        worker.follow()
        while worker.step():
            pass
        return worker

    @property
    def mode(self) -> ranking.Mode:
        """As the pages have it, once a film has come from an X-ray unit."""
        return ranking.mode(self.store, acceptances.accepted(self.store))

    def assess_here(self) -> None:
        """All films are assessed, on no list."""
        doors = Door(self.config)
        with closing(doors.store):
            for path in sorted(self.films.iterdir()):
                doors.accept_copy(path, FOR_ACCEPTANCE)
        self.work()

    def read(self) -> None:
        """Somebody reads all films without seeing the AI; the readings come as a table."""
        draw = np.random.default_rng(6)
        path = self.folder / "readings.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["film", "reading"])
            for number, (_, _, abnormal) in enumerate(self.cases):
                decision = results.film(self.store, number + 1).decision
                assert decision is not None
                if abnormal is None:
                    surer = 2 * (logit(decision.findings[0].probability) + 0.5)
                    abnormal = bool(draw.random() < 1 / (1 + math.exp(-surer)))
                table.writerow([f"{number:03}.dcm", "consolidation" if abnormal else "normal"])
        said = self.outpost("commission", "import", str(path), "--films", str(self.films), "--by", "Lindiwe")
        assert f"{len(self.cases)} readings were taken in" in said

    def live(self, worker: Worker, first: int, days: int, change: Callable[[Gray], Gray] = lambda gray: gray) -> None:
        """Days of 30 films, drawn from these, which all go through the stage line."""
        seen = []
        for number, (gray, age, _) in enumerate(self.cases[:40]):
            path = self.folder / "live.dcm"
            film(change(gray), f"Live^{number}", age, "F").save_as(path, enforce_file_format=True)
            seen.append(assess(path, worker.reader))
        draw = np.random.default_rng([7, first])
        for day in range(first, first + days):
            at = BUILT + timedelta(days=day, hours=9)
            with transaction(self.store):
                for chosen in draw.integers(0, len(seen), 30):
                    surveillance.count_film(self.store, self.config, at, 1, seen[chosen])


def bold(folder: Path) -> Path:
    """The same network, described as surer than it is: the same films are put first, but its probabilities are too bold."""
    bundle = bundles.copied(folder, _bold)
    model = Model(load(bundle))
    golden, data = load_golden(model.bundle), io.BytesIO()
    np.savez(data, films=golden.films, probabilities=golden_outputs(model, golden.films))
    return bundles.replaced(bundle, "golden.npz", data.getvalue())


def _bold(manifest: str) -> str:
    text = re.sub(r'^version = ".*"$', 'version = "9.0.1"', manifest, flags=re.M)
    for finding in load(SHIPPED).manifest.findings:
        at = logit(finding.operating_points["balanced"].soon)
        text = text.replace(f"slope = {finding.slope}", f"slope = {BOLD * finding.slope}")
        text = text.replace(f"intercept = {finding.intercept}", f"intercept = {at + BOLD * (finding.intercept - at)}")
    return text


@pytest.mark.parametrize("films", [synthesized, pytest.param(real, marks=pytest.mark.needs_data)])
def test_from_shadow_mode_to_the_way_back(films: Callable[[], Iterator[Case]], tmp_path: Path) -> None:
    site = Site(tmp_path, list(films()))
    with closing(site.store):
        _accept(site)
        _change_the_model(site)
        _change_the_detector(site)
        _calibrate_and_go_back(site)
        assert audit.verify(site.store) is None


def _accept(site: Site) -> None:
    site.assess_here()
    assert site.mode is ranking.Mode.SHADOW
    site.read()
    assert "sensitivity" in site.outpost("commission", "show").lower()
    site.sign("--calibration", "own")
    assert site.mode is ranking.Mode.RANKING


def _change_the_model(site: Site) -> None:
    before = acceptances.accepted(site.store)
    bundle = bold(site.folder / "bold")
    site.config = msgspec.structs.replace(site.config, worker=bundles.worker(site.folder, bundle))
    worker = site.work()
    assert worker.reader.device_uid != before == acceptances.accepted(site.store)
    doors = Door(site.config)
    with closing(doors.store):
        path = site.folder / "patient.dcm"
        gray, age, _ = site.cases[0]
        film(gray, "A^Patient", age, "F").save_as(path, enforce_file_format=True)
        doors.accept_copy(path, "X-RAY")
    assert worker.step() and site.mode is ranking.Mode.CHANGED, "the box is in shadow mode again"
    site.sign("--calibration", "own")
    assert site.mode is ranking.Mode.RANKING


def _change_the_detector(site: Site) -> None:
    worker = Worker(site.config, site.store)
    site.live(worker, 0, USUAL)
    surveillance.look(site.store, site.config, worker.reader.device_uid, _morning(USUAL))
    assert "Nothing has moved" in site.outpost("drift", "status")
    site.live(worker, USUAL, SINCE, another_detector)
    surveillance.look(site.store, site.config, worker.reader.device_uid, _morning(USUAL + SINCE))
    found = surveillance.current(site.store)
    assert found is not None and found.alarm is not None
    assert found.alarm.cause is Cause.DETECTOR
    assert found.alarm.since >= _day(USUAL - 1)
    assert "another X-ray unit or detector" in site.outpost("drift", "status")
    assert notices.current(site.store) != []
    record = audit.latest(site.store, Event.DRIFT_FOUND)
    assert record is not None and record.detail["cause"] == Cause.DETECTOR


def _morning(day: int) -> datetime:
    return BUILT + timedelta(days=day, hours=3)


def _day(number: int) -> date:
    return (BUILT + timedelta(days=number)).date()


def _calibrate_and_go_back(site: Site) -> None:
    before = acceptances.accepted(site.store)
    said = site.outpost("commission", "recalibrate", "--by", "Lindiwe")
    assert "read without seeing the AI" in said
    bundle = load(passport.folder(site.config))
    made = passport.calibration(site.store, calibrations.of_bundle(site.store, bundle.digest)[-1].digest)
    (fitted,) = made.findings.values()
    assert fitted.held.truer, "it says less, and rightly, on films it was not made from"
    can = [one for one in acceptance.proposals(site.config, site.store) if one.calibration == made and not one.obstacle]
    assert can, "old and new were compared, and it finds no fewer"
    site.sign("--calibration", "proposed", "--operating-point", can[0].operating_point)
    worker = Worker(site.config, site.store)
    worker.follow()
    assert worker.reader.device_uid == acceptances.accepted(site.store) == can[0].device_uid != before
    (finding,) = assess(site.films / "001.dcm", worker.reader).decision.findings
    assert finding.as_shipped is not None

    site.outpost("commission", "revert", "--by", "Lindiwe", "--pin", PIN)
    worker.follow()
    assert worker.reader.device_uid == acceptances.accepted(site.store) == before
    (finding,) = assess(site.films / "001.dcm", worker.reader).decision.findings
    assert finding.as_shipped is None
