"""`python -m models.training STEP --data DIR --work DIR`: films → network → heads → gate → bundle; `all` runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from models import phantom, platt
from models.bundle import Domain, Finding, Manifest, OperatingPoint, SelfTest, Source, load
from models.model import Model, golden_films, golden_outputs
from models.training import card, evaluate, evidence, films, gate, heads, network, sign

SEED = 20261123
VERSION = "0.1.0"
VARIANTS = {"child": 1, "adult": 8}
"""How often each training film is seen changed; adults are few."""
NUISANCE_FILMS = 400
DOMAINS = (Domain("child", 1, 6), Domain("adult", 18, 101))
CODES = {
    "child": ("pneumonia", "Pneumonia", "SCT", "233604007", "Pneumonia"),
    "adult": ("lung_opacity", "Lung opacity", "RADLEX", "RID28530", "opacity"),
}
AUTHORITY = Path("models/authorities/development.pem")
TERMS = {
    "nih": ("NIH ChestX-ray14", "attribute the NIH Clinical Center; cite Wang et al. 2017"),
    "kermany": ("Kermany et al. 2018, Guangzhou", "CC BY 4.0"),
}


def chosen(every: list[films.Film], domain: str, split: str | None = None) -> list[int]:
    """The films of a domain that somebody whose word counts has read."""
    return [
        index for index, film in enumerate(every)
        if film.domain == domain and film.label is not None and split in (None, film.split)
    ]  # fmt: skip


def tune_network(work: Path) -> None:
    """Tune the later half of the network. Not a part of `all`: the shipped bundle was made without it."""
    from models.training import tune

    every, pictures = films.load(work)
    tune.tune(network.imagenet(), every, pictures, work / network.TUNED, SEED)


def untouched(every: list[films.Film], rows: list[int], work: Path) -> list[int]:
    """Those of these films that did not tune the network."""
    if not (work / network.TUNED).exists():
        return rows
    from models.training import tune

    return [row for row in rows if every[row].source != "kermany" or not tune.tunes(every[row], SEED)]


def backbone(work: Path) -> None:
    """Export, quantize on training films of both domains, and embed every film as the box will."""
    every, pictures = films.load(work)
    draw = np.random.default_rng(SEED)
    training = [
        [i for i, film in enumerate(every) if film.source == source and film.split == "train"] for source in TERMS
    ]
    pick = np.sort(
        np.concatenate([draw.choice(indices, network.CALIBRATION_FILMS // 2, False) for indices in training])
    )
    network.export(work)
    network.quantize(work / "backbone.onnx", work / "backbone.int8.onnx", pictures[pick])
    nothing = np.zeros((1, 1280), np.float32), np.zeros(1, np.float32)
    for name in ("backbone", "backbone.int8"):
        network.assemble(work / f"{name}.onnx", *nothing, work / "probe.onnx")
        np.save(work / f"{name}.embeddings.npy", network.embed(work / "probe.onnx", pictures, f"Embedding {name:<14}"))


def fit_heads(work: Path) -> None:
    """Fit a head per domain. Adults are few: all their read films train it, and cross-validation judges it."""
    every, pictures = films.load(work)
    draw = np.random.default_rng(SEED)

    def views(rows: list[int], variants: int, label: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        changed = np.stack([heads.variant(pictures[row], draw) for row in rows for _ in range(variants)])
        seen = network.embed(work / "probe.onnx", changed, label)
        whole = np.load(work / "backbone.int8.embeddings.npy", mmap_mode="r")[rows][:, None]
        return np.concatenate([whole, seen.reshape(len(rows), variants, -1)], 1).astype(float)

    unread = [
        i for i, film in enumerate(every) if film.source == "nih" and film.split == "train" and film.label is None
    ]
    children = untouched(every, chosen(every, "child", "train"), work)
    apart = [*unread[:NUISANCE_FILMS], *draw.choice(children, NUISANCE_FILMS, False)]
    whitening = heads.nuisance(views(apart, 3, "Embedding variants      "))
    found: dict[str, Any] = {}
    for domain in CODES:
        rows = children if domain == "child" else chosen(every, domain)
        labels = np.array([every[row].label for row in rows])
        seen = views(rows, VARIANTS[domain], f"Embedding {domain} variants")
        head = heads.fit(seen, labels, [every[row].patient for row in rows], whitening, SEED)
        found |= {f"{domain}.weights": head.weights, f"{domain}.bias": head.bias, f"{domain}.strength": head.strength}
        found |= {f"{domain}.rows": np.array(rows), f"{domain}.out_of_fold": head.out_of_fold}
    np.savez(work / "heads.npz", **found)


def fit_gate(work: Path) -> None:
    """Fit the picture's part of the gate on training films of both sources in equal parts."""
    every, pictures = films.load(work)
    embeddings = np.load(work / "backbone.int8.embeddings.npy")
    draw = np.random.default_rng(SEED)

    def rows(split: str, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        by_source = [
            [i for i, film in enumerate(every) if film.source == source and film.split == split] for source in TERMS
        ]
        return np.sort(np.concatenate([draw.choice(found, min(most, len(found)), False) for found in by_source]))

    made, wrong = gate.examples(pictures[rows("train", 400)], SEED)
    made_embeddings = network.embed(work / "probe.onnx", made, "Embedding faults        ")
    synthesized = gate.phantoms()
    synthesized_embeddings = network.embed(work / "probe.onnx", synthesized, "Embedding phantoms      ")
    known, held_out = rows("train", 1200), rows("val", 400)
    gate.fit(
        np.concatenate(
            [
                gate.features(embeddings[known], pictures[known]),
                gate.features(synthesized_embeddings, synthesized),
            ]
        ),
        gate.features(embeddings[held_out], pictures[held_out]),
        gate.features(made_embeddings, made),
        wrong,
        work / "gate.npz",
    )


def bundle(work: Path, out: Path) -> None:
    """Put the model file, the gate, the golden outputs, the evaluation, the card and the manifest together."""
    every, pictures = films.load(work)
    found = np.load(work / "heads.npz")
    out.mkdir(parents=True, exist_ok=True)
    carried = [domain for domain in CODES if _carried(domain, every, found)]
    if not carried:
        raise click.ClickException("these films carry no finding; no bundle is made")
    weights = np.stack([found[f"{domain}.weights"] for domain in carried]).astype(np.float32)
    biases = np.array([found[f"{domain}.bias"] for domain in carried], np.float32)
    network.assemble(work / "backbone.int8.onnx", weights, biases, out / "model.onnx")
    network.assemble(work / "backbone.onnx", weights, biases, work / "float.onnx")
    shutil.copy(work / "gate.npz", out / "gate.npz")
    findings = tuple(_finding(number, domain, every, found) for number, domain in enumerate(carried))
    sources = tuple(
        Source(name, len(used), len({film.patient for film in used}), terms)
        for key, (name, terms) in TERMS.items()
        for used in [[film for film in every if film.source == key and film.label is not None]]
    )
    manifest = Manifest(
        id="cxr-lite0",
        version=VERSION,
        title="Chest radiograph demonstrator, EfficientNet-Lite0",
        created=str(datetime.now(UTC).date()),
        modalities=("CR", "DX"),
        views=("PA", "AP"),
        minimum_size=200,
        input_size=films.SIZE,
        default_operating_point="balanced",
        files={},
        self_test=SelfTest(tolerance=0.02),
        domains=DOMAINS,
        findings=findings,
        sources=sources,
    )
    _write(manifest, out, ("model.onnx", "gate.npz"))
    model = Model(load(out))
    golden = golden_films()
    np.savez_compressed(out / "golden.npz", films=golden, probabilities=golden_outputs(model, golden))
    _write(manifest, out, ("model.onnx", "gate.npz", "golden.npz"))
    model = Model(load(out))
    model.self_test()
    measured = evaluate.evaluate(model, work, every, pictures, found, SEED)
    (out / "evaluation.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (out / "card.md").write_text(card.card(manifest, measured), encoding="utf-8")
    _write(manifest, out, ("model.onnx", "gate.npz", "golden.npz", "evaluation.json", "card.md"))


def _carried(domain: str, every: list[films.Film], found: Any) -> bool:
    """Whether cross-validation carries the finding of a domain; if not, it is said why, and the bundle has no such output."""
    rows = [every[row] for row in found[f"{domain}.rows"]]
    truth = np.array([film.label == 1 for film in rows])
    views = [film.view for film in rows]
    said = evidence.judge(found[f"{domain}.out_of_fold"], truth, [film.patient for film in rows], views)
    if isinstance(said, str):
        click.echo(f"{CODES[domain][0]} is left out: {said}", err=True)
    return not isinstance(said, str)


def _finding(number: int, domain: str, every: list[films.Film], found: Any) -> Finding:
    rows, logits = found[f"{domain}.rows"], found[f"{domain}.out_of_fold"]
    labels = np.array([every[row].label for row in rows])
    slope, intercept, covariance = platt.fit(logits, labels)
    p = 1 / (1 + np.exp(-(slope * logits + intercept)))
    sick, well = p[labels == 1], p[labels == 0]
    immediate = float(np.quantile(well, 0.98 if domain == "child" else 0.95))

    def point(sensitivity: float) -> OperatingPoint:
        soon = float(np.quantile(sick, 1 - sensitivity))
        top = max(immediate, soon)
        evidence = (
            f"cross-validated by patient, {len(sick)} with and {len(well)} without: soon or above {np.mean(sick >= soon):.3f}"
            f" and {np.mean(well >= soon):.3f}; immediate {np.mean(sick >= top):.3f} and {np.mean(well >= top):.3f}"
        )
        return OperatingPoint(round(soon, 4), round(top, 4), evidence)

    key, label, scheme, code, meaning = CODES[domain]
    points = {
        "balanced": point(0.97 if domain == "child" else 0.9),
        "sensitive": point(0.99 if domain == "child" else 0.95),
    }
    return Finding(key, label, scheme, code, meaning, domain, number, slope, intercept, covariance, points)


def _write(manifest: Manifest, out: Path, names: tuple[str, ...]) -> None:
    files = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    (out / "manifest.toml").write_bytes(msgspec.toml.encode(msgspec.structs.replace(manifest, files=files)))


def show_phantom(path: Path) -> None:
    """Write a synthesized film as a picture, to look at."""
    from PIL import Image

    Image.fromarray((phantom.chest(3, opacity=True) * 255).astype(np.uint8)).save(path)


STEPS = ("films", "network", "heads", "gate", "bundle", "sign")


@click.command()
@click.argument("step", type=click.Choice(["all", "tune", *STEPS]))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Folder of the sources.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for what lies between steps.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("models/zoo/cxr-lite0"), help="The bundle."
)
def main(step: str, data: Path, work: Path, out: Path) -> None:
    """Make the shipped bundle from its sources; a step reads what the one before it wrote to --work."""
    work.mkdir(parents=True, exist_ok=True)
    actions = {
        "films": lambda: films.ingest(data, work),
        "tune": lambda: tune_network(work),
        "network": lambda: backbone(work),
        "heads": lambda: fit_heads(work),
        "gate": lambda: fit_gate(work),
        "bundle": lambda: bundle(work, out),
        "sign": lambda: sign.sign(out.parent, AUTHORITY),
    }
    for name in STEPS if step == "all" else (step,):
        click.echo(f"— {name}", err=True)
        actions[name]()


if __name__ == "__main__":
    main()
