"""FHIR R4 for a system next door, to read only: studies, what the AI and the readers say of films, and the boxes' software.

What a film says is as `edge/stages/report/fhir.py` has it, with addresses for references. Patient, reader and software are referred
to by identifier. Clinical dates are moved as the patient's are; `meta.lastUpdated` is by the hub's clock, so that a system can ask
for what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request
from werkzeug.exceptions import HTTPException

from edge.records import Outcome, Read, ReadKind
from edge.stages.report import fhir, terms
from web.hub import films, here, instances, openapi, sites, taken, tasks
from web.hub.openapi import Media
from web.hub.records import Case, Review
from web.hub.transaction import Transaction

pages = Blueprint("fhir", __name__, url_prefix="/fhir")

Resource = dict[str, Any]

JSON = "application/fhir+json"
KINDS = ("ImagingStudy", "DiagnosticReport", "Observation", "Device")
MOST = 100
"""Resources in one page."""
AT_ONCE = 200
"""Films that are looked through for a page."""
UIDS = "urn:dicom:uid"
MADE = "2026-11-26"
"""When what the CapabilityStatement says last changed."""

BODY = Media(JSON, {"type": "object", "required": ["resourceType"]})
REFUSED = dict.fromkeys((400, 401, 404, 406), BODY)
QUERY: dict[str, dict[str, Any]] = {
    "_lastUpdated": {"type": "string"},
    "identifier": {"type": "string"},
    "status": {"type": "string"},
    "_count": {"type": "integer", "minimum": 1, "maximum": 10**6},
    "page": {"type": "string"},
}
openapi.PATH.update(kind={"enum": list(KINDS)}, name={"type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$"})


@pages.get("/metadata")
@openapi.operation("anybody", {200: BODY, 406: BODY})
def metadata() -> Response:
    """What can be asked: the CapabilityStatement."""
    asked = [{"name": name, "type": kind} for name, kind in SEARCHED.items()]
    return _said(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": MADE,
            "kind": "instance",
            "software": {"name": instances.HUB, "version": version("outpost-cxr")},
            "implementation": {"description": "Films and reads of one programme, to read only"},
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [
                {
                    "mode": "server",
                    "security": {"description": "A token of an archive (Authorization: Bearer)"},
                    "resource": [
                        {
                            "type": kind,
                            "interaction": [{"code": "read"}, {"code": "search-type"}],
                            "searchParam": [one for one in asked if kind != "Device" or one["name"] == "identifier"],
                        }
                        for kind in KINDS
                    ],
                }
            ],
        }
    )


SEARCHED = {"_lastUpdated": "date", "identifier": "token", "status": "token"}


@pages.get("/<kind>/<name>")
@openapi.operation("archive", {200: BODY} | REFUSED)
def read(kind: str, name: str) -> Response:
    """One resource."""
    programme = here.archive()
    with here.store().reading(programme) as db:
        if kind == "ImagingStudy":
            candidates = [_study(cases, db) for cases in films.of_studies(db, [name]).values() if cases]
        elif kind == "Device":
            candidates = _devices(db)
        else:
            number = name.partition("-")[0]
            case = films.case(db, int(number)) if re.fullmatch("[0-9]{1,18}", number) else None
            candidates = [] if case is None else _of(case, tasks.reviews(db, case.id))
    for one in candidates:
        if (one["resourceType"], one["id"]) == (kind, name):
            return _said(one)
    return abort(404, "There is no such resource here.")


@pages.get("/<kind>")
@openapi.operation("archive", {200: BODY} | REFUSED, query=QUERY)
def search(kind: str) -> Response:
    """Search; the oldest change first, with a link to the next page."""
    programme = here.archive()
    if kind not in KINDS:
        abort(404, "There is no such kind of resource here.")
    text = request.args.get("_count", str(MOST))
    if not re.fullmatch("[0-9]{1,7}", text) or not int(text):
        abort(400, "_count has to be a number from 1 on.")
    most = min(int(text), MOST)
    with here.store().reading(programme) as db:
        if kind == "Device":
            wanted = _identifier("")
            found = [one for one in _devices(db) if wanted in ("", one["id"])]
            return _bundle(kind, found[:most], "")
        found, following = _page(db, kind, most)
    return _bundle(kind, found, following)


@pages.errorhandler(HTTPException)
def _wrong(error: HTTPException) -> Response:
    """Why there is no answer, as an OperationOutcome."""
    code = {400: "invalid", 401: "login", 404: "not-found", 406: "not-supported"}.get(error.code or 500, "exception")
    issue = {"severity": "error", "code": code, "diagnostics": error.description}
    headers = [(name, text) for name, text in error.get_headers() if name != "Content-Type"]
    said = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    return Response(said, error.code, headers, content_type=JSON)


@pages.before_request
def _json_is_wanted() -> None:
    kinds = {one.partition(";")[0].strip() for one in request.headers.get("Accept", "*/*").split(",")}
    if not kinds & {"", JSON, "application/json", "application/*", "*/*"}:
        abort(406, f"There is {JSON}.")


def _page(db: Transaction, kind: str, most: int) -> tuple[list[Resource], str]:
    """A page of what is searched for, and what the next is asked by; nothing where there is none."""
    where, values = _conditions(kind)
    status, token = request.args.get("status", ""), request.args.get("page", "0:0:0")
    parts = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?):(\d{1,18}):(\d{1,4})", token, re.ASCII)
    if parts is None:
        abort(400, "The page is none that a page before has named.")
    at, number, place = float(parts[1]), int(parts[2]), int(parts[3])
    cases = films.changed(db, (at, number), where, values, AT_ONCE + 1)
    reviews = tasks.of_films(db, [case.id for case in cases])
    found: list[Resource] = []
    for film, case in enumerate(cases):
        made = _latest(db, case) if kind == "ImagingStudy" else _of(case, reviews[case.id])
        for index, one in enumerate(made):
            if one["resourceType"] != kind or (status and one["status"] not in status.split(",")):
                continue
            if (case.id, case.changed_at) == (number, at) and index < place:
                continue
            if len(found) == most or film == AT_ONCE:
                return found, f"{case.changed_at!r}:{case.id}:{index}"
            found.append(one)
    return found, f"{cases[-1].changed_at!r}:{cases[-1].id}:0" if len(cases) > AT_ONCE else ""


def _conditions(kind: str) -> tuple[str, dict[str, object]]:
    """What the database is asked, and with which values."""
    conditions, values = ["1 = 1"], dict[str, object]()
    if wanted := _identifier("#"):
        if kind == "ImagingStudy":
            conditions.append("film.study = :uid")
        else:
            known = "SELECT site FROM site WHERE programme = :programme"  # with which the key of a film begins
            conditions.append(f"film.site IN ({known}) AND film.case_uid = :uid")
        values["uid"] = wanted
    for place, text in enumerate(request.args.getlist("_lastUpdated")):
        prefix, first, last = _moment(text)
        values |= {f"first{place}": first, f"last{place}": last}
        conditions.append(
            {
                "": f"{films.WHEN} >= :first{place} AND {films.WHEN} < :last{place}",
                "eq": f"{films.WHEN} >= :first{place} AND {films.WHEN} < :last{place}",
                "ge": f"{films.WHEN} >= :first{place}",
                "gt": f"{films.WHEN} >= :last{place}",
                "lt": f"{films.WHEN} < :first{place}",
                "le": f"{films.WHEN} < :last{place}",
            }[prefix]
        )
    return " AND ".join(conditions), values


def _identifier(end: str) -> str:
    """The UID that is asked for, without its system and what comes behind."""
    given = request.args.get("identifier", "").rpartition("|")[2].removeprefix("urn:oid:")
    return given.partition(end)[0] if end else given


def _moment(text: str) -> tuple[str, float, float]:
    """Prefix of a date, and the seconds that it begins and ends with (FHIR R4 3.1.1.4.7)."""
    prefix, value = (text[:2], text[2:]) if text[:2].isalpha() else ("", text)
    for form, length in (("%Y-%m-%d", timedelta(days=1)), ("", timedelta(seconds=1))):
        try:
            # "+" comes as a blank where it was not escaped
            whole = value.replace("Z", "+00:00").replace(" ", "+")
            at = datetime.strptime(value, form) if form else datetime.fromisoformat(whole)
            if prefix not in ("", "eq", "ge", "gt", "lt", "le"):
                break
            first = at.replace(tzinfo=at.tzinfo or UTC).timestamp()
            return prefix, first, first + (length.total_seconds() if not at.microsecond else 0.001)
        except (ValueError, OverflowError):
            continue
    return abort(400, "_lastUpdated is a day or a moment, such as ge2026-01-31T12:00:00Z.")


def _latest(db: Transaction, case: Case) -> list[Resource]:
    """The study of a film, where no other film of it has changed since."""
    uid = instances.study(case)
    cases = films.of_studies(db, [uid])[uid]
    return [_study(cases, db)] if max(cases, key=lambda one: (one.changed_at, one.id)).id == case.id else []


def _study(cases: list[Case], db: Transaction) -> Resource:
    """All films of a study, and every report that an archive may fetch by DICOMweb."""
    reviews = tasks.of_films(db, [case.id for case in cases])
    uid = instances.study(cases[0])
    objects = list(instances.of_study(cases, reviews, taken.of_studies(db, [uid])[uid]))
    of_series: dict[str, list[instances.Instance]] = {}
    for one in objects:
        of_series.setdefault(one.series, []).append(one)
    (made,) = [one for one in _bundled(cases[0], None) if one["resourceType"] == "ImagingStudy"]
    made["series"] = [
        {
            "uid": series,
            "modality": {"system": terms.SYSTEMS["DCM"], "code": found[0].modality},
            "numberOfInstances": len(found),
            "instance": [
                {"uid": one.uid, "sopClass": {"system": fhir.URI, "code": f"urn:oid:{one.class_uid}"}} for one in found
            ],
        }
        for series, found in of_series.items()
    ]
    made["numberOfSeries"], made["numberOfInstances"] = len(of_series), len(objects)
    return _at(made, uid, max(case.changed_at for case in cases))


def _of(case: Case, reviews: list[Review]) -> list[Resource]:
    """What is said of a film: its report, an Observation for each thing that the AI says, and one for each read."""
    latest = reviews[-1] if reviews else None
    names: dict[str, str] = {}
    made: list[Resource] = []
    for review in [*reviews[:-1], latest]:
        for one in _bundled(case, review):
            kind, part = one["resourceType"], ""
            if kind == "Observation":
                part = "read" if "performer" in one else _part(one)
                part += str(review.id) if part == "read" and review else ""
                if review is not latest and not part.startswith("read"):
                    continue
            elif kind != "DiagnosticReport" or review is not latest:
                continue
            name = f"{case.id}-{part}" if part else str(case.id)
            names[one.pop("fullUrl")] = f"{kind}/{name}"
            behind = f"#{part}" if part else ""
            one["identifier"] = [{"system": fhir.URI, "value": f"urn:oid:{case.result.case}{behind}"}]
            if part.startswith("read") and review is not None:
                one["component"] += [
                    {"code": fhir.concept(terms.ADVISED), "valueCodeableConcept": fhir.concept(terms.chosen(key))}
                    for key in review.finding.advice
                ]
            if review is not None and not review.final and one["status"] == "final":
                one["status"] = "preliminary"
            made.append(_at(one, name, case.changed_at))
    return [_linked(one, names, case) for one in made]


def _part(observation: Resource) -> str:
    (coding,) = observation["code"]["coding"]
    return "outcome" if coding["code"] == terms.TRIAGE.code else re.sub("[^A-Za-z0-9]", "", f"finding{coding['code']}")


def _bundled(case: Case, review: Review | None) -> Iterator[Resource]:
    """The resources of a film's Bundle, each with what it is called there."""
    decided = None
    if review is not None:
        found = review.finding
        same = found.outcome is case.result.outcome
        reason = "not_assessed" if case.result.outcome is Outcome.COULD_NOT_ASSESS else ""
        decided = Read(
            id=review.id,
            arrival_id=case.id,
            run=case.result.run,
            kind=ReadKind.CONFIRM if same else ReadKind.OVERRIDE,
            reader=review.shown_as,
            at=instances.moved(case, review.at),
            outcome=found.outcome,
            codes=found.codes,
            reason="" if same else reason,
            seal="",
        )
    for entry in json.loads(fhir.document(instances.content(case), decided).data)["entry"]:
        yield entry["resource"] | {"fullUrl": entry["fullUrl"]}


def _linked(resource: Resource, names: dict[str, str], case: Case) -> Resource:
    """References to what is here by address, to the software by its identifier, to nothing else."""
    device = {
        "type": "Device",
        "identifier": {"system": UIDS, "value": f"urn:oid:{instances.content(case).device_uid}"},
    }
    if "device" in resource:
        resource["device"] = device | {"display": case.result.model or "Outpost"}
    study = {"reference": f"ImagingStudy/{instances.study(case)}"}
    for key in ("result", "derivedFrom"):
        if key in resource:
            links = [{"reference": names[one["reference"]]} for one in resource[key] if one["reference"] in names]
            resource[key] = [study, *links] if key == "derivedFrom" else links
    if "imagingStudy" in resource:
        resource["imagingStudy"] = [study]
    return resource


def _devices(db: Transaction) -> list[Resource]:
    """The software of the boxes, as they last said it is."""
    found = {}
    for one in sites.contacts(db):
        status = one.status
        if status is None or not re.fullmatch("[A-Za-z0-9.-]{1,64}", status.device_uid):
            continue
        algorithm, _, number = status.model.rpartition(" ")
        found[status.device_uid] = _at(
            {
                "resourceType": "Device",
                "identifier": [{"system": UIDS, "value": f"urn:oid:{status.device_uid}"}],
                "status": "active",
                "manufacturer": "Outpost",
                "deviceName": [{"name": algorithm or status.model or "Outpost", "type": "model-name"}],
                "version": [{"value": number or "0"}],
            },
            status.device_uid,
            one.status_at or 0.0,
        )
    return [found[name] for name in sorted(found)]


def _at(resource: Resource, name: str, changed_at: float) -> Resource:
    resource.pop("fullUrl", None)
    at = datetime.fromtimestamp(changed_at, UTC).isoformat(timespec="milliseconds")
    return {"resourceType": resource.pop("resourceType"), "id": name, "meta": {"lastUpdated": at}, **resource}


def _bundle(kind: str, found: list[Resource], following: str) -> Response:
    root = f"{request.url_root.rstrip('/')}/fhir"
    used = [(name, text) for name in (*SEARCHED, "_count") for text in request.args.getlist(name)]
    links = [("self", used + [("page", text) for text in request.args.getlist("page")])]
    links += [("next", [*used, ("page", following)])] if following else []
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": relation, "url": f"{root}/{kind}?{urlencode(query)}"} for relation, query in links],
    }
    if found:
        bundle["entry"] = [
            {"fullUrl": f"{root}/{kind}/{one['id']}", "resource": one, "search": {"mode": "match"}} for one in found
        ]
    return _said(bundle)


def _said(resource: Resource) -> Response:
    return Response(json.dumps(resource, ensure_ascii=False), content_type=JSON)
