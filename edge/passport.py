"""The passport: what an acceptance is bound to. One model with one calibration at one operating point has one Device UID."""

from __future__ import annotations

from pathlib import Path

from edge.config import Config
from models.bundle import SHIPPED, Bundle


def folder(config: Config) -> Path:
    """Where the model of these settings lies."""
    return Path(config.worker.bundle or SHIPPED)


def device_uid(bundle: Bundle, operating_point: str) -> str:
    """The UID of a model, its calibration and an operating point (PS3.5 B.2: `2.25.` and a 128-bit number)."""
    return f"2.25.{int(bundle.device_digest(operating_point)[:32], 16)}"


def operating_points(bundle: Bundle) -> dict[str, str]:
    """The operating points a site can choose from, each with its Device UID; the default one first."""
    default = bundle.manifest.default_operating_point
    names = set.intersection(*(set(finding.operating_points) for finding in bundle.manifest.findings))
    return {name: device_uid(bundle, name) for name in sorted(names, key=lambda name: (name != default, name))}
