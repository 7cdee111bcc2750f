"""Training: the shipped network is read back to the last integer, learning is the same to the bit, and bands hold what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models import phantom
from models.bundle import SHIPPED
from models.prepare import prepare

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is for training only and in no lock: pip install torch==2.13.0",
)


def test_the_shipped_files_are_written_again_from_the_network_in_them(tmp_path: Path) -> None:
    import onnx

    from models.training import export, network

    np.savez(tmp_path / "network.npz", learnt=0, **export.read_onnx(SHIPPED / "model.onnx"))  # type: ignore[arg-type]
    shipped = {
        one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(SHIPPED / "model.onnx")).graph.initializer
    }
    heads = shipped["head.weight"].T, shipped["head.bias"]
    read = network.load(tmp_path / "network.npz")
    export.write_onnx(read, *heads, tmp_path / "model.onnx", eight=True)
    export.write_litert(read, *heads, tmp_path / "model.tflite")
    for name in ("model.onnx", "model.tflite"):
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name


def test_a_refined_stem_gives_the_same_in_float_and_less_error_in_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.nn.functional import conv2d

    from models.training import network

    net = network.Network()
    net.load_state_dict({name: _filled(name, value) for name, value in net.state_dict().items()})
    films = torch.from_numpy(
        np.stack([prepare(phantom.chest(seed, (256, 256), opacity=seed % 2 == 1), 224)[0] for seed in range(4)])
    )
    with torch.no_grad():
        net.eval().fold(films)
        refined = network.refine(net, films)
        monkeypatch.setattr(network, "COPIES", 1)
        grown = network.refine(net, films)
        x = films - network.GRAY / network.LEVELS

        def told(of: network.Network, eight: bool) -> torch.Tensor:
            """What comes of the stem, with no rounding but that of its output."""
            depth, narrow = (unit.convolution for unit in of.blocks[0].units)
            stem = network.within(of.stem(x), of.stem.high, of.stem.bends, eight)
            inside = conv2d(stem, depth.weight, depth.bias, groups=depth.groups)
            return conv2d(inside, narrow.weight, narrow.bias)

        exact = told(net, False)
        assert net.refined is False and refined.refined is True
        assert (told(refined, False) - exact).abs().mean() < 0.001 * exact.abs().mean()
        rough, less, least = ((told(of, True) - told(of, False)).std() for of in (net, grown, refined))
    assert less < 0.9 * rough and least < 0.6 * less, (
        "channels fill their range; of two half a step apart the mean is taken"
    )


@pytest.mark.parametrize("bends", [True, False])
def test_an_output_ends_at_its_range_and_is_rounded_within_it_and_its_gradient_does_not_mind(bends: bool) -> None:
    import torch

    from models.training.network import within

    values = np.random.default_rng(5).normal(0, 3, 1000)
    low, step = (0.0, 4.0 / 255) if bends else (-4.0, 4.0 / 127)
    inside = (values > low) & (values < 4)
    for eight in (False, True):
        x = torch.tensor(values, requires_grad=True)
        found = within(x, torch.tensor(4.0), bends, eight)
        ended = np.clip(values, low, 4)
        np.testing.assert_allclose(found.detach(), np.rint(ended / step) * step if eight else ended, atol=1e-12)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert (gradient.numpy() == inside).all()


@pytest.mark.timeout(1200)  # twice three steps; a minute on two free cores
def test_two_runs_of_tuning_with_one_seed_are_equal_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from models.training import network, tune
    from models.training.films import Film

    children = [Film("kermany", "", str(n), "train", "child", "AP", n // 3 % 2, None) for n in range(12)]
    adults = [
        Film("nih", "", f"n{n}", "train", "adult", "AP" if n % 2 else "PA", None, n // 2 % 2, n // 4 % 2)
        for n in range(8)
    ]
    every = children + adults
    films = (prepare(phantom.chest(seed, (256, 256), opacity=seed % 2 == 1), 224)[0, 0] for seed in range(len(every)))
    pictures = np.rint(np.array(list(films)) * 255).astype(np.uint8)
    monkeypatch.setattr(tune, "DRAWN", 10)
    tune.render(every, pictures, tmp_path / "lesions.npz", 1)
    recipe = tune.Recipe(7, small_steps=1, steps=2, eight_steps=1, pairs=1, children=2, mined=4, faulty=1)
    made = []
    for run in range(2):
        torch.manual_seed(run)  # what was drawn before must not matter
        net = network.Network()
        net.load_state_dict({name: _filled(name, value) for name, value in net.state_dict().items()})
        batches = tune.Batches(every, pictures, tmp_path / "lesions.npz", recipe, "cpu")
        tune.tune(net, batches, tmp_path / f"{run}.npz")
        with np.load(tmp_path / f"{run}.npz") as found:
            made.append({name: found[name].tobytes() for name in found.files})
    assert made[0] == made[1]


def _filled(name: str, value: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]  # noqa: F821
    """Weights that are the same each time."""
    import torch

    if value.ndim < 2:
        return value
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * (2 / value[0].numel()) ** 0.5
