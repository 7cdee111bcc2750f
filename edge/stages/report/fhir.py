"""FHIR R4: one transaction Bundle of study, device, an Observation for each finding, DiagnosticReport and Provenance.

Patient and request are referred to by their identifiers, never made: they are the clinic's. Everything else is made only
where it is not there yet (`ifNoneExist`), so that a resend makes nothing twice and a late preliminary report never takes
the place of a final one.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from typing import Any

from edge import words
from edge.records import Document, Finding, Outcome, Read, ReadKind
from edge.stages.report import terms
from edge.stages.report.content import MANUFACTURER, Content, act, plain, spoken
from edge.stages.report.terms import Term

Resource = dict[str, Any]

URI = "urn:ietf:rfc:3986"
_V2 = "http://terminology.hl7.org/CodeSystem/v2-"
_FLAGS = {
    Outcome.IMMEDIATE.value: ("AA", "Critical abnormal"),
    Outcome.SOON.value: ("A", "Abnormal"),
    terms.UNDETERMINED.code: ("IND", "Indeterminate"),
}


def document(content: Content, read: Read | None = None) -> Document:
    """The Bundle of a result; with a person's decision, the one that makes it final."""
    entries = list(_entries(content, read))
    bundle: Resource = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    identifier = f"urn:uuid:{content.uuid('fhir', *([act(read)] if read else []))}"
    bundle["identifier"] = {"system": URI, "value": identifier}
    data = json.dumps(_without_empty(bundle), ensure_ascii=False, separators=(",", ":")).encode()
    return Document("fhir", "application/fhir+json", identifier, data)


def _entries(content: Content, read: Read | None) -> Iterator[Resource]:
    decided = read is not None and read.kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE)
    confirmed = read is not None and read.kind is ReadKind.CONFIRM
    study, device, report = (_url(content, kind) for kind in ("study", "device", "report"))
    yield _made(study, _study(content), f"identifier=urn:dicom:uid|urn:oid:{content.study_uid}")
    yield _made(device, _device(content), f"identifier=urn:dicom:uid|urn:oid:{content.device_uid}")
    observed = []
    for part, code, rest in _said(content):
        resource = _observation(content, part, "final" if confirmed else "preliminary", code, rest)
        observed.append(_url(content, part))
        again = read is not None and read.kind in (ReadKind.CONFIRM, ReadKind.WITHDRAW)
        yield (_set if again else _made)(observed[-1], resource, _mine(content, part))
    results = list(observed)
    if read is not None and read.kind is not ReadKind.WITHDRAW:
        part = "read\n" + act(read)
        person = _url(content, part)
        results = [person, *observed] if read.kind is not ReadKind.OVERRIDE else [person]
        resource = _person(content, part, read, observed) | {"status": "final" if decided else "preliminary"}
        yield _made(person, resource, _mine(content, part))
    status = "final" if decided else "preliminary"
    # only what a person says may change a report that is there already
    yield (_made if read is None else _set)(report, _report(content, status, results, read), _mine(content, "report"))
    tag = f"urn:uuid:{content.uuid('provenance', act(read) if read else '')}"
    url = _url(content, f"provenance\n{tag}")
    yield _made(url, _provenance(content, tag, [report, *results], read), f"_tag={URI}|{tag}")


def _made(url: str, resource: Resource, query: str) -> Resource:
    """Made unless there is one already."""
    kind = resource["resourceType"]
    return {
        "fullUrl": url,
        "resource": resource,
        "request": {"method": "POST", "url": kind, "ifNoneExist": query},
    }


def _set(url: str, resource: Resource, query: str) -> Resource:
    """Put in the place of the one that is there, or made."""
    return {
        "fullUrl": url,
        "resource": resource,
        "request": {"method": "PUT", "url": f"{resource['resourceType']}?{query}"},
    }


def _url(content: Content, part: str) -> str:
    """What an entry is called within its Bundle; device and study have identifiers of their own, so that all films share them."""
    return f"urn:uuid:{content.uuid('fhir', part)}"


def _identifier(content: Content, part: str) -> str:
    """Another name than in the Bundle, which a server replaces by its own wherever it finds it (FHIR R4 3.1.0.11.2)."""
    return f"urn:uuid:{content.uuid('identifier', part)}"


def _mine(content: Content, part: str) -> str:
    return f"identifier={URI}|{_identifier(content, part)}"


def _identified(content: Content, part: str) -> list[Resource]:
    return [{"system": URI, "value": _identifier(content, part)}]


def concept(term: Term) -> Resource:
    """A term as a CodeableConcept."""
    return {"coding": [_coding(term)], "text": term.meaning}


def _coding(term: Term) -> Resource:
    system = terms.SYSTEMS.get(term.scheme) or f"urn:x-dicom:{term.scheme}"
    return {"system": system, "code": term.code, "display": term.meaning}


def _subject(content: Content) -> Resource:
    """The patient, by the identifier that the clinic gave; in every script that the film has."""
    identifier = {
        "type": {"coding": [{"system": f"{_V2}0203", "code": "MR", "display": "Medical record number"}]},
        "value": content.patient_id,
        "assigner": {"display": content.issuer},
    }
    return {
        "type": "Patient",
        "identifier": identifier if content.patient_id else {},
        "display": spoken(content.patient_names) or "Name not known",
    }


def _orders(content: Content) -> list[Resource]:
    """The request, by the accession number, else by the number of who placed it."""
    for code, display, value in (
        ("ACSN", "Accession ID", content.accession),
        ("PLAC", "Placer Identifier", content.placer_order),
    ):
        if value:
            coding = {"system": f"{_V2}0203", "code": code, "display": display}
            return [{"type": "ServiceRequest", "identifier": {"type": {"coding": [coding]}, "value": value}}]
    return []


def _study(content: Content) -> Resource:
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{content.study_uid}"}],
        "status": "available",
        "subject": _subject(content),
        "started": _day(content),
        "basedOn": _orders(content),
        "series": [
            {
                "uid": content.series_uid,
                "modality": {"system": terms.SYSTEMS["DCM"], "code": content.modality},
                "instance": [
                    {
                        "uid": content.instance_uid,
                        "sopClass": {"system": URI, "code": f"urn:oid:{content.class_uid}"},
                    }
                ],
            }
        ]
        if content.class_uid
        else [],
    }


def _day(content: Content) -> str:
    return "" if content.study_date is None else content.study_date.isoformat()


def _device(content: Content) -> Resource:
    return {
        "resourceType": "Device",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{content.device_uid}"}],
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": content.algorithm, "type": "model-name"}],
        "type": {"text": "Triage software; one model, calibration and operating point"},
        "version": [{"value": content.version}],
    }


def _said(content: Content) -> Iterator[tuple[str, Term, Resource]]:
    """What the AI says: the outcome, and each finding; as part, code and what else is in the Observation."""
    outcome: Resource = {"valueCodeableConcept": concept(terms.OUTCOMES[content.decision.outcome])}
    if content.decision.refusal is not None:
        reason = content.decision.refusal.reason
        why = concept(Term(terms.OUTPOST, reason.value, words.REASONS[reason][0]))
        outcome["component"] = [{"code": concept(terms.REASON), "valueCodeableConcept": why}]
        outcome["note"] = [{"text": words.REASONS[reason][1]}]
    outcome["interpretation"] = _flag(terms.OUTCOMES[content.decision.outcome])
    yield "outcome", terms.TRIAGE, outcome
    for finding in content.decision.findings:
        yield f"finding {finding.finding}", terms.of_finding(finding), _probability(finding)


def _probability(finding: Finding) -> Resource:
    evaluated = terms.evaluated(finding)
    return {
        "valueQuantity": _quantity(finding.probability),
        "interpretation": [flag for _, value in evaluated for flag in _flag(value)],
        "component": [
            {
                "code": concept(terms.INTERVAL),
                "valueRange": {"low": _quantity(finding.low), "high": _quantity(finding.high)},
            },
            *({"code": concept(name), "valueCodeableConcept": concept(value)} for name, value in evaluated),
        ],
        "method": {"text": "Calibrated probability of an AI model"},
    }


def _quantity(probability: float) -> Resource:
    return {"value": terms.percent(probability), "unit": "%", "system": terms.SYSTEMS["UCUM"], "code": "%"}


def _flag(term: Term) -> list[Resource]:
    if term.code not in _FLAGS:
        return []
    code, display = _FLAGS[term.code]
    system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
    return [{"coding": [{"system": system, "code": code, "display": display}]}]


def _observation(content: Content, part: str, status: str, code: Term, rest: Resource) -> Resource:
    category = {
        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
        "code": "imaging",
        "display": "Imaging",
    }
    return {
        "resourceType": "Observation",
        "identifier": _identified(content, part),
        "basedOn": _orders(content),
        "status": status,
        "category": [{"coding": [category]}],
        "code": concept(code),
        "subject": _subject(content),
        "effectiveDateTime": _day(content),
        "issued": content.decided_at.isoformat(timespec="milliseconds"),
        "device": {"reference": _url(content, "device")},
        "derivedFrom": [{"reference": _url(content, "study")}],
        **rest,
    }


def _person(content: Content, part: str, read: Read, observed: list[str]) -> Resource:
    """What a person decided, as an Observation of theirs, derived from those of the AI."""
    value = terms.KINDS[read.kind] if read.outcome is None else terms.OUTCOMES[read.outcome]
    seen = [{"code": concept(terms.IMPRESSION), "valueCodeableConcept": concept(terms.chosen(c))} for c in read.codes]
    why = [{"code": concept(terms.WHY), "valueCodeableConcept": concept(terms.chosen(read.reason))}]
    act_ = [{"code": concept(terms.ASSESSMENT), "valueCodeableConcept": concept(terms.KINDS[read.kind])}]
    made = _observation(
        content,
        part,
        "final",
        terms.TRIAGE,
        {
            "issued": read.at.astimezone(content.decided_at.tzinfo).isoformat(timespec="milliseconds"),
            "performer": [_reader(read)],
            "valueCodeableConcept": concept(value),
            "component": [*act_, *seen, *(why if read.reason else [])],
            "derivedFrom": [{"reference": url} for url in (_url(content, "study"), *observed)],
        },
    )
    del made["device"]
    return made


def _reader(read: Read) -> Resource:
    name = plain(read.reader)
    return {"type": "Practitioner", "identifier": {"value": name}, "display": name}


def _report(content: Content, status: str, results: list[str], read: Read | None) -> Resource:
    outcome = content.decision.outcome
    decided = read is not None and status == "final"
    if decided and read is not None and read.outcome is not None:
        outcome = read.outcome
    sentence = words.OUTCOMES[outcome] if decided else f"{words.OUTCOMES[outcome]}. {words.PRELIMINARY}"
    at = content.decided_at if read is None else read.at.astimezone(content.decided_at.tzinfo)
    return {
        "resourceType": "DiagnosticReport",
        "identifier": _identified(content, "report"),
        "basedOn": _orders(content),
        "status": status,
        "category": [{"coding": [{"system": f"{_V2}0074", "code": "RAD", "display": "Radiology"}]}],
        "code": concept(terms.CHEST_FILM),
        "subject": _subject(content),
        "effectiveDateTime": _day(content),
        "issued": at.isoformat(timespec="milliseconds"),
        "performer": [{"type": "Organization", "display": content.institution}] if content.institution else [],
        "resultsInterpreter": [_reader(read)] if decided and read is not None else [],
        "result": [{"reference": url} for url in results],
        "imagingStudy": [{"reference": _url(content, "study")}],
        "conclusion": sentence,
        "conclusionCode": [concept(terms.OUTCOMES[outcome])],
        "presentedForm": [{"contentType": "text/html", "language": "en", "data": _page(content, sentence, read)}],
    }


def _page(content: Content, sentence: str, read: Read | None) -> str:
    """The report as people read it where nothing else is shown (IHE IMR), in base64."""
    lines = [f"{spoken(content.patient_names)} {content.patient_id}".strip(), sentence]
    if read is not None:
        lines.append(f"{terms.KINDS[read.kind].meaning}: {plain(read.reader)}")
    if read is None or read.kind is not ReadKind.OVERRIDE:
        lines += [f"{finding.label}: {_figures(finding)}" for finding in content.decision.findings]
        if content.decision.refusal is not None:
            lines += words.REASONS[content.decision.refusal.reason]
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
    page = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Outpost</title>{body}</html>'
    return base64.b64encode(page.encode()).decode()


def _figures(finding: Finding) -> str:
    low, high = terms.percent(finding.low), terms.percent(finding.high)
    told = f"{terms.percent(finding.probability)} % ({low} to {high} %)"
    return f"{told}. {words.UNSURE}" if finding.unsure else told


def _provenance(content: Content, tag: str, targets: list[str], read: Read | None) -> Resource:
    role = "assembler" if read is None else "verifier"
    type_ = {"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": role}
    who = {"reference": _url(content, "device")} if read is None else _reader(read)
    at = content.decided_at if read is None else read.at.astimezone(content.decided_at.tzinfo)
    return {
        "resourceType": "Provenance",
        "meta": {"tag": [{"system": URI, "code": tag}]},
        "target": [{"reference": url} for url in targets],
        "recorded": at.isoformat(timespec="milliseconds"),
        "agent": [{"type": {"coding": [type_ | {"display": role.capitalize()}]}, "who": who}],
        "entity": [
            {
                "role": "source",
                "what": {
                    "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{content.instance_uid}"},
                    "display": "The film",
                },
            }
        ],
    }


def _without_empty(value: Any) -> Any:
    """FHIR has no empty strings, lists or objects: what is not known is not there (FHIR R4 2.1.7)."""
    if isinstance(value, dict):
        kept = ((key, _without_empty(inner)) for key, inner in value.items())
        return {key: inner for key, inner in kept if inner not in ("", [], {})}
    if isinstance(value, list):
        return [_without_empty(inner) for inner in value]
    return value
