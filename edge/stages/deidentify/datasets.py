"""Data sets: a new one is made of what the table allows; the old one is never changed, so nothing can be forgotten in it."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, MutableSequence
from datetime import datetime

from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)

from edge.records import Concern, Display, Document, Header, Rendition, Withheld
from edge.stages.deidentify.door import Door, Patient
from edge.stages.deidentify.table import Row, allowed, concepts

BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
CLEAN_GRAPHICS = ("113103", "Clean Graphics Option")
CLEAN_STRUCTURED = ("113104", "Clean Structured Content Option")
MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
PATIENT = ("113108", "Retain Patient Characteristics Option")
DEVICE = ("113109", "Retain Device Identity Option")

SAYS = {
    BASIC: "all",
    CLEAN_PIXELS: "film, banner",
    CLEAN_GRAPHICS: "presentation state",
    CLEAN_STRUCTURED: "SR",
    MODIFIED_DATES: "all",
    PATIENT: "all",
    DEVICE: "all that name this box's own model by its Device UID",
}
"""Which object says what of itself in De-identification Method Code Sequence (PS3.16 CID 7050)."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_DAY = re.compile(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)")
_TIME = re.compile(r"(([01]\d|2[0-3])([0-5]\d([0-5]\d)?)?)(\.\d{1,6})?")
_TRACKING = ("112039", "DCM")
"""Tracking Identifier: a text that only tells one thing from another."""
_MADE = (
    "PhotometricInterpretation",
    "PixelAspectRatio",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelSpacingCalibrationType",
    "VOILUTFunction",
)
"""What the film said of the pixels it had, and the new film says of its own."""


def announced(dataset: Dataset) -> bool:
    """Whether a film says that text is burned into it (BurnedInAnnotation)."""
    return str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES"


def film(dataset: Dataset, rendition: Rendition, header: Header, door: Door) -> Document | Withheld:
    """A film, its pixels those of its rendition: no byte of the pixels that came leaves, whatever was hidden in it."""
    from edge.stages.deidentify import pixels  # only a film needs numpy; the pages, which make pseudonyms, have none

    seen = pixels.clean(rendition.values, announced(dataset))
    if isinstance(seen, Withheld):
        return seen
    patient = door.patient(header)
    ds = _clean(dataset, patient, door)
    if "SOPClassUID" not in ds or not ds.SOPClassUID:
        return Withheld(Concern.UNREADABLE, "its SOP Class is none of the standard")
    for keyword in _MADE:
        if keyword in ds:
            del ds[keyword]
    rows, columns = seen.values.shape
    neutral(ds, rows, columns, rendition.display)
    if "PixelIntensityRelationship" in ds:
        ds.PixelIntensityRelationshipSign = -1  # bones are bright in a rendition
    ds.add_new("PixelData", "OW", seen.values.astype("<u2").tobytes())
    return _document("film", ds, patient, door, CLEAN_PIXELS)


def neutral(ds: Dataset, rows: int, columns: int, display: Display) -> None:
    """What a film says of its pixels where they are those of its rendition."""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    center, width = display.windows[0] if display.windows else (32768.0, 65536.0)
    ds.WindowCenter, ds.WindowWidth = f"{center:.6g}", f"{max(width, 1):.6g}"
    ds.PresentationLUTShape = "IDENTITY"
    if display.millimetres is not None:
        keyword = "ImagerPixelSpacing" if display.at_detector else "PixelSpacing"
        setattr(ds, keyword, [f"{display.millimetres:.6g}"] * 2)
    ds.BurnedInAnnotation = "NO"


def structured(document: Document, header: Header, door: Door) -> Document | Withheld:
    """An SR or a GSPS."""
    patient = door.patient(header)
    ds = _read(document, patient, door)
    if isinstance(ds, Withheld):
        return ds
    if ds.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage:
        # the film that leaves is the rendition: the grays of the one that came are not its grays
        for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType", "SoftcopyVOILUTSequence"):
            if keyword in ds:
                del ds[keyword]
        ds.PresentationLUTShape = "IDENTITY"
    return _finished(document.kind, ds, patient, door)


def returned(dataset: Dataset, patient: Patient, door: Door) -> Document | Withheld:
    """What somebody made elsewhere of a film that had left, an SR or a GSPS; its grays are those of the film that left."""
    ds = _clean(dataset, patient, door)
    if not ds.get("SOPClassUID"):
        return Withheld(Concern.UNREADABLE, "its SOP Class is none of the standard")
    return _finished("returned", ds, patient, door)


def _finished(kind: str, ds: Dataset, patient: Patient, door: Door) -> Document:
    graphics = ds.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage
    return _document(kind, ds, patient, door, CLEAN_GRAPHICS if graphics else CLEAN_STRUCTURED)


def banner(document: Document, header: Header, door: Door) -> Document | Withheld:
    """The picture of a result that is words alone, with the pixels that it has: they are the box's own, and it says so."""
    patient = door.patient(header)
    ds = _read(document, patient, door)
    if isinstance(ds, Withheld):
        return ds
    drawn = (ds.SOPClassUID, ds.get("BurnedInAnnotation"), ds.get("ConversionType"))
    if drawn != (SecondaryCaptureImageStorage, "NO", "SYN"):
        return Withheld(Concern.NO_FORM, "a picture that is not words alone")
    ds.add_new("PixelData", "OB", dcmread(io.BytesIO(document.data)).PixelData)
    return _document(document.kind, ds, patient, door, CLEAN_PIXELS)


def _read(document: Document, patient: Patient, door: Door) -> Dataset | Withheld:
    """A result as it may leave."""
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = dcmread(io.BytesIO(document.data))
    except Exception as error:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        return Withheld(Concern.UNREADABLE, type(error).__name__)
    ds = _clean(dataset, patient, door)
    if "SOPClassUID" not in ds or not ds.SOPClassUID:
        return Withheld(Concern.UNREADABLE, "its SOP Class is none of the standard")
    return ds


def _document(kind: str, ds: Dataset, patient: Patient, door: Door, done: tuple[str, str]) -> Document:
    """The file, its header made afresh, with what was done to it (PS3.15 E.1.1, PS3.16 CID 7050)."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    own = any(one.keyword == "DeviceUID" and one.value in door.uids for one in ds.iterall())
    mark(ds, patient.pseudonym, patient.sex, patient.age, (done, *((DEVICE,) if own else ())))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    file = io.BytesIO()
    FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128).save_as(file, enforce_file_format=True)
    return Document(kind, "application/dicom", str(ds.SOPInstanceUID), file.getvalue())


def mark(ds: Dataset, pseudonym: str, sex: str, age: str, done: Iterable[tuple[str, str]]) -> None:
    """Say in a data set whose it is, as others know them, and what was done to it beside what is done to all."""
    ds.PatientName = ds.PatientID = pseudonym
    ds.PatientBirthDate, ds.PatientSex = "", sex
    if age:
        ds.PatientAge = age
    ds.PatientIdentityRemoved = "YES"
    ds.LongitudinalTemporalInformationModified = "MODIFIED"
    first, *rest = done
    ds.DeidentificationMethodCodeSequence = [
        _code(value, "DCM", meaning) for value, meaning in (BASIC, first, MODIFIED_DATES, PATIENT, *rest)
    ]


def _clean(dataset: Dataset, patient: Patient, door: Door) -> Dataset:
    made, table = Dataset(), allowed()
    for tag in dataset.keys():  # noqa: SIM118  a data set's iterator reads every element, damaged ones too
        row = table.get(int(tag))
        if row is None:
            continue
        try:
            element = dataset[tag]
            if (element.VR == "SQ") != (_vr(row) == "SQ"):
                continue
            value = _value(element, row, patient, door)
            if row.action == "K" and value == [] and element.value:
                continue  # a sequence of which nothing is left
            made.add(DataElement(tag, _vr(row), value))
        except Exception:  # noqa: BLE001, S112  pydicom raises nearly everything on damaged values: what it cannot read stays
            continue
    return made


def _vr(row: Row) -> str:
    return dictionary_VR(int(row.tag, 16))


def _value(element: DataElement, row: Row, patient: Patient, door: Door) -> object:
    vr = _vr(row)
    if vr == "SQ":
        return [] if row.action == "Z" else list(_items(element, patient, door))
    texts = [str(one).strip("\0 ") for one in _several(element.value)]
    if row.action == "U":
        return [door.uid(text) for text in texts]
    if row.action == "C" and vr in ("DA", "DT", "TM"):
        return [_moved(text, vr, patient) for text in texts]
    if row.action in ("K", "C"):
        kept = [_kept(text, row, patient, door) for text in texts]
        return None if None in kept else kept or None
    if row.action == "D":
        if vr == "PN":
            return [door.person(text) for text in texts]
        return "REMOVED" if row.keyword == "VerifyingOrganization" else door.name("tracked", *texts)
    return None


def _several(value: object) -> Iterable[object]:
    if value is None:
        return ()
    # a person's name can be iterated too, letter by letter
    return value if isinstance(value, (MutableSequence, tuple)) else (value,)


def _items(element: DataElement, patient: Patient, door: Door) -> Iterable[Dataset]:
    for item in element.value:
        if "CodeValue" in item or "LongCodeValue" in item or "URNCodeValue" in item:
            made = _concept(item, door)
        else:
            made = _clean(item, patient, door)
        if made is None or not len(made):
            continue
        if element.keyword == "ContentSequence" and not _says(item, made, door):
            continue
        if element.keyword == "TextObjectSequence" and not made.get("UnformattedTextValue"):
            continue
        yield made


def _concept(item: Dataset, door: Door) -> Dataset | None:
    """A code that the standard or the box has, with the meaning that it has there; no other one."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or ""
    key = str(item.get("CodingSchemeDesignator", "")), str(value)
    if key in door.terms:
        return _code(key[1], key[0], door.terms[key])
    known = concepts().get(key)
    return None if known is None else _code(*known)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    setattr(ds, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
    ds.CodingSchemeDesignator, ds.CodeMeaning = scheme, meaning[:64]
    return ds


def _says(item: Dataset, made: Dataset, door: Door) -> bool:
    """Whether a content item still says something: only coded and numeric content does, and the box's own words."""
    if "ConceptNameCodeSequence" in item and not made.get("ConceptNameCodeSequence"):
        return False
    kind = made.get("ValueType", "")
    if kind == "TEXT":
        name = made.ConceptNameCodeSequence[0]
        if not made.get("TextValue") and (name.get("CodeValue"), name.CodingSchemeDesignator) == _TRACKING:
            made.TextValue = door.name("tracked", str(item.get("TextValue", "")))
        return bool(made.get("TextValue"))
    needed = {"CODE": "ConceptCodeSequence", "NUM": "MeasuredValueSequence", "PNAME": "PersonName", "UIDREF": "UID"}
    if kind in needed:
        return bool(made.get(needed[kind]))
    return kind in ("CONTAINER", "IMAGE", "COMPOSITE", "SCOORD")


def _kept(text: str, row: Row, patient: Patient, door: Door) -> object:
    """The value, if it is one that the table allows; else None, and the attribute is empty."""
    if row.values == "number":
        return _number(text, _vr(row))
    if row.values == "age":
        return patient.age or None
    if row.values == "texts":
        return text if text in door.texts else None
    if row.values == "uids":
        return text if text in door.uids or UID(text).name != text else None
    if row.values == "terms":  # a code is looked up as a whole; only its scheme may stand alone
        return (
            text if row.keyword == "CodingSchemeDesignator" and text in {scheme for scheme, _ in door.terms} else None
        )
    return text if re.fullmatch(row.values, text) else None


def _number(text: str, vr: str) -> object:
    """The number to six digits: more would be none that was measured, and may be a telephone's."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)) or abs(value) >= 1e6:
        return None
    if vr in ("DS", "IS"):
        return f"{value:.6g}" if vr == "DS" else str(int(value))
    return float(f"{value:.6g}") if vr in ("FL", "FD") else int(value)


def _moved(text: str, vr: str, patient: Patient) -> str:
    """A date or a time of the patient; of what is none, nothing."""
    if vr == "TM":
        match = _TIME.fullmatch(text.replace(":", ""))
        return match[1] if match else ""
    day = _DAY.match(text)
    if day is None or (vr == "DA" and day.end() != len(text)):
        return ""
    try:
        moved = patient.day(datetime(int(day[1]), int(day[2]), int(day[3])).date())
    except ValueError:
        return ""
    if moved is None:
        return ""
    rest = re.fullmatch(r"((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d)?)?)?(?:\.\d{1,6})?([+-]\d{4})?", text[day.end() :])
    behind = "" if vr == "DA" or rest is None else (rest[1] or "") + ((rest[2] or "") if rest[1] else "")
    return f"{moved:%Y%m%d}{behind}"
