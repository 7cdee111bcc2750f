"""DICOMweb for an archive next door (PS3.18): search for studies (QIDO-RS) and fetch what there is of them (WADO-RS).

What is here is what `instances.py` makes of a programme's films. A film whose last byte is still at its clinic is NEARLINE: who
asks for it is told to ask again, and its box to send it. What an archive may send, `stow.py` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from flask import Blueprint, Response, abort, request
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from edge.errors import Transient
from edge.records import Document
from edge.sinks.dicomweb import multipart
from web.hub import films, here, instances, openapi, taken, tasks
from web.hub.instances import Instance
from web.hub.openapi import Media
from web.hub.store import now
from web.hub.transaction import Transaction

pages = Blueprint("dicomweb", __name__, url_prefix="/dicom-web")

DICOM, JSON, PLAIN, JPHC = "application/dicom", "application/dicom+json", "application/octet-stream", "image/jphc"
MOST = 100
"""Studies in one answer, where no smaller number is asked for."""
SECONDS = 600
"""After so long a film that was not here may be."""
EXPLICIT = "1.2.840.10008.1.2.1"
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203")
"""HTJ2K lossless, as films are stored; and any HTJ2K, which that is too."""
UNKNOWN = frozenset(
    [
        "AccessionNumber",
        "PatientBirthDate",
        "ReferringPhysicianName",
        "RequestAttributesSequence",
        "StudyID",
        "StudyTime",
    ]
)
"""What may be asked for and is of no study here."""
UID = {"type": "string", "pattern": "^[0-9.]{1,64}$"}
TEXT = {"type": "string"}
FARTHEST = 10**9
COUNT = {"type": "integer", "minimum": 0, "maximum": FARTHEST}
PAGE = {"limit": COUNT, "offset": COUNT}
MODEL = Media(JSON, {"type": "array", "items": {"type": "object"}}, "The DICOM JSON Model (PS3.18 F.2).")
PARTS = Media("multipart/related", {}, "A part for each object (PS3.18 8.6.1.2).")
REFUSED = dict.fromkeys((400, 401, 404, 406), openapi.TEXT)
LATER = {503: Media(openapi.TEXT.media_type, openapi.TEXT.schema, "The clinic was asked for the film; ask again.")}

openapi.PATH.update(study=UID, series=UID, instance=UID, frame={"type": "integer", "const": 1})


@pages.get("/studies")
@openapi.operation(
    "archive",
    {200: MODEL} | REFUSED,
    query=PAGE
    | dict.fromkeys(("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "ModalitiesInStudy"), TEXT),
)
def studies() -> Response:
    """Search for studies (QIDO-RS, PS3.18 10.6)."""
    programme = here.archive()
    json_is_wanted()
    (limit, offset), keys = _page(), _keys()
    conditions, values, warnings = ["1 = 1"], dict[str, object](), []
    for place, (keyword, texts) in enumerate(keys.items()):
        if (found := _condition(keyword, texts, f"v{place}_")) is None:
            warnings.append(f"{keyword} is not looked at")
        else:
            conditions.append(found[0])
            values |= found[1]
    with here.store().reading(programme) as db:
        uids = films.studies(db, " AND ".join(conditions), values, limit + 1, offset)
        by_study = objects(db, uids[:limit])
    if len(uids) > limit:
        warnings.append("there are more: ask with offset")
    return _model([_study(by_study[uid]) for uid in uids[:limit]], warnings)


@pages.get("/studies/<study>/series")
@openapi.operation(
    "archive", {200: MODEL} | REFUSED, query=PAGE | dict.fromkeys(("SeriesInstanceUID", "Modality"), TEXT)
)
def series_of(study: str) -> Response:
    """Search for the series of a study."""
    return _searched(_SERIES, study)


@pages.get("/studies/<study>/instances")
@pages.get("/studies/<study>/series/<series>/instances")
@openapi.operation(
    "archive", {200: MODEL} | REFUSED, query=PAGE | dict.fromkeys(("SOPInstanceUID", "SOPClassUID"), TEXT)
)
def instances_of(study: str, series: str = "") -> Response:
    """Search for the instances of a study, or of a series."""
    return _searched(_INSTANCE, study, series)


@pages.get("/studies/<study>/metadata")
@pages.get("/studies/<study>/series/<series>/metadata")
@pages.get("/studies/<study>/series/<series>/instances/<instance>/metadata")
@openapi.operation("archive", {200: MODEL} | REFUSED)
def metadata(study: str, series: str = "", instance: str = "") -> Response:
    """All of each object but its pixels (WADO-RS, PS3.18 10.4)."""
    programme = here.archive()
    json_is_wanted()
    return _model([_dataset(programme, one) for one in _found(programme, study, series, instance)])


@pages.get("/studies/<study>")
@pages.get("/studies/<study>/series/<series>")
@pages.get("/studies/<study>/series/<series>/instances/<instance>")
@openapi.operation("archive", {200: PARTS, 206: PARTS} | REFUSED | LATER)
def retrieve(study: str, series: str = "", instance: str = "") -> Response:
    """Fetch objects (WADO-RS): as Explicit VR Little Endian, or as stored (HTJ2K lossless) where Accept asks for it.

    206 where the rest of a film is still at its clinic, which was asked for it.
    """
    programme = here.archive()
    _, _, stored = _wanted({DICOM: False})
    found = _found(programme, study, series, instance)
    whole = [one for one in found if one.here]
    _ask_for(programme, found)
    if not whole:
        return _later()
    parts = []
    for one in whole:
        syntax = HTJ2K[0] if stored and one.is_film else EXPLICIT
        data = instances.file(one, kept(programme, one), stored).data
        parts.append(Document("part", f"{DICOM}; transfer-syntax={syntax}", one.uid, data))
    body, content_type = multipart(parts)
    return Response(body, 200 if len(whole) == len(found) else 206, content_type=content_type)


@pages.get("/studies/<study>/series/<series>/instances/<instance>/frames/<frame>")
@openapi.operation("archive", {200: PARTS} | REFUSED | LATER)
def frames(study: str, series: str, instance: str, frame: str) -> Response:
    """The pixels of a film (WADO-RS): plain, or as stored (image/jphc) where Accept asks for it."""
    programme = here.archive()
    parted, kind, stored = _wanted({PLAIN: False, JPHC: True})
    (one,) = _found(programme, study, series, instance)
    if not one.is_film or frame != "1":
        abort(404)
    _ask_for(programme, [one])
    if not one.here:
        return _later()
    data = kept(programme, one)
    data = data if stored else instances.pixels(one.case, data)
    if not parted:
        return Response(data, content_type=kind)
    syntax = HTJ2K[0] if stored else EXPLICIT
    body, content_type = multipart([Document("part", f"{kind}; transfer-syntax={syntax}", one.uid, data)])
    return Response(body, content_type=content_type)


STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID"),
    *("IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID"),
)
_SERIES = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated")


def objects(db: Transaction, uids: Sequence[str]) -> dict[str, list[Instance]]:
    """The objects of each of these studies."""
    by_study, came = films.of_studies(db, uids), taken.of_studies(db, uids)
    reviews = tasks.of_films(db, [case.id for cases in by_study.values() for case in cases])
    return {
        uid: list(instances.of_study(cases, reviews, came[uid])) if cases else [] for uid, cases in by_study.items()
    }


def _found(programme: str, study: str, series: str = "", instance: str = "") -> list[Instance]:
    """The objects that a path names; ends the request where there are none."""
    with here.store().reading(programme) as db:
        found = objects(db, [study])[study]
    named = [one for one in found if series in ("", one.series) and instance in ("", one.uid)]
    if not named:
        abort(404, "There is no such object here.")
    return named


def _searched(keywords: Sequence[str], study: str, series: str = "") -> Response:
    """What a search finds within a study: its series, or its objects."""
    programme = here.archive()
    json_is_wanted()
    (limit, offset), keys = _page(), _keys()
    answers, warnings, of_series = [], set(), dict[str, list[Instance]]()
    found = _found(programme, study, series)
    for one in found:
        of_series.setdefault(one.series, []).append(one)
    for one in (first for first, *_ in of_series.values()) if keywords is _SERIES else found:
        whole, ds = _dataset(programme, one), Dataset()
        for keyword in (*keywords, "StudyInstanceUID", "SeriesInstanceUID"):
            if keyword in whole:
                ds[keyword] = whole[keyword]
        path = f"/studies/{study}/series/{one.series}"
        if keywords is _SERIES:
            ds.NumberOfSeriesRelatedInstances = len(of_series[one.series])
            _reached(ds, of_series[one.series], path)
        else:
            _reached(ds, [one], f"{path}/instances/{one.uid}")
        warnings |= {f"{keyword} is not looked at" for keyword in keys if keyword not in ds}
        if all(str(ds[keyword].value) in texts for keyword, texts in keys.items() if keyword in ds):
            answers.append(ds)
    return _model(answers[offset : offset + limit], sorted(warnings))


def _study(found: list[Instance]) -> Dataset:
    """What a search says of a study (PS3.18 10.6.3.3.1)."""
    first, ds = instances.whose(found[0]), Dataset()
    for keyword in STUDY:
        if keyword in first:
            ds[keyword] = first[keyword]
    ds.ModalitiesInStudy = sorted({one.modality for one in found})
    ds.NumberOfStudyRelatedSeries, ds.NumberOfStudyRelatedInstances = len({one.series for one in found}), len(found)
    _reached(ds, found, f"/studies/{ds.StudyInstanceUID}")
    return ds


def _reached(ds: Dataset, found: Iterable[Instance], path: str) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.InstanceAvailability = "ONLINE" if all(one.here for one in found) else "NEARLINE"
    ds.RetrieveURL = f"{request.url_root.rstrip('/')}/dicom-web{path}"


def _keys() -> dict[str, list[str]]:
    """The attributes that are asked for, by keyword, each with its values; what is empty matches all (PS3.18 8.3.4.1)."""
    found: dict[str, list[str]] = {}
    for name, given in request.args.lists():
        if name in ("limit", "offset", "includefield", "fuzzymatching"):
            continue
        keyword = name if tag_for_keyword(name) is not None else _keyword(name)
        texts = [text for one in given for text in re.split(r"[,\\]", one) if text]
        if texts:
            found[keyword] = texts
    return found


def _keyword(name: str) -> str:
    tag = re.fullmatch("[0-9A-Fa-f]{8}", name)
    if tag is None or not (known := keyword_for_tag(int(name, 16))):
        abort(400, "A search is by attributes, each by its keyword or its eight digits.")
    return known


def _page() -> tuple[int, int]:
    found = []
    for name, otherwise in (("limit", MOST), ("offset", 0)):
        text = request.args.get(name, str(otherwise))
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) > FARTHEST:
            abort(400, f"{name} has to be a number.")
        found.append(int(text))
    return min(found[0], MOST), found[1]


def _condition(keyword: str, texts: list[str], name: str) -> tuple[str, dict[str, object]] | None:
    """What the database is asked for an attribute, and with which values; None for one that cannot be searched for."""
    values: dict[str, object] = {f"{name}{place}": text for place, text in enumerate(texts)}
    if keyword == "StudyInstanceUID":
        return f"film.study IN ({_named(values)})", values
    if keyword in ("PatientID", "PatientName"):
        values = {one: _pattern(str(text)) for one, text in values.items()}
        return "(" + " OR ".join(f"film.patient LIKE :{one} ESCAPE '!'" for one in values) + ")", values
    if keyword == "StudyDate":
        day = re.fullmatch(r"(\d{8})?(-)?(\d{8})?", texts[0], re.ASCII)
        if day is None or len(texts) > 1 or (day[1] and day[3] and not day[2]):
            abort(400, "StudyDate is a day or a range of days: 20260101-20261231.")
        first, last = day[1] or "00000000", day[3] or ("99999999" if day[2] else day[1])
        dashed = [f"{one[:4]}-{one[4:6]}-{one[6:]}" for one in (first, last)]
        return f"film.day BETWEEN :{name}a AND :{name}b", {f"{name}a": dashed[0], f"{name}b": dashed[1]}
    if keyword == "ModalitiesInStudy":
        if "SR" in texts:
            return "1 = 1", {}
        came = (
            f"film.study IN (SELECT study FROM taken WHERE programme = :programme AND modality IN ({_named(values)}))"
        )
        return (f"(image.picture IS NOT NULL OR {came})" if "CR" in texts else came), values
    return ("1 = 0", {}) if keyword in UNKNOWN else None


def _named(values: Iterable[str]) -> str:
    return ", ".join(f":{one}" for one in values)


def _pattern(text: str) -> str:
    """A wildcard match (PS3.4 C.2.2.2.4) as SQL has it."""
    escaped = re.sub("([!%_])", r"!\1", text.rstrip("^"))
    return escaped.replace("*", "%").replace("?", "_")


def _accepted() -> list[tuple[bool, str, str]]:
    """What the request accepts, the most wanted first: whether in parts, the media type, and the transfer syntax or nothing."""
    found = []
    for one in (request.headers.get("Accept") or "*/*").split(","):
        kind, *given = (part.strip() for part in one.split(";"))
        named = {name.lower().strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in given)}
        weight = float(named["q"]) if re.fullmatch(r"[01](\.\d*)?", named.get("q", "")) else 1.0
        parted = kind.lower() in ("multipart/related", "multipart/*", "*/*")
        found.append((weight, parted, named.get("type", "*/*") if parted else kind, named.get("transfer-syntax", "")))
    return [one[1:] for one in sorted(found, key=lambda one: -one[0]) if one[0] > 0]


def _wanted(offered: dict[str, bool]) -> tuple[bool, str, bool]:
    """In parts or not, which of the media types, and whether as stored; ends the request where none of them is accepted.

    Of each that is `offered`, whether it is always as stored; what is not may be so where a transfer syntax asks for it.
    """
    for parted, kind, syntax in _accepted():
        for media_type, always in offered.items():
            stored = always or (media_type == DICOM and syntax in ("*", *HTJ2K))
            fits = syntax in ("", "*") or syntax in (HTJ2K if stored else (EXPLICIT,))
            if kind in (media_type, "*/*") and fits and (parted or media_type != DICOM):
                return parted, media_type, stored
    return abort(406, f"There is {' and '.join(offered)}, in {EXPLICIT} and in {HTJ2K[0]}.")


def json_is_wanted() -> None:
    """Ends a request that accepts no JSON."""
    if not {kind for _, kind, _ in _accepted()} & {JSON, "application/json", "application/*", "*/*"}:
        abort(406, f"There is {JSON}.")


def _model(found: Iterable[Dataset], warnings: Sequence[str] = ()) -> Response:
    answer = Response(json.dumps([ds.to_json_dict() for ds in found], ensure_ascii=False), content_type=JSON)
    if warnings:
        answer.headers["Warning"] = f'299 {request.host} "{"; ".join(warnings)}"'
    return answer


def _ask_for(programme: str, found: Iterable[Instance]) -> None:
    """Have the clinics send what is not here."""
    away = [one.case for one in found if not one.here]
    if away:
        with here.store().transaction(programme) as db:
            for case in away:
                assert case.picture is not None
                tasks.want(db, case, case.picture.size, now())


def kept(programme: str, one: Instance) -> bytes:
    """The bytes that are kept of an object: a film's codestream, the file that an archive sent; of what is made anew none."""
    stored = one.taken or (one.case.picture if one.is_film else None)
    data = b"" if stored is None else here.blobs().read(f"{programme}/{stored.sha256}", 0, stored.size)
    if one.taken is not None and len(data) < one.taken.size:
        raise Transient("What an archive had sent of this film is not all here. Run: outpost hub check")
    return data


def _dataset(programme: str, one: Instance) -> Dataset:
    return instances.dataset(one, kept(programme, one) if one.taken is not None else b"")


def _later() -> Response:
    sentence = "The film is still at its clinic, which is asked for it now. Ask again later.\n"
    return Response(sentence, 503, {"Retry-After": str(SECONDS)}, content_type="text/plain; charset=utf-8")
