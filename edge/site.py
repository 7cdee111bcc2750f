"""The site file: what one box is told about its clinic, signed by whoever prepared it, so that nobody types anything there.

It is TOML that a person can read, as a file or as a QR code. The last line is a comment with the signature (Ed25519, RFC 8032) over
everything above it and the key that made it. It holds no key of the box: those are made on the box and never leave it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import unicodedata
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from edge import config as settings
from edge.config import AeTitle, Config, DicomKind, Port
from edge.errors import Misconfigured, Tampered, Unreadable

FIRST = "# outpost site 1"
"""The first line; the number is of the form, not of the file."""
SIGNED = re.compile(rb"^# signed ([A-Za-z0-9+/]{43}=) ([A-Za-z0-9+/]{86}==)$")
LARGEST = 16 * 1024
QR = 2331
"""Bytes that one QR code holds at level M (ISO/IEC 18004 table 7)."""

Address = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")]


class Wifi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The radio network that the box joins, WPA2 or WPA3 with one passphrase for all (IEEE 802.11-2020, 9.4.2.2 and J.4.1)."""

    ssid: Annotated[str, Meta(description="Its name")]
    passphrase: Annotated[str, Meta(description="8 to 63 characters of ASCII")]
    country: Annotated[str, Meta(description="Whose rules for radio hold there: ZM, for example (ISO 3166-1)")]

    def __post_init__(self) -> None:
        """What no access point can have is refused here, where somebody can correct it; the passphrase is never said."""
        if not 1 <= len(self.ssid.encode()) <= 32:
            raise ValueError(f"an ssid has 1 to 32 bytes, this has {len(self.ssid.encode())}")
        if any(unicodedata.category(one) == "Cc" for one in self.ssid):
            raise ValueError("there is a control character in the ssid")
        if not 8 <= len(self.passphrase) <= 63:
            raise ValueError(f"a passphrase has 8 to 63 characters, this has {len(self.passphrase)}")
        if not all(" " <= one <= "~" for one in self.passphrase):
            raise ValueError("a passphrase has letters, digits and signs of ASCII only")
        if not re.fullmatch("[A-Z]{2}", self.country):
            raise ValueError(f"{self.country!r} is no country: two capital letters, ZM for example")


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the box is reached: by cable or Wi-Fi, with an address that the network gives it or that is written here."""

    address: Annotated[str, Meta(description="Such as 192.168.1.20/24; empty takes what the network gives")] = ""
    gateway: Annotated[str, Meta(description="Where other networks are, if anywhere")] = ""
    dns: Annotated[tuple[str, ...], Meta(max_length=3, description="Servers that know names")] = ()
    time: Annotated[tuple[Address, ...], Meta(max_length=3, description="Servers that know the time")] = ()
    wifi: Wifi | None = None

    def __post_init__(self) -> None:
        """Addresses are addresses, and the gateway can be reached."""
        for one in filter(None, (self.gateway, *self.dns)):
            ipaddress.ip_address(one)
        if self.address:
            own = ipaddress.ip_interface(self.address)
            if "/" not in self.address:
                raise ValueError(f"{self.address} has no length of the network; write {self.address}/24, for example")
            if self.gateway and ipaddress.ip_address(self.gateway) not in own.network:
                raise ValueError(f"the gateway {self.gateway} is not in the network of {self.address}")
        elif self.gateway:
            raise ValueError("a gateway needs an address; leave both out where the network gives them")


class Pacs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An archive that gets results."""

    name: Annotated[str, Meta(min_length=1, max_length=40, description="What people call it")]
    ae_title: Annotated[AeTitle, Meta(description="Its AE title")]
    host: Annotated[Address, Meta(description="Its address")]
    port: Annotated[Port, Meta(description="Its DICOM port")] = 104
    send: Annotated[tuple[DicomKind, ...], Meta(min_length=1, description="Which objects it gets")] = ("sr", "sc")


class Dicom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The box and its neighbours, as they call each other."""

    ae_title: Annotated[AeTitle, Meta(description="The box's AE title")] = "OUTPOST"
    only_known: Annotated[bool, Meta(description="Whether only the X-ray units named here may send")] = False
    modalities: tuple[settings.Modality, ...] = ()
    pacs: tuple[Pacs, ...] = ()


class Hub(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the box enrols, once."""

    url: Annotated[str, Meta(pattern=r"^https://[^/\s?#]+$", description="Such as https://hub.example:8443")]
    code: Annotated[
        str,
        Meta(
            pattern=r"^[0-9A-Za-z][0-9A-Za-z-]{3,63}(\.[a-z2-7]{20})?$",
            description="The one-time code as `outpost hub enrol` shows it, the pin of the hub's TLS key included",
        ),
    ]


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one box is told."""

    site: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="The site's name at the hub")]
    clinic: settings.Site = settings.Site()
    network: Network = Network()
    dicom: Dicom = Dicom()
    hub: Hub | None = None
    update: settings.Update = settings.Update()
    policy: settings.Policy = settings.Policy()


def sign(body: str, key: Ed25519PrivateKey) -> bytes:
    """The site file of a TOML text: first line, text, signature. Raises `Misconfigured` where the text breaks the schema."""
    _parse(body.encode())
    text = f"{FIRST}\n{body.strip()}\n".encode()
    public = base64.b64encode(key.public_key().public_bytes_raw())
    content = text + b"# signed " + public + b" " + base64.b64encode(key.sign(text)) + b"\n"
    if len(content) > LARGEST:
        raise Misconfigured(f"a site file has at most {LARGEST} bytes, this has {len(content)}. Leave something out.")
    return content


def read(content: bytes, key: bytes | None) -> tuple[Site, bytes]:
    """A site file's content, and the key that signed it (32 bytes), which is `key` where one is known already.

    Raises `Unreadable` for what is no site file, `Tampered` where signature or signer is not right, `Misconfigured` where the
    schema is broken.
    """
    text, _, last = content.rstrip().rpartition(b"\n")
    text += b"\n"
    found = SIGNED.match(last)
    if len(content) > LARGEST or not text.startswith(FIRST.encode() + b"\n") or found is None:
        raise Unreadable("this is no site file, or only a part of one. Ask for it again; do not open and save it.")
    try:
        signer, signature = (base64.b64decode(one, validate=True) for one in found.groups())
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, text)
    except (InvalidSignature, ValueError, binascii.Error):
        raise Tampered("the site file was changed after it was signed. Ask for it again.") from None
    if key is not None and signer != key:
        raise Tampered(
            "the site file is signed by somebody else than this box belongs to. If that is meant, reset the box first."
        )
    return _parse(text), signer


def _parse(text: bytes) -> Site:
    try:
        return msgspec.toml.decode(text, type=Site)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Misconfigured(f"the site file is not right: {error}. Whoever prepared it has to correct that.") from None


def configuration(site: Site, state: str) -> Config:
    """The box's settings for this site, reachable from the clinic's network; everything not named has its default."""
    known = tuple(one.ae_title for one in site.dicom.modalities) if site.dicom.only_known else ()
    sinks = tuple(
        settings.DicomSink(
            name=one.name, host=one.host, port=one.port, ae_title=one.ae_title, calling_ae_title=site.dicom.ae_title,
            send=one.send,
        )
        for one in site.dicom.pacs
    )  # fmt: skip
    return Config(
        state=state,
        site=site.clinic,
        intake=settings.Intake(
            host="0.0.0.0",  # noqa: S104  the X-ray unit has to reach it; the firewall lets in only what is declared
            ae_title=site.dicom.ae_title,
            calling_ae_titles=known,
        ),
        web=settings.Web(host="0.0.0.0", port=443, join_port=80),  # noqa: S104  as above, the tablets
        policy=site.policy,
        hub=settings.Hub(url="" if site.hub is None else site.hub.url),
        update=site.update,
        modalities=site.dicom.modalities,
        sinks=sinks,
    )
