"""A box on a stick and back: while films come, cut half-way, on a bad or full stick, with a wrong code; the hub loses nothing."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge import config as settings
from edge import health, vault
from edge.cli import main
from edge.config import Config
from edge.records import Outcome, Sha256
from edge.stages.parcel import Keys
from edge.state import arrivals, audit, device, results, store, sync, trust
from edge.state.objects import Objects
from edge.state.store import DATABASE, open_store
from edge.vault import Vault
from tests import clinic
from tests.box import ROOT
from tests.conftest import peer
from tests.people import person
from tests.property.test_link import box as linked

NAMES = ("Banda^Ruth", "Phiri^James", "Mwale^Esther")


@dataclass
class Made:
    """A box, a stick, and what is written on the paper."""

    folder: Path
    code: str = ""

    @property
    def stick(self) -> Path:
        return self.folder / "stick"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def run(self, *command: str, state: str = "state", given: str = "") -> Result:
        file = self.folder / f"{state}.toml"
        settings.save(Config(state=str(self.folder / state)), file)
        return CliRunner().invoke(main, ["--config", str(file), "backup", *command, str(self.stick)], given)

    def to(self) -> Result:
        result = self.run("to")
        if found := re.search(r"(\w{5}-){5}\w{5}", result.output):
            self.code = found[0]
        return result

    def restore(self, *more: str, given: str | None = None) -> Result:
        return self.run("restore", *more, state="other", given=f"{self.code}\n" if given is None else given)

    @property
    def other(self) -> Path:
        return self.folder / "other"

    def pieces(self) -> list[Path]:
        return sorted(self.stick.glob("*/??/*"))

    def held(self) -> Vault:
        return Vault(self.stick, vault.key(self.code))

    def piece_of(self, wanted: str) -> Path:
        """The first piece of a file, as the newest snapshot has it."""
        held = self.held()
        entries = held.snapshot(held.snapshots()[0]).entries
        piece = next(entry.pieces[0] for entry in entries if entry.path.startswith(wanted))
        return held.folder / piece[:2] / piece


def films(state: Path) -> dict[str, bytes]:
    """Every film of a box by what it is called, with its bytes as they are on the disk."""
    objects = Objects(state)
    with closing(open_store(state)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert audit.verify(opened) is None
        rows = opened.execute("SELECT sop_instance_uid, sha256 FROM arrival").fetchall()
        return {row["sop_instance_uid"]: objects.read(Sha256(row["sha256"])) for row in rows}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A box with three films and its people, backed up once."""
    made = Made(tmp_path_factory.mktemp("template"))
    made.stick.mkdir()
    with closing(open_store(made.state)) as opened:
        for name in NAMES:
            clinic.film(Config(state=str(made.state)), opened, Outcome.SOON, name)
        device.keys(made.state)
        trust.ensure(made.state, ("outpost.local",), None, store.now())
        with store.transaction(opened):
            audit.append(opened, audit.Event.STARTED, "box", store.now())
    person(made.state, "Amina")
    (made.state / "setup-code").write_text("AAAAA-BBBBB\n")
    result = made.to()
    assert result.exit_code == 0, result.output
    return made


@pytest.fixture
def made(template: Made, tmp_path: Path) -> Iterator[Made]:
    shutil.copytree(template.folder, tmp_path, dirs_exist_ok=True)
    return Made(tmp_path, template.code)


def test_a_new_box_becomes_what_the_old_one_was(made: Made) -> None:
    for path in (made.stick, *made.stick.rglob("*")):  # whoever finds the stick reads nothing on it
        data = path.read_bytes() if path.is_file() else b""
        assert not any(name.encode() in data or name.split("^")[0].encode() in data for name in NAMES)
        assert b"SQLite" not in data and b"PRIVATE KEY" not in data
    with closing(open_store(made.state)) as opened:
        assert health.backup(opened, store.now()).state == "made"
        before = sync.standing(opened).epoch
    result = made.restore()
    assert result.exit_code == 0, result.output
    assert "✔ 3 films" in result.output
    assert films(made.other) == films(made.state)
    with closing(open_store(made.other)) as opened:
        assert {film.header.PatientName for film in results.films(opened)} == set(NAMES)
        assert sync.standing(opened).epoch not in ("", before)
        assert audit.latest(opened, audit.Event.RESTORED) is not None
        assert [row["name"] for row in opened.execute("SELECT name FROM account")] == ["Amina"]
    # the tablets know it, the pseudonyms stay, but the hub does not: it speaks for itself
    old, new = trust.read(made.state), trust.read(made.other)
    assert old is not None and new is not None and old.fingerprint == new.fingerprint
    assert (made.other / "ledger.key").read_bytes() == (made.state / "ledger.key").read_bytes()
    assert not (made.other / device.FILE).exists()
    assert not (made.other / "setup-code").exists()
    # what the new box backs up goes on where the old one ended
    stopped = made.run("to", state="other")
    assert stopped.exit_code == 0, stopped.output
    assert len(made.held().snapshots()) == 2


def test_a_box_is_backed_up_while_films_come(made: Made) -> None:
    done = threading.Event()

    def arrive() -> None:
        with closing(open_store(made.state)) as opened:
            number = 0
            while not done.is_set():
                number += 1
                stored = Objects(made.state).put(f"film {number}".encode() * 500)
                with store.transaction(opened):
                    arrivals.add(
                        opened, f"1.2.{number}", stored.sha256, "MODALITY", store.now(), clinic.Urgency.ROUTINE
                    )

    coming = threading.Thread(target=arrive)
    coming.start()
    try:
        result = made.to()
    finally:
        done.set()
        coming.join()
    assert result.exit_code == 0, result.output
    assert made.restore().exit_code == 0
    there, here = films(made.other), films(made.state)
    assert len(there) >= 3 and there.items() <= here.items()


def test_what_is_there_already_is_not_written_again_and_only_the_last_two_are_kept(made: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.pieces()}
    film = made.piece_of("objects/")
    with closing(open_store(made.state)) as opened:
        clinic.film(Config(state=str(made.state)), opened, None, "Tembo^Grace")
    for _ in range(2):
        assert made.to().exit_code == 0
    assert film.stat().st_mtime_ns == before[film]
    assert len(made.held().snapshots()) == 2
    named = [
        piece for name in made.held().snapshots() for one in made.held().snapshot(name).entries for piece in one.pieces
    ]
    assert {path.name for path in made.pieces()} == set(named)


def test_one_flipped_byte_is_found_and_mended_by_the_next(made: Made) -> None:
    piece = made.piece_of("objects/")
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    result = made.run("verify", given=made.code.lower().replace("-", " "))
    assert result.exit_code == 76 and "1 damaged" in result.output
    # without the box it is said before anything is changed, and the rest can still be had
    refused = made.restore(given=f"{made.code}\nn\n")
    assert refused.exit_code == 76 and "Try another stick" in refused.output
    with closing(open_store(made.other)) as opened:
        assert arrivals.count(opened) == 0
    taken = made.restore("--yes")
    assert taken.exit_code == 0 and "✔ 3 films" in taken.output and "✘ 1 files were damaged" in taken.output
    # with it the next back-up writes it once more
    assert made.to().exit_code == 0
    assert made.run("verify", given=f"{made.code}\n").exit_code == 0


def test_where_the_newest_is_damaged_the_one_before_is_offered(made: Made) -> None:
    with closing(open_store(made.state)) as opened:
        clinic.film(Config(state=str(made.state)), opened, None, "Tembo^Grace")
    assert made.to().exit_code == 0
    made.piece_of(DATABASE).write_bytes(b"")
    result = made.restore(given=f"{made.code}\ny\n")
    assert result.exit_code == 0 and "The newest back-up is damaged" in result.output
    assert len(films(made.other)) == 3


@pytest.mark.parametrize("step", [2, 9])
def test_a_stick_that_is_pulled_out_keeps_the_one_before_and_takes_the_rest_later(made: Made, step: int) -> None:
    with closing(open_store(made.state)) as opened:
        clinic.film(Config(state=str(made.state)), opened, None, "Tembo^Grace")
    cut(made, step, "state", "to")
    assert made.restore().exit_code == 0 and len(films(made.other)) == 3
    assert made.to().exit_code == 0
    shutil.rmtree(made.other)
    assert made.restore().exit_code == 0 and len(films(made.other)) == 4


@pytest.mark.parametrize("step", [8, 34])
def test_a_restoration_that_is_cut_is_done_again(made: Made, step: int) -> None:
    cut(made, step, "other", "restore")
    result = made.restore()
    if "films of its own" not in result.output:  # cut after all was in place
        assert result.exit_code == 0, result.output
    assert films(made.other) == films(made.state)


def cut(made: Made, step: int, state: str, *command: str) -> None:
    """Run a command and take its power away after so many durable steps."""
    settings.save(Config(state=str(made.folder / state)), made.folder / f"{state}.toml")
    outpost = ["--config", str(made.folder / f"{state}.toml"), "backup", *command, str(made.stick)]
    killer = [sys.executable, str(ROOT / "tests/fault/killer.py"), "after", str(step), "--", *outpost]
    done = subprocess.run(killer, cwd=ROOT, input=f"{made.code}\n".encode(), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done


def test_a_full_stick_is_said_before_and_while_it_fills(made: Made) -> None:
    settings.save(Config(state=str(made.state)), made.folder / "state.toml")
    script = 'mount -t tmpfs -o size="$1" none "$2" && exec "$3" -m edge --config "$4" backup to "$2"'
    files = [path for path in made.state.rglob("*") if path.is_file() and not path.name.startswith(DATABASE)]
    fresh, database = sum(path.stat().st_size for path in files), (made.state / DATABASE).stat().st_size
    for size, said in (
        (fresh // 2, "the stick is too small"),
        (fresh + database // 2, "It is full, or was pulled out"),
    ):
        command = [
            peer("unshare", "util-linux"),
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            str(size),
            made.stick,
        ]
        done = subprocess.run(
            [*command, sys.executable, made.folder / "state.toml"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no file system of a size here: {done.stderr}")
        assert done.returncode == 75 and said in done.stderr, done.stderr
    assert made.restore().exit_code == 0, "what was on the stick before is there"


def test_a_wrong_code_is_told_from_a_slip_of_the_pen(made: Made) -> None:
    slip = made.code[:-1] + ("2" if made.code[-1] != "2" else "3")
    assert "no recovery code" in made.restore(given=f"{slip}\n").output
    other = made.restore(given=f"{vault.code()}\n")
    assert other.exit_code == 78 and "no back-up of that code, but 1 of other codes" in other.output
    assert not (made.other / DATABASE).exists()


def test_an_older_box_becomes_one_of_today_and_a_newer_ones_back_up_is_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(store, "MIGRATIONS", store.MIGRATIONS[:-1])
        old = Made(made.folder / "old")
        old.stick.mkdir(parents=True)
        with closing(open_store(old.state)) as opened, store.transaction(opened):
            stored = Objects(old.state).put(b"film")
            arrivals.add(opened, "1.2.3", stored.sha256, "MODALITY", store.now(), clinic.Urgency.ROUTINE)
        assert old.to().exit_code == 0
        refused = None
    assert old.restore().exit_code == 0
    assert films(old.other) == {"1.2.3": b"film"}
    with monkeypatch.context() as later:
        later.setattr(store, "MIGRATIONS", store.MIGRATIONS[:-2])
        refused = made.restore()
    assert refused.exit_code == 78 and "newer Outpost" in refused.output
    assert made.restore().exit_code == 0


def test_a_box_with_films_of_its_own_or_at_work_stays_as_it_is(made: Made) -> None:
    with closing(open_store(made.other)) as opened:
        opened.execute("SELECT * FROM arrival")
        assert "the box is running" in made.restore().output
        clinic.film(Config(state=str(made.other)), opened, None, "Zulu^Peter")
    kept = films(made.other)
    refused = made.restore()
    assert refused.exit_code == 78 and "1 films of its own" in refused.output
    assert films(made.other) == kept


def test_the_hub_gets_what_it_lacks_of_a_box_that_is_gone_and_nothing_twice(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.stick.mkdir()
    with linked(made.state) as old:
        for _ in range(4):
            old.say()
            old.film()
        old.quiet()
        old.say()  # what only the box and its back-up know
        assert made.to().exit_code == 0
        old.say()  # what the hub has seen and the back-up has not
        old.quiet()
        hub = old.hub
        said = set(old.told())
    result = made.restore()
    assert result.exit_code == 0 and "outpost enrol" in result.output
    with linked(made.other) as new:
        new.hub, new.wire.hub = hub, hub
        hub.box = Keys(*device.keys(made.other)).public
        with store.transaction(new.store):
            device.enrol(new.store, hub.enrolled(), "", new.now)
            sync.begin_with(new.store, hub.held.epoch)
        new.say()
        new.quiet()
        new.check()
        said |= set(new.told())
    assert said == {sync.text(event.body) for event in hub.held.events.values()}
