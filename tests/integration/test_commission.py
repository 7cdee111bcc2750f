"""From shadow mode to an accepted model, and back when the model changes: real films through the real worker."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge import acceptance, passport, pins, readings
from edge.cli import main
from edge.commission import own_arrivals
from edge.config import Config, FolderSink, Intake, save
from edge.errors import Misconfigured
from edge.intake import Intake as Door
from edge.records import Outcome, Role
from edge.samples import film
from edge.state import acceptances, accounts, audit, outbox, results
from edge.state.arrivals import FOR_ACCEPTANCE
from edge.state.store import now, open_store, transaction
from edge.validity.accuracy import RAISED, accuracy, needed
from edge.validity.doubt import doubt
from edge.worker import Worker
from models import phantom
from models.bundle import SHIPPED, load
from tests import bundles
from tests.people import sign_in
from web import clinic, ranking

FILMS = 60


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of synthesized films, every other one with a denser lung."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(FILMS):
        picture = phantom.chest(number, size=(300, 250), opacity=number % 2 == 1)
        age, sex = ("003Y", "M") if number % 3 else ("041Y", "F")
        film(picture, f"Film^{number}", age, sex).save_as(folder / f"{number:02}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def assessed(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a box that has assessed films of elsewhere, which nobody has read yet."""
    config = Config(state=str(tmp_path_factory.mktemp("assessed") / "state"), intake=Intake(disk_floor_mib=0))
    with closing(open_store(Path(config.state))) as store, transaction(store):
        accounts.add(store, "Lindiwe", Role.LEAD, "en", "no hash: nobody signs in with it", now())
    doors = Door(config)
    with closing(doors.store):
        for path in sorted(films.iterdir()):
            doors.accept_copy(path, FOR_ACCEPTANCE)
    work(config)
    return Path(config.state)


@pytest.fixture
def config(state: Path, tmp_path: Path) -> Config:
    """A box without a film, with a way out."""
    (tmp_path / "out").mkdir()
    return Config(
        state=str(state),
        intake=Intake(disk_floor_mib=0),
        sinks=(FolderSink(name="folder", path=str(tmp_path / "out")),),
    )


@pytest.fixture
def box(config: Config, assessed: Path) -> Config:
    """A box in shadow mode that has assessed its films."""
    shutil.copytree(assessed, config.state, dirs_exist_ok=True)
    return config


def outpost(config: Config, *arguments: str, status: int = 0) -> str:
    path = Path(config.state) / "test.toml"
    save(config, path)
    ran = CliRunner().invoke(main, ["--config", str(path), *arguments], catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.output


def work(config: Config) -> None:
    """Let a worker start here and do everything there is to do."""
    with closing(open_store(Path(config.state))) as store:
        worker = Worker(config, store)
        worker.follow()
        while worker.step():
            pass


def written(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "readings.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder / "readings.csv"


def read_as_the_model(config: Config, flips: int = 0) -> None:
    """Have somebody read every film: as the model has it, but for the first so many."""
    read(config, lambda number, raised: raised is not (number <= flips))


def read(config: Config, abnormal: Callable[[int, bool], bool]) -> None:
    """Have somebody read every film, by its number and whether the model raises it."""
    with closing(open_store(Path(config.state))) as store:
        said = {}
        for number in range(1, FILMS + 1):
            decision = results.film(store, number).decision
            assert decision is not None
            seen = abnormal(number, decision.outcome in (Outcome.IMMEDIATE, Outcome.SOON))
            said[number] = readings.Reading(number, "", "consolidation" if seen else "normal", "Amina", now())
        readings.keep(store, said, "Lindiwe", now())


def changed(config: Config, folder: Path, soon: float | None = None) -> Config:
    """A box with another model: the same network, described differently, or with another threshold."""

    def other(manifest: str) -> str:
        text = re.sub(r'^version = ".*"$', 'version = "9.0.1"', manifest, flags=re.M)
        return text if soon is None else re.sub(r"^(soon|immediate) = .*$", rf"\1 = {soon}", text, flags=re.M)

    bundle = bundles.copied(folder / f"bundle-{soon}", other)
    return msgspec.structs.replace(config, worker=bundles.worker(folder, bundle))


def proposal(config: Config, point: str = "balanced") -> acceptance.Proposal:
    with closing(open_store(Path(config.state))) as store:
        return next(one for one in acceptance.proposals(config, store) if one.operating_point == point)


def sign(config: Config) -> None:
    with closing(open_store(Path(config.state))) as store, transaction(store):
        acceptance.sign(store, proposal(config), "Lindiwe", now())


def test_imported_films_are_assessed_and_on_no_list_and_sent_nowhere(box: Config) -> None:
    with closing(open_store(Path(box.state))) as store:
        listed = ranking.build(store, now(), timedelta(hours=4))
        assert listed.total == 0
        assert listed.mode is ranking.Mode.SHADOW
        assert results.film(store, FILMS).decision is not None
        assert outbox.unsent(store) == {}
        assert audit.verify(store) is None


def test_films_that_nobody_could_tell_do_not_count(box: Config, films: Path, tmp_path: Path) -> None:
    rows = [{"film": path.name, "reading": "unsure"} for path in sorted(films.iterdir())]
    arguments = ("commission", "import", str(written(tmp_path, rows)), "--films", str(films), "--by", "Lindiwe")
    assert f"{FILMS} readings were taken in, 0 were here already" in outpost(box, *arguments)
    assert f"0 readings were taken in, {FILMS} were here already" in outpost(box, *arguments)
    with closing(open_store(Path(box.state))) as store:
        assert store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0] == FILMS, "the same films are no new ones"
    assert proposal(box).films == []
    told = outpost(box, "commission", "show")
    assert "Too few films were read here: 0 of at least 50" in told
    with pytest.raises(Misconfigured, match="Too few"):
        sign(box)


def test_a_lead_accepts_and_a_changed_model_has_to_be_accepted_again(box: Config, tmp_path: Path) -> None:
    read_as_the_model(box, flips=3)
    first = proposal(box)
    assert len(first.films) == FILMS
    assert accuracy(first.films).sensitivity.count >= 18, "the films of this test show the model something"
    sign(box)
    device = passport.device_uid(load(SHIPPED), "balanced")
    with closing(open_store(Path(box.state))) as store:
        signed = acceptances.latest(store)
        assert signed is not None
        assert (signed.device_uid, signed.signed_by) == (device, "Lindiwe")
        assert signed.passport["films"] == FILMS
        assert signed.passport["set"] == first.digest
        recorded = audit.latest(store, audit.Event.ACCEPTED)
        assert recorded is not None
        assert recorded.detail["set"] == first.digest

    other = changed(box, tmp_path)
    assert proposal(other).pending == FILMS
    assert "has not assessed" in proposal(other).obstacle
    work(other)
    again = proposal(other)
    assert (again.pending, again.obstacle) == (0, "")
    assert again.device_uid != device
    assert again.sensitivity is not None
    assert again.sensitivity.value == 0
    with closing(open_store(Path(box.state))) as store:
        shown = results.film(store, 1)
        assert shown.run == 1, "what its reader was shown stays as it was"
        assert shown.decision is not None
        assert shown.decision.device_uid == device
        assert acceptances.accepted(store) == device, "the new model does not rank before somebody signs"
    sign(other)
    with closing(open_store(Path(box.state))) as store:
        assert acceptances.accepted(store) == again.device_uid


def test_a_model_that_may_be_worse_cannot_be_signed(box: Config, tmp_path: Path) -> None:
    read_as_the_model(box)
    sign(box)
    blind = changed(box, tmp_path, soon=1.0)
    work(blind)
    assert "do not rule out that the new model is worse" in proposal(blind).obstacle
    with pytest.raises(Misconfigured, match="worse"):
        sign(blind)
    assert "may be worse" in outpost(blind, "commission", "show")


def test_another_operating_point_is_another_device_and_the_worker_follows(box: Config) -> None:
    read_as_the_model(box)
    sensitive = proposal(box, "sensitive")
    assert sensitive.device_uid != proposal(box).device_uid
    assert sensitive.pending == 0, "the same probabilities serve every operating point"
    assert accuracy(sensitive.films).sensitivity.count >= accuracy(proposal(box).films).sensitivity.count
    with closing(open_store(Path(box.state))) as store:
        worker = Worker(box, store)
        worker.follow()
        with transaction(store):
            acceptance.sign(store, sensitive, "Lindiwe", now())
        worker.follow()
        assert worker.reader.device_uid == sensitive.device_uid
        changed_to = audit.latest(store, audit.Event.MODEL_CHANGED)
        assert changed_to is not None
        assert changed_to.detail["operating_point"] == "sensitive"
        assert worker.step() is False, "nothing has to be assessed again"


BAD = {
    "film,opinion\n1.2,normal\n": ["line 1: no column reading; there are: film, opinion"],
    "film,reading,colour\n1.2,normal,red\n": ["line 1: column colour is not known"],
    "film,reading\n00.dcm,healthy\n": ["line 2: reading 'healthy' is none of normal, consolidation"],
    "film,reading\n,normal\n": ["line 2: no film."],
    "film,reading\n00.dcm,normal\n00.dcm,mass\n": ["line 3: film 00.dcm is already in line 2"],
    "film,reading,read_at\n00.dcm,normal,yesterday\n": ["line 2: read_at 'yesterday' is no moment"],
    "film,reading,read_at\n00.dcm,normal,2999-01-01\n": ["line 2: read_at '2999-01-01' has not come yet"],
    "film,reading\n9.9.9,normal\n00.dcm,normal\n": ["line 2: film 9.9.9 is not on this box"],
    "film,reading\n": ["holds no readings"],
    "film,reading\na,b\nc,d\n": ["line 2: reading 'b'", "line 3: reading 'd'"],
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_says_what_and_where_and_nothing_is_taken_in(
    config: Config, films: Path, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    path_of_settings = Path(config.state) / "test.toml"
    save(config, path_of_settings)
    ran = CliRunner().invoke(
        main,
        ["--config", str(path_of_settings), "commission", "import", str(path), "--films", str(films), "--by", "L"],
    )
    assert ran.exit_code != 0
    for sentence in BAD[text]:
        assert sentence in ran.output
    with closing(open_store(Path(config.state))) as store:
        assert store.execute("SELECT COUNT(*) FROM read").fetchone()[0] == 0


def test_a_file_that_is_no_text_is_refused(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"film,reading\n\xff\xfe,normal\n")
    found, wrong = readings.parse(path, datetime.now(UTC))
    assert found == []
    assert "UTF-8" in wrong[0]


def test_the_queue_of_a_described_clinic_is_shorter_for_the_abnormal(config: Config) -> None:
    told = outpost(config, "commission", "queue", "--films-per-day", "120", "--days", "60")
    means = {
        (kind, order): float(mean)
        for kind, order, mean in re.findall(r"^(\w+), in (order of arrival|the AI's order)\s+([\d.]+)", told, re.M)
    }
    assert means["abnormal", "the AI's order"] < means["abnormal", "order of arrival"]
    assert means["normal", "the AI's order"] > means["normal", "order of arrival"]
    with pytest.raises(AssertionError, match="More films come than can be read"):
        outpost(config, "commission", "queue", "--films-per-day", "500")
    with pytest.raises(AssertionError, match="30 are needed"):
        outpost(config, "commission", "queue")


def test_the_queue_of_this_sites_own_arrivals(box: Config) -> None:
    """In order of arrival, each film waits as Lindley's recursion says (1952); in the AI's order, what it raises waits less."""
    with closing(open_store(Path(box.state))) as store:
        for number in range(1, FILMS + 1):
            at = (now() + timedelta(minutes=2 * number)).isoformat()
            store.execute("UPDATE arrival SET source = 'X-RAY', received_at = ? WHERE id = ?", (at, number))
    told = outpost(box, "commission", "queue", "--minutes-per-film", "4", "--seed", "3")
    assert f"The {FILMS} films that came to this box" in told
    waited, waits = 0.0, []
    visits = own_arrivals(box, 4, 3)
    for one, following in pairwise([*visits, visits[-1]]):
        waits.append(waited)
        waited = max(0.0, waited + one.reading - (following.arrival - one.arrival))
    first, ranked = (
        re.findall(rf"^(\w+), in {order}\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\d+)$", told, re.M)
        for order in ("order of arrival", "the AI's order")
    )
    assert first[0] == ("all", f"{np.mean(waits):.1f}", f"{sorted(waits)[53]:.1f}", f"{max(waits):.1f}", str(FILMS))
    means = [{kind: float(mean) for kind, mean, *_ in rows} for rows in (first, ranked)]
    raised = next(kind for kind in ("immediate", "soon") if kind in means[0])
    assert means[1][raised] < means[0][raised], means
    assert means[1]["routine"] > means[0]["routine"]


def test_a_film_that_the_model_cannot_assess_is_no_miss(box: Config) -> None:
    read_as_the_model(box)
    one = proposal(box)
    abstained = [replace(film, outcome=Outcome.COULD_NOT_ASSESS) for film in one.films]
    assert accuracy(abstained).abstained.count == FILMS
    assert accuracy(abstained).sensitivity.of == 0
    assert needed(abstained) > 0


def test_a_lead_sees_the_figures_as_pictures_and_signs_with_a_pin(box: Config) -> None:
    read(box, lambda number, raised: number % 3 == 2)  # every other of the children
    client = clinic.create(box).test_client()
    sign_in(client, Path(box.state), "Lindiwe", Role.LEAD)
    with closing(open_store(Path(box.state))) as store, transaction(store):
        accounts.set_secret(store, "Lindiwe", pins.hashed("274 916"), one_time=False)
    page = client.get("/commission").text
    assert page.count("<svg") > 10
    assert "Abnormal films that the AI puts first" in page
    assert "3 years" not in page, "bands, no persons"
    chosen = proposal(box)
    of_children = max((film.finding for film in chosen.films), key=[film.finding for film in chosen.films].count)
    unsure = doubt(chosen.films, of_children)
    assert unsure is not None, [(film.finding, film.abnormal) for film in chosen.films]
    assert "percentage should say nothing" in page
    told = outpost(box, "commission", "show")
    promised, possible = (
        sum(film.probability for film in chosen.films if film.outcome in of) for of in (RAISED, list(Outcome))
    )
    assert f"If the calibration still holds, {100 * promised / possible:.0f} of 100 abnormal films are raised" in told
    assert f"({unsure.undecided.count} of {unsure.undecided.of} films), if of 100 films of either kind 95" in told
    form = {"device_uid": chosen.device_uid, "set": chosen.digest}
    own = {"Sec-Fetch-Site": "same-origin"}
    refused = client.post("/commission", data=form | {"pin": "000000"}, headers=own)
    assert refused.status_code == 422
    stale = client.post("/commission", data=form | {"pin": "274 916", "set": "another"}, headers=own)
    assert stale.status_code == 409
    with closing(open_store(Path(box.state))) as store:
        assert acceptances.accepted(store) is None
    assert client.post("/commission", data=form | {"pin": "274 916"}, headers=own).status_code == 303
    with closing(open_store(Path(box.state))) as store:
        assert acceptances.accepted(store) == chosen.device_uid
    assert "This is what ranks the films now." in client.get("/commission").text


def test_nobody_but_a_lead_signs(box: Config) -> None:
    read_as_the_model(box)
    client = clinic.create(box).test_client()
    sign_in(client, Path(box.state), "Amina", Role.CLINICIAN)
    assert client.get("/commission").status_code == 403
    with closing(open_store(Path(box.state))) as store, transaction(store):
        accounts.add(store, "Omar", Role.CLINICIAN, "en", pins.hashed("274916"), now())
        accounts.set_secret(store, "Lindiwe", pins.hashed("385027"), one_time=False)
    for name, pin in (("Omar", "274916"), ("Lindiwe", "111111"), ("Nobody", "385027")):
        with pytest.raises(AssertionError, match="Nothing was signed"):
            outpost(box, "commission", "sign", "--by", name, "--pin", pin)
    assert "It ranks now" in outpost(box, "commission", "sign", "--by", "Lindiwe", "--pin", "385027")
