"""Every value of the hub, in flow order: Site, Device, Case, Taken, Task, Review, Turnaround. All are immutable.

Times are seconds since 1970 (UTC) by the hub's own clock; no box's clock is believed.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edge.cards import Decided, Picture, Result, Status
from edge.records import Concern, Outcome
from edge.stages.parcel import Public


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every value here has in common."""


class Site(Record, frozen=True, kw_only=True):
    """A clinic with a box."""

    programme: str
    name: str
    """The identifier that its box signs with."""
    title: str
    """What people call it."""
    language: str
    timezone: str
    country: str = ""
    """ISO 3166-1 alpha-2: where a reader's licence must hold; empty where nobody has said."""


class Device(Record, frozen=True, kw_only=True):
    """A box that was enrolled; a site has one, and an earlier one is revoked when another is enrolled."""

    fingerprint: str
    programme: str
    site: str
    public: Public
    enrolled_at: float
    revoked_at: float | None


class Contact(Record, frozen=True, kw_only=True):
    """How it stands with a site's box, as it said itself when it was last heard of."""

    site: Site
    heard_at: float | None
    status: Status | None
    status_at: float | None


class Case(Record, frozen=True, kw_only=True):
    """A film as the hub knows it."""

    id: int
    site: str
    result: Result
    since: float
    """When the film was assessed, by how long its result has waited."""
    received_at: float
    asked: bool
    """Somebody at the clinic asked a teleradiologist."""
    picture: Picture | None
    concern: Concern | None
    """Why the picture stays at the clinic."""
    have: int
    """Bytes of the picture that are here."""
    read_at: float | None
    """When it was first read here."""
    changed_at: float
    """When anything was last said of it."""


class Taken(Record, frozen=True, kw_only=True):
    """An object that an archive next door sent about a study that is here, as it is kept: without a name."""

    uid: str
    """Its SOP Instance UID here, which is another than it came with."""
    study: str
    series: str
    class_uid: str
    modality: str
    sha256: str
    """Of its file, by which it is kept."""
    size: int
    came: str
    """Tells the file that came from any other, to nobody but this hub."""
    archive: str
    """Who sent it."""
    received_at: float


class TaskKind(StrEnum):
    """Why a case is to be read; a reader has the right to some of these."""

    FIRST = "first"
    SECOND = "second"
    """By somebody else than the first reader."""
    ARBITRATION = "arbitration"
    """Two have read it and differ."""
    AUDIT = "audit"
    """Drawn from those that the AI calls routine."""


class Reader(Record, frozen=True, kw_only=True):
    """Who claims: as much of an account as the queue has to know."""

    programme: str
    name: str
    """By what the account is known."""
    languages: tuple[str, ...] = ()
    """The languages of the sites whose films they read; empty for all."""
    kinds: frozenset[TaskKind] = frozenset((TaskKind.FIRST, TaskKind.AUDIT))
    sites: tuple[str, ...] = ()
    """The sites whose films they may read; empty for all."""
    countries: tuple[str, ...] = ()
    """Where their licence holds (ISO 3166-1 alpha-2); empty for everywhere."""


class Task(Record, frozen=True, kw_only=True):
    """A case that is to be read."""

    id: int
    case: int
    site: str
    kind: TaskKind
    language: str
    rank: int
    """0 goes before all others; the rest goes by `due`."""
    due: float
    since: float
    weight: float
    """For how many films it stands: more than one where it was drawn."""
    lease_by: str
    """Who has it; empty when nobody has, or had it and was silent for too long."""
    lease_until: float
    done_at: float | None


class Entry(Record, frozen=True, kw_only=True):
    """A row of the queue."""

    task: Task
    case: Case


class Finding(Record, frozen=True, kw_only=True):
    """What a reader says of a case; coded, never prose."""

    outcome: Outcome
    codes: tuple[str, ...]
    """Keys of `edge.vocabulary.IMPRESSIONS`."""
    advice: tuple[str, ...] = ()
    """Keys of `edge.vocabulary.ADVICE`."""
    second: bool = False
    """The reader asks for a second read."""
    before_ai: Finding | None = None
    """What they said before they were shown the AI's, where policy asks for it."""
    seconds: float | None = None
    """How long the case was open before them."""


class Review(Record, frozen=True, kw_only=True):
    """A read that was recorded."""

    id: int
    digest: str
    """Its name on the way to the clinic."""
    case: int
    site: str
    task: int
    kind: TaskKind
    reader: str
    shown_as: str
    """The reader's name as the clinic is shown it."""
    finding: Finding
    at: float
    final: bool
    """No other read of this case is awaited."""
    seen_at: float | None
    """When the clinic's receipt came."""


class Film(Record, frozen=True, kw_only=True):
    """A case with everything that was said of it."""

    case: Case
    at_clinic: tuple[Decided, ...]
    reviews: tuple[Review, ...]
    tasks: tuple[Task, ...]


class Turnaround(Record, frozen=True, kw_only=True):
    """How long first reads took from the film's assessment, in seconds, for a site or for a code."""

    of: str
    count: int
    median: float
    ninetieth: float
    longest: float


class Model(Record, frozen=True, kw_only=True):
    """A bundle that can be ordered of boxes, in one file."""

    sha256: str
    size: int
    bundle: str
    """Its manifest's digest, by which a box names what it runs."""
    name: str


class Rollout(Record, frozen=True, kw_only=True):
    """Something that a programme's boxes are ordered in waves."""

    name: str
    what: str
    """An `edge.cards.What`."""
    settings: dict[str, bool | int | float | str]
    sha256: str
    """Of the model; empty where it is none."""
    good_seconds: float
    """So long every box of a wave has to be good before the next is ordered."""
    silent_seconds: float
    """So long a box of the wave may be silent."""
    state: str
    """`going`, `halted`, `ended` by a person, `done`."""
    wave: int
    why: str
    """A `Carried` or a `rollouts.Trouble`; empty where a person has halted it."""
    about: str
    site: str
    """Where the trouble is."""
    made_by: str
    made_at: float
    looked_at: float


class Act(Record, frozen=True, kw_only=True):
    """A line of the fleet's ledger."""

    seq: int
    at: float
    actor: str
    """Empty where the hub did it by itself."""
    act: str
    detail: dict[str, object]
