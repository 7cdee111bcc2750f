"""The hub's own keys: `keys.pem` below its state, with which it signs what it tells boxes and opens what they send, and `tls.pem`,
its certificate, where no public authority vouches for it: boxes know it by its key, which stays.

Whoever runs several workers gives all of them the same file. It is no part of the database, nor of a backup of it; what is sealed
there, the secrets of people's authenticator apps, nobody reads without it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import durable
from edge.errors import Misconfigured, Tampered
from edge.stages.parcel import Keys
from edge.state import trust
from edge.state.store import BUILT, alone

FILE, TLS = "keys.pem", "tls.pem"
PIN_CHARACTERS = 20
SEALED = "v1."
"""What a sealed text begins with."""
NONCE = 12
_END = b"-----END PRIVATE KEY-----\n"


def keys(state: Path) -> Keys:
    """The hub's keys, made durably at their first use; the same for every process.

    Raises `Misconfigured` where the folder cannot be used, `Tampered` where the file is damaged.
    """
    path = state / FILE
    with _usable(state):
        if not path.exists():
            durable.write(path, _pem(Ed25519PrivateKey.generate()) + _pem(X25519PrivateKey.generate()))
        first, end, second = path.read_bytes().partition(_END)
    signing = sealing = None
    with suppress(ValueError, UnsupportedAlgorithm):
        signing, sealing = load_pem_private_key(first + end, None), load_pem_private_key(second, None)
    if not isinstance(signing, Ed25519PrivateKey) or not isinstance(sealing, X25519PrivateKey):
        raise Tampered(
            f"{path} is damaged. Put it back from where you keep it; with new keys every box has to be enrolled again."
        )
    return Keys(signing, sealing)


class Seal:
    """What the database holds and only the hub shall read: AES-256-GCM, its key derived from `keys.pem`."""

    def __init__(self, keys: Keys) -> None:
        derived = HKDF(hashes.SHA256(), 32, None, b"outpost sealed in the database")
        self._cipher = AESGCM(derived.derive(keys.signing.private_bytes_raw()))

    def close(self, text: str, whose: str) -> str:
        """A text, sealed for the row of that name."""
        nonce = os.urandom(NONCE)
        return SEALED + base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), whose.encode())).decode()

    def open(self, sealed: str, whose: str) -> str | None:
        """The text; None where it was sealed under another key, or for another row."""
        try:
            data = base64.b64decode(sealed.removeprefix(SEALED), validate=True)
            return self._cipher.decrypt(data[:NONCE], data[NONCE:], whose.encode()).decode()
        except (InvalidTag, ValueError):
            return None


def certificate(state: Path, names: Sequence[str]) -> Path:
    """The hub's own certificate with its key, for these names; the key stays when the names change.

    Raises `Misconfigured` where the folder cannot be used, `Tampered` where the file is damaged.
    """
    path = state / TLS
    with _usable(state):
        held = _certificate(path)
        if held is None or held[1] != list(names):
            key = held[0] if held else ec.generate_private_key(ec.SECP256R1())
            durable.write(path, _pem(key) + _signed(key, names))
    return path


@contextmanager
def _usable(state: Path) -> Iterator[None]:
    """Make the folder where there is none, and hold its lock."""
    try:
        durable.folder(state, 0o700)
        with alone(state):
            yield
    except OSError as error:
        raise Misconfigured(
            f"{state}: cannot be used as the hub's state ({error}). Check the folder's owner and disk."
        ) from error


def pin(file: Path) -> str:
    """By what boxes know a certificate that its own key has signed; empty where an authority vouches for it."""
    read = x509.load_pem_x509_certificate(file.read_bytes())
    if read.issuer != read.subject:
        return ""
    public = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(public).digest()).decode().lower()[:PIN_CHARACTERS]


def _certificate(path: Path) -> tuple[ec.EllipticCurvePrivateKey, list[str]] | None:
    try:
        data = path.read_bytes()
        key, read = load_pem_private_key(data, None), x509.load_pem_x509_certificate(data)
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except FileNotFoundError:
        return None
    except (ValueError, x509.ExtensionNotFound):
        raise Tampered(
            f"{path} is damaged. Put it back from where you keep it, else every box has to be enrolled again."
        ) from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, names


def _signed(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Outpost hub")])
    spoken_for = [*map(x509.DNSName, names), x509.IPAddress(ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BUILT - trust.BACKDATED)  # the same whatever the clock shows
        .not_valid_after(BUILT + trust.AUTHORITY)
        .add_extension(x509.SubjectAlternativeName(spoken_for), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def _pem(key: Ed25519PrivateKey | X25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
