"""FHIR R4: a result is one transaction Bundle, which a server takes whole or not at all (FHIR R4 3.1.0.11)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edge.config import FhirSink
from edge.records import Delivery, Document, Receipt, Trouble
from edge.sinks import http

JSON = "application/fhir+json"


class Fhir:
    """A FHIR server."""

    def __init__(self, settings: FhirSink) -> None:
        self.client = http.Client(settings)

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Post each Bundle; it is taken when every entry is."""
        taken: list[str] = []
        for document in documents:
            answer = self.client.ask("POST", "", JSON, document.data, JSON)
            receipt = _understood(answer) if isinstance(answer, http.Answer) else answer
            if receipt.trouble is not None:
                return Receipt(receipt.trouble, receipt.detail, tuple(taken))
            taken.append(document.uid)
        return Receipt(taken=tuple(taken))

    def probe(self) -> Receipt:
        """Ask what the server is and whether it takes transactions (FHIR R4 3.1.0.9)."""
        answer = self.client.ask("GET", "/metadata", JSON)
        if isinstance(answer, Receipt):
            return answer
        said = answer.json()
        if answer.status != 200 or not isinstance(said, dict) or said.get("resourceType") != "CapabilityStatement":
            no_server = Receipt(Trouble.NOT_CONFIGURED, f"HTTP {answer.status} and no CapabilityStatement at /metadata")
            return http.refused(answer.status) or no_server
        version = str(said.get("fhirVersion", ""))
        if not version.startswith("4."):
            return Receipt(Trouble.NOT_CONFIGURED, "it does not speak FHIR R4")
        offered = {one.get("code") for rest in said.get("rest", []) for one in rest.get("interaction", [])}
        if offered and not offered & {"transaction", "batch"}:
            return Receipt(Trouble.UNSUPPORTED, "it takes no transactions")
        return Receipt(detail="takes FHIR R4 transactions")


def _understood(answer: http.Answer) -> Receipt:
    said = answer.json()
    if 200 <= answer.status < 300:
        if not isinstance(said, dict) or said.get("type") != "transaction-response":
            return Receipt(Trouble.NOT_CONFIGURED, f"HTTP {answer.status}, but no transaction took place")
        statuses = [str(one.get("response", {}).get("status", ""))[:3] for one in said.get("entry", [])]
        bad = sorted({status for status in statuses if not re.fullmatch(r"2\d\d", status)})
        return Receipt(Trouble.REJECTED, f"entries answered {', '.join(bad) or 'nothing'}") if bad else Receipt()
    if (receipt := http.refused(answer.status)) is not None:
        return receipt
    trouble = Trouble.UNSUPPORTED if answer.status in (406, 415) else Trouble.REJECTED
    return Receipt(trouble, " ".join([f"HTTP {answer.status}", *_issues(said)]))


def _issues(said: Any) -> list[str]:
    """The codes of an OperationOutcome; its texts may name a patient."""
    issues = said.get("issue", []) if isinstance(said, dict) else []
    codes = {str(one.get("code", "")) for one in issues if isinstance(one, dict)}
    return sorted(code for code in codes if re.fullmatch(r"[a-z-]{1,32}", code))
