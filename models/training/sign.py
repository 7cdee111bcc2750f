"""Sign: the development authority signs the shipped bundles with a key that is drawn, used and forgotten.

Nobody can sign anything else in its name: its public key is as good as the bundles' hashes, and there is no secret to keep. A
release is signed by the releaser's own key, see `models/authorities/README.md`.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def sign(zoo: Path, public_key: Path) -> None:
    """Sign every bundle below `zoo` anew, and write the public key that says so."""
    key = Ed25519PrivateKey.generate()
    for manifest in sorted(zoo.glob("*/manifest.toml")):
        (manifest.parent / "manifest.sig").write_bytes(key.sign(manifest.read_bytes()))
    public_key.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
