"""Runtimes: one counts only once it computed here what it shall; the fastest that agrees is chosen once, and remembered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge import config as settings
from edge import reader
from edge.cli import main
from edge.config import Config, Intake, save
from edge.errors import Tampered
from edge.state import installed
from edge.state.store import open_store
from models import backends, phantom, runtimes
from models.bundle import SHIPPED, load
from models.model import Model
from models.runtimes import Tried
from tests import bundles


def two(text: str, tolerance: float = 0.5) -> str:
    """The shipped bundle for two of its runtimes, taking some difference."""
    without = text.replace('litert = "model.tflite"\n', "")
    return without.replace("tolerance = 0.02", f"tolerance = {tolerance}")


@pytest.fixture
def box(tmp_path: Path) -> Config:
    bundle = bundles.copied(tmp_path / "bundle", two)
    return Config(
        state=str(tmp_path / "state"), intake=Intake(disk_floor_mib=0), worker=bundles.worker(tmp_path, bundle)
    )


def test_each_is_tried_in_a_process_of_its_own(box: Config) -> None:
    found = runtimes.tried(load(Path(box.worker.bundle)), threads=1)
    assert list(found) == ["onnx", "openvino"]
    for one in found.values():
        assert one.why == "" and one.milliseconds is not None and one.milliseconds > 0


def test_one_that_computes_something_else_is_not_to_be_used(tmp_path: Path) -> None:
    bundle = load(bundles.copied(tmp_path / "bundle", lambda text: two(text, tolerance=0.0001)))
    found = runtimes.tried(bundle, threads=1)
    assert found["openvino"].milliseconds is None and "self-test: off by" in found["openvino"].why


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ((5.0, 4.0), "other"),
        ((5.0, 4.8), "reference"),
        ((5.0, None), "reference"),
        ((None, 9.0), "other"),
        ((None, None), None),
    ],
)
def test_the_fastest_that_agrees_is_chosen(milliseconds: tuple[float | None, float | None], chosen: str | None) -> None:
    found = {name: Tried(one) for name, one in zip(("reference", "other"), milliseconds, strict=True)}
    assert runtimes.fastest(found) == chosen


def test_the_choice_is_made_once_and_remembered(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def tried(bundle: object, threads: int) -> dict[str, Tried]:
        asked.append(threads)
        return {"onnx": Tried(5.0), "openvino": Tried(3.0)}

    monkeypatch.setattr(runtimes, "tried", tried)
    with closing(open_store(Path(box.state))) as store:
        reader.settle(box)
        reader.settle(box)
        assert asked == [1]
        assert reader.open_reader(box, store).model.runtime == "openvino"
    named = msgspec.structs.replace(box, worker=msgspec.structs.replace(box.worker, runtime="onnx"))
    assert reader.open_reader(named).model.runtime == "onnx"


def test_nothing_is_remembered_where_none_can_be_used(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        runtimes, "tried", lambda bundle, threads: {"onnx": Tried(why="off"), "openvino": Tried(why="off")}
    )
    reader.settle(box)
    assert installed.runtime(Path(box.state), load(Path(box.worker.bundle)).digest) is None


def test_one_that_is_not_installed_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load(bundles.copied(tmp_path / "bundle", two))
    monkeypatch.setattr(runtimes, "installed", lambda name: name == "onnx")
    assert "pip install openvino" in runtimes.tried(bundle, threads=1)["openvino"].why


def test_the_list_shows_them(box: Config, tmp_path: Path) -> None:
    save(box, tmp_path / "outpost.toml")
    shown = CliRunner().invoke(main, ["--config", str(tmp_path / "outpost.toml"), "models", "list"]).output
    assert "onnx  agrees, " in shown and "openvino  agrees, " in shown and " ms a film" in shown


def test_a_bundle_that_is_not_made_for_a_runtime_says_so(box: Config) -> None:
    wanted = msgspec.structs.replace(box, worker=msgspec.structs.replace(box.worker, runtime="litert"))
    with pytest.raises(Tampered, match="litert: this bundle is not made for it"):
        reader.open_reader(wanted)


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_the_settings_have_each(tmp_path: Path, name: str) -> None:
    (tmp_path / "outpost.toml").write_text(f'[worker]\nruntime = "{name}"\n')
    assert settings.load(tmp_path / "outpost.toml").worker.runtime == name


@pytest.fixture(scope="module")
def shipped() -> dict[str, Model]:
    return {name: Model(load(SHIPPED), runtime=name) for name in backends.BACKENDS}


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_the_shipped_model_computes_on_each_what_it_shall(shipped: dict[str, Model], name: str) -> None:
    shipped[name].self_test()


def test_they_agree_on_films_that_no_self_test_has(shipped: dict[str, Model]) -> None:
    """ONNX Runtime and LiteRT add the same whole numbers; OpenVINO rounds some of them the other way."""
    for seed in range(2, 8):
        tensor = shipped["onnx"].prepare(phantom.chest(seed, (300, 280), opacity=seed % 2 == 1))
        found = {name: model.infer(tensor) for name, model in shipped.items()}
        for name, most in (("litert", 0.01), ("openvino", 0.15)):
            assert np.abs(found[name].logits - found["onnx"].logits).max() < most
            assert np.corrcoef(found[name].maps.ravel(), found["onnx"].maps.ravel())[0, 1] > 0.95
            assert found[name].maps.shape == found["onnx"].maps.shape and found[name].embedding.shape == (1280,)
