"""Storage commitment (PS3.4 J): what a PACS is asked to keep, and what it says of that.

It may say so on the association on which it was asked, or call back. Calls come to the box's one DICOM port, which is intake's: the
administrator of a PACS knows it already, and it is open whether or not the courier runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset

CLASS, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model, and its one well-known instance (PS3.4 J.3.5)."""
REQUEST = 1
"""Action Type ID (PS3.4 J.3.2.1.1)."""


def request(transaction_uid: str, objects: Iterable[Dataset]) -> Dataset:
    """What N-ACTION asks for (PS3.4 Table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = []
    for one in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        asked.ReferencedSOPSequence.append(item)
    return asked


@dataclass(frozen=True)
class Answer:
    """What an N-EVENT-REPORT says (PS3.4 Table J.3-2)."""

    transaction_uid: str
    kept: tuple[str, ...]
    """The objects that the peer commits to keep."""
    missing: str
    """How many it does not, and the codes of its reasons; empty where it keeps all."""


def answer(report: Dataset) -> Answer:
    """What a peer says of a commitment that it was asked for."""
    kept = tuple(str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or [])
    failed = report.get("FailedSOPSequence") or []
    reasons = sorted({f"{item.get('FailureReason') or 0x0110:04X}" for item in failed})
    missing = f"{len(failed)} objects not kept: {', '.join(reasons)}" if failed else ""
    return Answer(str(report.get("TransactionUID") or ""), kept, missing)
