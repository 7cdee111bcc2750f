"""Bundles: a model as a folder whose manifest says what it is for, what each file's hash is and where its thresholds lie."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import msgspec


class Mismatch(ValueError):
    """A bundle is not what its manifest says; the message is one line that says which part."""


class OperatingPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds on the calibrated probability; `soon` is never above `immediate`."""

    soon: float
    immediate: float
    evidence: str
    """What they achieved in evaluation, with counts."""


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calibrated probabilities say that a finding is there or not, by the films the bundle comes from."""

    present: float
    """From here on it may be there."""
    absent: float
    """Up to here it may be missing; where both hold, or neither, the film is called neither (`models/conformal.py`)."""
    evidence: str
    """How often that held in evaluation, with counts."""


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something the model looks for, in one domain; data, no code."""

    key: str
    label: str
    scheme: str
    code: str
    meaning: str
    domain: str
    output: int
    slope: float
    intercept: float
    """Calibrated probability = sigmoid(slope x logit + intercept) (Platt 1999)."""
    calibration_covariance: tuple[float, float, float]
    """Variance of the slope, covariance, variance of the intercept; for the interval on the logit scale."""
    operating_points: dict[str, OperatingPoint]
    band: Band | None = None


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For whom the evidence speaks: ages in years, from `age_min` up to but not including `age_max`."""

    key: str
    age_min: float
    age_max: float


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far this device's outputs may lie from the golden ones, as probability."""

    tolerance: float


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Films the model learnt from, and on what terms."""

    name: str
    films: int
    patients: int
    terms: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle says of itself (`manifest.toml`)."""

    id: str
    version: str
    title: str
    created: str
    modalities: tuple[str, ...]
    views: tuple[str, ...]
    minimum_size: int
    """Shorter side of a film in pixels, below which the model does not speak."""
    input_size: int
    default_operating_point: str
    files: dict[str, str]
    """SHA-256 of every other file of the bundle."""
    self_test: SelfTest
    domains: tuple[Domain, ...]
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]
    runtimes: dict[str, str] = msgspec.field(default_factory=lambda: {"onnx": "model.onnx"})
    """The file that each runtime takes; the first is the reference, on which everything was measured."""
    outputs: int = 0
    """Labels that the network gives; 0 where each belongs to a finding."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found to be what the manifest says."""

    path: Path
    manifest: Manifest
    digest: str
    """SHA-256 of the manifest, and so of everything in the bundle."""

    def device_digest(self, operating_point: str) -> str:
        """SHA-256 over model, calibration and operating point (all three are in the manifest, or hashed by it)."""
        return hashlib.sha256(f"{self.digest} {operating_point}".encode()).hexdigest()


def packed(folder: Path) -> bytes:
    """A bundle in one file, as it travels: a tar of its files (POSIX.1-1988), the same bytes whoever makes it and when."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                about = tarfile.TarInfo(path.name)
                about.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(about, file)
    return made.getvalue()


def unpack(file: Path, folder: Path) -> None:
    """Put what was packed into a new folder. Raises `Mismatch` where that is no bundle, OSError where there is no room."""
    folder.mkdir()
    try:
        with tarfile.open(file, mode="r:") as tar:
            for number, about in enumerate(tar):
                plain = (
                    about.type == tarfile.REGTYPE and not about.issparse()
                )  # a hole of any size takes no room on the way
                if not plain or Path(about.name).name != about.name or number >= MOST_FILES:
                    raise Mismatch(f"{about.name[:80]!r} is no file of a bundle")
                read = tar.extractfile(about)
                assert read is not None
                with (folder / about.name).open("xb") as written:
                    shutil.copyfileobj(read, written)
    except (tarfile.TarError, FileExistsError, EOFError, ValueError) as error:
        raise Mismatch(f"no bundle in one file ({error})") from None


MOST_FILES = 100
SHIPPED = Path(__file__).parent / "zoo" / "cxr-lite0"
"""The bundle that comes with Outpost."""


def load(path: Path) -> Bundle:
    """Read a bundle and check every hash.

    Raises `Mismatch` when a file is not what the manifest says, OSError when one is missing.
    """
    raw = (path / "manifest.toml").read_bytes()
    try:
        manifest = msgspec.toml.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Mismatch(f"manifest.toml: {error}") from None
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise Mismatch(f"{name}: a bundle's files lie in its own folder")
        if hashlib.sha256((path / name).read_bytes()).hexdigest() != expected:
            raise Mismatch(f"{name}: its hash is not the one in the manifest")
    for runtime, name in manifest.runtimes.items():
        if name not in manifest.files:
            raise Mismatch(f"runtime {runtime}: {name} is no file of the bundle")
    if not manifest.runtimes:
        raise Mismatch("manifest.toml: no runtime")
    domains = {domain.key for domain in manifest.domains}
    for finding in manifest.findings:
        if finding.domain not in domains:
            raise Mismatch(f"finding {finding.key}: no domain {finding.domain}")
        if manifest.default_operating_point not in finding.operating_points:
            raise Mismatch(f"finding {finding.key}: no operating point {manifest.default_operating_point}")
        for name, point in finding.operating_points.items():
            if not 0 <= point.soon <= point.immediate <= 1:
                raise Mismatch(f"finding {finding.key}: operating point {name} is out of order")
        if finding.band is not None and not (0 <= finding.band.present <= 1 and 0 <= finding.band.absent <= 1):
            raise Mismatch(f"finding {finding.key}: its band is not of probabilities")
    return Bundle(path, manifest, hashlib.sha256(raw).hexdigest())
