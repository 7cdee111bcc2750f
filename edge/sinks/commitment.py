"""Storage commitment (PS3.4 J): what a PACS is asked to keep, and what it says of that.

It may say so on the association on which it was asked, or call back. Calls come to the box's one DICOM port, which is intake's: the
administrator of a PACS knows it already, and it is open whether or not the courier runs.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def answer(report: Dataset) -> tuple[str, str]:
    """The transaction of an N-EVENT-REPORT, and what the peer does not commit to, by its reasons; empty where it does to all."""
    failed = report.get("FailedSOPSequence") or []
    reasons = sorted({f"{item.get('FailureReason') or 0x0110:04X}" for item in failed})
    missing = f"{len(failed)} objects not kept: {', '.join(reasons)}" if failed else ""
    return str(report.get("TransactionUID") or ""), missing
