"""Every value of the stage line, in flow order: Arrival → Job → Header → Radiograph → Scores → Probability → Decision.

Each stage is a function from one of these to the next, or to a `Refusal`. All are immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:  # most processes of the box never touch a picture
    import numpy as np
    import numpy.typing as npt

Sha256 = NewType("Sha256", str)
"""Lower-case hexadecimal SHA-256 of a file in the object store; its name there."""


class Outcome(StrEnum):
    """What the box says of a film; always preliminary, a person decides."""

    IMMEDIATE = "immediate"
    SOON = "soon"
    ROUTINE = "routine"
    COULD_NOT_ASSESS = "could_not_assess"


class Reason(StrEnum):
    """Why a film could not be assessed; `edge.words` has the sentence and the next step of each."""

    NOT_DICOM = "not_dicom"
    DAMAGED = "damaged"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    NO_PIXELS = "no_pixels"
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    FOR_PROCESSING = "for_processing"
    MULTI_FRAME = "multi_frame"
    COLOUR = "colour"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    NOT_HUMAN = "not_human"
    NOT_CHEST = "not_chest"
    NOT_FRONTAL = "not_frontal"
    AGE_UNKNOWN = "age_unknown"
    AGE_OUT_OF_SCOPE = "age_out_of_scope"
    UNREADABLE_EXPOSURE = "unreadable_exposure"
    CROPPED = "cropped"
    WRONG_POLARITY = "wrong_polarity"
    ROTATED = "rotated"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    PROCESSING_FAILED = "processing_failed"
    AI_STOPPED = "ai_stopped"


class Urgency(StrEnum):
    """What the person who ordered the film asked for (Requested Procedure Priority, PS3.3 C.4.11)."""

    STAT = "stat"
    HIGH = "high"
    ROUTINE = "routine"


@dataclass(frozen=True)
class Arrival:
    """A film that was durably accepted: its bytes are in the object store and its row is committed."""

    id: int
    sop_instance_uid: str
    sha256: Sha256
    source: str
    received_at: datetime
    urgency: Urgency
    conflict: bool
    """Another film with the same SOP Instance UID and different bytes is on this box."""


@dataclass(frozen=True)
class Job:
    """A leased piece of work on one arrival: `assess` it, `render` its picture once it is assessed, or `score` it again."""

    id: int
    arrival_id: int
    kind: str
    run: int
    """Counts the assessments of this arrival; a person who supplies a missing age starts another run."""
    attempts: int
    lease: str


@dataclass(frozen=True)
class Grays:
    """How the film says its stored values are to be shown, as far as numbers can say it (PS3.3 C.11.1, C.11.2)."""

    inverted: bool
    rescale: tuple[float, float] | None
    """Intercept and slope."""
    window: tuple[float, float] | None
    """The first one: center and width."""
    function: str
    """`LINEAR`, `LINEAR_EXACT`, `SIGMOID`, or empty where the film does not say."""
    aspect: tuple[int, int]
    """A pixel's height to its width."""


@dataclass(frozen=True)
class Header:
    """What the film says of itself, without its pixels (attribute names as in PS3.6)."""

    SOPInstanceUID: str = ""
    SOPClassUID: str = ""
    StudyInstanceUID: str = ""
    SeriesInstanceUID: str = ""
    TransferSyntaxUID: str = ""
    Modality: str = ""
    PatientName: str = ""
    PatientID: str = ""
    IssuerOfPatientID: str = ""
    PatientSex: str = ""
    PatientSpeciesDescription: str = ""
    BodyPartExamined: str = ""
    ViewPosition: str = ""
    PresentationIntentType: str = ""
    StudyDescription: str = ""
    StudyID: str = ""
    StudyDate: date | None = None
    StudyTime: str = ""
    TimezoneOffsetFromUTC: str = ""
    AccessionNumber: str = ""
    ReferringPhysicianName: str = ""
    PlacerOrderNumberImagingServiceRequest: str = ""
    RequestedProcedureID: str = ""
    PatientBirthDate: date | None = None
    Manufacturer: str = ""
    ManufacturerModelName: str = ""
    Rows: int = 0
    Columns: int = 0
    age_years: float | None = None
    """From PatientAge however written, else PatientBirthDate and the film's date, else unknown."""
    grays: Grays | None = None
    """None where the film is not gray, or goes through a look-up table of its own."""
    from_order: tuple[str, ...] = ()
    """What of this the film lacks and its order gave, by the names above."""


@dataclass(frozen=True)
class Order:
    """A film that somebody asked for (a Scheduled Procedure Step, PS3.4 K.6.1.2.2; attribute names as in PS3.6)."""

    id: int
    source: str
    """`ris`, or `tablet` where a person registered the patient at this box."""
    made_by: str
    made_at: datetime
    StudyInstanceUID: str = ""
    AccessionNumber: str = ""
    RequestedProcedureID: str = ""
    ScheduledProcedureStepID: str = ""
    PatientName: str = ""
    PatientID: str = ""
    IssuerOfPatientID: str = ""
    PatientSex: str = ""
    PatientBirthDate: date | None = None
    age_years: float | None = None
    """As it was said when the patient was registered, where the birth date is not known."""
    urgency: Urgency = Urgency.ROUTINE
    """The Requested Procedure Priority; MEDIUM and LOW are routine, as nothing goes below that."""
    procedure: str = ""
    """The RequestedProcedureDescription; for `tablet`, the key in `edge.vocabulary.PROCEDURES`."""
    scheduled_at: datetime | None = None


@dataclass(frozen=True)
class Radiograph:
    """The film's picture as a person would see it: bones bright, isotropic pixels."""

    gray: npt.NDArray[np.float32]
    """(rows, columns) in [0, 1]."""
    rows: int
    columns: int
    """Size of the film as acquired, in pixels."""


@dataclass(frozen=True)
class Display:
    """How people are first shown a film, and what its pixels measure."""

    windows: tuple[tuple[float, float], ...]
    """The film's own windows as center and width on the rendition's scale, 0 to 65535, bones bright."""
    millimetres: float | None
    """Side of a pixel, or None where the film does not say."""
    at_detector: bool
    """The millimetres are those of the detector (PS3.3 C.8.11.4), so the body is smaller by the unknown magnification."""


@dataclass(frozen=True)
class Rendition:
    """The film for people: neutral, before any window, bones bright, pixels square."""

    values: npt.NDArray[np.uint16]
    """(rows, columns)"""
    display: Display


@dataclass(frozen=True)
class Refusal:
    """A stage's answer when the film cannot be assessed; a normal clinical outcome, not an error."""

    reason: Reason
    detail: str = ""
    """For the technician, in English; never shown as the reason itself."""


@dataclass(frozen=True)
class Finding:
    """One finding of one film: calibrated probability with its 95 % interval and its code."""

    finding: str
    label: str
    scheme: str
    code: str
    probability: float
    low: float
    high: float
    operating_point: str
    soon: float
    immediate: float
    """Both are NaN at a hub that does not know the model."""
    as_shipped: float | None = None
    """By the bundle's own calibration, where this site's gave `probability`; never shown, kept to compare the two."""
    unsure: bool = False
    """Of the films that the bundle comes from, some with the finding and some without had a probability like this one."""


@dataclass(frozen=True)
class Decision:
    """What the box says of one film, and by which model, calibration and operating point."""

    outcome: Outcome
    findings: tuple[Finding, ...]
    model: str
    device_uid: str
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Signals:
    """What a film looks like in a few numbers (`models/signals.py`): not to judge it by, only to see when films change."""

    level: float
    contrast: float
    sharpness: float
    noise: float
    border: float
    saturation: float
    distance: float
    """From the films that the model knows."""
    place: tuple[float, ...]
    """Among the films that the model knows, along the directions in which those differ most."""


@dataclass(frozen=True)
class Assessment:
    """Everything one run of the stage line produced; committed together with the job's end."""

    header: Header
    decision: Decision
    saliency: bytes | None
    """A tiny transparent PNG: where the leading finding's score comes from; not why."""
    milliseconds: dict[str, float]
    """Per stage, in flow order."""
    signals: Signals | None = None
    """None where there was no picture to look at."""
    logit: float | None = None
    """Of the finding that the outcome comes from, in the network's own units; 0 is even odds."""


@dataclass(frozen=True)
class Waiting:
    """A film on the worklist, as the ordering sees it; `outcome` is None until it is assessed."""

    arrival_id: int
    received_at: datetime
    urgency: Urgency
    outcome: Outcome | None


class Arm(StrEnum):
    """Which order a film of a trial is shown in."""

    AI_RANKED = "ai_ranked"
    ARRIVAL_ORDER = "arrival_order"
    """The AI has no say, but for what the site's policy has raised all the same."""


class Unit(StrEnum):
    """What a trial gives to an arm: each film, or all that come on one day."""

    FILM = "film"
    DAY = "day"


@dataclass(frozen=True)
class Protocol:
    """What is fixed about a trial before its first film."""

    title: str
    unit: Unit
    size: int | None
    """So many films, or days on which a film comes, are randomized."""
    last_day: date | None
    """The last day on which films are; at least one of the two ends it."""
    immediate_raised: bool
    """What the AI calls immediate is raised in both arms."""
    device_uid: str
    """The accepted model, calibration and operating point that the trial is of."""
    operating_point: str
    model: str


@dataclass(frozen=True)
class Film:
    """A worklist entry as people see it."""

    arrival: Arrival
    run: int
    """Which of its assessments this is, from 1; 0 before the first."""
    header: Header
    decision: Decision | None
    decided_at: datetime | None
    milliseconds: dict[str, float]
    supplied_age: float | None
    again: bool
    """It waits to be assessed once more."""
    rendition: Sha256 | None
    """16-bit gray PNG, neutral: whoever shows it applies a window."""
    preview: Sha256 | None
    """8-bit PNG of at most 1024 pixels, in the film's own window."""
    display: Display | None
    saliency: bytes | None
    """The map as a tiny transparent PNG."""
    failed: str
    """Why the latest attempt failed, in English, for the technician; empty if none did."""


class ReadKind(StrEnum):
    """What a person did with a film."""

    IMPRESSION = "impression"
    """Said what they see, before they were shown what the AI says."""
    CONFIRM = "confirm"
    OVERRIDE = "override"
    REFER = "refer"
    """Asked a teleradiologist."""
    WITHDRAW = "withdraw"
    """Took their latest decision back."""


@dataclass(frozen=True)
class Read:
    """What a named person said of a film."""

    id: int
    arrival_id: int
    run: int
    """The assessment that was on the screen."""
    kind: ReadKind
    reader: str
    at: datetime
    outcome: Outcome | None
    """Confirmed, or put in place of the AI's."""
    codes: tuple[str, ...]
    """The coded choices of an impression, or of what the person sees instead."""
    reason: str
    """Why the AI was overridden, coded."""
    seal: str
    """SHA-256 over an impression, computed before the AI's outcome was shown."""


class Role(StrEnum):
    """What a person at the box may do."""

    CLINICIAN = "clinician"
    TECHNICIAN = "technician"
    LEAD = "lead"


@dataclass(frozen=True)
class Account:
    """A person who may use the box's pages."""

    name: str
    role: Role
    language: str
    secret: str = field(repr=False)
    """The encoded Argon2 hash of the PIN or password."""
    active: bool
    one_time: bool
    """The PIN was given by somebody else: the person must choose their own before anything else."""
    digits: bool
    """It is typed on a keyboard of digits."""


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in on one tablet."""

    id: str
    """SHA-256 of the token that the browser holds."""
    account: str
    tablet: str
    """SHA-256 of the token by which the browser is known for longer."""
    created_at: datetime
    seen_at: datetime
    locked: bool
    """The PIN is asked for before anything else."""


@dataclass(frozen=True)
class Station:
    """What the box calls itself in everything that it sends."""

    ae_title: str = "OUTPOST"
    institution: str = ""
    timezone: str = "UTC"
    """IANA name of the zone that the clinic's clocks show; times in DICOM are local."""


@dataclass(frozen=True)
class Letterhead:
    """What the settings put into a result, as they were when it came to be: a resend is the same whatever they are by then."""

    station: Station
    triage_only: bool = False


@dataclass(frozen=True)
class Source:
    """Everything that a film's results are made of; the same source makes the same bytes."""

    film: Film
    preview: bytes | None
    """The film's picture as people are shown it, an 8-bit PNG; None where it has none."""
    station: Station
    triage_only: bool = False
    """Whether this site never shows where the AI looked: no region, no heat map leaves the box then."""


@dataclass(frozen=True)
class Document:
    """One result in one form, as it leaves the box; made again it is the same, byte for byte."""

    kind: str
    """`sr`, `sc`, `banner` (the picture without film and day), `gsps`, `assessment` (a person's SR), `fhir` or `oru`."""
    media_type: str
    uid: str
    """Its SOP Instance UID, Bundle identifier or message control ID."""
    data: bytes = field(repr=False)


class Concern(StrEnum):
    """Why a document does not leave toward the hub."""

    NO_FORM = "no_form"
    """Nobody has said what of this kind of document may leave."""
    UNREADABLE = "unreadable"
    """It is not what its kind is."""
    TEXT_NOT_FOUND = "text_not_found"
    """The film says that text is burned in, and none was found."""
    TEXT_OVER_ANATOMY = "text_over_anatomy"
    TOO_MUCH_TEXT = "too_much_text"
    TEXT_REMAINS = "text_remains"
    """After the text was blanked there still is what looks like text."""


@dataclass(frozen=True)
class Withheld:
    """A document that stays home: it might say whose film it is."""

    concern: Concern
    detail: str = ""
    """For the technician, in English; never a patient's data."""


class Fault(StrEnum):
    """Why a parcel, or the rest of it, is not taken; `edge.words` has the sentence and the next step of each."""

    NOT_A_PARCEL = "not_a_parcel"
    NOT_FOR_US = "not_for_us"
    """It was sealed to another receiver."""
    UNKNOWN_SENDER = "unknown_sender"
    REVOKED = "revoked"
    """Its sender's key is no longer accepted."""
    DAMAGED = "damaged"
    """A section was changed on the way, or made by somebody else than it says."""
    CUT = "cut"
    """It ends before its last section."""
    UNREADABLE = "unreadable"
    """A section is whole and authentic, and cannot be understood: its sender is newer, or at fault."""


class Carried(StrEnum):
    """What became of an order of the hub; `edge.words` has the sentence and the next step of each."""

    DONE = "done"
    OVERTAKEN = "overtaken"
    """Another order came, before it or before it was carried out."""
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"
    """This version of the box knows no such order."""
    NOT_ORDERABLE = "not_orderable"
    """A hub may not set this."""
    BAD_VALUE = "bad_value"
    LOCAL_CHOICE = "local_choice"
    """The box's own settings name the model."""
    GONE = "gone"
    """The hub no longer has the model."""
    NO_ROOM = "no_room"
    DAMAGED = "damaged"
    """All bytes came and are not those that were ordered."""
    NOT_A_BUNDLE = "not_a_bundle"
    """Its files are not what its manifest says."""
    UNSIGNED = "unsigned"
    """By nobody whom this box believes."""
    OLDER = "older"
    """Than the one in use, which is another version of the same."""
    SELF_TEST = "self_test"
    """On this device it does not compute what it shall."""
    NOTHING_BEFORE = "nothing_before"
    """There is no model to go back to."""


class Trouble(StrEnum):
    """Why a result is not, or not quite, where it shall be; `edge.words` has the sentence and the next step of each."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    """The peer's certificate, or this box's, is not accepted."""
    KEPT_OUT = "kept_out"
    """The peer does not let this box in: association rejected, HTTP 401 or 403."""
    HANGS = "hangs"
    CLOSED = "closed"
    """The peer closes the connection in the middle."""
    FULL = "full"
    """A700 (PS3.4 B.2.3), HTTP 507."""
    BUSY = "busy"
    REJECTED = "rejected"
    """The peer refuses this very result."""
    UNSUPPORTED = "unsupported"
    """The peer takes none of the result's objects."""
    NOT_COMMITTED = "not_committed"
    """The peer took the result and does not commit to keep it."""
    WARNED = "warned"
    """The peer took the result with a warning (B000, PS3.4 B.2.3)."""
    NOT_MADE = "not_made"
    """This box could not make the result's documents."""
    GARBLED = "garbled"
    """The peer answers with what cannot be read."""
    NOT_CONFIGURED = "not_configured"
    """The way out is no longer in the settings, or cannot be used as it stands there."""
    INTERRUPTED = "interrupted"
    """This box stopped in the middle."""


@dataclass(frozen=True)
class Delivery:
    """One result, or one person's decision, on its way to one sink."""

    id: int
    sink: str
    arrival_id: int
    run: int
    read_id: int | None
    """The decision; None for the assessment itself."""
    attempts: int
    """This one included."""
    made_at: datetime
    transaction_uid: str
    """Under which this attempt asks for storage commitment (PS3.4 J.3.2)."""


@dataclass(frozen=True)
class Receipt:
    """What a sink says of documents it was given, or of itself when it is probed."""

    trouble: Trouble | None = None
    detail: str = ""
    """For the technician, in English; never a patient's data."""
    taken: tuple[str, ...] = ()
    """The UIDs of the documents that the peer has acknowledged, or that need no acknowledgement."""
    awaits: bool = False
    """Whether storage commitment was asked for and not answered yet (PS3.4 J)."""


@dataclass(frozen=True)
class Way:
    """How it stands with one sink."""

    sink: str
    waiting: int
    """Results that it has not got yet."""
    refused: int
    """Of them, those that it refuses for themselves."""
    refusal: Trouble | None
    """Why, as far as most of those go."""
    warned: int
    """Results that it took with a warning."""
    oldest: datetime | None
    """Since when the oldest of them waits."""
    trouble: Trouble | None
    detail: str
    since: datetime | None
    """Since when it takes nothing."""
    next_at: datetime | None
    """When it is asked next; None when there is nothing to ask it for."""


class Breakage(StrEnum):
    """How the ledger can be broken; `edge.words` has what each means."""

    MISSING = "missing"
    CHANGED = "changed"
    CUT = "cut"
    """Records are missing at the end."""
    UNSEALED = "unsealed"
    FOREIGN = "foreign"
    """The last record was not written by this box."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the object store."""

    sha256: Sha256
    path: Path
    size: int


class DiskKey(StrEnum):
    """Who holds the key of a box's encrypted disk."""

    CHIP = "chip"
    """Its security chip (TPM 2)."""
    FILE = "file"
    """The disk itself, on another partition."""


DISK_KEY = Path("/run/outpost-data")
"""Where a box that was made from an image notes that at every start."""


class Update(StrEnum):
    """What came of the last update, of the system or of the model."""

    BEGUN = "begun"
    READY = "ready"
    """It is in the other slot, and starts when the box does."""
    GOOD = "good"
    FALLEN = "fallen"
    """It was started, did not work here, and the box went back."""
    CUT = "cut"
    OLDER = "older"
    EXPIRED = "expired"
    FORGED = "forged"
    """Damaged, for other boxes, or not signed by whom this box believes."""
    FAILED_BEFORE = "failed_before"
    UNSIGNED = "unsigned"
    """A model, by nobody whom this box believes."""
    SELF_TEST = "self_test"
    """A model, which does not compute here what it shall."""
