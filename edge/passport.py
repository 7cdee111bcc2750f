"""The passport: what an acceptance is bound to. One model with one calibration at one operating point has one Device UID."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import msgspec

from edge.config import Config
from edge.errors import Tampered
from edge.state import acceptances, calibrations, installed
from edge.validity.calibration import Calibration
from models.bundle import SHIPPED, Bundle, Manifest

OWN = ""
"""In the place of a calibration's digest: the bundle's own."""


def folder(config: Config) -> Path:
    """Where the model in use lies: as the settings say, else as was activated, else as Outpost comes. Raises `Tampered`."""
    if config.worker.bundle:
        return Path(config.worker.bundle)
    current = installed.choice(Path(config.state)).current
    return SHIPPED if current == installed.SHIPPED else installed.folder(Path(config.state), current)


def device_uid(bundle: Bundle, operating_point: str, calibration: str = OWN) -> str:
    """The UID of a model, its calibration and an operating point (PS3.5 B.2: `2.25.` and a 128-bit number)."""
    digest = bundle.device_digest(operating_point)
    if calibration:
        digest = hashlib.sha256(f"{digest} {calibration}".encode()).hexdigest()
    return f"2.25.{int(digest[:32], 16)}"


def at_work(config: Config, store: sqlite3.Connection) -> tuple[Bundle, str]:
    """The bundle in use, of which only the manifest was read, and the UID of what it is here. Raises `Tampered` or OSError."""
    path = folder(config)
    raw = (path / "manifest.toml").read_bytes()
    try:
        bundle = Bundle(path, msgspec.toml.decode(raw, type=Manifest), hashlib.sha256(raw).hexdigest())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Tampered(f"model {path.name}: {error}") from None
    point, calibration = in_use(store, bundle)
    return bundle, device_uid(bundle, point, digest(calibration))


def digest(calibration: Calibration | None) -> str:
    """The digest of a calibration; empty for the bundle's own."""
    return OWN if calibration is None else calibration.digest


def operating_points(bundle: Bundle, calibration: str = OWN) -> dict[str, str]:
    """The operating points a site can choose from, each with its Device UID; the default one first."""
    default = bundle.manifest.default_operating_point
    names = set.intersection(*(set(finding.operating_points) for finding in bundle.manifest.findings))
    ordered = sorted(names, key=lambda name: (name != default, name))
    return {name: device_uid(bundle, name, calibration) for name in ordered}


def in_use(store: sqlite3.Connection, bundle: Bundle) -> tuple[str, Calibration | None]:
    """The operating point and the calibration of this bundle that this site has accepted last; else the bundle's own.

    Raises `Tampered` where the calibration is not what was signed.
    """
    signed = acceptances.latest(store)
    default = bundle.manifest.default_operating_point
    if signed is None:
        return default, None
    points = operating_points(bundle)
    found = calibration(store, signed.calibration) if signed.calibration else None
    return (
        signed.operating_point if signed.operating_point in points else default,
        found if found is not None and found.bundle == bundle.digest else None,
    )


def calibration(store: sqlite3.Connection, digest: str) -> Calibration:
    """The calibration of that digest. Raises `Tampered` where it is missing or its bytes are others."""
    kept = calibrations.get(store, digest)
    if kept is None or hashlib.sha256(kept.document).hexdigest() != digest:
        raise Tampered(
            f"the calibration {digest[:12]} is not what was signed. Go back: `outpost commission sign --calibration own`."
        )
    return msgspec.json.decode(kept.document, type=Calibration)


def candidates(store: sqlite3.Connection, bundle: Bundle) -> list[Calibration | None]:
    """The calibrations of this bundle that a lead can choose among, the one in use first; None is the bundle's own.

    Beside these two: the one before, to go back to, and the newest that was proposed. A damaged one is none of them.
    """
    known = [one.digest for one in calibrations.of_bundle(store, bundle.digest)]
    signed = [one.calibration for one in acceptances.history(store) if one.calibration in (OWN, *known)]
    wanted = [*signed[-1:], OWN]
    wanted += [one for one in reversed(signed) if one not in wanted][:1]
    wanted += known[-1:]
    found: list[Calibration | None] = []
    for digest in dict.fromkeys(wanted):
        try:
            found.append(calibration(store, digest) if digest else None)
        except Tampered:
            continue
    return found


def devices(store: sqlite3.Connection, bundle: Bundle) -> list[str]:
    """The UID of every device that this bundle ever was here: their probabilities can be told from each other's."""
    digests = [OWN, *(one.digest for one in calibrations.of_bundle(store, bundle.digest))]
    return [uid for digest in digests for uid in operating_points(bundle, digest).values()]
