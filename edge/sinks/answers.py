"""Answers: what a peer said of each document, in DICOM's status codes, and the one receipt that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.records import Document, Receipt, Trouble

DUPLICATE = 0x0111
"""The peer has it already (PS3.7 C.5.7). What has the same UID is the same, byte for byte, so that is what was wanted."""

_GRAVEST_FIRST = (
    Trouble.UNREACHABLE,
    Trouble.TLS,
    Trouble.HANGS,
    Trouble.CLOSED,
    Trouble.KEPT_OUT,
    Trouble.FULL,
    Trouble.BUSY,
    Trouble.NOT_CONFIGURED,
    Trouble.REJECTED,
    Trouble.NOT_COMMITTED,
    Trouble.UNSUPPORTED,
    Trouble.WARNED,
)
STOPS = _GRAVEST_FIRST[: _GRAVEST_FIRST.index(Trouble.REJECTED)]
"""After one of these nothing else needs to be tried now."""


@dataclass(frozen=True)
class Answer:
    """What became of one document."""

    document: Document
    trouble: Trouble | None
    detail: str = ""

    @property
    def taken(self) -> bool:
        """Whether the peer has it."""
        return self.trouble in (None, Trouble.WARNED)


def of_status(status: int) -> Trouble | None:
    """The trouble that a status of storage means (PS3.4 B.2.3, PS3.7 C); the codes of STOW-RS are the same (PS3.18 I.2)."""
    if status in (0x0000, DUPLICATE):
        return None
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return Trouble.WARNED
    if status & 0xFF00 == 0xA700 or status == 0x0213:
        return Trouble.FULL
    return {0x0122: Trouble.UNSUPPORTED, 0x0124: Trouble.KEPT_OUT}.get(status, Trouble.REJECTED)


def receipt(answers: Sequence[Answer]) -> Receipt:
    """The gravest trouble of all, except that a peer need not take every kind: where it has some, that is a warning."""
    taken = tuple(answer.document.uid for answer in answers if answer.taken)
    troubles = [answer.trouble for answer in answers if answer.trouble is not None]
    trouble = min(troubles, key=_GRAVEST_FIRST.index, default=None)
    if trouble is Trouble.UNSUPPORTED and taken:
        trouble = Trouble.WARNED
    said = [f"{answer.document.kind}: {answer.detail}" for answer in answers if answer.detail]
    return Receipt(trouble, ", ".join(said), taken)
