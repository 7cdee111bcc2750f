"""Adopt: a bundle from somebody else's network, quantized, held against itself in float, calibrated and judged on its user's films.

Nothing is trained. What the films do not carry (`evidence.py`) is left out. Where eight bits do not agree, the network stays in
float.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from models import platt
from models.backends.onnx import OnnxRuntime
from models.bundle import Domain, Finding, Manifest, OperatingPoint, SelfTest, Source, load
from models.model import OUTPUTS, Model, golden_films, golden_outputs
from models.training import agreement, bands, evidence, gate
from models.training.densenet import LABELS
from models.training.films import SIZE
from models.training.quantize import quantize

Floats = npt.NDArray[np.float64]

CALIBRATION_FILMS, FAULTY_FILMS, LEAST = 256, 200, 100
SEED = 20261123


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding, and which output of the network it is: a number, or a label of torchxrayvision."""

    key: str
    label: str
    scheme: str
    code: str
    meaning: str
    domain: str
    output: int | str


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What its user says of a network (TOML): what it is called, for whom it speaks, what its outputs mean, where it comes from."""

    id: str
    version: str
    title: str
    modalities: tuple[str, ...]
    views: tuple[str, ...]
    minimum_size: int
    domains: tuple[Domain, ...]
    findings: tuple[Named, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Read:
    """A film that somebody has read."""

    picture: npt.NDArray[np.uint8]
    """Prepared: (224, 224)."""
    labels: Mapping[str, bool]
    """By the key of the finding."""
    patient: str
    age: float | None
    view: str


@dataclass(frozen=True)
class Adopted:
    """What came of it."""

    manifest: Manifest
    left_out: dict[str, str]
    """By finding, why."""
    agreement: dict[str, dict[str, float]]
    quantized: bool


def adopt(
    model: onnx.ModelProto, about: About, films: Sequence[Read], out: Path, work: Path, tell: Callable[[str], None]
) -> Adopted:
    """Write the bundle, unsigned, to `out`. Raises ValueError with what is missing; then there is none."""
    if len(films) < LEAST:
        raise ValueError(f"{len(films)} films are too few to know what is usual: at least {LEAST} are needed")
    source, eight = work / "float.onnx", work / "int8.onnx"
    onnx.save(_named(model), str(source))
    labels = _labels(source)
    pictures = np.stack([film.picture for film in films])
    draw = np.random.default_rng(SEED)
    tell("quantize")
    some = np.sort(draw.choice(len(films), min(CALIBRATION_FILMS, len(films)), False))
    quantize(source, eight, pictures[some], _heads(model))
    tell("float")
    full = _run(source, pictures)
    tell("int8")
    small = _run(eight, pictures)
    carried: list[tuple[Finding, list[int], npt.NDArray[np.bool_]]] = []
    proven: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    agreed: dict[str, dict[str, float]] = {}
    for named in about.findings:
        number = LABELS.index(named.output) if isinstance(named.output, str) else named.output
        if not 0 <= number < labels:
            raise ValueError(f"finding {named.key}: output {named.output}, the network has {labels}")
        rows = _of(named, about, films)
        truth = np.array([films[row].labels[named.key] for row in rows], bool)
        patients, views = [films[row].patient for row in rows], [films[row].view for row in rows]
        judged = evidence.judge(full["logits"][rows, number], truth, patients, views)
        if isinstance(judged, str):
            left_out[named.key] = judged
            continue
        proven[named.key] = judged
        finding = _finding(named, number, full["logits"][rows, number].astype(float), truth)
        carried.append((finding, rows, truth))
        rounded, exact = ({key: way[key][rows, number] for key in ("logits", "maps")} for way in (small, full))
        agreed[named.key] = agreement.compared(finding, "balanced", rounded, exact, truth.astype(float))
    if not carried:
        raise ValueError(
            "no finding is carried by these films: " + "; ".join(f"{key}: {why}" for key, why in left_out.items())
        )
    quantized = not agreement.lacking(agreed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes((eight if quantized else source).read_bytes())
    chosen = small if quantized else full
    findings = tuple(_banded(one, rows, truth, chosen["logits"], films) for one, rows, truth in carried)
    tell("gate")
    _gate(out, pictures, chosen["embedding"], draw)
    manifest = Manifest(
        id=about.id, version=about.version, title=about.title, created=str(datetime.now(UTC).date()), modalities=about.modalities,
        views=about.views, minimum_size=about.minimum_size, input_size=SIZE, default_operating_point="balanced", files={},
        self_test=SelfTest(tolerance=0.02), domains=about.domains, findings=findings, sources=about.sources, outputs=labels,
    )  # fmt: skip
    write(manifest, out, ("model.onnx", "gate.npz"))
    golden = golden_films()
    np.savez_compressed(out / "golden.npz", films=golden, probabilities=golden_outputs(Model(load(out)), golden))
    found = Adopted(manifest, left_out, agreed, quantized)
    told = {
        "evidence": proven,
        "left_out": left_out,
        "agreement": agreed,
        "quantized": quantized,
        "films": len(films),
    }
    (out / "evaluation.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (out / "card.md").write_text(_card(found, proven, len(films)), encoding="utf-8")
    write(manifest, out, ("model.onnx", "gate.npz", "golden.npz", "evaluation.json", "card.md"))
    Model(load(out)).self_test()
    return found


def write(manifest: Manifest, out: Path, names: Sequence[str]) -> None:
    """Write `manifest.toml` with the hash of each file."""
    files = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    (out / "manifest.toml").write_bytes(msgspec.toml.encode(msgspec.structs.replace(manifest, files=files)))


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each node gets a name: quantization leaves nodes out by it."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node{number}"
    return model


def _heads(model: onnx.ModelProto) -> list[str]:
    """What stays in float: the nodes that give the outputs, where eight bits harm most and gain least, and normalizations."""
    nodes = _named(model).graph.node
    return [node.name for node in nodes if set(node.output) & set(OUTPUTS) or node.op_type == "BatchNormalization"]


def _labels(path: Path) -> int:
    """How many labels the network gives. Raises ValueError where it is not such a network as a bundle has."""
    runtime = OnnxRuntime(path, 1)
    try:
        found = runtime.run(np.zeros((1, 1, SIZE, SIZE), np.float32))
    except Exception as error:  # the runtime's errors have no base of their own
        raise ValueError(
            f"the network takes no picture `image` (1, 1, {SIZE}, {SIZE}): {str(error).splitlines()[0]}"
        ) from error
    if missing := [name for name in OUTPUTS if name not in found]:
        raise ValueError(f"the network has no output {', '.join(missing)}; there are: {', '.join(found)}")
    labels = found["logits"].shape[-1]
    if found["logits"].shape != (1, labels) or found["maps"].shape[:2] != (1, labels) or found["embedding"].ndim != 2:
        shapes = ", ".join(f"{name} {found[name].shape}" for name in OUTPUTS)
        raise ValueError(
            f"the network's outputs are {shapes}; logits (1, n), maps (1, n, h, w) and embedding (1, m) are needed"
        )
    return int(labels)


def _run(path: Path, pictures: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    runtime = OnnxRuntime(path, 1)
    found = [runtime.run((picture[None, None] / np.float32(255)).astype(np.float32)) for picture in pictures]
    return {name: np.concatenate([one[name] for one in found]) for name in OUTPUTS}


def _of(named: Named, about: About, films: Sequence[Read]) -> list[int]:
    """The films that were read for a finding, of people of its domain."""
    domain = next((domain for domain in about.domains if domain.key == named.domain), None)
    if domain is None:
        raise ValueError(f"finding {named.key}: no domain {named.domain}")
    return [
        row for row, film in enumerate(films)
        if named.key in film.labels and film.age is not None and domain.age_min <= film.age < domain.age_max
    ]  # fmt: skip


def _finding(named: Named, number: int, logits: Floats, truth: npt.NDArray[np.bool_]) -> Finding:
    spread = float(logits.std()) or 1.0  # Platt's prior of slope 1 expects logits of ordinary size
    slope, intercept, (of_slope, of_both, of_intercept) = platt.fit(logits / spread, truth.astype(int))
    p = platt.sigmoid(slope * logits / spread + intercept)
    covariance = (of_slope / spread**2, of_both / spread, of_intercept)
    points = {
        name: operating_point(p[truth], p[~truth], share) for name, share in (("balanced", 0.9), ("sensitive", 0.95))
    }
    return Finding(
        named.key, named.label, named.scheme, named.code, named.meaning, named.domain, number, slope / spread, intercept,
        covariance, points,
    )  # fmt: skip


def _banded(
    finding: Finding,
    rows: list[int],
    truth: npt.NDArray[np.bool_],
    logits: npt.NDArray[np.float32],
    films: Sequence[Read],
) -> Finding:
    """With its band, of what the bundle's own network says; no film moves in rank by the calibration, so it may have seen them."""
    p = platt.sigmoid(finding.slope * logits[rows, finding.output].astype(float) + finding.intercept)
    band = bands.told(p, truth, [films[row].patient for row in rows], SEED)
    return msgspec.structs.replace(finding, band=band)


def operating_point(sick: Floats, well: Floats, sensitivity: float, specificity: float = 0.95) -> OperatingPoint:
    """Thresholds on the probabilities of these films: *soon* by sensitivity, *immediate* by specificity."""
    soon = float(np.quantile(sick, 1 - sensitivity))
    top = max(float(np.quantile(well, specificity)), soon)
    evidence = (
        f"{len(sick)} with and {len(well)} without: soon or above {np.mean(sick >= soon):.3f} and {np.mean(well >= soon):.3f};"
        f" immediate {np.mean(sick >= top):.3f} and {np.mean(well >= top):.3f}"
    )
    return OperatingPoint(round(soon, 4), round(max(top, soon), 4), evidence)


def _gate(
    out: Path, pictures: npt.NDArray[np.uint8], embeddings: npt.NDArray[np.float32], draw: np.random.Generator
) -> None:
    """The picture's part of the gate, from these films; two thirds are the known ones, the rest sets the threshold."""
    order = draw.permutation(len(pictures))
    known, held_out = order[: 2 * len(order) // 3], order[2 * len(order) // 3 :]
    made, wrong = gate.examples(pictures[known[:FAULTY_FILMS]], SEED)
    chests = gate.phantoms()
    gate.fit(
        np.concatenate(
            [
                gate.features(embeddings[known], pictures[known]),
                gate.features(_run(out / "model.onnx", chests)["embedding"], chests),
            ]
        ),
        [gate.features(embeddings[held_out], pictures[held_out])],
        gate.features(_run(out / "model.onnx", made)["embedding"], made),
        wrong,
        out / "gate.npz",
    )


def _card(found: Adopted, proven: Mapping[str, Any], films: int) -> str:
    manifest = found.manifest
    lines = [
        f"# {manifest.title}",
        "",
        f"Bundle `{manifest.id}`, version {manifest.version}, made {manifest.created} by `outpost models import`.",
        "",
        f"The network was made elsewhere; here it was measured and calibrated on {films} films, which its user named.",
        "Thresholds were chosen on the very films that they are judged on, so a new clinic sees less.",
        "**Not in use before it is accepted there.**",
        "",
        "## Findings",
        "",
        "| finding | code | domain | with / without | AUROC | within view |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for finding in manifest.findings:
        one = proven[finding.key]
        area = one["auroc"]
        lines.append(
            f"| {finding.label} | {finding.scheme} {finding.code} | {finding.domain} | {one['with']} / {one['without']} |"
            f" {area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}] | {one['within']:.3f} ({one['view'] or 'unknown'}) |"
        )
    lines += ["", "Left out, for these films do not carry them:", ""]
    lines += [f"- {key}: {why}" for key, why in found.left_out.items()] or ["- nothing"]
    lines += [
        "",
        "### Where it says neither",
        "",
        "A film is shown as *unsure* from one of these probabilities up to the other (conformal prediction within classes). Its",
        "outcome stays what it is.",
        "",
    ]
    for finding in manifest.findings:
        if finding.band is not None:
            ends = sorted((finding.band.present, finding.band.absent))
            lines.append(f"- {finding.label}: {ends[0]:.3f}, {ends[1]:.3f}; {finding.band.evidence}")
    kept = "eight bits" if found.quantized else "float: eight bits did not agree"
    lines += ["", "## Eight bits against float", "", f"The bundle's network is in {kept}.", ""]
    lines += [
        f"- {key}: {name.replace('_', ' ')} {value:g}"
        for key, one in found.agreement.items()
        for name, value in one.items()
    ]
    lines += ["", "## Sources", ""] + [
        f"- {one.name}: {one.films} films of {one.patients} patients; {one.terms}" for one in manifest.sources
    ]
    return "\n".join([*lines, ""])
