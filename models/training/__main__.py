"""`python -m models.training STEP --data DIR --work DIR`: films → network → heads → gate → bundle; `all` runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt
import torch

from models import platt
from models.bundle import Domain, Finding, Manifest, OperatingPoint, SelfTest, Source, load
from models.model import Model, golden_films, golden_outputs
from models.training import agreement, bands, card, evaluate, evidence, export, films, gate, heads, network, sign, tune

SEED = 20261123
VERSION = "0.3.0"
VARIANTS, SEEN = 8, 2_000
"""How often an adult's film is seen changed, at most: adults are few; and how many are seen then, where they are not."""
NUISANCE_FILMS, FAULTY_FILMS, RANGE_FILMS = 400, 400, 400
DOMAINS = (Domain("child", 1, 6), Domain("adult", 18, 101))
CODES = {
    "child": ("pneumonia", "Pneumonia", "SCT", "233604007", "Pneumonia"),
    "adult": ("lung_opacity", "Lung opacity", "RADLEX", "RID28530", "opacity"),
}
AUTHORITY = Path("models/authorities/development.pem")


def chosen(every: list[films.Film], domain: str, split: str | None = None) -> list[int]:
    """The films of a domain that somebody whose word counts has read."""
    return [
        index for index, film in enumerate(every)
        if film.domain == domain and film.label is not None and split in (None, film.split)
    ]  # fmt: skip


def made(work: Path) -> None:
    """Make what is made of films: lesions, the variants that heads are fitted on, and the faults of the gate."""
    every, pictures = films.load(work)
    draw = np.random.default_rng(SEED)
    tune.render(every, pictures, work / "lesions.npz", SEED)
    apart = [
        i for i, film in enumerate(every)
        if film.mined is not None and film.label is None and film.split == "train"
    ]  # fmt: skip
    children, adults = untouched(every), chosen(every, "adult")
    groups = {
        "apart": ([*apart[:NUISANCE_FILMS], *draw.choice(children, NUISANCE_FILMS, False)], 3),
        "child": (children, 1),
        "adult": (adults, max(1, min(VARIANTS, SEEN // len(adults)))),
    }
    found: dict[str, Any] = {}
    with ProcessPoolExecutor() as pool:
        for name, (rows, number) in groups.items():
            work_ = pool.map(heads.variants, (pictures[row] for row in rows), repeat(number), rows, chunksize=16)
            with click.progressbar(work_, length=len(rows), label=f"Variants, {name:<14}") as bar:
                found |= {name: np.stack(list(bar)), f"{name}.rows": np.array(rows)}
    np.savez(work / "variants.npz", **found)
    some = np.sort(np.concatenate([draw.choice(rows, min(FAULTY_FILMS, len(rows)), False) for rows in known(every)]))
    faulty, wrong = gate.examples(pictures[some], SEED)
    np.savez(work / "faults.npz", pictures=faulty, wrong=wrong, phantoms=gate.phantoms())


def known(every: list[films.Film], split: str = "train") -> list[list[int]]:
    """By source, the films of a split."""
    both = [
        one for one in films.used(every) if {film.split for film in every if film.source == one} >= {"train", "val"}
    ]
    return [[i for i, film in enumerate(every) if (film.source, film.split) == (one, split)] for one in both]


def untouched(every: list[films.Film]) -> list[int]:
    """The children's films that a head is fitted on: those that did not tune the network."""
    return [row for row in chosen(every, "child", "train") if not tune.tunes(every[row])]


def learn(work: Path) -> None:
    """Tune the network, on a GPU where there is one."""
    every, pictures = films.load(work)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = True
    batches = tune.Batches(every, pictures, work / "lesions.npz", tune.Recipe(SEED), device)
    tune.tune(network.imagenet(), batches, work / "network.npz")


def take(work: Path, shipped: Path) -> None:
    """Take the network of a bundle, to the last integer, instead of tuning one; one of version 0.2.1 or before is refined.

    What its own outputs looked at is in no bundle: the films that tuned it say it anew.
    """
    every, pictures = films.load(work)
    taken: dict[str, Any] = export.read_onnx(shipped / "model.onnx")
    nothing = torch.zeros(len(tune.OUTPUTS), network.FEATURES)
    np.savez(work / "network.npz", learnt=nothing, **taken)
    net = network.load(work / "network.npz")
    if not net.refined:
        draw = np.random.default_rng(SEED)
        some = np.sort(draw.choice(np.concatenate(known(every)), RANGE_FILMS, False))
        net = network.refine(net, torch.from_numpy(pictures[some])[:, None] / network.LEVELS)
        network.save(net, nothing, work / "network.npz")
    parts = tune.parts(every)
    with np.load(work / "lesions.npz") as made:
        well, ill = made["rows"], made["ill"]
    rows = np.unique(np.concatenate([parts["children"], parts["adults"], well]))
    place = {int(row): number for number, row in enumerate(rows)}
    found = export.embed(eight(work), np.concatenate([pictures[rows], ill]), "Embedding what tuned it")
    sick = found[len(rows) :]

    def looks(some: list[int], labels: list[Any], more: npt.NDArray[Any] = sick[:0]) -> npt.NDArray[np.float64]:
        groups = [f"{every[row].source} {every[row].view}" for row in some]
        x = np.concatenate([found[[place[row] for row in some[: len(some) - len(more)]]], more]).astype(float)
        return heads.direction(x, np.array(labels, float), groups)

    normal, adults, children = [int(row) for row in well], parts["adults"], parts["children"]
    learnt = {
        "lesion": looks(normal * 2, [0] * len(normal) + [1] * len(normal), sick),
        "pneumonia": looks(children, [every[row].label for row in children]),
        "mined": looks(adults, [every[row].mined for row in adults]),
        "shadow": looks(adults, [every[row].shadow for row in adults]),
    }
    network.save(net, torch.from_numpy(np.stack([learnt[output] for output in tune.OUTPUTS])), work / "network.npz")


def eight(work: Path) -> Path:
    """The network in eight bits without heads, as a file."""
    nothing = np.zeros((1, network.FEATURES)), np.zeros(1)
    export.write_onnx(network.load(work / "network.npz"), *nothing, work / "eight.onnx", eight=True)
    return work / "eight.onnx"


def fit_heads(work: Path) -> None:
    """Fit a head per domain. Adults are few: all their read films train it, and cross-validation judges it."""
    every, _ = films.load(work)
    file = eight(work)
    learnt = np.load(work / "network.npz")["learnt"].astype(float)
    found: dict[str, Any] = {}
    with np.load(work / "variants.npz") as seen:

        def views(name: str) -> npt.NDArray[np.float64]:
            """Of each film as it is and changed."""
            pictures = seen[name]
            flat = pictures.reshape(-1, *pictures.shape[2:])
            found = export.embed(file, flat, f"Embedding {name:<14}")
            return found.reshape(*pictures.shape[:2], -1).astype(float)

        whitening = heads.nuisance(views("apart"))
        for domain in CODES:
            rows = seen[f"{domain}.rows"]
            labels = np.array([every[row].label for row in rows])
            head = heads.fit(views(domain), labels, [every[row].patient for row in rows], whitening, learnt, SEED)
            found |= {
                f"{domain}.weights": head.weights,
                f"{domain}.bias": head.bias,
                f"{domain}.strength": head.strength,
            }
            found |= {f"{domain}.rows": rows, f"{domain}.out_of_fold": head.out_of_fold}
    np.savez(work / "heads.npz", **found)


def fit_gate(work: Path) -> None:
    """Fit the picture's part of the gate on training films of both sources in equal parts."""
    every, pictures = films.load(work)
    draw = np.random.default_rng(SEED)

    def features(pictures: npt.NDArray[np.uint8], label: str) -> npt.NDArray[np.float32]:
        return gate.features(export.embed(work / "eight.onnx", pictures, label), pictures)

    def some(split: str, most: int, label: str) -> list[npt.NDArray[np.float32]]:
        rows = [draw.choice(rows, min(most, len(rows)), False) for rows in known(every, split)]
        return [features(np.asarray(pictures[np.sort(one)]), label) for one in rows]

    with np.load(work / "faults.npz") as found:
        usual = some("train", 1200, "Embedding known films   ")
        phantoms = features(found["phantoms"], "Embedding phantoms      ")
        held_out = some("val", 400, "Embedding held-out films")
        faults = features(found["pictures"], "Embedding faults        ")
        sources = [np.concatenate(parts) for parts in zip(usual, held_out, strict=True)]
        x, y = np.concatenate([faults, phantoms]), np.append(found["wrong"], np.zeros(len(phantoms), int))
        gate.fit(np.concatenate([*usual, phantoms]), sources, x, y, work / "gate.npz")


def bundle(work: Path, out: Path) -> None:
    """Put the model files, the gate, the golden outputs, the evaluation, the card and the manifest together."""
    if not (work / "foreign.npz").exists():
        raise click.ClickException(f"real pictures that are no chest film are missing: build/foreign FOLDER {work}")
    every, pictures = films.load(work)
    found = np.load(work / "heads.npz")
    net = network.load(work / "network.npz")
    out.mkdir(parents=True, exist_ok=True)
    carried = [domain for domain in CODES if _carried(domain, every, found)]
    if not carried:
        raise click.ClickException("these films carry no finding; no bundle is made")
    weights = np.stack([found[f"{domain}.weights"] for domain in carried])
    biases = np.array([found[f"{domain}.bias"] for domain in carried])
    export.write_onnx(net, weights, biases, out / "model.onnx", eight=True)
    export.write_onnx(net, weights, biases, work / "float.onnx", eight=False)
    export.write_litert(net, weights, biases, out / "model.tflite")
    shutil.copy(work / "gate.npz", out / "gate.npz")
    findings = tuple(_finding(number, domain, every, found) for number, domain in enumerate(carried))
    terms = json.loads((work / "terms.json").read_text(encoding="utf-8"))
    sources = tuple(
        Source(terms[key][0], len(used), len({film.patient for film in used}), terms[key][1])
        for key in films.used(every)
        for used in [
            [film for film in every if film.source == key and (film.split == "train" or film.domain == "adult")]
        ]
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
        runtimes={"onnx": "model.onnx", "openvino": "model.onnx", "litert": "model.tflite"},
    )
    names = ("model.onnx", "model.tflite", "gate.npz")
    _write(manifest, out, names)
    model = Model(load(out))
    golden = golden_films()
    np.savez_compressed(out / "golden.npz", films=golden, probabilities=golden_outputs(model, golden))
    _write(manifest, out, (*names, "golden.npz"))
    for runtime in manifest.runtimes:
        Model(load(out), runtime=runtime).self_test()
    measured = evaluate.evaluate(load(out), work, every, pictures, found, SEED)
    (out / "evaluation.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if short := agreement.lacking(measured["agreement"]):
        said = "\n".join(short)
        raise click.ClickException(
            f"{said}\nThe bundle in {out} is not finished. More steps in eight bits bring both together (`tune.Recipe`)."
        )
    (out / "card.md").write_text(card.card(manifest, measured), encoding="utf-8")
    _write(manifest, out, (*names, "golden.npz", "evaluation.json", "card.md"))


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
    patients = [every[row].patient for row in rows]
    band = bands.told(p, labels == 1, patients, SEED)
    return Finding(key, label, scheme, code, meaning, domain, number, slope, intercept, covariance, points, band)


def _write(manifest: Manifest, out: Path, names: tuple[str, ...]) -> None:
    files = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    (out / "manifest.toml").write_bytes(msgspec.toml.encode(msgspec.structs.replace(manifest, files=files)))


STEPS = ("films", "made", "network", "heads", "gate", "bundle", "sign")


@click.command()
@click.argument("step", type=click.Choice(["all", *STEPS]))
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
@click.option(
    "--from",
    "shipped",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A bundle of this line whose network is taken as it is, instead of half an hour or more of tuning.",
)
def main(step: str, data: Path, work: Path, out: Path, shipped: Path | None) -> None:
    """Make the shipped bundle from its sources; a step reads what the one before it wrote to --work."""
    work.mkdir(parents=True, exist_ok=True)
    actions = {
        "films": lambda: films.ingest(data, work),
        "made": lambda: made(work),
        "network": lambda: take(work, shipped) if shipped else learn(work),
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
