"""`outpost models`: the bundles on this box, what they are worth, and which one is in use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge import passport
from edge.cli import config_of
from edge.errors import Tampered, Unreadable
from models.bundle import SHIPPED, Bundle, Mismatch, load

if TYPE_CHECKING:
    from edge.evaluation import Case, Judged

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group()
def models() -> None:
    """The model bundles on this box."""


@models.command("list")
@click.pass_context
def list_models(ctx: click.Context) -> None:
    """List the bundles that come with Outpost and the one in use."""
    used = passport.folder(config_of(ctx))
    for folder in sorted({used, *(path.parent for path in SHIPPED.parent.glob("*/manifest.toml"))}):
        try:
            manifest = load(folder).manifest
            words = f"{manifest.version}  {', '.join(finding.label for finding in manifest.findings)}"
        except (Mismatch, OSError, ValueError) as error:
            words = f"cannot be used: {error}"
        click.echo(f"{'*' if folder == used else ' '} {folder.name}  {words}")


@models.command()
@click.argument("bundle", required=False, type=FOLDER)
@click.pass_context
def verify(ctx: click.Context, bundle: Path | None) -> None:
    """Check a bundle's hashes and that it computes what it shall on this device."""
    from models.model import Model

    folder = bundle or passport.folder(config_of(ctx))
    try:
        Model(load(folder)).self_test()
    except (Mismatch, OSError, ValueError) as error:
        raise Tampered(f"{folder.name}: {error}") from error
    click.echo(f"{folder.name}: hashes and self-test agree")


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
@click.pass_context
def evaluate(ctx: click.Context, bundle: Path, data: Path, out: Path | None, as_json: bool) -> None:
    """Measure a bundle on films that somebody has read.

    The CSV has the columns file and one for each finding by its key (1, 0, or nothing where nobody has read it), and if you
    like patient, age (in years), sex, view and source. Films are DICOM, JPEG or PNG.
    """
    from edge import evaluation, evaluation_page
    from edge.worker import Reader

    loaded = _loaded(bundle)
    cases, unused, wrong = evaluation.parse(evaluation.table_of(data), loaded.manifest)
    if wrong:
        raise Unreadable(_list("nothing was evaluated", wrong))
    if unused:
        click.echo(f"not looked at: {', '.join(unused)}", err=True)
    reader = Reader(loaded, loaded.manifest.default_operating_point, config_of(ctx).worker.threads)

    def name(case: Case | None) -> str:
        return "" if case is None else case.file[-32:]

    judged: list[Judged] = []
    with click.progressbar(cases, label="Films", file=sys.stderr, item_show_func=name) as bar:
        judged += [evaluation.judge(data, case, reader) for case in bar]
    told = evaluation.figures(judged, loaded.manifest)
    if told["unreadable"]:
        lines = [f"line {one['line']}: {one['file']}: {one['why']}" for one in told["unreadable"]]
        click.echo(_list("could not be read, and count as could not assess", lines), err=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        (out / "evaluation.html").write_text(evaluation_page.page(told), encoding="utf-8")
    click.echo(json.dumps(told) if as_json else _words(told))


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
