"""Runtimes: one counts only once it computed here what it shall; the fastest that agrees is chosen once, and remembered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edge import reader
from edge.cli import main
from edge.config import Config, Intake, Worker, save
from edge.state import installed
from edge.state.store import open_store
from models import runtimes
from models.bundle import load
from models.runtimes import Tried
from tests import bundles


def two(text: str, tolerance: float = 0.5) -> str:
    """A bundle for two runtimes that takes some difference."""
    text = text.replace("tolerance = 0.02", f"tolerance = {tolerance}")
    return text + '\n[runtimes]\nonnx = "model.onnx"\nopenvino = "model.onnx"\n'


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
    with pytest.raises(Exception, match="litert: this bundle is not made for it"):
        reader.open_reader(wanted)


def test_the_settings_have_the_three(tmp_path: Path) -> None:
    for name in ("onnx", "openvino", "litert"):
        assert Worker(runtime=name).runtime in runtimes.backends.BACKENDS  # type: ignore[arg-type]
