"""The daily test through a real port: what passes, what stops the AI, and that no test film is ever taken for a patient's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from edge import health, phantom
from edge.box import free_port
from edge.cli import main
from edge.config import Config, Intake, save
from edge.config import Worker as WorkerSettings
from edge.health import Level
from edge.intake import Intake as Door
from edge.records import Document, Outcome, ReadKind, Reason
from edge.samples import film
from edge.sending import send
from edge.stages import report
from edge.state import audit, notices, phantoms, queue, reads, results
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction
from edge.worker import Worker
from models import model
from models import phantom as synthesized
from models.bundle import SHIPPED, load
from tests.people import sign_in
from web import clinic


class Whole:
    """A box whose port is open and whose worker does one step at a time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.door = Door(config)
        self.store = open_store(Path(config.state))
        self.worker = Worker(config, self.store)
        self.bundle = self.worker.reader.model.bundle

    def make(self) -> None:
        """Make the films of a test, and have intake send them."""
        phantom.make(self.store, self.bundle, now())
        phantom.send(self.config, self.door.store, self.door.objects, self.config.intake.port)

    def test(self) -> None:
        """One whole test."""
        self.make()
        self.worker._tested = True
        while self.worker.test():
            pass

    def send(self, path: Path) -> int:
        """A film of a patient by the port; its number."""
        send("127.0.0.1", self.config.intake.port, "OUTPOST", path)
        while self.worker.step():
            pass
        return int(self.store.execute("SELECT MAX(id) FROM arrival").fetchone()[0])

    @property
    def why(self) -> str:
        """What was wrong at the latest test."""
        found = phantoms.verdict(self.store, self.bundle.digest)
        assert found is not None
        return found.why

    def check(self) -> str:
        """The line of `outpost check`."""
        path = Path(self.config.state) / "test.toml"
        save(self.config, path)
        said = CliRunner().invoke(main, ["--config", str(path), "check"]).output
        return next(line for line in said.splitlines() if " daily " in line)


@pytest.fixture
def whole(state: Path, request: pytest.FixtureRequest) -> Iterator[Whole]:
    settings = WorkerSettings(runtime=getattr(request, "param", ""))
    box = Whole(Config(state=str(state), intake=Intake(port=free_port(), disk_floor_mib=0), worker=settings))
    with closing(box.store), closing(box.door.store):
        port = box.door.listen()
        try:
            yield box
        finally:
            port.shutdown()


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    path = tmp_path / "patient.dcm"
    film(synthesized.chest(3, size=(300, 250)), "Silva^Ana", "044Y", "F").save_as(path, enforce_file_format=True)
    return path


def astray(monkeypatch: pytest.MonkeyPatch, by: float = 0.3) -> None:
    """A runtime that computes something else than it did when the model was loaded."""
    right = model.Model.infer

    def wrong(self: model.Model, tensor: model.Array) -> model.Scores:
        scores = right(self, tensor)
        return replace(scores, logits=scores.logits + np.float32(by))

    monkeypatch.setattr(model.Model, "infer", wrong)


@pytest.mark.parametrize("whole", sorted(load(SHIPPED).manifest.runtimes), indirect=True)
def test_the_films_go_the_whole_way_by_each_runtime_and_are_nowhere_else(whole: Whole) -> None:
    assert "comes once the box runs" in whole.check()
    assert health.daily(whole.config, whole.store, now()).state == "none"
    whole.test()
    assert whole.why == ""
    said = [one for one in audit.records(whole.store) if one.event is Event.TEST_PASSED]
    assert [one.detail["film"] for one in said] == [0, 1]
    assert all(one.detail["off"] <= one.detail["allowed"] for one in said)
    assert "✔ daily" in whole.check() and "passed" in whole.check()
    assert health.daily(whole.config, whole.store, now()).level is Level.GOOD
    for table in ("arrival", "job", "result", "delivery", "drift_day", "score", "rendition", "allocation"):
        assert whole.store.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] == 0, table
    late = now() + phantom.LATE + timedelta(minutes=1)
    assert health.daily(whole.config, whole.store, late).state == "late"


def test_a_runtime_that_has_gone_astray_stops_the_ai_and_not_the_viewer(
    whole: Whole, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as astray_here:
        astray(astray_here)
        whole.test()
    assert "off by 0." in whole.why and "allowed" in whole.why
    assert "✘ daily" in whole.check() and "the AI is stopped" in whole.check()
    assert notices.current(whole.store) != []
    assert audit.latest(whole.store, Event.TEST_FAILED) is not None

    number = whole.send(patient)
    shown = results.film(whole.store, number)
    assert shown.decision is not None and shown.decision.refusal is not None
    assert (shown.decision.outcome, shown.decision.refusal.reason) == (Outcome.COULD_NOT_ASSESS, Reason.AI_STOPPED)
    assert shown.rendition is not None and shown.header.PatientName == "Silva^Ana", "the film is shown as before"
    assert whole.store.execute("SELECT COUNT(*) FROM drift_day").fetchone()[0] == 0, "it says nothing of the films"
    client = clinic.create(whole.config).test_client()
    sign_in(client, Path(whole.config.state))
    assert "so the AI is stopped" in client.get("/status").get_data(as_text=True)
    assert "daily test of the AI has failed" in client.get(f"/films/{number}").get_data(as_text=True)

    whole.test()
    assert whole.why == "" and notices.current(whole.store) == []
    while whole.worker.step():
        pass
    shown = results.film(whole.store, number)
    assert shown.run == 2 and shown.decision is not None and shown.decision.refusal is None, "assessed by itself"


def test_what_a_person_has_decided_meanwhile_is_not_assessed_again(
    whole: Whole, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as astray_here:
        astray(astray_here)
        whole.test()
    number = whole.send(patient)
    with transaction(whole.store) as store:
        reads.add(
            store, number, 1, ReadKind.OVERRIDE, "Amina", now(), "key", outcome=Outcome.ROUTINE, codes=("normal",)
        )
    whole.test()
    assert queue.open_jobs(whole.store, "assess") == 0 and whole.why == ""


def test_no_second_opinions_while_the_ai_is_stopped(
    whole: Whole, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = whole.send(patient)
    with transaction(whole.store) as store:
        queue.add_score(store, number, now())
    with monkeypatch.context() as astray_here:
        astray(astray_here)
        whole.test()
    assert not whole.worker.step()
    whole.test()
    assert whole.worker.step() and queue.open_jobs(whole.store, "score") == 0


def test_only_content_makes_a_test_film(whole: Whole, tmp_path: Path) -> None:
    """Its names, its identifier and the box's own title do not."""
    phantom.make(whole.store, whole.bundle, now())
    ((_, file), *_rest) = phantoms.to_send(whole.store)
    like = tmp_path / "like.dcm"
    like.write_bytes(file)
    dataset = dcmread(like)
    dataset.PixelData = bytes(dataset.PixelData)[:-2] + b"\x01\x00"
    dataset.save_as(like)
    send("127.0.0.1", whole.config.intake.port, "OUTPOST", like, whole.config.intake.ae_title)
    assert whole.store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0] == 1
    assert len(phantoms.to_send(whole.store)) == 2


def test_a_site_with_its_own_calibration_is_held_against_the_bundles(whole: Whole) -> None:
    whole.worker.reader.calibration = SimpleNamespace(apply=lambda finding, own: (own / 3, own / 4, own / 2))  # type: ignore[assignment]
    whole.test()
    assert whole.why == ""


@pytest.mark.parametrize(
    ("name", "put", "says"),
    [
        ("edge.stages.report.documents", lambda: lambda *_: (), "the report says [] %"),
        ("edge.stages.report.documents", lambda: _swapped(report.documents), "the report says"),
        ("models.model.Model.doubt", lambda: lambda *_: "rotated", "could not be assessed: rotated"),
        ("edge.worker.assess", lambda: _broken, "given up after 3 attempts"),
    ],
)
def test_what_else_can_go_wrong_on_the_way(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, name: str, put: Callable[[], object], says: str
) -> None:
    monkeypatch.setattr(name, put())
    whole.test()
    assert says in whole.why


def _broken(*_: object) -> None:
    raise RuntimeError("the runtime is gone")


def _swapped(right: Callable[..., tuple[Document, ...]]) -> Callable[..., tuple[Document, ...]]:
    """A report of the film with other numbers than were found."""

    def wrong(source: object, kinds: object) -> tuple[Document, ...]:
        film = source.film  # type: ignore[attr-defined]
        finding = replace(film.decision.findings[0], probability=0.999)
        film = replace(film, decision=replace(film.decision, findings=(finding,)))
        return right(replace(source, film=film), kinds)  # type: ignore[type-var]

    return wrong


def test_where_only_some_may_send_the_box_may_too(state: Path) -> None:
    config = Config(state=str(state), intake=Intake(ae_title="BOX", calling_ae_titles=("CR1",)))
    assert Door(config).callers() == ["BOX", "CR1"]
