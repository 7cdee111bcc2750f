"""Bundles of the tests: copies of the shipped one, changed as a test needs it and signed by an authority of the tests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.config import Worker
from models.bundle import SHIPPED

KEY = Ed25519PrivateKey.generate()


def copied(folder: Path, change: Callable[[str], str] = lambda manifest: manifest) -> Path:
    """The shipped bundle in a folder of its own, its manifest changed, and signed."""
    bundle = Path(shutil.copytree(SHIPPED, folder))
    manifest = bundle / "manifest.toml"
    manifest.write_text(change(manifest.read_text(encoding="utf-8")), encoding="utf-8")
    return signed(bundle)


def replaced(bundle: Path, name: str, data: bytes) -> Path:
    """Another file in a bundle, with its hash in the manifest, and signed: all is well but what it computes."""
    old = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    (bundle / name).write_bytes(data)
    manifest = bundle / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, hashlib.sha256(data).hexdigest()), encoding="utf-8")
    return signed(bundle)


def signed(bundle: Path) -> Path:
    """The bundle, signed by the authority of the tests."""
    (bundle / "manifest.sig").write_bytes(KEY.sign((bundle / "manifest.toml").read_bytes()))
    return bundle


def authority(folder: Path) -> Path:
    """The public key of the authority of the tests, as a file for `worker.authorities`."""
    path = folder / "tests.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def worker(folder: Path, bundle: Path | None = None) -> Worker:
    """Settings that believe the authority of the tests."""
    return Worker(bundle="" if bundle is None else str(bundle), authorities=(str(authority(folder)),))
