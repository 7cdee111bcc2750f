"""The box's own certificate authority and certificate: `trust/ca.pem` and `box.pem`, with their keys, and `ca.crt` to give away.

No public authority signs for a box that has no network, so every box signs for itself, and a tablet is told once to trust it. The
authority is bound (RFC 5280 4.2.1.10) to the box's names and to private addresses: stolen, it opens nothing elsewhere.

A clock that shows a time before this version was made, or after the authority's end, is wrong: it changes nothing, and where there
is nothing yet the certificate is dated from that version. Any other is believed, so that a mended clock mends the certificate.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import durable
from edge.state.store import BUILT, alone

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

AUTHORITY = timedelta(days=3652)
LEAF = timedelta(days=397)
"""What browsers accept of a public certificate, and less than they accept of a private one."""
BACKDATED = timedelta(days=30)
"""So far a tablet's clock may be behind the box's."""
RENEWED = timedelta(days=90)
"""So long before its end the certificate is made anew; the tablets do not notice."""
ADDRESSES = 16
"""The last addresses of the box that its certificate names."""
LOCAL = "localhost"
PRIVATE: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),  # RFC 1918, RFC 3927
        *("::1/128", "fc00::/7", "fe80::/10"),  # RFC 4193, RFC 4291
    )
)


@dataclass(frozen=True)
class Trust:
    """What a box shows to prove that it is this box."""

    authority: x509.Certificate
    certificate: x509.Certificate
    file: Path
    """The certificate with its key, for the server."""

    @property
    def name(self) -> str:
        """What the authority is called among those that a tablet trusts."""
        return self.authority.subject.rfc4514_string().removeprefix("CN=")

    @property
    def names(self) -> frozenset[str]:
        """The host names that the certificate speaks for."""
        return frozenset(_alternatives(self.certificate).get_values_for_type(x509.DNSName))

    @property
    def addresses(self) -> list[Address]:
        """The addresses that the certificate speaks for, the latest last."""
        found = _alternatives(self.certificate).get_values_for_type(x509.IPAddress)
        return [address for address in found if isinstance(address, Address)]

    @property
    def fingerprint(self) -> str:
        """The authority's SHA-256 in groups of four digits, for people to compare."""
        return " ".join(re.findall("....", self.authority.fingerprint(hashes.SHA256()).hex().upper()))

    def believes(self, at: datetime) -> bool:
        """Whether a clock can be right that shows this time."""
        return BUILT <= at < self.authority.not_valid_after_utc

    def due(self, at: datetime) -> bool:
        """Whether the certificate must be made anew because of its dates."""
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        late = at >= end - RENEWED and end < self.authority.not_valid_after_utc
        return self.believes(at) and (at < begin or late)

    def covers(self, address: Address | None) -> bool:
        """Whether a tablet that reaches the box under this address can be sure of it, as far as that is possible."""
        return address is None or address in self.addresses or not _private(address)


def address_of(text: str) -> Address | None:
    """The address that a socket or a person gives, or None for what is no address."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def read(state: Path) -> Trust | None:
    """What the box has, or None before its first start."""
    folder = state / "trust"
    if (authority := _load(folder / "ca.pem")) is None or (leaf := _load(folder / "box.pem")) is None:
        return None
    return Trust(authority[0], leaf[0], folder / "box.pem")


def ensure(state: Path, names: Iterable[str], address: Address | None, at: datetime) -> Trust:
    """The box's certificate for these names, this address and the addresses it had; whatever is missing or due is made."""
    folder = state / "trust"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(folder):
        authority, key = _load(folder / "ca.pem") or _found_authority(folder, names, at)
        if not (folder / "ca.crt").exists():
            durable.write(folder / "ca.crt", authority.public_bytes(Encoding.PEM), 0o644)
        wanted = frozenset(name for name in (LOCAL, *names) if permitted(authority, name))
        old = read(state)
        if old is not None and _signed_by(old.certificate, authority):
            if old.names == wanted and old.covers(address) and not old.due(at):
                return old
            known = old.addresses
        else:
            old, known = None, []
        if address is not None and _private(address):
            known = [*(one for one in known if one != address), address][-ADDRESSES:]
        start = at if BUILT <= at < authority.not_valid_after_utc else BUILT
        begin = start - BACKDATED
        if old is not None and not old.believes(at):
            begin = old.certificate.not_valid_before_utc
        end = min(begin + LEAF, authority.not_valid_after_utc)
        durable.write(folder / "box.pem", _issue(authority, key, sorted(wanted), known, begin, end), 0o600)
    made = read(state)
    assert made is not None
    return made


def permitted(authority: x509.Certificate, name: str) -> bool:
    """Whether the authority may sign for this host name; it knows only the names the box had when it was made."""
    bound = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return any(isinstance(one, x509.DNSName) and (name == one.value or name.endswith(f".{one.value}")) for one in bound)


def _found_authority(
    folder: Path, names: Iterable[str], at: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if (broken := folder / "ca.pem").exists():
        log.error("%s cannot be read: it is kept as ca.damaged, and every tablet has to join again", broken)
        broken.rename(folder / "ca.damaged")
    (folder / "ca.crt").unlink(missing_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Outpost box {serial:040x}"[:20])])
    bound = [*(x509.DNSName(name) for name in (LOCAL, *names)), *(x509.IPAddress(network) for network in PRIVATE)]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(BUILT - BACKDATED)  # the same whatever the clock shows, so that no wrong clock spoils it
        .not_valid_after(max(at, BUILT) + AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(bound, None), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    durable.write(folder / "ca.pem", _pem(authority, key), 0o600)
    return authority, key


def _issue(
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    names: list[str],
    addresses: list[Address],
    begin: datetime,
    end: datetime,
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    spoken_for = [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]
    of_authority = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Outpost")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(spoken_for), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_authority), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate, key)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _private(address: Address) -> bool:
    return any(address in network for network in PRIVATE)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001  whatever is wrong with it, it is not this authority's
        return False
    return True


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)


def _load(file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """Certificate and key of a file; None when there is none, or it was damaged."""
    try:
        data = file.read_bytes()
        certificate, key = x509.load_pem_x509_certificate(data), load_pem_private_key(data, None)
    except (FileNotFoundError, ValueError):
        return None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return certificate, key
