"""Import: a network of somebody else becomes a bundle that this box activates; what is wrong is said, and nothing is run."""

from __future__ import annotations

import csv
import io
import pickle  # noqa: TID251  to write a checkpoint as PyTorch does, and one that would do harm
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge.cli import main
from edge.config import Config, save
from edge.reader import Reader
from models import conformal, phantom
from models.backends.onnx import OnnxRuntime
from models.bundle import load
from models.prepare import prepare
from models.training import adopt, checkpoint, densenet, evidence, gate
from tests import bundles

FILMS = 104
ABOUT = """
id = "elsewhere"
version = "1.0.0"
title = "A network of somebody else"
modalities = ["CR", "DX"]
views = ["PA"]
minimum_size = 200

[[domains]]
key = "adult"
age_min = 18
age_max = 101

[[findings]]
key = "lung_opacity"
label = "Lung opacity"
scheme = "RADLEX"
code = "RID28530"
meaning = "opacity"
domain = "adult"
output = {output}

[[findings]]
key = "nodule"
label = "Nodule"
scheme = "SCT"
code = "427359005"
meaning = "Solitary nodule of lung"
domain = "adult"
output = 1

[[sources]]
name = "Synthesized"
films = 104
patients = 104
terms = "none"
"""


def small(path: Path, **outputs: str) -> Path:
    """Brightness of the lungs in 3 x 3 places: a network that knows an opacity of `phantom` from none."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0, 0], weight[1, 1] = 40.0, 1.0
    held = {
        "kernel": np.stack([np.full((1, 8, 8), one / 64, np.float32) for one in (1.0, -1.0, 0.5)]),
        "weight": weight,
        "flat": weight[:, :, 0, 0],
        "bias": np.array([-12.0, 0.0], np.float32),
    }
    names = {"logits": "logits", "maps": "maps", "embedding": "embedding"} | outputs
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["seen"], strides=[8, 8]),
        helper.make_node("Relu", ["seen"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [names["embedding"]], axis=1),
        helper.make_node("Gemm", [names["embedding"], "flat", "bias"], [names["logits"]], transB=1),
        helper.make_node("Conv", ["features", "weight"], [names["maps"]]),
    ]
    shapes = {"logits": [1, 2], "maps": [1, 2, 28, 28], "embedding": [1, 3]}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 224, 224])],
        [helper.make_tensor_value_info(names[name], TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer films than people would name: a DenseNet takes its time."""
    monkeypatch.setattr(adopt, "CALIBRATION_FILMS", 8)
    monkeypatch.setattr(adopt, "FAULTY_FILMS", 12)
    monkeypatch.setattr(gate, "PHANTOMS", range(100, 104))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Each of another contrast, so that there are more means of gray than eight bits have steps there."""
    contrast = np.random.default_rng(1).uniform(0.95, 1.05, FILMS).astype(np.float32)
    return [phantom.chest(number, (128, 128), opacity=number % 2 == 1) ** contrast[number] for number in range(FILMS)]


def told_by(network: Path, pictures: Sequence[np.ndarray[Any, Any]], output: int) -> list[bool]:
    """What a network says most of, as if somebody had read it: whatever its weights, its films carry it."""
    runtime = OnnxRuntime(network, 1)
    logits = [float(runtime.run(prepare(one, 224))["logits"][0, output]) for one in pictures]
    return [bool(one > np.median(logits)) for one in logits]


def table(folder: Path, pictures: Sequence[np.ndarray[Any, Any]], read: Sequence[bool], **more: Any) -> Path:
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "lung_opacity", "nodule", "age", "view", "patient"])
        for number, (picture, label) in enumerate(zip(pictures, read, strict=True)):
            Image.fromarray(np.rint(picture * 65535).astype(np.uint16)).save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", int(label), int(number < 8), more.get("age", 50), "PA", number])
    return folder


@pytest.fixture(scope="module")
def data(pictures: list[np.ndarray[Any, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("import")
    return table(folder / "films", pictures, told_by(small(folder / "small.onnx"), pictures, 0))


def run(folder: Path, network: Path, data: Path, *more: str, output: str = "0", status: int = 0) -> Result:
    (folder / "about.toml").write_text(ABOUT.format(output=output), encoding="utf-8")
    (folder / "key.pem").write_bytes(bundles.KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    arguments = ["--about", str(folder / "about.toml"), "--data", str(data), "--out", str(folder / "out"), *more]
    done = CliRunner().invoke(main, ["models", "import", str(network), *arguments])
    assert done.exit_code == status, done.output
    return done


def test_an_onnx_file_becomes_a_bundle_that_a_box_activates(
    tmp_path: Path, data: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    network = small(tmp_path / "small.onnx")
    shown = run(tmp_path, network, data, "--key", str(tmp_path / "key.pem")).output
    assert "Lung opacity" in shown and "left out: nodule: 8 films with it" in shown
    bundle = load(tmp_path / "out")
    assert [finding.key for finding in bundle.manifest.findings] == ["lung_opacity"]
    assert bundle.manifest.outputs == 2
    card = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert "| Lung opacity | RADLEX RID28530 | adult | 52 / 52 | 1.000" in card and "nodule: 8 films with it" in card
    (finding,) = bundle.manifest.findings
    reader = Reader(bundle, "balanced", 1)
    tensors = [prepare(picture, 224) for picture in pictures]
    said = [reader.finding(reader.model.calibrate(reader.model.infer(one), "adult")[0]) for one in tensors]
    truth = told_by(network, pictures, 0)
    again = conformal.band([one.probability for one in said], truth)
    assert finding.band is not None
    assert (finding.band.present, finding.band.absent) == pytest.approx((again.present, again.absent), abs=0.002)
    assert f"- Lung opacity: {finding.band.absent:.3f}, {finding.band.present:.3f}; 95% of either kind" in card
    low, high = sorted((finding.band.present, finding.band.absent))
    assert [one.unsure for one in said] == [low < one.probability < high for one in said]
    assert 0 < sum(one.unsure for one in said) < 10
    box = Config(state=str(tmp_path / "state"), worker=bundles.worker(tmp_path))
    save(box, tmp_path / "outpost.toml")
    done = CliRunner().invoke(
        main, ["--config", str(tmp_path / "outpost.toml"), "models", "activate", str(tmp_path / "out")]
    )
    assert "elsewhere 1.0.0 is in use" in done.output, done.output


def random_densenet() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Tensors of torchxrayvision's layout with random weights."""
    draw = np.random.default_rng(1)
    found: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def conv(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = (draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        found.update(
            {f"{name}.weight": ones, f"{name}.bias": zeros, f"{name}.running_mean": zeros, f"{name}.running_var": ones}
        )

    conv("features.conv0", 64, 1, 7, 7)
    found["features.conv0.weight"] /= 600
    norm("features.norm0", 64)
    channels = 64
    for block, layers in enumerate(densenet.BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            conv(f"{name}.conv1", 128, channels, 1, 1)
            norm(f"{name}.norm2", 128)
            conv(f"{name}.conv2", 32, 128, 3, 3)
            channels += 32
        if block < 4:
            norm(f"features.transition{block}.norm", channels)
            conv(f"features.transition{block}.conv", channels // 2, channels, 1, 1)
            channels //= 2
    norm("features.norm5", channels)
    found["classifier.weight"] = draw.standard_normal((18, channels)).astype(np.float32)
    found["classifier.bias"] = np.zeros(18, np.float32)
    return found


class Storage:
    """What PyTorch's pickles name a storage by."""


def saved(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> Path:
    """A state dictionary in PyTorch's archive layout: a pickle that names storages, and the bytes of each."""

    class Names(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return (
                ("storage", storage_kind, obj[1], "cpu", obj[2])
                if isinstance(obj, tuple) and obj[:1] == (Storage,)
                else None
            )

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, np.ndarray):
                key = str(len(held))
                held[key] = np.ascontiguousarray(obj)
                strides = tuple(step // obj.itemsize for step in held[key].strides)
                return rebuild, ((Storage, key, obj.size), 0, obj.shape, strides, False, OrderedDict())
            return NotImplemented

    held: dict[str, np.ndarray[Any, Any]] = {}
    rebuild, storage_kind = _named("torch._utils", "_rebuild_tensor_v2"), _named("torch", "FloatStorage")
    file = io.BytesIO()
    Names(file, protocol=2).dump(OrderedDict(tensors))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        for key, array in held.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


def _named(module: str, name: str) -> Any:
    """A function that a pickle will name so."""
    import sys
    import types

    def nobody(*_arguments: Any) -> None:
        raise AssertionError("a checkpoint was run")

    nobody.__module__, nobody.__qualname__, nobody.__name__ = module, name, name
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, nobody)
    return nobody


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for PyTorch's modules go away after the test."""
    import sys
    import types

    for name in ("torch", "torch._utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.mark.usefixtures("no_torch")
def test_a_checkpoint_becomes_a_bundle(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = random_densenet()
    path = saved(tmp_path / "densenet.pt", tensors)
    read = checkpoint.tensors(path)
    assert read.keys() == tensors.keys() and all(np.array_equal(read[name], tensors[name]) for name in read)
    onnx.save(densenet.network(read), str(tmp_path / "float.onnx"))
    monkeypatch.setattr(adopt, "LEAST", 24)
    monkeypatch.setattr(evidence, "POSITIVES", 10)
    some = pictures[:26]
    data = table(
        tmp_path / "films", some, told_by(tmp_path / "float.onnx", some, densenet.LABELS.index("Lung Opacity"))
    )
    shown = run(tmp_path, path, data, "--sha256", "0" * 64, output='"Lung Opacity"', status=65).output
    assert "its SHA-256 is" in shown and not (tmp_path / "out").exists()
    shown = run(tmp_path, path, data, output='"Lung Opacity"').output
    assert "Nobody has signed it" in shown
    bundle = load(tmp_path / "out")
    assert bundle.manifest.outputs == 18 and bundle.manifest.findings[0].output == densenet.LABELS.index("Lung Opacity")


class Harm:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("bad.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {"weight": Harm()}}))
    with pytest.raises(ValueError, match="no tensors"):
        checkpoint.tensors(Path("bad.pt"))
    assert not Path("harm").exists()


@pytest.mark.parametrize("data", [b"", b"something else", b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(data)
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        checkpoint.tensors(tmp_path / "bad.pt")


def test_another_layout_is_named() -> None:
    tensors = random_densenet()
    tensors["features.conv0.weight"] = np.zeros((64, 3, 7, 7), np.float32)
    with pytest.raises(ValueError, match=r"features\.conv0\.weight has the shape \(64, 3, 7, 7\)"):
        densenet.network(tensors)
    with pytest.raises(ValueError, match="no DenseNet-121"):
        densenet.network({})


def test_a_network_of_other_outputs_is_refused(tmp_path: Path, data: Path) -> None:
    network = small(tmp_path / "small.onnx", maps="heat")
    assert (
        "the network has no output maps; there are: logits, heat, embedding"
        in run(tmp_path, network, data, status=65).output
    )
    assert not (tmp_path / "out").exists()


def test_films_of_few_patients_carry_nothing() -> None:
    """Of whom none can be left out, to see how it holds on others; a folder may say ANONYMOUS of all of them."""
    truth = np.arange(FILMS) % 2 > 0
    said = evidence.judge(truth * 1.0, truth, ["ANONYMOUS"] * FILMS, ["PA"] * FILMS)
    assert said == "its films are of fewer than 5 patients"


def test_films_that_carry_nothing_make_no_bundle(tmp_path: Path, pictures: list[np.ndarray[Any, Any]]) -> None:
    network = small(tmp_path / "small.onnx")
    data = table(
        tmp_path / "films", pictures, [number % 2 == 0 for number in np.random.default_rng(3).permutation(FILMS)]
    )
    shown = run(tmp_path, network, data, status=65).output
    assert "no finding is carried by these films: lung_opacity: AUROC" in shown and not (tmp_path / "out").exists()


def test_a_table_that_is_wrong_is_listed(tmp_path: Path, data: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "labels.csv").write_text("file,lung_opacity\nnone.png,1\nother.png,2\n", encoding="utf-8")
    shown = run(tmp_path, small(tmp_path / "small.onnx"), tmp_path / "films", status=65).output
    assert "line 2: none.png is missing" in shown and "line 3: lung_opacity is '2'" in shown


def test_an_about_with_unknown_keys_names_them() -> None:
    with pytest.raises(msgspec.ValidationError, match="motto"):
        msgspec.toml.decode('motto = "x"\n' + ABOUT.format(output=0), type=adopt.About)
