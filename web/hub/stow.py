"""STOW-RS for an archive next door (PS3.18 10.5): what was made there of a film that is here comes back, and is kept beside it.

Taken in are SR documents, key object selections and grayscale presentation states of a study that the programme has. They may name
a patient, so each is made anew by the door that boxes have (`edge/stages/deidentify`), with this hub's own key: no free text comes
in, other UIDs stand in the place of those that are not this hub's, and dates are moved as the patient's are. Whatever else there
is, films, segmentations, documents as PDF, is refused: its pixels and pages may say whose it is, and nobody here reads them all.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache

import flask
import msgspec
from flask import Blueprint, Response, abort, request
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ChestCADSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ExtensibleSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
)
from werkzeug.http import parse_options_header

from edge import outside
from edge.errors import Transient, Unreadable
from edge.records import Withheld
from edge.stages.deidentify import Door, Patient, returned
from edge.stages.report import dicom, terms
from web.hub import dicomweb, films, here, instances, openapi, taken, zoo
from web.hub.here import Hub
from web.hub.instances import Instance
from web.hub.openapi import Media
from web.hub.records import Taken
from web.hub.store import now
from web.hub.transaction import Transaction

logging.getLogger("pydicom").setLevel(logging.ERROR)  # it quotes values that it cannot read

pages = Blueprint("stow", __name__, url_prefix="/dicom-web")

BODY_BYTES = 32 << 20
"""No request is longer."""
OBJECT_BYTES = 2 << 20
"""No object that is taken in is larger."""
NUMBERS = re.compile("[0-9.]{1,64}")
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, *dicomweb.HTJ2K)
"""In which an object may come; the last two are those of this hub's own films, which come back. None that is inflated first."""
CLASSES = {
    **dict.fromkeys(
        (
            BasicTextSRStorage,
            EnhancedSRStorage,
            ComprehensiveSRStorage,
            Comprehensive3DSRStorage,
            ExtensibleSRStorage,
            ChestCADSRStorage,
        ),
        "SR",
    ),
    KeyObjectSelectionDocumentStorage: "KO",
    GrayscaleSoftcopyPresentationStateStorage: "PR",
}
"""What is taken in, and its modality."""
SERIES = "From an archive next door, de-identified"

COERCED = 0xB000
"""Of what is stored: it was changed, here because nothing that names a patient is kept (PS3.18 I.2.1)."""
UNREADABLE, CLASS, SYNTAX, LARGE, THERE = 0xC000, 0x0122, 0xC122, 0xA700, 0x0111
NO_STUDY, OTHER_STUDY, NOTHING = 0xC001, 0xC002, 0xC003
REASONS = {
    UNREADABLE: "A part is no DICOM object with UIDs, or its content cannot be understood",
    CLASS: "Only SR documents, key object selections and grayscale presentation states are taken in",
    SYNTAX: "An object comes as Explicit or Implicit VR Little Endian",
    LARGE: f"An object has at most {OBJECT_BYTES >> 20} MiB",
    THERE: "Another object with that SOP Instance UID is here already",
    NO_STUDY: "There is no film of that study here",
    OTHER_STUDY: "The object is of another study than the address",
    NOTHING: "Nothing of the object could be kept: it has no coded content, and free text may name a patient",
}
"""Failure Reason of what is not stored (PS3.18 I.2.2; the last three are this hub's own), in words for the Warning header."""

ANSWER = Media("application/dicom+json", {"type": "object"}, "The Store Instances Response Module (PS3.18 I.1).")


@pages.post("/studies")
@pages.post("/studies/<study>")
@openapi.operation(
    "archive",
    {200: ANSWER, 202: ANSWER, 409: ANSWER} | dict.fromkeys((400, 401, 406, 413, 415, 507), openapi.TEXT),
    takes=Media(
        "multipart/related",
        {},
        'type="application/dicom"; SR documents, key object selections and grayscale presentation states of studies that are here.',
    ),
)
def store(study: str = "") -> flask.typing.ResponseReturnValue:
    """Keep what was made of films elsewhere, without a name (STOW-RS); the same again changes nothing.

    What is kept has other UIDs, see its RetrieveURL, and Warning Reason B000. Failure Reasons of this hub's own: C001 no film of
    that study is here, C002 another study than the address, C003 nothing coded in it; 0111 is another object of the same UID.
    """
    archive, programme = here.neighbour()
    dicomweb.json_is_wanted()
    hub, files = here.hub(), _files()
    with hub.store.reading(programme) as db, warnings.catch_warnings(action="ignore"):
        desk = _Desk(hub, programme, archive, db)
        judged = [desk.judge(file, study) for file in files]
    for one in judged:
        if one.keep is not None:
            _write(hub, f"{programme}/{one.keep.sha256}", one.data)
    with hub.store.transaction(programme) as db:
        judged = [
            one if one.keep is None or taken.keep(db, one.keep) else replace(one, reason=THERE, keep=None)
            for one in judged
        ]
    return _answer(judged)


@dataclass(frozen=True)
class _Judged:
    """What becomes of an object."""

    reason: int = 0
    """Why it is not stored."""
    class_uid: str = ""
    uid: str = ""
    """As it came; empty where it did not say."""
    found: str = ""
    """Where it is to be found, below `/dicom-web`."""
    coerced: bool = False
    keep: Taken | None = None
    data: bytes = field(default=b"", repr=False)


class _Desk:
    """Judges objects, all by the same view of the database."""

    def __init__(self, hub: Hub, programme: str, archive: str, db: Transaction) -> None:
        self._hub, self._programme, self._archive, self._db = hub, programme, archive, db
        self._studies: dict[str, tuple[list[Instance], Door, Patient]] = {}
        self._at = now()

    def judge(self, file: bytes, study: str) -> _Judged:
        """What becomes of an object that was sent to that study, or to any."""
        try:
            ds = _read(file)
        except Exception:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
            return _Judged(UNREADABLE)
        if ds is None:
            return _Judged(SYNTAX)
        uids = [
            str(ds.get(one, "")) for one in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        ]
        if not all(map(NUMBERS.fullmatch, uids)):
            return _Judged(UNREADABLE)
        class_uid, uid, of, _ = uids
        said = _Judged(0, class_uid, uid)
        if study not in ("", of):
            return replace(said, reason=OTHER_STUDY)
        there, door, patient = self._study(of)
        if not there:
            return replace(said, reason=NO_STUDY)
        own = next((one for one in there if one.uid == uid), None)
        if own is not None:  # it was fetched here
            same = own.here and self._same(own, ds)
            return replace(said, reason=0 if same else THERE, found=_path(of, own.series, own.uid))
        if class_uid not in CLASSES:
            return replace(said, reason=CLASS)
        if len(file) > OBJECT_BYTES:
            return replace(said, reason=LARGE)
        try:
            made = _made(ds, there[0], patient, door)
        except Exception:  # noqa: BLE001  as above: what is damaged within is read only now
            return replace(said, reason=UNREADABLE)
        if isinstance(made, int):
            return replace(said, reason=made)
        named = str(made.SOPInstanceUID)
        one = Taken(
            uid=named,
            study=of,
            series=str(made.SeriesInstanceUID),
            class_uid=class_uid,
            modality=CLASSES[UID(class_uid)],
            sha256="",
            size=0,
            came=door.digest("came", hashlib.sha256(file).hexdigest()).hex(),
            archive=self._archive,
            received_at=self._at,
        )
        data = dicom.document("taken", made).data
        before = next((other.taken for other in there if other.uid == named), None)
        kept = msgspec.structs.replace(one, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        if before is not None and before.came == one.came and before.sha256 != kept.sha256:
            return replace(
                said, found=_path(of, before.series, named), coerced=True
            )  # an earlier version made it otherwise
        return replace(said, found=_path(of, one.series, named), coerced=True, keep=kept, data=data)

    def _study(self, study: str) -> tuple[list[Instance], Door, Patient]:
        """The objects of a study, the door for what comes about it, and whose it is; without objects where it is not here."""
        if study not in self._studies:
            there = dicomweb.objects(self._db, [study])[study]
            known, patient = {terms.OUTPOST_UID}, Patient("", timedelta(0), "", "")
            if there:
                case = there[0].case
                others = films.of_patient(self._db, case.site, case.result.patient)
                beside = dicomweb.objects(self._db, sorted({instances.study(other) for other in others} - {study}))
                for one in (*there, *(one for found in beside.values() for one in found)):
                    known |= {instances.study(one.case), one.series, one.uid, one.said.device_uid}
                patient = Patient(case.result.patient, instances.shift(case), case.result.sex, case.result.age)
            self._studies[study] = there, _door(self._hub, self._programme, frozenset(known)), patient
        return self._studies[study]

    def _same(self, own: Instance, ds: Dataset) -> bool:
        """Whether an object of this hub has come back as it is."""
        stored = ds.file_meta.TransferSyntaxUID in dicomweb.HTJ2K
        try:
            made = instances.file(own, dicomweb.kept(self._programme, own), stored)
        except Unreadable:
            return False
        return bool(dcmread(io.BytesIO(made.data)) == ds)


def _read(file: bytes) -> Dataset | None:
    """An object; None in a transfer syntax that is not taken."""
    opened = io.BytesIO(file)
    opened.seek(132)  # the file meta information comes after preamble and prefix (PS3.10 7.1)
    meta = read_dataset(opened, False, True, stop_when=lambda tag, _vr, _length: tag.group != 0x0002)
    if meta.TransferSyntaxUID not in SYNTAXES:
        return None
    return dcmread(io.BytesIO(file))


@cache
def _concepts() -> dict[tuple[str, str], str]:
    """The concepts that the shipped models and this hub's own reports name."""
    return {key: text for manifest in zoo.manifests().values() for key, text in outside.concepts(manifest).items()}


def _door(hub: Hub, programme: str, uids: frozenset[str]) -> Door:
    """The door of a programme: it lets through what it knows, and names all else by this hub's own key."""
    key = hmac.digest(hub.keys.signing.private_bytes_raw(), f"outpost door {programme}".encode(), "sha256")
    return Door(key, frozenset(_concepts().values()), _concepts(), uids)


def _made(ds: Dataset, beside: Instance, patient: Patient, door: Door) -> Dataset | int:
    """What is kept of an object, or why nothing is."""
    layers = _number_layers(ds)
    out = returned(ds, patient, replace(door, texts=door.texts | layers))
    if isinstance(out, Withheld):
        return UNREADABLE
    made = dcmread(io.BytesIO(out.data))
    whose = instances.whose(beside)
    for keyword in dicomweb.STUDY:  # as all of the study have it: its own dates are moved already
        if keyword in whose:
            made[keyword] = whose[keyword]
        elif keyword in made:
            del made[keyword]
    made.Modality, made.SeriesDescription = CLASSES[made.SOPClassUID], SERIES
    if made.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage:
        made.ContentLabel = made.get("ContentLabel") or "RETURNED"
        marks = made.get("GraphicAnnotationSequence", ())
        drawn = [one for one in marks if "GraphicObjectSequence" in one or "TextObjectSequence" in one]
        made.pop("GraphicAnnotationSequence", None)
        if drawn:  # the rest was words
            made.GraphicAnnotationSequence = drawn
        return made if made.get("ReferencedSeriesSequence") else NOTHING
    if not made.get("ConceptNameCodeSequence"):
        return UNREADABLE  # its title is none of a standard
    said = {"IMAGE", "COMPOSITE"} if made.SOPClassUID == KeyObjectSelectionDocumentStorage else {"CODE", "NUM"}
    return made if _says(made.get("ContentSequence", ()), said) else NOTHING


def _number_layers(ds: Dataset) -> frozenset[str]:
    """Give a presentation state's layers numbers for names, because a name may be a person's; gives these."""
    numbers: dict[str, str] = {}
    for one in ds.iterall():
        if one.keyword == "GraphicLayer":
            one.value = numbers.setdefault(str(one.value), f"LAYER{len(numbers) + 1}")
    return frozenset(numbers.values())


def _says(items: Iterable[Dataset], kinds: set[str]) -> bool:
    """Whether there is content of these kinds, beside what only says how, by whom and in which language (PS3.3 C.17.3.2.4)."""
    return any(
        (
            one.get("ValueType") in kinds
            and one.get("RelationshipType") in ("CONTAINS", "HAS PROPERTIES", "INFERRED FROM")
        )
        or _says(one.get("ContentSequence", ()), kinds)
        for one in items
    )


def _write(hub: Hub, name: str, data: bytes) -> None:
    if hub.blobs.size(name) < len(data):
        hub.blobs.write(name, 0, data)
    if not hub.blobs.finish(name, len(data)):
        raise Transient("What was sent could not be kept. Send it again.")


def _files() -> list[bytes]:
    """The objects in the request (RFC 2046 5.1.1, RFC 2387); ends the request where there are none."""
    kind, said = parse_options_header(request.headers.get("Content-Type", ""))
    wanted = 'multipart/related; type="application/dicom"'
    if kind != "multipart/related" or said.get("type", dicomweb.DICOM).lower() != dicomweb.DICOM:
        abort(415, f"Objects come as {wanted}.")
    if not said.get("boundary"):
        abort(400, "The parts have no boundary.")
    request.max_content_length = BODY_BYTES
    begins = b"\r\n--" + said["boundary"].encode("latin-1", "replace")
    _before, *parts = (b"\r\n" + request.get_data(cache=False)).split(begins)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        abort(400, "The parts are not whole: the last boundary is missing.")
    return list(_bodies(parts[:-1]))


def _bodies(parts: Sequence[bytes]) -> Iterator[bytes]:
    for part in parts:
        head, blank, body = part.partition(b"\r\n\r\n")
        if not blank:
            abort(400, "A part has no end of its headers.")
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        named = {name.strip().lower(): text.decode("latin-1") for name, _, text in lines}
        if parse_options_header(named.get(b"content-type", dicomweb.DICOM))[0] != dicomweb.DICOM:
            abort(415, f"Each part is {dicomweb.DICOM}.")
        yield body


def _path(study: str, series: str, uid: str) -> str:
    return f"/studies/{study}/series/{series}/instances/{uid}"


def _answer(judged: Sequence[_Judged]) -> Response:
    """What became of each (PS3.18 10.5.3, I.1)."""
    root, said = f"{request.url_root.rstrip('/')}/dicom-web", Dataset()
    stored, failed, others = list[Dataset](), list[Dataset](), list[Dataset]()
    for one in judged:
        item = Dataset()
        if one.uid:
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.class_uid, one.uid
        if one.reason:
            item.FailureReason = one.reason
            (failed if one.uid else others).append(item)
            continue
        item.RetrieveURL = root + one.found
        if one.coerced:
            item.WarningReason = COERCED
        stored.append(item)
    studies = {one.found.partition("/series/")[0] for one in judged if not one.reason}
    if len(studies) == 1:
        said.RetrieveURL = root + studies.pop()
    for keyword, items in (
        ("ReferencedSOPSequence", stored),
        ("FailedSOPSequence", failed),
        ("OtherFailuresSequence", others),
    ):
        if items:
            setattr(said, keyword, items)
    warned = bool(failed or others) or any(one.coerced for one in judged)
    status = (202 if warned else 200) if stored else 409 if failed else 400
    answer = Response(json.dumps(said.to_json_dict()), status, content_type=dicomweb.JSON)
    reasons = sorted({REASONS[one.reason] for one in judged if one.reason})
    if reasons:
        answer.headers["Warning"] = f'299 {request.host} "{"; ".join(reasons)}"'
    return answer
