"""`outpost flash`: an image onto a card or a disk, at a technician's laptop, checked before, while and after it is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from edge import site as sites
from edge.errors import Misconfigured, Tampered, Unreadable
from firmware import blockmap, card, disks, signature
from firmware.blockmap import BlockMap

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("image", required=False, type=FILE)
@click.option("--to", "where", type=FILE, help="The disk, such as /dev/sdb; or a file, to rehearse.")
@click.option("--key", type=FILE, help="Public key of whoever made the image; else the .pub file beside the image.")
@click.option("--site", type=FILE, help="Site file to put on the card, so that nobody types anything at the box.")
@click.option("--yes", is_flag=True, help="Do not ask before everything on the disk is erased.")
def flash(image: Path | None, where: Path | None, key: Path | None, site: Path | None, yes: bool) -> None:
    """Write IMAGE to a card or disk, read it back, and put the site file on it.

    Without arguments the removable disks are listed. Beside IMAGE lie its block map (.bmap) and the map's signature (.minisig);
    IMAGE may be packed (.gz, .xz).
    """
    present = disks.present()
    if image is None:
        click.echo(_list(present))
        return
    if yes and key is None:
        raise click.UsageError("--yes needs --key: nobody would compare the key beside the image with the maker's.")
    mapped, told = _signed(image, key)
    content = None if site is None else _site(site)
    if where is None:
        where = _choose(present)
    if where.exists() and where.samefile(image):
        raise Misconfigured("that is the image itself. Choose the disk; `outpost flash` lists them.")
    real = disks.target(where, mapped.size, present)
    _ask(real, [disk for disk in present if disk.path == str(real)], told, yes)

    with _bar("Checking the image", mapped.mapped) as progress:
        card.check(image, mapped, progress)
    with card.opened(real, mapped.size) as handle:
        with _bar("Writing", mapped.mapped) as progress:
            head = card.write(image, mapped, handle, progress)
        first = tuple(one for one in mapped.ranges if one.start < card.HEAD)
        rest = mapped.ranges[len(first) :]
        with _bar("Reading back", mapped.mapped) as progress:
            card.read_back(real, rest, progress)
            card.start(handle, head)
            try:
                card.read_back(real, first, progress)
                if content is not None:
                    card.write_site(real, handle, content)
            except Unreadable:
                card.spoil(handle)
                raise
    click.echo(f"{real} holds {told}, read back and found right{'' if site is None else f'; for {site.name}'}.")
    click.echo("Take it out, put it into the box, and switch the box on.")


def _list(present: list[disks.Disk]) -> str:
    found = disks.offered(present)
    if not found:
        return "There is no card and no stick in this computer. Put one in, and start this again."
    rows = []
    for disk in found:
        why = disks.refusal(disk, 0)
        rows.append(f"{disk}" if why is None else f"{disk}\n    not now: {why}")
    return "\n".join(rows)


def _choose(present: list[disks.Disk]) -> Path:
    """The one disk that can be meant. Raises `Misconfigured` where a person has to say which."""
    found = [disk for disk in disks.offered(present) if disks.refusal(disk, 0) is None]
    if len(found) != 1:
        raise Misconfigured(f"say which disk with --to.\n{_list(present)}")
    return Path(found[0].path)


def _signed(image: Path, key: Path | None) -> tuple[BlockMap, str]:
    """The image's map, whose signature fits, and what the signer calls it."""
    name = image.name.removesuffix(".gz").removesuffix(".xz")
    beside = image.parent / f"{name}.bmap"
    keyed = key or image.parent / f"{name}.pub"
    try:
        content, signed = beside.read_bytes(), Path(f"{beside}.minisig").read_text(encoding="utf-8")
        public = signature.public_key(keyed.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(
            f"{error.filename} is missing. An image comes with its block map, that one's signature and a public key."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{beside.name} or its signature cannot be read ({error}).") from None
    try:
        told = signature.verify(content, signed, public)
    except Tampered as error:
        raise Tampered(f"{beside.name}: {error}") from None
    if key is None:
        click.echo(
            f"The image is vouched for only by the key beside it: {public}\nCompare it with the maker's.", err=True
        )
    return blockmap.read(content), told


def _site(path: Path) -> bytes:
    """A site file that a box will accept."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}.") from None
    sites.read(content, None)
    return content


def _ask(real: Path, found: list[disks.Disk], told: str, yes: bool) -> None:
    what = str(found[0]) if found else str(real)
    if not yes and (found or real.exists()):
        click.confirm(f"{what}\nEverything on it is erased, and {told} is put there. Go on?", abort=True)


@contextmanager
def _bar(label: str, length: int) -> Iterator[card.Progress]:
    with click.progressbar(length=length, label=f"{label:<19}", file=sys.stderr, show_pos=False) as bar:
        yield bar.update
