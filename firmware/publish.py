"""`outpost publish`: the maker's side of updates, on the maker's computer; the keys stay there."""

from __future__ import annotations

from pathlib import Path

import click

from edge.state.store import now

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def publish() -> None:
    """Publish updates (the maker's computer)."""


@publish.command()
@click.argument("folder", type=FOLDER)
@click.option("--name", required=True, type=click.Choice(["development", "release"]), help="What it is for.")
def authority(folder: Path, name: str) -> None:
    """Make an authority in FOLDER, with keys of its own."""
    from firmware.authority import create  # TUF is heavy, and most commands need none

    create(folder, name)
    click.echo(f"{folder}: build/image takes {folder / 'trust'}. Keep root.pem and ca.key away from any network.")


@publish.command()
@click.argument("mirror", type=FOLDER)
@click.option("--authority", "folder", required=True, type=FOLDER, help="The authority that releases.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True),
    help="The system; without it what is released lasts longer.",
)
@click.option("--board", help="Of the bundle.")
@click.option("--version", help="Of the bundle.")
def release(mirror: Path, folder: Path, bundle: Path | None, board: str | None, version: str | None) -> None:
    """Release a bundle in MIRROR, a folder that any web server can give out and any stick can carry."""
    if bundle is not None and not (board and version):
        raise click.UsageError("--bundle needs --board and --version.")
    from firmware.authority import LASTS, add

    add(mirror, folder, None if bundle is None else (bundle, str(board), str(version)), now())
    click.echo(f"{mirror}: can be installed until {now() + LASTS:%Y-%m-%d}; then release it again.")


@publish.command()
@click.argument("mirror", type=FOLDER)
@click.option("--authority", "folder", required=True, type=FOLDER, help="The authority that releases.")
@click.option(
    "--bundle", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True), help="The model, signed."
)
def model(mirror: Path, folder: Path, bundle: Path) -> None:
    """Release a model in MIRROR, for all boxes that have an older version of it in use."""
    from firmware.authority import LASTS, add_model

    told = add_model(mirror, folder, bundle, now())
    click.echo(
        f"{mirror}: {told.id} {told.version} can be put into use until {now() + LASTS:%Y-%m-%d}; then release it again."
    )


@publish.command()
@click.argument("mirror", type=FOLDER)
@click.option("--authority", "folder", required=True, type=FOLDER, help="The authority whose release key is changed.")
def rotate(mirror: Path, folder: Path) -> None:
    """Take another release key, because the one before is old or was lost; boxes follow by themselves."""
    from firmware.authority import change

    change(mirror, folder, now())
    click.echo(f"{mirror}: boxes believe the new key once they have seen this, and the old one no more.")
