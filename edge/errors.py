"""The four errors of the box; everything else that goes wrong is a value (see `records.Refusal`) or a bug."""

from __future__ import annotations

from typing import ClassVar


class OutpostError(Exception):
    """Base of the four; `key` is the stable name used by translations, documents and metrics."""

    key: ClassVar[str]
    exit_status: ClassVar[int]
    """As in sysexits.h, where it has one."""


class Transient(OutpostError):
    """It may work later: try again."""

    key = "transient"
    exit_status = 75


class Unreadable(OutpostError):
    """The input is bad and will stay bad: the film ends as *could not assess*."""

    key = "unreadable"
    exit_status = 65


class Tampered(OutpostError):
    """Something is not what its hash or signature says: stop, say so, keep the evidence."""

    key = "tampered"
    exit_status = 76


class Misconfigured(OutpostError):
    """The box cannot do its work as it is set up: safe mode, films are still accepted."""

    key = "misconfigured"
    exit_status = 78
