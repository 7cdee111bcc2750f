"""Authorities: whose signature under a bundle's manifest this box believes.

`manifest.sig` is an Ed25519 signature (RFC 8032) of `manifest.toml`, which has the hash of every other file; `openssl pkeyutl`
makes and checks it. Outpost's own public keys come with it (`models/authorities/`), a site adds its own (`worker.authorities`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edge.config import Config
from edge.errors import Misconfigured
from models.bundle import Bundle, Mismatch

OWN = Path(__file__).parent.parent / "models" / "authorities"
SIGNATURE = "manifest.sig"


def signer(bundle: Bundle, config: Config) -> str:
    """The name of the authority that signed a bundle.

    Raises `Mismatch` where none of the known ones did, `Misconfigured` where a key of the settings cannot be read.
    """
    manifest = (bundle.path / "manifest.toml").read_bytes()
    if hashlib.sha256(manifest).hexdigest() != bundle.digest:
        raise Mismatch("manifest.toml: it changed while it was read")
    try:
        signature = (bundle.path / SIGNATURE).read_bytes()
    except FileNotFoundError:
        raise Mismatch(f"{SIGNATURE}: nobody has signed this bundle") from None
    known = list(_known(config))
    for name, key in known:
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            continue
        return name
    raise Mismatch(f"{SIGNATURE}: not signed by {', '.join(name for name, _ in known)} (others: worker.authorities)")


def _known(config: Config) -> Iterator[tuple[str, Ed25519PublicKey]]:
    for path in [*sorted(OWN.glob("*.pem")), *map(Path, config.worker.authorities)]:
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{path}: {error}. Check worker.authorities in the settings.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured(f"{path} is no Ed25519 public key. Check worker.authorities in the settings.")
        yield path.stem, key
