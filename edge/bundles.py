"""`outpost models`: the bundles on this box, what they are worth, and which one is in use."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge import authorities, passport
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, Tampered, Unreadable
from edge.state import installed
from models import runtimes
from models.bundle import SHIPPED, Bundle, Mismatch, load

if TYPE_CHECKING:
    from edge.evaluation import Judged

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group()
def models() -> None:
    """The model bundles on this box."""


@models.command("list")
@click.pass_context
def list_models(ctx: click.Context) -> None:
    """List the bundles that come with Outpost, those that were activated, and the one in use."""
    config = config_of(ctx)
    used = passport.folder(config)
    there = [*SHIPPED.parent.glob("*/manifest.toml"), *(Path(config.state) / "models").glob("*/manifest.toml")]
    for folder in sorted({used, *(path.parent for path in there)}):
        try:
            bundle = load(folder)
            manifest = bundle.manifest
            looked_for = ", ".join(finding.label for finding in manifest.findings)
            words = f"{manifest.id} {manifest.version}  {looked_for}  signed by {authorities.signer(bundle, config)}"
            if folder == used:
                words += "".join(_runtimes(bundle, config))
        except (Mismatch, OSError, ValueError) as error:
            words = f"cannot be used: {error}"
        click.echo(f"{'*' if folder == used else ' '} {folder.name[:12]}  {words}")


def _runtimes(bundle: Bundle, config: Config) -> Iterator[str]:
    """What came of each runtime here, tried now, and which one the worker takes."""
    found = runtimes.tried(bundle, config.worker.threads)
    remembered = installed.runtime(Path(config.state), bundle.digest)
    chosen = config.worker.runtime or remembered or runtimes.fastest(found)
    for name, one in found.items():
        said = one.why if one.milliseconds is None else f"agrees, {one.milliseconds:.1f} ms a film"
        yield f"\n    {'*' if name == chosen else ' '} {name}  {said}"


@models.command()
@click.argument("bundle", required=False, type=FOLDER)
@click.pass_context
def verify(ctx: click.Context, bundle: Path | None) -> None:
    """Check a bundle's hashes, who signed it, and that it computes what it shall on this device."""
    config = config_of(ctx)
    folder = bundle or passport.folder(config)
    _, name = _proven(config, folder, folder.name)
    click.echo(f"{folder.name}: hashes, signature ({name}) and self-test agree")


@models.command()
@click.argument("bundle", type=FOLDER)
@click.pass_context
def activate(ctx: click.Context, bundle: Path) -> None:
    """Put a bundle on this box and into use, once it is proven; the box is in shadow mode until it has been accepted here."""
    config = _choosing(ctx)
    changed = installed.activate(
        Path(config.state), bundle, lambda folder: _proven(config, folder, bundle.name)[0].digest
    )
    now = load(passport.folder(config)).manifest
    click.echo(f"{now.id} {now.version} is in use{_AFTERWARDS if changed else ' already'}")


@models.command()
@click.pass_context
def rollback(ctx: click.Context) -> None:
    """Go back to the bundle that was in use before; once more leads forward again."""
    config = _choosing(ctx)
    installed.roll_back(Path(config.state), lambda folder: _proven(config, folder, folder.name)[0].digest, SHIPPED)
    now = load(passport.folder(config)).manifest
    click.echo(f"{now.id} {now.version} is in use{_AFTERWARDS}")


_AFTERWARDS = "; it ranks only once it has been accepted here (outpost commission show)"


def _choosing(ctx: click.Context) -> Config:
    """The settings, where they leave the choice of a bundle to these commands."""
    config = config_of(ctx)
    if config.worker.bundle:
        raise Misconfigured(f"worker.bundle in the settings names {config.worker.bundle}. Take that line out first.")
    return config


def _proven(config: Config, folder: Path, name: str) -> tuple[Bundle, str]:
    """A bundle that is whole, signed, and computes here what it shall; and who signed it. Raises `Tampered`."""
    from models.model import Model

    try:
        bundle = load(folder)
        authority = authorities.signer(bundle, config)
        Model(bundle, config.worker.threads).self_test()
    except (Mismatch, OSError, ValueError) as error:
        raise Tampered(f"{name}: {error}") from error
    return bundle, authority


def _loaded(folder: Path) -> Bundle:
    try:
        return load(folder)
    except (Mismatch, OSError, ValueError) as error:
        raise Tampered(f"{folder.name}: {error}") from error


@models.command()
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder of films with a CSV: file, findings, patient, age …")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for evaluation.html and .json.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--scheduler", default="", help="A Dask scheduler (tcp://host:8786) whose workers take the films.")
@click.pass_context
def evaluate(ctx: click.Context, bundle: Path, data: Path, out: Path | None, as_json: bool, scheduler: str) -> None:
    """Measure a bundle on films that somebody has read.

    The CSV has the columns file and one for each finding by its key (1, 0, or nothing where nobody has read it), and if you
    like patient, age (in years), sex, view and source. Films are DICOM, JPEG or PNG. For an archive that outgrows one machine
    --scheduler names a Dask cluster of your own; its workers have the same Outpost, and bundle and films at the same paths.
    """
    from edge import cluster, evaluation, evaluation_page
    from edge.reader import Reader

    loaded = _loaded(bundle)
    cases, unused, wrong = evaluation.parse(
        evaluation.table_of(data), [finding.key for finding in loaded.manifest.findings]
    )
    if wrong:
        raise Unreadable(_list("nothing was evaluated", wrong))
    if unused:
        click.echo(f"not looked at: {', '.join(unused)}", err=True)
    threads = config_of(ctx).worker.threads

    def here() -> Iterator[tuple[int, Judged]]:
        reader = Reader(loaded, loaded.manifest.default_operating_point, threads)
        return ((number, evaluation.judge(data, case, reader)) for number, case in enumerate(cases))

    def tell(said: str) -> None:
        click.echo(said, err=True)

    def name(one: tuple[int, Judged] | None) -> str:
        return "" if one is None else one[1].case.file[-32:]

    films = cluster.judge(scheduler, data, loaded, threads, cases, tell) if scheduler else here()
    with click.progressbar(films, len(cases), "Films", file=sys.stderr, item_show_func=name) as bar:
        judged = dict(bar)
    told = evaluation.figures([judged[number] for number in range(len(cases))], loaded.manifest)
    if told["unreadable"]:
        lines = [f"line {one['line']}: {one['file']}: {one['why']}" for one in told["unreadable"]]
        click.echo(_list("could not be read, and count as could not assess", lines), err=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        (out / "evaluation.html").write_text(evaluation_page.page(told), encoding="utf-8")
    click.echo(json.dumps(told) if as_json else _words(told))


@models.command("import")
@click.argument("network", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--about", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True, help="What it is (TOML)."
)
@click.option("--data", type=FOLDER, required=True, help="Folder of films with a CSV, as for evaluate.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="New folder for the bundle."
)
@click.option("--sha256", default="", help="What the network's file must hash to.")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), help="Your private key (Ed25519, PEM) to sign it with."
)
def import_network(network: Path, about: Path, data: Path, out: Path, sha256: str, key: Path | None) -> None:
    """Make a bundle from somebody else's network: a DenseNet checkpoint of torchxrayvision, or an ONNX file.

    It is quantized, held against itself in float, calibrated and judged on the films that you name; a finding that these do not
    carry is left out. Nothing that is in a checkpoint is run.
    """
    from edge import adoption

    found = adoption.adopt(network, about, data, out, sha256, key, lambda step: click.echo(f"— {step}", err=True))
    click.echo(f"{out}: {', '.join(finding.label for finding in found.manifest.findings)}")
    for name, why in found.left_out.items():
        click.echo(f"left out: {name}: {why}")
    if not found.quantized:
        click.echo("The network stays in float, for eight bits did not agree: it takes longer and more memory.")
    if key is None:
        click.echo("Nobody has signed it: see models/authorities/README.md, then `outpost models activate`.")


def _list(what: str, lines: list[str]) -> str:
    shown = "\n  ".join(lines[:50])
    more = f"\n  … and {len(lines) - 50} more" if len(lines) > 50 else ""
    return f"{what}:\n  {shown}{more}"


def _words(told: dict[str, Any]) -> str:
    from edge.evaluation_page import figure

    lines = [f"{told['bundle']}: {told['films']} films of {told['patients']} patients; 95 % intervals by patient"]
    lines += [f"  could not assess: {number} {why}" for why, number in told["could_not_assess"].items()]
    for finding in told["findings"].values():
        lines.append(finding["label"])
        for name, group in finding["groups"].items():
            lines.append(f"  {name}: {group['films']} films, {group['with']} with and {group['without']} without")
            lines.append(f"    {'AUROC':<34}{figure(group['auroc'])}")
            lines.append(f"    {'could not assess':<34}{figure(group['could_not_assess'])}")
            for point, levels in group["operating_points"].items():
                for level, one in levels.items():
                    for kind in ("sensitivity", "specificity"):
                        lines.append(f"    {f'{point}, {level}: {kind}':<34}{figure(one[kind])}")
        for key, one in finding.get("calibration", {}).items():
            if key != "reliability":
                lines.append(f"  {key.replace('_', ' '):<36}{figure(one)}")
    return "\n".join(lines)
