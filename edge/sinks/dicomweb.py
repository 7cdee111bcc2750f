"""DICOMweb: all objects of a result in one STOW-RS request, each with an answer of its own (PS3.18 10.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from edge.config import DicomwebSink
from edge.records import Delivery, Document, Receipt, Trouble
from edge.sinks import answers, http
from edge.sinks.answers import Answer

JSON = "application/dicom+json"
NOBODY = "2.25.329800735698586629295641978511506172918"
"""A study that nobody has: asked for, it tells nothing of anybody."""

_INSTANCE, _REFERENCED, _FAILED, _REASON, _WARNING = "00081155", "00081199", "00081198", "00081197", "00081196"


class Dicomweb:
    """A PACS, over HTTP."""

    def __init__(self, settings: DicomwebSink) -> None:
        self.client = http.Client(settings)

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Post them all; what the peer says of each decides."""
        if not documents:
            return Receipt()
        body, content_type = multipart(documents)
        answer = self.client.ask("POST", "/studies", JSON, body, content_type)
        if isinstance(answer, Receipt):
            return answer
        if answer.status in (200, 202, 409):
            return understood(answer, documents)
        trouble = Trouble.UNSUPPORTED if answer.status in (406, 415) else Trouble.REJECTED
        return http.refused(answer.status) or Receipt(trouble, f"HTTP {answer.status}")

    def probe(self) -> Receipt:
        """Ask for a study that nobody has (QIDO-RS, PS3.18 10.6)."""
        answer = self.client.ask("GET", f"/studies?StudyInstanceUID={NOBODY}", JSON)
        if isinstance(answer, Receipt):
            return answer
        if answer.status in (200, 204, 405, 501):  # one that only stores need not search
            return Receipt(detail="answers")
        no_server = Receipt(Trouble.NOT_CONFIGURED, f"HTTP {answer.status}")
        return http.refused(answer.status) or no_server


def multipart(documents: Sequence[Document]) -> tuple[bytes, str]:
    """A body with one or more of a kind, and its media type (RFC 2387); the boundary follows from the bytes, as a resend's does."""
    digest = hashlib.sha256(b"".join(document.data for document in documents)).hexdigest()
    parts = [
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (digest.encode(), one.media_type.encode(), one.data)
        for one in documents
    ]
    body = b"".join(parts) + b"--%s--\r\n" % digest.encode()
    kind = documents[0].media_type.partition(";")[0]
    return body, f'multipart/related; type="{kind}"; boundary={digest}'


def understood(answer: http.Answer, documents: Sequence[Document]) -> Receipt:
    """What a Store Instances response says of each document (PS3.18 10.5.3, I.2)."""
    said = answer.json()
    if isinstance(said, list) and len(said) == 1:
        said = said[0]  # some wrap it in an array, as a search would
    if not isinstance(said, dict):
        whole = {200: None, 202: Trouble.WARNED}.get(answer.status, Trouble.REJECTED)
        return answers.receipt([Answer(one, whole, f"HTTP {answer.status}" if whole else "") for one in documents])
    failed = dict(_listed(said, _FAILED, _REASON))
    stored = dict(_listed(said, _REFERENCED, _WARNING))
    found = []
    for document in documents:
        if document.uid in failed:
            found.append(_answer(document, failed[document.uid] or 0x0110))
        elif document.uid in stored or answer.status == 200:
            found.append(_answer(document, stored.get(document.uid) or 0))
        else:
            found.append(Answer(document, Trouble.REJECTED, f"HTTP {answer.status} does not name it"))
    return answers.receipt(found)


def _answer(document: Document, status: int) -> Answer:
    trouble = answers.of_status(status)
    return Answer(document, trouble, f"{status:04X}" if trouble is not None else "")


def _listed(said: dict[str, Any], sequence: str, reason: str) -> Iterator[tuple[str, int]]:
    """UID and code of each item of a sequence in the DICOM JSON Model (PS3.18 F.2)."""
    for item in _values(said, sequence):
        if isinstance(item, dict):
            uid, code = next(iter(_values(item, _INSTANCE)), ""), next(iter(_values(item, reason)), 0)
            yield str(uid), code if isinstance(code, int) else 0x0110


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []
