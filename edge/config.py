"""The box's settings: one strict TOML file, every key with its help beside it.

Clinical operating points are not settings: they belong to the model bundle, and a site chooses among them by acceptance.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from edge.errors import Misconfigured
from edge.records import Letterhead, Station

log = logging.getLogger(__name__)

HOST_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
Port = Annotated[int, Meta(ge=0, le=65535)]
AeTitle = Annotated[str, Meta(min_length=1, max_length=16, pattern=r"^(?! )[\x20-\x5b\x5d-\x7e]*(?<! )$")]
"""PS3.5 6.2, AE: no backslash, no control character; spaces at the ends do not count."""
Settings = TypeVar("Settings")


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the clinic is called, which time its clocks show, and what is spoken there."""

    name: Annotated[
        str, Meta(max_length=64, description="The clinic's name, as results that leave the box give it")
    ] = ""
    timezone: Annotated[
        str, Meta(description="Time zone of the clinic's clocks, such as Africa/Lagos; results are dated by it")
    ] = "UTC"
    language: Annotated[
        Literal["en", "fr", "es", "pt", "sw", "ar"],
        Meta(description="Language of a tablet that has chosen none and asks for none of the six"),
    ] = "en"

    def __post_init__(self) -> None:
        """The system knows the time zone."""
        try:
            ZoneInfo(self.timezone)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            if self.timezone != "UTC":
                raise ValueError(f"no time zone {self.timezone!r}") from None


class Modality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An X-ray unit that sends films, and the service on it that answers an echo."""

    ae_title: Annotated[AeTitle, Meta(description="Its AE title")]
    host: Annotated[
        str,
        Meta(max_length=253, pattern=r"^[A-Za-z0-9.:-]*$", description="Its address; empty where it answers no echo"),
    ] = ""
    port: Annotated[Port, Meta(description="Its DICOM port")] = 104


class Intake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where films come in."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 lets the X-ray unit reach the box")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="DICOM port; 0 takes a free one")] = 11112
    ae_title: Annotated[str, Meta(min_length=1, max_length=16, description="The box's DICOM AE title")] = "OUTPOST"
    calling_ae_titles: Annotated[
        tuple[str, ...], Meta(description="AE titles that may send; empty accepts every sender")
    ] = ()
    watch: Annotated[
        tuple[str, ...], Meta(description="Folders (a USB stick's mount) whose DICOM files are taken in")
    ] = ()
    disk_floor_mib: Annotated[
        int,
        Meta(ge=0, description="Free space in MiB below which films are refused with A700, so the sender keeps them"),
    ] = 512


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How films are assessed."""

    threads: Annotated[int, Meta(ge=1, le=64, description="Processor threads for the model")] = 1
    lease_seconds: Annotated[
        int, Meta(ge=1, description="A film that takes longer is given up and tried again, three times in all")
    ] = 60
    memory_mib: Annotated[
        int, Meta(ge=0, description="Address space in MiB beyond which the worker is stopped; 0 sets no limit")
    ] = 2048
    bundle: Annotated[
        str,
        Meta(
            description="Folder of the model bundle; empty takes what `outpost models activate` put into use, else the shipped one"
        ),
    ] = ""
    runtime: Annotated[
        Literal["", "onnx", "openvino", "litert"],
        Meta(
            description="What runs the model; empty takes the fastest that agrees on this device, tried once and remembered"
        ),
    ] = ""
    authorities: Annotated[
        tuple[str, ...],
        Meta(
            description="Files with the public keys (Ed25519, PEM) of those who may sign bundles here, beside Outpost's own"
        ),
    ] = ()


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pages clinicians look at."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 lets the tablets reach the box")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of the pages (HTTPS); 0 takes a free one")] = 8080
    join_port: Annotated[
        Port | Literal["none"],
        Meta(
            description="Port of the page that a new tablet joins by (HTTP); 0 takes a free one, none has no such page"
        ),
    ] = 8081
    names: Annotated[
        tuple[Annotated[str, Meta(pattern=HOST_NAME, max_length=253)], ...],
        Meta(
            min_length=1,
            max_length=8,
            description="The box's names in the clinic's network; set before its first start",
        ),
    ] = ("outpost.local",)


class Worklist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the worklist is ordered."""

    wait_cap_minutes: Annotated[
        int,
        Meta(ge=1, description="After this wait a film goes ahead of every film that came later, whatever the AI says"),
    ] = 240


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every way out has."""

    name: Annotated[
        str, Meta(min_length=1, max_length=40, description="What people call it; keep it once it is in use")
    ]


class Encrypted(Peer, frozen=True, kw_only=True):
    """A way out over the network."""

    seconds: Annotated[float, Meta(gt=0, description="How long an answer is waited for")] = 30.0
    ca: Annotated[
        str, Meta(description="File with the certificates (PEM) that sign the peer's; empty takes the system's")
    ] = ""
    certificate: Annotated[str, Meta(description="File with this box's own certificate (PEM), where the peer asks")] = (
        ""
    )
    key: Annotated[str, Meta(description="File with that certificate's key (PEM)")] = ""


DicomKind = Literal["sr", "sc", "gsps", "assessment"]


class DicomSink(Encrypted, frozen=True, kw_only=True, tag_field="kind", tag="dicom"):
    """A PACS: C-STORE, with storage commitment and TLS where asked."""

    host: Annotated[str, Meta(min_length=1, description="Its address")]
    port: Annotated[Port, Meta(description="Its DICOM port")] = 104
    ae_title: Annotated[str, Meta(min_length=1, max_length=16, description="Its AE title")]
    calling_ae_title: Annotated[
        str, Meta(min_length=1, max_length=16, description="The AE title under which it knows this box")
    ] = "OUTPOST"
    tls: Annotated[bool, Meta(description="Whether the association is encrypted (PS3.15 B.9)")] = False
    commitment: Annotated[
        bool, Meta(description="Whether a result counts as sent only once the peer has committed to keep it")
    ] = False
    send: Annotated[tuple[DicomKind, ...], Meta(description="Which objects it gets")] = (
        "sr",
        "sc",
        "gsps",
        "assessment",
    )


class Http(Encrypted, frozen=True, kw_only=True):
    """A way out over HTTP."""

    url: Annotated[
        str, Meta(pattern="^https?://.", description="Where it is: https://host/dicom-web, https://host/fhir")
    ]
    authorization: Annotated[
        str, Meta(description="File whose first line is sent as the Authorization header (Basic …, Bearer …)")
    ] = ""


class DicomwebSink(Http, frozen=True, kw_only=True, tag_field="kind", tag="dicomweb"):
    """A PACS: STOW-RS (PS3.18 10.5)."""

    send: Annotated[tuple[DicomKind, ...], Meta(description="Which objects it gets")] = (
        "sr",
        "sc",
        "gsps",
        "assessment",
    )


class FhirSink(Http, frozen=True, kw_only=True, tag_field="kind", tag="fhir"):
    """A FHIR R4 server: one transaction for each result."""


class Hl7Sink(Encrypted, frozen=True, kw_only=True, tag_field="kind", tag="hl7"):
    """An EHR: HL7 v2.5.1 ORU^R01 over MLLP."""

    host: Annotated[str, Meta(min_length=1, description="Its address")]
    port: Annotated[Port, Meta(description="Its port")] = 2575
    tls: Annotated[bool, Meta(description="Whether the connection is encrypted")] = False


class FolderSink(Peer, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A folder: a share, or a disk."""

    path: Annotated[
        str, Meta(min_length=1, description="The folder; it must exist, so that a disk that is away is no folder")
    ]
    send: Annotated[
        tuple[Literal["sr", "sc", "gsps", "assessment", "fhir", "oru"], ...], Meta(description="Which files it gets")
    ] = ("sr", "sc", "gsps", "assessment", "fhir", "oru")


Sink = DicomSink | DicomwebSink | FhirSink | Hl7Sink | FolderSink


class Ris(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the day's orders come from (Modality Worklist, PS3.4 K); without a RIS they are registered on the tablet."""

    host: Annotated[str, Meta(description="The RIS's address; empty where there is none")] = ""
    port: Annotated[Port, Meta(description="Its DICOM port")] = 104
    ae_title: Annotated[str, Meta(min_length=1, max_length=16, description="Its AE title")] = "RIS"
    calling_ae_title: Annotated[
        str, Meta(min_length=1, max_length=16, description="The AE title under which it knows this box")
    ] = "OUTPOST"
    every_minutes: Annotated[float, Meta(gt=0, description="How often it is asked")] = 5.0
    seconds: Annotated[float, Meta(gt=0, description="How long an answer is waited for")] = 30.0


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the ledger is sent as it grows: an audit record repository (IHE ITI-20, syslog over TLS)."""

    host: Annotated[
        str, Meta(description="The repository's name, as its certificate has it; empty where there is none")
    ] = ""
    port: Annotated[Port, Meta(description="Its port")] = 6514
    ca: Annotated[
        str, Meta(description="File with the certificates (PEM) that sign the repository's; empty takes the system's")
    ] = ""
    certificate: Annotated[
        str, Meta(description="File with this box's own certificate (PEM), where the repository asks")
    ] = ""
    key: Annotated[str, Meta(description="File with that certificate's key (PEM)")] = ""
    seconds: Annotated[float, Meta(gt=0, description="How long it is waited for")] = 30.0


Hours = Annotated[str, Meta(pattern=r"^(([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d)?$")]


class Hub(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where de-identified results go to be read by teleradiologists; without a hub nothing is told to anybody."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(https://[^/\s?#]+)?$",
            description="The hub, such as https://hub.example:8443; empty where there is none",
        ),
    ] = ""
    ca: Annotated[
        str,
        Meta(description="File with the certificates (PEM) that sign the hub's; empty takes the system's, or its pin"),
    ] = ""
    poll_seconds: Annotated[float, Meta(gt=0, le=86400, description="How often the hub is asked for reads")] = 30.0
    seconds: Annotated[float, Meta(gt=0, description="How long a silent link is waited for")] = 60.0
    whole_films: Annotated[
        bool,
        Meta(
            description="Whether every film goes in full once nothing else is to be sent, not only when a reader asks for it"
        ),
    ] = False
    daily_mib: Annotated[
        int, Meta(ge=0, description="MiB that may be sent a day; what is urgent goes all the same; 0 sets no limit")
    ] = 0
    metered: Annotated[
        Hours,
        Meta(description="Hours of the clinic's clock, such as 07:30-18:00, in which only what is urgent is sent"),
    ] = ""

    def is_metered(self, at: time) -> bool:
        """Whether only what is urgent goes at this time of the day; hours may lie across midnight."""
        if not self.metered:
            return False
        begin, end = (time.fromisoformat(one) for one in self.metered.split("-"))
        return begin <= at < end if begin <= end else at >= begin or at < end


Mirror = Annotated[
    str,
    Meta(
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Where releases of the system are asked for once a day; empty where they come by stick alone",
    ),
]


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a box that was made from an image gets other releases; who may make them, the image knows."""

    mirror: Mirror = ""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this site has decided about people and the AI."""

    impression_first: Annotated[
        bool, Meta(description="A clinician says what they see before they are shown what the AI found")
    ] = True
    triage_only: Annotated[
        bool,
        Meta(
            description="The heat map is never shown: the AI sets the order, people read without it; results that come to be"
            " from then on have no region"
        ),
    ] = False
    immediate_always_raised: Annotated[
        bool,
        Meta(description="In a trial, what the AI calls immediate goes first in both arms; only the rest is compared"),
    ] = True


class People(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long people stay signed in."""

    lock_minutes: Annotated[
        float,
        Meta(gt=0, le=240, description="After so long without a touch names are blanked and the PIN is asked for"),
    ] = 5.0
    idle_hours: Annotated[
        float, Meta(gt=0, le=168, description="After so long without a touch the person is signed out")
    ] = 12.0
    signed_in_hours: Annotated[
        float, Meta(gt=0, le=168, description="So long after the last PIN the person is signed out, whatever they do")
    ] = 24.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one box; every key has a safe default."""

    state: Annotated[str, Meta(min_length=1, description="Folder of the box's database and films")] = "/var/lib/outpost"
    site: Site = Site()
    intake: Intake = Intake()
    worker: Worker = Worker()
    web: Web = Web()
    worklist: Worklist = Worklist()
    policy: Policy = Policy()
    people: People = People()
    ris: Ris = Ris()
    audit: Audit = Audit()
    hub: Hub = Hub()
    update: Update = Update()
    modalities: tuple[Modality, ...] = ()
    sinks: tuple[Sink, ...] = ()

    def __post_init__(self) -> None:
        """Every way out has a name of its own."""
        names = [sink.name for sink in self.sinks]
        if len(set(names)) < len(names):
            raise ValueError("two of `sinks` have the same name")


MANY = ("modalities", "sinks")
"""Keys of which there may be many, each a table of its own."""
ORDERABLE = ("hub.daily_mib", "hub.metered", "hub.poll_seconds", "hub.whole_films")
"""What a hub may set on a box: how much goes over the link and when; nothing of people, of films or of who is let in."""
ORDERED = "ordered.json"
"""The file in the box's state that has what a hub has set; it goes before the settings file."""


def with_setting(config: Config, key: str, value: object) -> Config:
    """The settings with one changed that a hub may set. Raises `Misconfigured` where it may not, or not to this value."""
    if key not in ORDERABLE:
        raise Misconfigured(f"{key} cannot be set by a hub.")
    table, _, name = key.partition(".")
    values = msgspec.to_builtins(config)
    values[table][name] = value
    try:
        return msgspec.convert(values, type=Config)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{key}: {error}") from None


def by_hub(config: Config) -> dict[str, bool | int | float | str]:
    """What a hub has set, by key. Raises `Misconfigured`."""
    path = Path(config.state) / ORDERED
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, bool | int | float | str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise Misconfigured(f"{path}: {error}. Remove it; the hub can order its settings again.") from None


def ordered(config: Config) -> Config:
    """The settings with what a hub has set; without it where that cannot be read: no clinic stands still for a link's budget."""
    changed = config
    try:
        for key, value in by_hub(config).items():
            changed = with_setting(changed, key, value)
    except Misconfigured as error:
        log.warning("what the hub has set does not count: %s", error)
        return config
    return changed


def load(path: Path | None) -> Config:
    """Read the settings file, or the defaults when `path` is None, and what the box's hub has set.

    Raises `Misconfigured` with the path of the offending key (`$.intake.port`), or when the file cannot be read.
    """
    return ordered(read(path, Config, "outpost check"))


def read(path: Path | None, settings: type[Settings], trial: str) -> Settings:
    """`load` for settings of any kind; `trial` is the command that tells whether a corrected key is right."""
    if path is None:
        return settings()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=settings)
    except OSError as error:
        raise Misconfigured(
            f"{path}: {error.strerror}. Give the settings file with --config, or leave it out."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: {error}. Correct that key; `{trial}` tries again.") from None


def station(config: Config) -> Station:
    """What this box calls itself in everything that it sends."""
    return Station(config.intake.ae_title, config.site.name, config.site.timezone)


def letterhead(config: Config) -> Letterhead:
    """What these settings put into the results that are made under them."""
    return Letterhead(station(config), config.policy.triage_only)


def save(config: Config, path: Path) -> None:
    """Write the settings as TOML, so that another process of the box reads the same ones."""
    lines: list[str] = []
    values = msgspec.to_builtins(config)
    for key, value in values.items():
        if not isinstance(value, dict) and key not in MANY:
            lines.append(f"{key} = {_toml(value)}")
    tables = [(f"[{key}]", value) for key, value in values.items() if isinstance(value, dict)]
    for head, value in tables + [(f"[[{key}]]", one) for key in MANY for one in values[key]]:
        lines += [head, *(f"{inner} = {_toml(setting)}" for inner, setting in value.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()


def reference() -> str:
    """The reference page of the settings as Markdown, generated from the types above."""

    def rows(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
        described = msgspec.inspect.type_info(struct)
        assert isinstance(described, msgspec.inspect.StructType)
        for field in described.fields:
            name, kind = f"{prefix}{field.name}", field.type
            if isinstance(kind, msgspec.inspect.StructType):
                yield from rows(kind.cls, f"{name}.")
            elif isinstance(kind, msgspec.inspect.Metadata):
                text = (kind.extra_json_schema or {}).get("description", "")
                default = "" if field.required else f"`{_toml(field.default)}`"
                yield f"| `{name}` | {default} | {text} |"

    table = ["| key | default | what it does |", "| --- | --- | --- |"]
    lines = ["# Settings", "", "Generated from `edge/config.py`; a test keeps the two equal.", ""]
    lines += [*table, *rows(Config, ""), ""]
    lines += [f"A hub may set {', '.join(f'`{key}`' for key in ORDERABLE)}; that goes before this file.", ""]
    lines += ["## X-ray units", "", "One `[[modalities]]` for each; the page of connections tests them.", ""]
    lines += [*table, *rows(Modality, ""), ""]
    lines += ["## Ways out", ""]
    lines += [
        "One `[[sinks]]` for each; there is none unless it is written down. Keys without a default are needed.",
        "",
    ]
    for sink in get_args(Sink):
        tag = sink.__struct_config__.tag
        lines += [f'### `kind = "{tag}"`', "", (sink.__doc__ or "").strip(), "", *table, *rows(sink, ""), ""]
    return "\n".join(lines)
