"""Another system into the other slot: what is released and no other, whatever is cut, old, mixed, forged or out of date."""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge import config as settings
from edge import fleet, health, passport, words
from edge.cli import main
from edge.config import Config, Intake
from edge.records import Update
from edge.state import acceptances, installed, updates
from edge.state.store import now, open_store
from firmware import authority, bundle, card, chunks, slots
from firmware.chunks import Chunk
from models.bundle import SHIPPED, load, packed
from tests import bundles
from tests.conftest import peer

BOARD, MIB = "generic-x86-64", 2**20
FRESH = {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}


@dataclass(frozen=True)
class Maker:
    """Two authorities, a system of each, and what was released."""

    folder: Path

    @property
    def mirror(self) -> Path:
        return self.folder / "mirror"

    def system(self, version: str) -> bytes:
        return random.Random(version).randbytes(2 * MIB)

    def last(self, version: str) -> bytes:
        return f"outpost-slot {MIB} {version}\n".encode().ljust(bundle.BLOCK, b"\0")

    def bundle(self, version: str, by: str = "release", board: str = BOARD) -> Path:
        out, system = self.folder / f"{by}-{board}-{version}.raucb", self.folder / "system"
        if not out.exists():
            system.unlink(missing_ok=True)
            system.write_bytes(self.system(version))
            keys = self.folder / by
            bundle.make(system, self.last(version), board, version, out, keys / "signer.pem", keys / "signer.key")
        return out

    def model(self, version: str, change: Callable[[Path], object] = lambda folder: None) -> Path:
        """Release a model, after something was done to it."""

        def older(manifest: str) -> str:
            return re.sub(r'^version = ".*"$', f'version = "{version}"', manifest, flags=re.M)

        folder = bundles.copied(self.folder / f"model-{version}-{len(list(self.folder.iterdir()))}", older)
        change(folder)
        told = [
            "publish",
            "model",
            str(self.mirror),
            "--authority",
            str(self.folder / "release"),
            "--bundle",
            str(folder),
        ]
        made = CliRunner().invoke(main, told)
        assert made.exit_code == 0, made.output
        return folder

    def release(self, version: str, made: Path | None = None, days: int = 0) -> None:
        what = (made or self.bundle(version), BOARD, version)
        authority.add(self.mirror, self.folder / "release", what, now() - timedelta(days=days))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    for program, package in (("rauc", "rauc"), ("unsquashfs", "squashfs-tools")):
        peer(program, package)
    maker = Maker(tmp_path_factory.mktemp("maker"))
    for name in ("release", "development"):
        made = CliRunner().invoke(main, ["publish", "authority", str(maker.folder / name), "--name", name])
        assert made.exit_code == 0, made.output
    for name in ("release", "development"):
        maker.bundle("0.2.0", name)
    return maker


@pytest.fixture
def maker(template: Maker, tmp_path: Path) -> Maker:
    shutil.copytree(template.folder, tmp_path / "maker")
    return Maker(tmp_path / "maker")


class Box:
    """A box of the release authority that runs version 0.1.0 from slot A."""

    def __init__(self, folder: Path, maker: Maker) -> None:
        self.grubenv, self.line, self.file = folder / "grubenv", folder / "cmdline", folder / "outpost.toml"
        self.trust, self.slot, self.own = folder / "trust", folder / "outpost-b", folder / "outpost-a"
        self.config = Config(
            state=str(folder / "state"), worker=bundles.worker(folder), intake=Intake(disk_floor_mib=0)
        )
        settings.save(self.config, self.file)
        shutil.copytree(maker.folder / "release/trust", self.trust)
        (self.trust / "release").write_text(json.dumps({"board": BOARD, "version": "0.1.0"}))
        self.slot.write_bytes(b"\xff" * 4 * MIB)  # what lay there before
        self.began("A", FRESH)

    def began(self, slot: str, values: dict[str, str]) -> None:
        self.grubenv.write_bytes(slots.render(values))
        self.line.write_text(f"ro rauc.slot={slot} quiet\n")

    def update(self, command: str, *more: str) -> Result:
        told = [command, *more, "--variables", str(self.grubenv), "--command-line", str(self.line)]
        return CliRunner().invoke(main, ["--config", str(self.file), "update", *told])

    def install(self, source: Path | str) -> Result:
        return self.update("install", str(source), "--trust", str(self.trust), "--slots", str(self.slot.parent))

    def variables(self) -> dict[str, str]:
        return slots.parse(self.grubenv.read_bytes())

    def holds(self, maker: Maker, version: str) -> bool:
        data = self.slot.read_bytes()
        return data.startswith(maker.system(version)) and data.endswith(maker.last(version)) and len(data) == 4 * MIB

    @property
    def model(self) -> str:
        return load(passport.folder(self.config)).manifest.version

    @property
    def record(self) -> updates.Record:
        return updates.read(Path(self.config.state))

    def refuses(self, source: Path | str, why: Update) -> None:
        """It ends on the slot that runs, with the reason on the page."""
        before = self.slot.read_bytes()
        result = self.install(source)
        assert result.exit_code == 76, result.output
        sentence, action = words.UPDATES[why]
        assert f"{sentence % {'version': '?'}} {action}" in result.output
        assert self.record.state is why
        assert health.system(Path(self.config.state)).level is health.Level.LOOK
        assert self.variables() == FRESH
        assert self.slot.read_bytes() == before


@pytest.fixture
def box(tmp_path: Path, maker: Maker) -> Box:
    (tmp_path / "box").mkdir()
    return Box(tmp_path / "box", maker)


def test_a_release_from_a_stick_gets_into_the_other_slot_and_stays_once_it_works(
    box: Box, maker: Maker, tmp_path: Path
) -> None:
    maker.release("0.2.0")
    result = box.install(maker.mirror)
    assert result.exit_code == 0, result.output
    assert "Version 0.2.0 is on the box and starts when the box does." in result.output
    assert box.holds(maker, "0.2.0")
    assert box.variables() == FRESH | {"ORDER": "B A", "B_OK": "1"}
    assert not list((Path(box.config.state) / "updates").glob("*.part*")), "what is installed takes no room twice"
    # asked again before it was started it writes nothing, and a stick that is refused does not make it forgotten
    written = box.slot.stat().st_mtime_ns
    assert "Version 0.2.0 is on the box" in box.install(maker.mirror).output
    assert box.install(tmp_path / "nothing").exit_code == 75
    assert (box.slot.stat().st_mtime_ns, box.record.state) == (written, Update.READY)
    box.began("B", box.variables() | {"B_TRY": "1"})
    assert box.update("good").exit_code == 0
    assert (box.record.state, health.system(Path(box.config.state)).level) == (Update.GOOD, health.Level.GOOD)
    assert "* B  good  0.2.0" in box.update("status").output
    (box.trust / "release").write_text(json.dumps({"board": BOARD, "version": "0.2.0"}))
    assert "runs already" in box.install(maker.mirror).output


def test_a_version_that_did_not_work_here_is_not_installed_again_but_a_better_one_is(box: Box, maker: Maker) -> None:
    maker.release("0.2.0")
    assert box.install(maker.mirror).exit_code == 0
    box.began("A", box.variables() | {"B_TRY": "1", "A_TRY": "1"})  # B was tried, in vain
    assert box.update("good").exit_code == 0
    assert (box.record.state, box.record.rejected) == (Update.FALLEN, ("0.2.0",))
    assert "Version 0.2.0 did not work on this box" in box.update("status").output
    box.began("A", FRESH)
    box.refuses(maker.mirror, Update.FAILED_BEFORE)
    maker.release("0.3.0")
    assert box.install(maker.mirror).exit_code == 0
    assert box.holds(maker, "0.3.0")


def test_what_is_not_released_is_refused(box: Box, maker: Maker, tmp_path: Path) -> None:
    maker.release("0.2.0")
    kept = tmp_path / "kept"
    shutil.copytree(maker.mirror, kept)
    # of the development authority: its word, and its system under the right word
    other = Maker(maker.folder)
    authority.add(
        tmp_path / "development", maker.folder / "development", (maker.bundle("0.2.0"), BOARD, "0.2.0"), now()
    )
    box.refuses(tmp_path / "development", Update.FORGED)
    other.release("0.2.0", maker.bundle("0.2.0", "development"))
    box.refuses(maker.mirror, Update.FORGED)
    # for another board, or of another version than it is said to be
    maker.release("0.2.0", maker.bundle("0.2.0", board="raspberry-pi-5"))
    box.refuses(maker.mirror, Update.FORGED)
    maker.release("0.4.0", maker.bundle("0.2.0"))
    box.refuses(maker.mirror, Update.FORGED)
    # what this box has seen is not taken back: the mirror as it was before
    box.refuses(kept, Update.OLDER)
    maker.release("0.0.9", maker.bundle("0.2.0"))
    box.refuses(maker.mirror, Update.OLDER)
    maker.release("0.2.0")
    assert box.install(maker.mirror).exit_code == 0


def test_no_mixture_and_no_changed_byte_is_taken(box: Box, maker: Maker) -> None:
    maker.release("0.2.0")
    maker.release("0.3.0")
    metadata = maker.mirror / "metadata"
    good = (metadata / "2.targets.json").read_bytes()
    (metadata / "2.targets.json").write_bytes((metadata / "1.targets.json").read_bytes())
    box.refuses(maker.mirror, Update.OLDER)
    (metadata / "2.targets.json").write_bytes(good.replace(b"0.3.0", b"9.3.0"))
    box.refuses(maker.mirror, Update.FORGED)
    (metadata / "2.targets.json").write_bytes(good)
    (system,) = [
        path for path in maker.mirror.rglob("*.raucb") if path.read_bytes() == maker.bundle("0.3.0").read_bytes()
    ]
    whole = system.read_bytes()
    system.write_bytes(whole[:MIB] + bytes([whole[MIB] ^ 1]) + whole[MIB + 1 :])
    box.refuses(maker.mirror, Update.FORGED)
    system.write_bytes(whole)
    assert box.install(maker.mirror).exit_code == 0


def test_what_was_released_too_long_ago_is_refused_and_names_the_clock(box: Box, maker: Maker) -> None:
    maker.release("0.2.0", days=400)
    box.refuses(maker.mirror, Update.EXPIRED)
    renewed = ["publish", "release", str(maker.mirror), "--authority", str(maker.folder / "release")]
    assert CliRunner().invoke(main, renewed).exit_code == 0
    assert box.install(maker.mirror).exit_code == 0


def test_a_box_that_was_off_for_years_follows_the_keys_and_believes_no_lost_one(
    box: Box, maker: Maker, tmp_path: Path
) -> None:
    maker.release("0.2.0", days=3000)
    stolen = tmp_path / "stolen"
    shutil.copytree(maker.folder, stolen)
    for years in (7, 5, 3):  # roots that have ended long ago, one after the other
        authority.change(maker.mirror, maker.folder / "release", now() - timedelta(days=years * 365 + 3000))
    authority.change(maker.mirror, maker.folder / "release", now())
    maker.release("0.3.0")
    assert box.install(maker.mirror).exit_code == 0
    assert box.holds(maker, "0.3.0")
    box.began("A", FRESH)
    updates.write(Path(box.config.state), updates.Record())
    thief = Maker(stolen)
    shutil.copytree(maker.mirror / "metadata", thief.mirror / "metadata", dirs_exist_ok=True)
    thief.release("0.4.0")
    box.refuses(thief.mirror, Update.FORGED)


class Mirror(SimpleHTTPRequestHandler):
    """A mirror on a link that is cut after so many bytes of an answer."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    sent: list[int]
    cut: int
    ranges = True

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range", "") if self.ranges else ""
        begin, _, last = wanted.removeprefix("bytes=").partition("-")
        data = data[int(begin or 0) : int(last) + 1 if last else None]
        self.asked.append(wanted)
        self.sent.append(min(len(data), self.cut) if path.suffix != ".json" else 0)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.cut])
        self.close_connection = len(data) > self.cut

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, cut: int = 2**30, *, ranges: bool = True) -> Iterator[tuple[str, type[Mirror]]]:
    handler = type("Mirror", (Mirror,), {"asked": [], "sent": [], "cut": cut, "ranges": ranges})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    server.daemon_threads = True  # one waits on a link that is kept
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_over_a_link_that_is_cut_it_goes_on_where_it_was(box: Box, maker: Maker) -> None:
    assert "the settings name no mirror" in box.install("").output
    maker.release("0.2.0")
    with serving(maker.mirror, 700_000) as (url, mirror):
        around = [now() + timedelta(hours=one) for one in (-1, 1)]
        for hours in (f"{around[0]:%H:%M}-{around[1]:%H:%M}", ""):
            told = settings.Config(
                state=box.config.state, update=settings.Update(mirror=url), hub=settings.Hub(metered=hours)
            )
            settings.save(told, box.file)
            results = [box.install("")]
            assert ("not now" in results[0].output) == bool(hours)
        assert (box.record.state, box.variables()) == (Update.CUT, FRESH)
        while results[-1].exit_code == 75 and len(results) < 6:
            results.append(box.install(url))
    assert [one.exit_code for one in results] == [75, 75, 75, 0], results[-1].output
    assert [one for one in mirror.asked if one] == ["bytes=700000-", "bytes=1400000-", "bytes=2100000-"]
    assert box.holds(maker, "0.2.0")


@pytest.fixture
def near(box: Box, maker: Maker) -> Box:
    """A box that runs a system of which the release differs in two places, one of them a single byte, and by what is put in."""
    maker.release("0.2.0")
    system = bytearray(maker.system("0.2.0"))
    system[MIB] ^= 1
    system[300_000:320_000] = b""
    box.own.write_bytes(bytes(system).ljust(4 * MIB, b"\xff"))
    return box


def test_over_a_link_only_what_the_box_has_not_got_is_fetched_cut_wherever_it_is(near: Box, maker: Maker) -> None:
    with serving(maker.mirror, 20_000) as (url, mirror):
        results = [near.install(url)]
        while results[-1].exit_code == 75 and len(results) < 20:
            results.append(near.install(url))
    assert results[-1].exit_code == 0, results[-1].output
    assert near.holds(maker, "0.2.0")
    assert len(results) > 2
    assert 20_000 < sum(mirror.sent) < 250_000, "the index, two places, and what holds the bundle together"
    assert not list((Path(near.config.state) / "updates").glob("*.part*"))


def test_a_mirror_without_ranges_gives_the_whole_and_so_does_one_without_an_index(near: Box, maker: Maker) -> None:
    with serving(maker.mirror, ranges=False) as (url, mirror):
        assert near.install(url).exit_code == 0
    assert near.holds(maker, "0.2.0")
    assert max(mirror.sent) > 2 * MIB
    maker.release("0.3.0")
    for index in maker.mirror.rglob("*.outpost.chunks"):
        index.write_bytes(b"something else")
    with serving(maker.mirror) as (url, mirror):
        assert near.install(url).exit_code == 0
    assert near.holds(maker, "0.3.0")


def test_an_index_that_lies_costs_time_and_nothing_else(
    near: Box, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lies(pieces: Iterable[Chunk]) -> bytes:
        told = list(pieces)
        told[9], told[20] = told[20], told[9]
        return write(told)

    write = chunks.write
    monkeypatch.setattr(chunks, "write", lies)
    maker.release("0.2.0")
    with serving(maker.mirror, 1_500_000) as (url, mirror):
        assert [near.install(url).exit_code for _ in range(2)] == [75, 0]
    assert near.holds(maker, "0.2.0")
    assert sum(mirror.sent) < 1.2 * maker.bundle("0.2.0").stat().st_size, "cut after that it goes on without the index"


def test_a_power_cut_while_the_slot_is_written_leaves_the_slot_that_runs(
    box: Box, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.release("0.2.0")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("start", "read_back"):
        with monkeypatch.context() as power:
            power.setattr(card, step, cut)
            assert box.install(maker.mirror).exit_code == 1
        assert box.variables() == FRESH
        assert not box.slot.read_bytes()[-bundle.BLOCK :].strip(b"\0"), "nothing says that a system is there"
    assert box.update("good").exit_code == 0
    assert box.record.state is Update.CUT
    assert box.install(maker.mirror).exit_code == 0
    assert box.holds(maker, "0.2.0")


def test_a_stick_without_an_update_and_a_system_without_an_authority_are_said(box: Box, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = box.install(tmp_path / "empty")
    assert result.exit_code == 75 and "has no update on it" in result.output
    (box.trust / "release").unlink()
    assert "made without an authority" in box.install(tmp_path / "empty").output
    assert box.record.state is None


OURS = load(SHIPPED).manifest.version


def refuses_model(box: Box, source: Path | str, why: Update, status: int = 76) -> None:
    """It ends on the model that works, with the reason on the page."""
    before, system = box.model, box.record.state
    result = box.install(source)
    assert result.exit_code == status, result.output
    assert (box.model, box.record.model, box.record.state) == (before, why, system)
    (reading,) = health.model(Path(box.config.state))
    assert (reading.level, reading.state) == (health.Level.LOOK, why)
    sentence, action = words.MODELS[why]
    assert f"{sentence} {action}" in box.update("status").output
    assert not list((Path(box.config.state) / "updates").glob("model"))


def test_a_newer_model_is_proven_and_put_into_use_apart_from_the_system_and_not_again_once_somebody_went_back(
    box: Box, maker: Maker
) -> None:
    maker.model("9.0.0")
    assert "9.0.0 of the model has shown on this box that it works" in box.install(maker.mirror).output
    assert (box.model, box.record.model, box.record.state) == ("9.0.0", Update.GOOD, None)
    assert installed.choice(Path(box.config.state)).previous == installed.SHIPPED
    with closing(open_store(Path(box.config.state))) as store:
        assert passport.at_work(box.config, store)[1] != acceptances.accepted(store), "it does not rank"
    assert box.install(maker.mirror).exit_code == 0
    back = CliRunner().invoke(main, ["--config", str(box.file), "models", "rollback"])
    assert back.exit_code == 0 and box.model == OURS
    maker.release("0.2.0")
    assert box.install(maker.mirror).exit_code == 0
    assert box.holds(maker, "0.2.0") and box.model == OURS
    maker.model("9.1.0")
    assert box.install(maker.mirror).exit_code == 0
    assert (box.model, box.record.state) == ("9.1.0", Update.READY), "beside a system that waits for its start"


def test_a_model_that_may_not_be_used_ends_on_the_one_before(box: Box, maker: Maker, tmp_path: Path) -> None:
    maker.model("9.0.0", lambda folder: (folder / "manifest.sig").write_bytes(b"x" * 64))
    kept = shutil.copytree(maker.mirror, tmp_path / "kept")
    refuses_model(box, maker.mirror, Update.UNSIGNED)
    assert box.install(maker.mirror).exit_code == 0, "once is enough"
    maker.model("9.0.1", lambda folder: bundles.replaced(folder, "model.onnx", b"no network"))
    refuses_model(box, maker.mirror, Update.SELF_TEST)
    maker.model("0.0.1")
    refuses_model(box, maker.mirror, Update.OLDER)
    # under a version that is not its own, and with other bytes than were released
    other = maker.model("9.0.2")
    with pytest.MonkeyPatch.context() as lie:
        lie.setattr(authority, "packed", lambda _: packed(bundles.copied(tmp_path / "other")))
        authority.add_model(maker.mirror, maker.folder / "release", other, now())
    refuses_model(box, maker.mirror, Update.FORGED)
    maker.model("9.0.3")
    for file in maker.mirror.rglob("*.outpost.model"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    refuses_model(box, maker.mirror, Update.FORGED)
    # what this box has seen is not taken back
    assert box.install(kept).exit_code == 76
    assert (box.record.state, box.model) == (Update.OLDER, OURS)
    # a system with which it may work is another try
    maker.model("9.0.1")
    (box.trust / "release").write_text(json.dumps({"board": BOARD, "version": "0.2.0"}))
    assert box.install(maker.mirror).exit_code == 0
    assert box.model == "9.0.1"


def test_a_model_that_is_cut_goes_on_where_it_was(box: Box, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.model("9.0.0")
    with serving(maker.mirror, 5_000_000) as (url, mirror):
        refuses_model(box, url, Update.CUT, 75)
        with monkeypatch.context() as power:
            power.setattr(fleet, "_run", lambda *_: exec("raise KeyboardInterrupt"))
            assert box.install(url).exit_code == 1
        assert (box.model, box.record.model) == (OURS, Update.BEGUN)
        assert box.update("good").exit_code == 0
        assert box.record.model is Update.CUT
        assert box.install(url).exit_code == 0
    assert box.model == "9.0.0"
    assert [one for one in mirror.asked if one] == ["bytes=5000000-"]


def test_a_model_that_the_maker_did_not_sign_is_not_released(maker: Maker, tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "model")
    told = [
        "publish",
        "model",
        str(maker.mirror),
        "--authority",
        str(maker.folder / "release"),
        "--bundle",
        str(folder),
    ]
    (folder / "manifest.sig").unlink()
    assert "nobody has signed" in CliRunner().invoke(main, told).output
    (folder / "card.md").write_text("another")
    assert "no whole model" in CliRunner().invoke(main, told).output
    assert not maker.mirror.exists()
