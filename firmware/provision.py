"""`outpost provision`: the site file made, looked at, and carried out on the box."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import click
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge import config as settings
from edge import durable
from edge import site as sites
from edge.errors import Misconfigured, Unreadable
from edge.site import Site, Wifi

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
SETTINGS, HELD, SIGNER, LINK, CODE = "outpost.toml", "site", "site.signer", "site.network", "enrol"
"""What lies in the box's folder once it is provisioned: settings, the site file, the key that signed it, the network's settings,
and until the hub has taken it the one-time code."""
RADIO = "wifi"
"""A folder for iwd with the passphrase in it, which root takes away as soon as it is there (outpost-site.service)."""
STATE = "state"
READ_BY = 0o640
"""Their mode: the box's own people only."""


@click.group()
def provision() -> None:
    """Tell a box about its clinic, by a signed site file."""


@provision.command()
@click.argument("text", type=FILE)
@click.option("--key", required=True, type=FILE, help="Private key (Ed25519, PEM) of the programme; it stays with you.")
@click.option("--out", required=True, type=FILE, help="The site file to write.")
@click.option("--qr", type=FILE, help="Also a QR code of it (.png or .svg).")
def sign(text: Path, key: Path, out: Path, qr: Path | None) -> None:
    """Check the site's TEXT (TOML) and sign it."""
    content = sites.sign(_read(text).decode("utf-8", "replace"), _private(key))
    if qr is not None:
        if len(content) > sites.QR:
            raise Misconfigured(f"{len(content)} bytes do not fit into one QR code ({sites.QR}). Use the file.")
        import segno

        segno.make(content, error="m", micro=False, mode="byte").save(str(qr), scale=6)
    out.write_bytes(content)
    click.echo(_words(*sites.read(content, None)))


@provision.command()
@click.argument("file", type=FILE)
@click.option("--signer", help="The signer's public key, as `provision sign` shows it; any is accepted without.")
def show(file: Path, signer: str | None) -> None:
    """Check a site FILE and say what a box would be told."""
    content = _read(file)
    site, key = sites.read(content, None if signer is None else _signer(signer))
    click.echo(_words(site, key))


@provision.command()
@click.argument("file", type=FILE)
@click.option("--to", "folder", type=FOLDER, default="/var/lib/outpost", show_default=True, help="The box's folder.")
def apply(file: Path, folder: Path) -> None:
    """Carry out a site FILE on this box: write its settings. The first signer is the only one from then on."""
    from firmware import reset

    reset.finish(folder / STATE)  # where the power went while it was erased
    content = _read(file)
    if not content.rstrip().partition(b"\n")[2]:
        if not (folder / SETTINGS).exists():
            _settle(Site(site="new"), folder)
        click.echo("no site file on this card: the box keeps what it knows")
        return
    held = folder / SIGNER
    site, key = sites.read(content, held.read_bytes() if held.exists() else None)
    durable.folder(folder)
    _tune(site, folder)  # each time: it is not kept here
    text = _without_passphrase(site) if site.network.wifi else content.rstrip() + b"\n"
    if (folder / HELD).exists() and (folder / HELD).read_bytes() == text and (folder / SETTINGS).exists():
        click.echo(f"{site.site}: known already")
        return
    durable.write(folder / SIGNER, key, READ_BY)
    durable.write(folder / LINK, link(site).encode(), READ_BY)
    if site.hub is not None:
        durable.write(folder / CODE, f"{site.hub.code}\n".encode(), READ_BY)
    _settle(site, folder)
    durable.write(folder / HELD, text, READ_BY)  # what says that all is done comes last
    click.echo(_words(site, key))


def _settle(site: Site, folder: Path) -> None:
    """Write the settings that follow from the site file."""
    durable.folder(folder)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        settings.save(sites.configuration(site, str(folder / STATE)), Path(file.name))
        durable.write(folder / SETTINGS, Path(file.name).read_bytes(), READ_BY)


def _tune(site: Site, folder: Path) -> None:
    """Write what iwd reads, for nobody else to read."""
    if (folder / RADIO).exists():  # where the power went before root had taken it
        shutil.rmtree(folder / RADIO)
    if site.network.wifi is not None:
        durable.folder(folder / RADIO, 0o700)
        for name, text in radio(site.network.wifi).items():
            durable.write(folder / RADIO / name, text.encode())


def _without_passphrase(site: Site) -> bytes:
    """What a site file says, by which it is known again, but for what root alone keeps."""
    told = msgspec.to_builtins(site)
    del told["network"]["wifi"]["passphrase"]
    return msgspec.json.encode(told)


def link(site: Site) -> str:
    """The link's settings, for systemd-networkd (systemd.network(5)): every wired interface alike or every radio; a box has one."""
    lines = [
        "[Match]",
        f"Type={'wlan' if site.network.wifi else 'ether'}",
        "",
        "[Network]",
        "MulticastDNS=yes",
        "LLMNR=no",
    ]
    if site.network.address:
        lines += ["DHCP=no", f"Address={site.network.address}"]
        lines += [f"Gateway={site.network.gateway}"] if site.network.gateway else []
    else:
        lines += ["DHCP=yes", "LinkLocalAddressing=yes"]
    lines += [f"DNS={one}" for one in site.network.dns] + [f"NTP={one}" for one in site.network.time]
    return "\n".join(lines) + "\n"


def radio(wifi: Wifi) -> dict[str, str]:
    """The radio's settings, for iwd: its files by their names (iwd.config(5), iwd.network(5))."""
    plain = re.fullmatch("[A-Za-z0-9 _-]+", wifi.ssid)
    name = wifi.ssid if plain else f"={wifi.ssid.encode().hex()}"
    passphrase = wifi.passphrase.replace("\\", r"\\").replace(" ", r"\s")
    return {
        "main.conf": f"[General]\nCountry={wifi.country}\n",
        f"{name}.psk": f"[Security]\nPassphrase={passphrase}\n",
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}.") from None


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"{path} is no Ed25519 key. `openssl genpkey -algorithm ed25519 -out {path}` makes one.")
    return key


def _signer(text: str) -> bytes:
    try:
        key = bytes.fromhex(text.replace(" ", ""))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Unreadable("a signer is 64 hexadecimal digits, as `outpost provision sign` shows them.")
    return key


def _words(site: Site, key: bytes) -> str:
    dicom, network, wifi = site.dicom, site.network, site.network.wifi
    told = "" if wifi is None else f", by Wi-Fi: {wifi.ssid} ({wifi.country})"
    lines = [
        f"site      {site.site}: {site.clinic.name or 'no name'}, {site.clinic.timezone}, {site.clinic.language}",
        f"network   {network.address or 'address from the network'}{told}",
        f"DICOM     {dicom.ae_title} on port 11112",
    ]
    lines += [
        f"X-ray     {one.ae_title} {f'at {one.host}:{one.port}' if one.host else ''}".rstrip()
        for one in dicom.modalities
    ]
    lines += [f"PACS      {one.name}: {one.ae_title} at {one.host}:{one.port}" for one in dicom.pacs]
    if site.hub is not None:
        lines.append(f"hub       {site.hub.url}, with a one-time code")
    signed = key.hex()
    lines.append(f"signer    {' '.join(signed[at : at + 8] for at in range(0, 64, 8))}")
    return "\n".join(lines)
