"""Cards: every value that travels between a box and its hub, either way, by the network or on a USB stick.

There is no free text in what goes to the hub: numbers, enumerations, codes and pseudonyms only. The same value makes the same bytes
(JSON with sorted keys, no spaces), so that a signature holds wherever it is made again, and a second arrival is seen to be one.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.records import Concern, Outcome, ReadKind, Reason, Urgency

Uid = Annotated[str, Meta(pattern=r"^2\.25\.(0|[1-9][0-9]{0,38})$")]
"""A pseudonym in the place of a DICOM UID."""
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256."""
Epoch = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
"""Drawn whenever a database is created or restored: numbers of another epoch are other events."""
Identifier = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
"""Of a parcel."""
SiteName = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""What the hub calls a site: an identifier, not its name."""
Key = Annotated[str, Meta(pattern="^[a-z0-9_]{1,64}$")]
"""A word of one of the project's fixed lists."""
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:+ -]{0,64}$")]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
PublicKey = Annotated[
    bytes, Meta(min_length=32, max_length=32, extra_json_schema={"pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"})
]
"""Of Ed25519 or X25519; as JSON in base64."""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every value here has in common: fixed once made, and nothing in it that its kind does not name."""


class Lane(IntEnum):
    """What goes first over the link: the lower number, chosen again for every chunk."""

    URGENT = 0
    """A result that cannot wait, or that a clinic asks about."""
    URGENT_IMAGE = 1
    """The beginning of its film."""
    PEOPLE = 2
    """Reads, receipts and acknowledgements."""
    STATE = 3
    """The day's drift packet and the box's own state."""
    SOON = 4
    """A result that ranks before routine: what could not be assessed does too."""
    SOON_IMAGE = 5
    ROUTINE = 6
    ROUTINE_IMAGE = 7
    ASKED = 8
    """More of a film that a reader has opened."""
    BULK = 9
    """All of every film."""

    @property
    def image(self) -> Lane:
        """In which the beginning of the film goes whose result goes in this one."""
        return Lane(self + 1)


PREFIX = 32 * 1024
"""Bytes of a film that go without being asked for: the whole film, good enough to see most of it."""


class Likelihood(Card, frozen=True, kw_only=True, omit_defaults=True):
    """What the AI says of one finding."""

    finding: Key
    scheme: Word
    code: Word
    probability: Share
    low: Share
    high: Share
    unsure: bool = False
    """There only where it is true, so that a hub finds what an earlier box sent the same as before."""


class Saliency(Card, frozen=True, kw_only=True):
    """Where on a film the score for a finding comes from: a few coarse cells over all of it, row by row."""

    finding: Key
    columns: Annotated[int, Meta(ge=1, le=64)]
    cells: Annotated[bytes, Meta(min_length=1, max_length=64 * 64)]
    """0 for nothing to 200 for the strongest place."""

    def __post_init__(self) -> None:
        if len(self.cells) % self.columns:
            raise ValueError("the cells are no rows")


class Picture(Card, frozen=True, kw_only=True):
    """A film's de-identified rendition: one HTJ2K codestream, whose beginning is the whole film, less sharp."""

    sha256: Digest
    size: Count
    """Bytes of all of it, which is lossless."""
    rows: Count
    columns: Count
    windows: tuple[tuple[float, float], ...]
    """Center and width on the scale from 0 to 65535, bones bright; the film's first window first."""
    millimetres: float | None
    """Side of a pixel."""
    at_detector: bool
    """The millimetres are those of the detector, so the body is smaller (PS3.3 C.8.11.4)."""


class Result(Card, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """What the AI of a box says of a film; always preliminary. A later run of the same case replaces an earlier one."""

    case: Uid
    run: Count
    study: Uid | None
    patient: Annotated[str, Meta(pattern="^P[A-Z2-7]{16}$")]
    age: Annotated[str, Meta(pattern="^([0-9]{3}[YMD])?$")]
    sex: Annotated[str, Meta(pattern="^[MFO]?$")]
    day: Annotated[str, Meta(pattern="^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]
    """The film's date, moved as all dates of this patient are: it only says how far apart two films lie."""
    view: Annotated[str, Meta(pattern="^(PA|AP)?$")]
    urgency: Urgency
    """What was ordered at the clinic."""
    outcome: Outcome
    reason: Reason | None
    findings: tuple[Likelihood, ...]
    model: Word
    device_uid: Word
    operating_point: Word
    shadow: bool
    """The site has not accepted this model: its outcome changes no order there."""
    saliency: Saliency | None = None
    """Of the finding that gives the outcome; None where the site shows no map, or there is none."""


class Image(Card, frozen=True, kw_only=True, tag_field="kind", tag="image"):
    """A film's picture exists, and the hub may have it."""

    case: Uid
    picture: Picture


class StaysHome(Card, frozen=True, kw_only=True, tag_field="kind", tag="stays_home"):
    """A film's picture does not leave the clinic, and why; the case can be read by its words only."""

    case: Uid
    concern: Concern


class Decided(Card, frozen=True, kw_only=True, tag_field="kind", tag="read"):
    """What somebody at the clinic said of a film; `refer` asks a teleradiologist."""

    case: Uid
    run: Count
    act: ReadKind
    outcome: Outcome | None
    codes: tuple[Key, ...]
    """Keys of `edge.vocabulary.IMPRESSIONS`."""
    reason: Annotated[str, Meta(pattern="^[a-z0-9_]{0,64}$")]
    """Key of `edge.vocabulary.OVERRIDES`."""
    reader: Annotated[str, Meta(pattern="^R[A-Z2-7]{16}$")]
    before_ai: bool
    """Said before the person was shown what the AI says."""


class Packet(Card, frozen=True, kw_only=True, tag_field="kind", tag="packet"):
    """What one day's films looked like, in whole numbers (`edge.validity.packet`, which also checks it)."""

    edges: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    day: Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    data: Annotated[bytes, Meta(max_length=1 << 16)]
    """As `packet.encode` makes it; a later one of the same edges and day replaces an earlier one."""


class Status(Card, frozen=True, kw_only=True, tag_field="kind", tag="status"):
    """How it stands with a box, all of it in steps so coarse that it is told anew only where something has changed."""

    version: Word
    model: Word
    """The one in use."""
    bundle: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Its digest; empty where it cannot be told."""
    device_uid: Word
    accepted: bool
    """It ranks here."""
    before: bool = False
    """Another one, or this one otherwise, was accepted here before."""
    runtime: Annotated[str, Meta(pattern="^[a-z]{0,16}$")] = ""
    drift: Key
    """`learning`, `quiet` or `changed`."""
    disk_free_mib: Count
    disk_free_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    films: Count
    unsent: Count
    unsent_hours: Count = 0
    """How long the oldest of them has waited."""
    clock: Key = "alone"
    """`synchronized`, `alone` where nobody can tell, `behind` what the box has already written."""
    degrees: Annotated[int, Meta(ge=-100, le=200)] | None = None
    """Celsius, at its hottest sensor."""
    backup_days: Count | None = None
    """Since it was last backed up; None where it never was."""
    notices: tuple[Key, ...]
    """Which processes of the box say that something is wrong."""


class Seen(Card, frozen=True, kw_only=True, tag_field="kind", tag="seen"):
    """A teleradiologist's read was opened at the clinic."""

    case: Uid
    read: Digest


class Applied(Card, frozen=True, kw_only=True, tag_field="kind", tag="applied"):
    """What became of an order of the hub."""

    order: Digest
    result: Key
    """One of `edge.records.Carried`."""
    about: Annotated[str, Meta(pattern=r"^[a-z0-9_.]{0,64}$")] = ""
    """The setting that is the trouble."""


class Void(Card, frozen=True, kw_only=True, tag_field="kind", tag="void"):
    """Nothing: what had this number was taken back before it left."""


Up = Result | Image | StaysHome | Decided | Packet | Status | Seen | Applied | Void
"""What a box tells its hub."""


class Read(Card, frozen=True, kw_only=True, tag_field="kind", tag="read"):
    """What a teleradiologist says of a case."""

    case: Uid
    read: Digest
    """The read's own name: the same one again is the same read."""
    reader: Annotated[str, Meta(max_length=64)]
    """As the clinic is shown it."""
    outcome: Outcome
    codes: tuple[Key, ...]
    """Keys of `edge.vocabulary.IMPRESSIONS`."""
    advice: tuple[Key, ...]
    """Keys of `edge.vocabulary.ADVICE`."""
    final: bool
    """No second read is awaited."""
    at: Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    """By the hub's clock."""


class Want(Card, frozen=True, kw_only=True, tag_field="kind", tag="want"):
    """A reader has opened a film: the hub would have its bytes up to this one."""

    sha256: Digest
    upto: Count


class What(StrEnum):
    """What a hub may order."""

    SETTINGS = "settings"
    MODEL = "model"
    """Put a bundle into use, whose own signature says whether it is taken."""
    ROLLBACK = "rollback"
    """Go back to the model that was in use before."""
    KEEP = "keep"
    """Stay as you are: what was ordered before and is not carried out yet is not to be."""


class Order(Card, frozen=True, kw_only=True, tag_field="kind", tag="order"):
    """A change that is ordered of one site's box; signed, as all that a hub says, with the key of the box's enrolment."""

    order: Digest
    """Its name: over all else that is in it and the site that it is for (`ordered`)."""
    number: Count
    """A later order of a site has a higher one; only the latest is carried out."""
    what: Key
    """One of `What`; a newer hub may know more."""
    settings: dict[
        Annotated[str, Meta(pattern=r"^[a-z0-9_.]{1,64}$")], bool | int | float | Annotated[str, Meta(max_length=256)]
    ] = {}
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Of the bundle in one file (`models.bundle.packed`)."""
    size: Count = 0


class Revoked(Card, frozen=True, kw_only=True, tag_field="kind", tag="revoked"):
    """This box's key is no longer accepted; somebody has to enrol it again."""


Down = Read | Want | Order | Revoked
"""What a hub tells a box."""


class Event(Card, frozen=True, kw_only=True):
    """Something that a box tells its hub: once, whichever way and however often it arrives."""

    site: SiteName
    epoch: Epoch
    seq: Annotated[int, Meta(ge=1, lt=2**53)]
    """Counts from 1 without a gap."""
    body: Up


class Answer(Card, frozen=True, kw_only=True):
    """Something that a hub tells a box: once, whichever way and however often it arrives."""

    epoch: Epoch
    """The hub's."""
    seq: Annotated[int, Meta(ge=1, lt=2**53)]
    """Counts from 1 without a gap, for each site."""
    body: Down


class Waited(Card, frozen=True, kw_only=True):
    """An event and for how long it has waited: neither side needs the other's clock."""

    event: Event
    seconds: Count | None
    """None where the box cannot tell."""


class Had(Card, frozen=True, kw_only=True):
    """Which numbers of an epoch somebody has durably."""

    upto: Count
    """All from 1 to this one."""
    beyond: tuple[tuple[Count, Count], ...] = ()
    """And from each first to its last, in order."""


class ToHub(Card, frozen=True, kw_only=True, tag_field="message", tag="to_hub"):
    """One section of a box's parcel."""

    events: tuple[Waited, ...] = ()
    hub_epoch: str = ""
    """Which epoch of the hub `upto` is of; empty before the first answer."""
    upto: Count = 0
    """All answers to this one have arrived and are kept."""
    chain: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Over those answers (`chain`): a hub that was restored has another one, or none, and numbers them anew."""
    objects: tuple[Digest, ...] = ()
    """Of which objects the box would know how many bytes the hub has."""


class ToBox(Card, frozen=True, kw_only=True, tag_field="message", tag="to_box"):
    """One section of a hub's parcel."""

    epoch: Epoch
    """The hub's: another one than before says that the hub was restored, and `had` is all that it has."""
    answers_to: tuple[Identifier, ...] = ()
    """The box's parcels that this is the answer to: the one just sent; on a stick, those that the hub took in of late."""
    had: dict[Epoch, Had] = {}
    """By the box's epochs, every one of them, all events that the hub has durably; of an epoch that is not here it has none."""
    differs: dict[Epoch, tuple[Count, ...]] = {}
    """By the box's epochs, numbers of those parcels that are another event's at the hub: the box was restored, files them anew."""
    kept: Count | None = None
    """How often the hub has kept bytes of this site's films: fewer than before say that some are gone; None on a stick."""
    objects: dict[Digest, Count] = {}
    """How many bytes the hub has durably of each object that was asked about or announced; all of them where it is complete."""
    answers: tuple[Answer, ...] = ()


class Piece(Card, frozen=True, kw_only=True):
    """Bytes of an object, on a stick."""

    sha256: Digest
    size: Count
    """Of the whole object."""
    offset: Count
    data: bytes


Message = ToHub | ToBox


class Enrol(Card, frozen=True, kw_only=True):
    """With what a box asks to be known to a hub, signed with its key (`Outpost-Signature`)."""

    code: Annotated[str, Meta(max_length=64)]
    """The one-time code that the hub made."""
    signing: PublicKey
    sealing: PublicKey
    version: Word


class Enrolled(Card, frozen=True, kw_only=True):
    """What a box has to know from then on."""

    site: SiteName
    programme: Annotated[str, Meta(max_length=64)]
    signing: PublicKey
    sealing: PublicKey
    epoch: Epoch


_encoder = msgspec.json.Encoder(order="sorted")


def ordered(site: str, order: Order) -> Order:
    """The order under its own name, which no other order has, nor the same one for another site."""
    rest = canonical(msgspec.structs.replace(order, order="0" * 64))
    return msgspec.structs.replace(order, order=hashlib.sha256(site.encode() + b"\n" + rest).hexdigest())


def chain(before: str, answer: Answer) -> str:
    """The chain of a hub's answers to one site with this one at its end; that of none is empty."""
    return hashlib.sha256(before.encode() + canonical(answer)).hexdigest()


def canonical(card: Card) -> bytes:
    """The value's only form: JSON, keys sorted, no spaces, UTF-8."""
    return _encoder.encode(card)
