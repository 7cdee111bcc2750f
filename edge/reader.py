"""Reader: the model in use as this box reads films with it, proven on this very device, on the runtime that was found here."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge import authorities, passport
from edge.config import Config
from edge.errors import Misconfigured, Tampered
from edge.records import Finding
from edge.state import installed
from edge.validity.calibration import Calibration
from models import runtimes
from models.backends import BACKENDS
from models.bundle import Bundle, Mismatch
from models.bundle import load as load_bundle
from models.conformal import Band
from models.model import Model, Probability


class Reader:
    """The model as this box uses it: at one operating point, under one device UID."""

    def __init__(
        self,
        bundle: Bundle,
        operating_point: str,
        threads: int,
        calibration: Calibration | None = None,
        runtime: str = "",
    ) -> None:
        self.model = Model(bundle, threads, runtime)
        self.name = f"{bundle.manifest.id} {bundle.manifest.version}"
        self.operating_point = operating_point
        self.calibration = calibration
        """This site's own; None where the bundle's stands."""
        self.device_uid = passport.device_uid(bundle, operating_point, passport.digest(calibration))
        self._points = {finding.key: finding.operating_points for finding in bundle.manifest.findings}
        self._bands = {finding.key: finding.band for finding in bundle.manifest.findings}

    def finding(self, probability: Probability) -> Finding:
        """A probability, as this site has calibrated it, together with the thresholds it is held against."""
        point = self._points[probability.finding][self.operating_point]
        ours = None if self.calibration is None else self.calibration.apply(probability.finding, probability.value)
        value, low, high = (probability.value, probability.low, probability.high) if ours is None else ours
        band = self._bands[probability.finding] if ours is None else None  # another calibration, other films
        return Finding(
            finding=probability.finding,
            label=probability.label,
            scheme=probability.scheme,
            code=probability.code,
            probability=value,
            low=low,
            high=high,
            operating_point=self.operating_point,
            soon=point.soon,
            immediate=point.immediate,
            as_shipped=None if ours is None else probability.value,
            unsure=band is not None and Band(band.present, band.absent).says(value) is None,
        )


def open_reader(config: Config, store: sqlite3.Connection | None = None) -> Reader:
    """Load and self-test the configured model, at the operating point and with the calibration that this site has accepted.

    Raises `Tampered` when it is not what its manifest says, nobody known has signed it, or it does not compute what it shall on
    this very device.
    """
    path = passport.folder(config)
    try:
        bundle = load_bundle(path)
        authorities.signer(bundle, config)
        point, calibration = bundle.manifest.default_operating_point, None
        if store is not None:
            point, calibration = passport.in_use(store, bundle)
        runtime = config.worker.runtime or installed.runtime(Path(config.state), bundle.digest) or ""
        reader = Reader(bundle, point, config.worker.threads, calibration, runtime)
        reader.model.self_test()
    except Mismatch as error:
        raise Tampered(f"model {path.name}: {error}. Install the model again; films are kept until then.") from error
    except (OSError, ValueError, KeyError) as error:
        raise Misconfigured(f"model {path.name}: {error}. Check worker.bundle in the settings.") from error
    return reader


def settle(config: Config) -> None:
    """Find the fastest runtime that agrees on this device, once for a bundle, and remember it.

    Where no runtime can be used nothing is remembered: the reference is then loaded, and says why it cannot be.
    """
    state = Path(config.state)
    try:
        bundle = load_bundle(passport.folder(config))
    except (Mismatch, OSError):
        return  # `open_reader` says so
    there = [name for name in bundle.manifest.runtimes if name in BACKENDS and runtimes.installed(name)]
    if config.worker.runtime or len(there) < 2 or installed.runtime(state, bundle.digest) is not None:
        return
    if (chosen := runtimes.fastest(runtimes.tried(bundle, config.worker.threads))) is not None:
        installed.remember(state, bundle.digest, chosen)
