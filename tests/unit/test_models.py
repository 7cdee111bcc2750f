"""Models: a bundle is what its manifest says, and the same film gives the same answer however it is windowed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.reader import Reader
from edge.records import Finding
from edge.stages.decide import decide
from models import phantom
from models.backends import BACKENDS
from models.bundle import SHIPPED, Band, Mismatch, load
from models.model import Model, Probability, Scores
from models.prepare import prepare
from models.training import agreement
from tests.box import ROOT


@cache
def shipped() -> Model:
    return Model(load(SHIPPED))


def test_the_shipped_bundle_passes_its_self_test() -> None:
    shipped().self_test()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_runtime_keeps_no_record_of_this_device_and_tells_nobody(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(BACKENDS[name].packages[0]) is None:
        pytest.skip(f"{name} is not installed")
    script = f"from models import backends; backends.load({name!r}, __import__('pathlib').Path('none'), 1)"
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment | {"HOME": str(home)}, capture_output=True, text=True
    )
    assert "none" in done.stderr  # the runtime was there, the model was not
    assert [path for path in home.rglob("*") if path.is_file()] == []


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


@pytest.mark.parametrize("name", sorted(load(SHIPPED).manifest.files))
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    bundle = copied(tmp_path)
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(Mismatch, match=name):
        load(bundle)


def test_every_file_of_the_bundle_is_hashed() -> None:
    found = {path.name for path in SHIPPED.iterdir()} - {"manifest.toml", "manifest.sig"}
    assert found == set(load(SHIPPED).manifest.files)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("soon = 0", "soon = 1", "out of order"),
        ('domain = "adult"', 'domain = "cats"', "no domain cats"),
        ('default_operating_point = "balanced"', 'default_operating_point = "bold"', "no operating point bold"),
        ("title = ", "motto = ", "manifest.toml"),
    ],
)
def test_a_manifest_that_contradicts_itself(tmp_path: Path, old: str, new: str, says: str) -> None:
    bundle = copied(tmp_path)
    manifest = bundle / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(Mismatch, match=says):
        load(bundle)


def test_a_model_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.model.prepare", lambda gray, size: prepare(1 - gray, size))
    with pytest.raises(Mismatch, match="self-test"):
        Model(load(SHIPPED)).self_test()


def test_ages_belong_to_one_domain_or_none() -> None:
    domains = {age: shipped().domain_of(age) for age in (0.9, 1, 5.99, 6, 17.99, 18, 100, 101)}
    assert list(domains.values()) == [None, "child", "child", None, None, "adult", "adult", None]


@given(st.floats(-20, 20), st.floats(0, 10))
def test_a_higher_logit_is_never_less_probable(logit: float, more: float) -> None:
    def calibrated(value: float) -> list[tuple[float, float, float]]:
        scores = Scores(np.full(8, value, np.float32), np.zeros((8, 7, 7), np.float32), np.zeros(4, np.float32))
        found = shipped().calibrate(scores, "child") + shipped().calibrate(scores, "adult")
        return [(one.low, one.value, one.high) for one in found]

    for (low, value, high), (_, above, _) in zip(calibrated(logit), calibrated(logit + more), strict=True):
        assert 0 <= low <= value <= high <= 1
        assert above >= value


@given(st.floats(0.2, 1), st.floats(0, 0.5), st.integers(0, 5))
def test_the_window_hardly_matters(contrast: float, brightness: float, seed: int) -> None:
    film = phantom.chest(seed, (300, 280))
    assert np.abs(prepare(film, 224) - prepare(film * np.float32(contrast) + np.float32(brightness), 224)).max() < 1e-3


def test_the_order_in_which_a_processor_sums_up_changes_no_gray() -> None:
    """A film turned by half is summed up from its other end."""
    for seed in range(6):
        film = phantom.chest(seed, (700, 600))
        here, there = (np.rint(prepare(one, 224)[0, 0] * 255) for one in (film, np.ascontiguousarray(film[::-1, ::-1])))
        assert np.array_equal(here, there[::-1, ::-1]), seed


@pytest.mark.parametrize("size", [(224, 224), (448, 448), (489, 461), (2048, 1500)])
def test_resizing_keeps_the_mean(size: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, size[1], dtype=np.float32), size)
    tensor = prepare(np.ascontiguousarray(ramp), 224)
    assert tensor.shape == (1, 1, 224, 224) and tensor.dtype == np.float32
    assert abs(float(tensor.mean()) - 0.5) < 0.01
    assert np.all(np.diff(tensor[0, 0, 0]) >= 0)


FAULTS = {
    "wrong_polarity": lambda film: 1 - film,
    "rotated": lambda film: np.ascontiguousarray(np.rot90(film)),
    "unreadable_exposure": lambda film: np.full_like(film, 0.5),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_in_the_picture_has_its_name(reason: str) -> None:
    film = FAULTS[reason](phantom.chest(1, (512, 512))).astype(np.float32)
    tensor = shipped().prepare(film)
    assert shipped().doubt(film, tensor, shipped().infer(tensor)) == reason


def test_noise_is_no_chest() -> None:
    film = np.random.default_rng(1).random((512, 512), np.float32)
    tensor = shipped().prepare(film)
    assert shipped().doubt(film, tensor, shipped().infer(tensor)) is not None


def test_the_phantom_is_a_chest_and_has_a_map() -> None:
    film = phantom.chest(1)
    scores = shipped().infer(shipped().prepare(film))
    assert shipped().doubt(film, shipped().prepare(film), scores) is None
    for finding in shipped().manifest.findings:
        saliency = shipped().saliency(scores, finding.key)
        assert saliency.shape == (7, 7)
        assert saliency.min() >= 0 and saliency.max() in (0, 1)


def test_the_map_sums_to_the_logit() -> None:
    scores = shipped().infer(shipped().prepare(phantom.chest(2)))
    other = shipped().infer(shipped().prepare(phantom.chest(3, opacity=True)))
    difference = scores.maps.mean((1, 2)) - other.maps.mean((1, 2))
    assert np.allclose(difference, scores.logits - other.logits, atol=1e-3)


def test_the_device_changes_with_the_operating_point() -> None:
    assert shipped().bundle.device_digest("balanced") != shipped().bundle.device_digest("sensitive")
    assert shipped().bundle.device_digest("balanced") == load(SHIPPED).device_digest("balanced")


@pytest.mark.parametrize("p", [0.2, 0.3, 0.45, 0.6, 0.7])
def test_what_both_kinds_of_films_have_had_is_unsure_and_the_outcome_is_the_same(p: float) -> None:
    bundle = load(SHIPPED)
    said = Probability("pneumonia", "Pneumonia", "SCT", "233604007", "Pneumonia", p, p, p)

    def finding(band: Band | None, calibration: Any = None) -> Finding:
        findings = tuple(msgspec.structs.replace(one, band=band) for one in bundle.manifest.findings)
        changed = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, findings=findings))
        return Reader(changed, "balanced", 1, calibration).finding(said)

    band = Band(present=0.3, absent=0.6, evidence="")
    one, other = finding(band), finding(None)
    assert one.unsure is (0.3 <= p <= 0.6)
    assert replace(one, unsure=False) == other
    assert decide([one], "", "").outcome == decide([other], "", "").outcome
    site = SimpleNamespace(apply=lambda _key, value: (value, value, value), digest="")
    assert not finding(band, site).unsure, "a site that has calibrated it has films of its own"


def test_a_band_beyond_all_probabilities_is_refused(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    manifest = load(SHIPPED).manifest
    first = msgspec.structs.replace(manifest.findings[0], band=Band(-1, 0.5, ""))
    changed = msgspec.structs.replace(manifest, findings=(first, *manifest.findings[1:]))
    (bundle / "manifest.toml").write_bytes(msgspec.toml.encode(changed))
    with pytest.raises(Mismatch, match="pneumonia: its band"):
        load(bundle)


def test_the_card_is_whole() -> None:
    card = (SHIPPED / "card.md").read_text(encoding="utf-8")
    assert "Not for clinical use" in card and "## What it cannot do" in card
    for blank in ("None", "nan", "TODO", "[populate]"):
        assert blank not in card


def test_eight_bits_and_the_runtimes_of_the_shipped_bundle_agree() -> None:
    assert agreement.lacking(json.loads((SHIPPED / "evaluation.json").read_bytes())["agreement"]) == []


def ways(change: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """200 films computed twice, the second time with something changed, as little as a limit does not allow."""
    draw = np.random.default_rng(7)
    finding = shipped().manifest.findings[0]
    p = np.append(np.linspace(0.2, 0.3, 100), np.linspace(0.9, 0.95, 100))
    logits = (np.log(p / (1 - p)) - finding.intercept) / finding.slope
    one = {"logits": logits, "maps": draw.random((200, 7, 7))}
    other = {"logits": logits.copy(), "maps": one["maps"].copy()}
    if change == "p99_difference":
        other["logits"][:3] += 0.25 / finding.slope
    if change == "equal_outcomes":
        other["logits"][:3] = logits[-3:]
    if change == "auroc_lost":
        one["logits"][0] = logits[-1] + 1
    if change == "median_correlation_of_maps":
        other["maps"] = draw.random((200, 7, 7))
    return one, other


@pytest.mark.parametrize("change", ["", *agreement.MOST, *agreement.LEAST])
def test_what_eight_bits_change_too_much_is_said(change: str) -> None:
    read = np.repeat([0.0, 1.0], 100)
    read[5:95] = np.nan
    found = agreement.compared(shipped().manifest.findings[0], "balanced", *ways(change), read)
    said = agreement.lacking({"pneumonia": found})
    assert any(change.replace("_", " ") in line for line in said) if change else said == []
