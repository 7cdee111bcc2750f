"""Bundles on a box: verified, activated, rolled back; whatever is wrong with one is said in one line, and nothing changes."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge import passport
from edge.cli import main
from edge.config import Config, Intake, Worker, save
from edge.errors import Tampered
from edge.reader import open_reader
from edge.state import acceptances, audit, installed
from edge.state.store import now, open_store, transaction
from edge.worker import Worker as Process
from edge.worker import _work
from models.bundle import SHIPPED, load
from tests import bundles


def newer(manifest: str) -> str:
    return re.sub(r'^version = ".*"$', 'version = "9.0.1"', manifest, flags=re.M)


@pytest.fixture
def box(tmp_path: Path) -> Config:
    state = tmp_path / "state"
    return Config(state=str(state), intake=Intake(disk_floor_mib=0), worker=bundles.worker(tmp_path))


def models(config: Config, *arguments: str, status: int = 0) -> Result:
    path = Path(config.state).parent / "outpost.toml"
    save(config, path)
    done = CliRunner().invoke(main, ["--config", str(path), "models", *arguments])
    assert done.exit_code == status, done.output
    return done


def test_activated_listed_rolled_back_and_forward(box: Config, tmp_path: Path) -> None:
    bundle = bundles.copied(tmp_path / "new", newer)
    digest = load(bundle).digest
    assert "9.0.1 is in use; it ranks only once it has been accepted" in models(box, "activate", str(bundle)).output
    assert passport.folder(box) == Path(box.state) / "models" / digest
    assert "in use already" in models(box, "activate", str(bundle)).output
    shown = models(box, "list").output
    assert re.search(rf"^\* {digest[:12]} .* 9\.0\.1 .* signed by tests$", shown, re.M)
    assert re.search(rf"^  {SHIPPED.name} .* signed by development$", shown, re.M)
    models(box, "rollback")
    assert passport.folder(box) == SHIPPED
    models(box, "rollback")
    assert passport.folder(box).name == digest
    assert "signature (tests)" in models(box, "verify").output


def test_the_two_last_bundles_are_kept_and_no_other(box: Config, tmp_path: Path) -> None:
    digests = []
    for number in range(3):
        bundle = bundles.copied(tmp_path / str(number), lambda text, n=number: newer(text).replace("9.0.1", f"9.0.{n}"))  # type: ignore[misc]
        digests.append(load(bundle).digest)
        models(box, "activate", str(bundle))
    kept = {path.name for path in (Path(box.state) / "models").iterdir() if path.is_dir()}
    assert kept == set(digests[1:])
    assert installed.choice(Path(box.state)) == installed.Choice(digests[2], digests[1])


def test_there_is_nothing_to_go_back_to(box: Config) -> None:
    assert "nothing to go back to" in models(box, "rollback", status=78).stderr


def test_a_bundle_of_the_settings_is_not_changed_behind_their_back(box: Config, tmp_path: Path) -> None:
    bundle = bundles.copied(tmp_path / "new", newer)
    named = msgspec.structs.replace(box, worker=bundles.worker(tmp_path, bundle))
    assert "worker.bundle" in models(named, "activate", str(bundle), status=78).stderr
    assert "worker.bundle" in models(named, "rollback", status=78).stderr


def wrong_hash(bundle: Path) -> None:
    (bundle / "gate.npz").write_bytes(b"something else")


def unsigned(bundle: Path) -> None:
    (bundle / "manifest.sig").unlink()


def signed_by_another(bundle: Path) -> None:
    (bundle / "manifest.sig").write_bytes((SHIPPED / "manifest.sig").read_bytes())


def missing_file(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()


def elsewhere(bundle: Path) -> None:
    manifest = bundle / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"card.md"', '"../card.md"'))
    bundles.signed(bundle)


def another_size(bundle: Path) -> None:
    manifest = bundle / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("input_size = 224", "input_size = 320"))
    bundles.signed(bundle)


def fewer_labels(bundle: Path) -> None:
    manifest = bundle / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("outputs = 0", "outputs = 18"))
    bundles.signed(bundle)


def no_model(bundle: Path) -> None:
    bundles.replaced(bundle, "model.onnx", b"no network")


def another_gate(bundle: Path) -> None:
    with np.load(bundle / "gate.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    np.savez(bundle / "other.npz", **kept | {"known_whitening": kept["known_whitening"][:-1]})
    data = (bundle / "other.npz").read_bytes()
    (bundle / "other.npz").unlink()
    bundles.replaced(bundle, "gate.npz", data)


def another_answer(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as arrays:
        films, expected = arrays["films"], arrays["probabilities"]
    np.savez(bundle / "other.npz", films=films, probabilities=np.clip(expected - 0.05, 0, 1) + (expected < 0.5) * 0.1)
    data = (bundle / "other.npz").read_bytes()
    (bundle / "other.npz").unlink()
    bundles.replaced(bundle, "golden.npz", data)


DAMAGE = {
    wrong_hash: "gate.npz: its hash is not the one in the manifest",
    unsigned: "manifest.sig: nobody has signed this bundle",
    signed_by_another: "manifest.sig: not signed by development, tests",
    missing_file: "golden.npz",
    elsewhere: "../card.md: a bundle's files lie in its own folder",
    another_size: "it takes no picture of 320 x 320",
    fewer_labels: "the manifest has 18 labels",
    no_model: "model.onnx",
    another_gate: "gate.npz: known_whitening is not made for the",
    another_answer: "self-test: off by 0.0",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda one: one.__name__)
def test_what_is_wrong_is_said_in_one_line_and_the_active_model_stays(
    box: Config, tmp_path: Path, damage: object
) -> None:
    good = bundles.copied(tmp_path / "good", newer)
    models(box, "activate", str(good))
    bad = bundles.copied(tmp_path / "bad", lambda text: text + "# another\n")
    assert callable(damage)
    damage(bad)
    said = models(box, "activate", str(bad), status=76).stderr
    assert DAMAGE[damage] in said and len(said.splitlines()) == 1
    assert passport.folder(box).name == load(good).digest
    assert {path.name for path in (Path(box.state) / "models").iterdir() if path.is_dir()} >= {load(good).digest}
    open_reader(box)


def test_an_unsigned_model_of_the_settings_is_not_used(box: Config, tmp_path: Path) -> None:
    bundle = bundles.copied(tmp_path / "new")
    unsigned(bundle)
    with pytest.raises(Tampered, match="nobody has signed"):
        open_reader(msgspec.structs.replace(box, worker=bundles.worker(tmp_path, bundle)))


def test_an_authority_that_is_no_key_is_named(box: Config, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    wrong = msgspec.structs.replace(box, worker=Worker(authorities=(str(tmp_path / "key.pem"),)))
    assert "worker.authorities" in models(wrong, "verify", status=78).stderr


def test_a_running_worker_follows_and_the_box_is_in_shadow_mode_again(box: Config, tmp_path: Path) -> None:
    bundle = bundles.copied(tmp_path / "new", newer)
    with closing(open_store(Path(box.state))) as store:
        process = Process(box, store)
        process.follow()
        with transaction(store):
            acceptances.sign(store, process.reader.device_uid, process.reader.operating_point, "Lindiwe", now())
        assert acceptances.accepted(store) == process.reader.device_uid
        models(box, "activate", str(bundle))
        process.follow()
        assert process.reader.name.endswith("9.0.1")
        assert acceptances.accepted(store) != process.reader.device_uid, "it does not rank"
        changed = audit.latest(store, audit.Event.MODEL_CHANGED)
        assert changed is not None and changed.detail["model"].endswith("9.0.1")
        models(box, "rollback")
        process.follow()
        assert acceptances.accepted(store) == process.reader.device_uid, "what was accepted here is accepted still"


def test_films_that_wait_are_judged_by_the_new_model(
    box: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.copied(tmp_path / "new", newer)
    stop, judged_by = threading.Event(), []
    with closing(open_store(Path(box.state))) as store:
        process = Process(box, store)
        models(box, "activate", str(bundle))

        def step() -> bool:
            judged_by.append(process.reader.name)
            stop.set()
            return True

        monkeypatch.setattr(process, "step", step)
        _work(process, stop, lambda: None)
    assert judged_by == ["cxr-lite0 9.0.1"]
