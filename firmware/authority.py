"""Who is believed about updates, and what they released: the keys, certificates and metadata behind `outpost publish`.

An authority is a folder: `root.pem` names all others and is kept offline, `release.pem` says what is released (TUF), `ca.key`
vouches for `signer.pem`, which signs systems (RAUC). Its `trust/` goes into an image, which then takes updates of this authority
alone. There is one for development and one for releases; neither knows the other.
"""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge import durable
from edge.authorities import SIGNATURE
from edge.errors import Misconfigured
from edge.state.store import BUILT, now
from firmware import chunks
from firmware.releases import INDEX, MODEL, SYSTEM, VERSION
from models.bundle import Manifest, Mismatch, load, packed

LASTS = timedelta(days=365)
"""So long a release can be installed after it was published, or published again: boxes are reached by stick, and seldom."""
ROOT_LASTS = timedelta(days=3652)
NAMED = re.compile(r"[\w-][\w.-]*", re.ASCII)
SYSTEM_LASTS = timedelta(days=30 * 365)
"""Of the certificates of systems: no clock of a box decides about these; TUF says what may be installed."""


def create(folder: Path, name: str) -> None:
    """Make an authority's keys, and what boxes believe it by."""
    durable.folder(folder, 0o700)
    if (folder / "root.pem").exists():
        raise Misconfigured(f"{folder}: is an authority already. Its keys are not written over.")
    for one in ("root", "release"):
        _keep(folder / f"{one}.pem", Ed25519PrivateKey.generate())
    ca, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    _keep(folder / "ca.key", ca)
    _keep(folder / "signer.key", signer)
    top = _certificate(f"Outpost {name}", f"Outpost {name}", ca, ca, authority=True)
    made = _certificate(f"Outpost {name} systems", f"Outpost {name}", signer, ca, authority=False)
    durable.write(folder / "signer.pem", made.public_bytes(Encoding.PEM), 0o644)
    durable.folder(folder / "trust")
    durable.write(folder / "trust/keyring.pem", top.public_bytes(Encoding.PEM), 0o644)
    root = Root(consistent_snapshot=True, expires=now() + ROOT_LASTS)
    root.add_key(_signer(folder, "root").public_key, Root.type)
    for role in (Targets.type, Snapshot.type, Timestamp.type):
        root.add_key(_signer(folder, "release").public_key, role)
    signed = Metadata(root)
    signed.sign(_signer(folder, "root"))
    durable.write(folder / "trust/root.json", signed.to_bytes(), 0o644)


def add(mirror: Path, folder: Path, what: tuple[Path, str, str] | None, at: datetime) -> None:
    """Release a bundle for a board under a version, or what is released already for longer."""
    files: list[tuple[str, bytes | Path, str]] = []
    if what is not None:
        bundle, board, version = what
        index = chunks.write(chunks.pieces(bundle))
        files = [(f"{board}/{SYSTEM}", bundle, version), (f"{board}/{INDEX}", index, version)]
    _release(mirror, folder, files, at)


def add_model(mirror: Path, folder: Path, bundle: Path, at: datetime) -> Manifest:
    """Release a model, which its own authority has signed; what it says of itself. Raises `Misconfigured`."""
    try:
        manifest = load(bundle).manifest
    except (Mismatch, OSError, ValueError) as error:
        raise Misconfigured(f"{bundle} is no whole model ({error}). Make it again, or fetch it again.") from None
    if not (bundle / SIGNATURE).exists():
        raise Misconfigured(
            f"nobody has signed {bundle}, so no box would take it. models/authorities/README.md says how."
        )
    if not NAMED.fullmatch(manifest.id):
        raise Misconfigured(f"{manifest.id!r}: a model's id is made of letters, digits, '-', '_' and '.'")
    _release(mirror, folder, [(f"models/{manifest.id}/{MODEL}", packed(bundle), manifest.version)], at)
    return manifest


def _release(mirror: Path, folder: Path, files: list[tuple[str, bytes | Path, str]], at: datetime) -> None:
    metadata = mirror / "metadata"
    durable.folder(metadata)
    signer = _signer(folder, "release")
    if not (metadata / "1.root.json").exists():
        shutil.copy(folder / "trust/root.json", metadata / "1.root.json")
    targets, snapshot, timestamp = (_newest(metadata, role) for role in (Targets, Snapshot, Timestamp))
    for path, held, version in files:
        if isinstance(held, bytes):
            target = TargetFile.from_data(path, held, ["sha256"])
        else:
            target = TargetFile.from_file(path, str(held), ["sha256"])
        target.unrecognized_fields["custom"] = {VERSION: version}
        targets.signed.targets[path] = target
        under, _, name = path.rpartition("/")
        to = mirror / "targets" / under / f"{target.hashes['sha256']}.{name}"
        durable.folder(to.parent)
        if isinstance(held, bytes):
            durable.write(to, held, 0o644)
        else:
            shutil.copy(held, to)
    for one in (targets, snapshot, timestamp):
        one.signed.version += 1
        one.signed.expires = (at + LASTS).replace(microsecond=0)
    snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    for one, name in (
        (targets, f"{targets.signed.version}.targets.json"),
        (snapshot, f"{snapshot.signed.version}.snapshot.json"),
        (timestamp, "timestamp.json"),  # the one that names all others comes last
    ):
        one.signatures.clear()
        one.sign(signer)
        durable.write(metadata / name, one.to_bytes(), 0o644)


def change(mirror: Path, folder: Path, at: datetime) -> None:
    """Put another release key in the place of the one before, and release with it what was released."""
    last = max(int(path.name.partition(".")[0]) for path in (mirror / "metadata").glob("*.root.json"))
    root = Metadata[Root].from_file(str(mirror / f"metadata/{last}.root.json"))
    old = _signer(folder, "release").public_key.keyid
    _keep(folder / "release.pem", Ed25519PrivateKey.generate())
    new = _signer(folder, "release").public_key
    for role in (Targets.type, Snapshot.type, Timestamp.type):
        root.signed.revoke_key(old, role)
        root.signed.add_key(new, role)
    root.signed.version += 1
    root.signed.expires = (at + ROOT_LASTS).replace(microsecond=0)
    root.signatures.clear()
    root.sign(_signer(folder, "root"))
    durable.write(mirror / f"metadata/{root.signed.version}.root.json", root.to_bytes(), 0o644)
    add(mirror, folder, None, at)


def _newest(
    metadata: Path, role: type[Targets] | type[Snapshot] | type[Timestamp]
) -> Metadata[Targets | Snapshot | Timestamp]:
    """The newest metadata of a role, or the first."""
    found = sorted(metadata.glob(f"*{role.type}.json"), key=lambda path: (len(path.name), path.name))
    if found:
        return Metadata.from_file(str(found[-1]))
    made = role()
    made.version = 0
    return Metadata(made)


def _signer(folder: Path, name: str) -> CryptoSigner:
    key = load_pem_private_key((folder / f"{name}.pem").read_bytes(), None)
    return CryptoSigner(key)


def _keep(path: Path, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    durable.write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    begin = BUILT - timedelta(days=30)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + SYSTEM_LASTS)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .sign(by, hashes.SHA256())
    )
