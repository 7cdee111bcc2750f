"""Header: what the film says of itself, read without its pixels. The one place where a DICOM file is parsed."""

from __future__ import annotations

import logging
import math
import mmap
import re
import warnings
from datetime import date
from pathlib import Path
from typing import BinaryIO, cast

import pydicom.config
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import PersonName

from edge.records import Grays, Header, Reason, Refusal

# tolerant in: a bad UID must not hide a film, nor fill the log
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)

ABSURD_BYTES = 256 * 2**20
"""No plain film is larger; the largest detectors give about 50 MB."""

_AGE = re.compile(r"\s*(\d{1,3})\s*([DWMY]?)\s*", re.IGNORECASE)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


def read(path: Path) -> tuple[Dataset, Header] | Refusal:
    """Parse a DICOM file; its pixels stay encoded.

    A file without preamble or file meta information is read as long as it has a SOP Class (PS3.10 7.1 asks for both,
    old archives have neither).
    """
    size = path.stat().st_size
    if size > ABSURD_BYTES:
        return Refusal(Reason.TOO_LARGE, f"{size} bytes")
    if size == 0:
        return Refusal(Reason.NOT_DICOM, "an empty file")
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            # mapped: a file object would allocate whatever length a damaged element claims
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return _read(cast(BinaryIO, mapped))
    except Exception as error:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        return Refusal(Reason.DAMAGED, f"{type(error).__name__}: {error}")


_IDENTITY = [
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "AccessionNumber",
    "RequestedProcedureID",
    "RequestAttributesSequence",
    "PatientID",
    "IssuerOfPatientID",
    "PatientSex",
    "PatientBirthDate",
]


def identify(path: Path) -> Header:
    """For whom and for which request a film was taken, before anything else of it is read.

    An empty header where a glance does not tell: without file meta information, damaged, or deflated, which would have to be
    inflated whole. `read` tells later.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,  # see `read`
        ):
            file = cast(BinaryIO, mapped)
            file.seek(132)  # the file meta information comes after preamble and prefix (PS3.10 7.1)
            meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 0x0002)
            if meta.get("TransferSyntaxUID", DeflatedExplicitVRLittleEndian) == DeflatedExplicitVRLittleEndian:
                return Header()
            file.seek(0)
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_IDENTITY))
            return _header(dataset)
    except Exception:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        return Header()


def _read(file: BinaryIO) -> tuple[Dataset, Header] | Refusal:
    dataset: Dataset
    try:
        dataset = dcmread(file)
    except InvalidDicomError:
        dataset = _without_preamble(file)
        if "SOPClassUID" not in dataset:
            return Refusal(Reason.NOT_DICOM, "no DICM prefix and no SOP Class UID")
    if not len(dataset):  # cut off within its pixels: keep what is left of it, so that people see whose film it is
        file.seek(0)
        dataset = dcmread(file, stop_before_pixels=True)
        dataset.PixelData = b""
    if not dataset.get("SOPClassUID"):
        return Refusal(Reason.DAMAGED, "the data set has no SOP Class UID")
    return dataset, _header(dataset)


def _without_preamble(file: BinaryIO) -> Dataset:
    """Read what may be a bare data set; whatever cannot be read as one is no DICOM."""
    try:
        file.seek(0)
        return dcmread(file, force=True)
    except Exception:  # noqa: BLE001  pydicom raises nearly every built-in exception on what is no DICOM at all
        return Dataset()


def _header(dataset: Dataset) -> Header:
    def text(keyword: str) -> str:
        try:
            value = dataset.get(keyword)
        except Exception:  # noqa: BLE001  one unreadable attribute must not hide the others
            return ""
        if value is None:
            return ""
        if isinstance(value, PersonName):
            return str(value).rstrip("^= ")
        if isinstance(value, (list, tuple)) or hasattr(value, "append"):
            value = value[0] if len(value) else ""
        return str(value).strip("\0 ")[:400]

    def day(keyword: str) -> date | None:
        digits = text(keyword).replace(".", "").replace("-", "")
        try:
            return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        except ValueError:
            return None

    def number(keyword: str) -> int:
        try:
            return max(0, int(text(keyword)))
        except ValueError:
            return 0

    def ordered(keyword: str) -> str:
        """What the film says itself, else what it says of the request it was taken for (PS3.3 10.6)."""
        try:
            request = (dataset.get("RequestAttributesSequence") or [Dataset()])[0]
            return text(keyword) or str(request.get(keyword) or "").strip("\0 ")[:400]
        except Exception:  # noqa: BLE001  one unreadable attribute must not hide the others
            return ""

    taken = day("AcquisitionDate") or day("ContentDate") or day("SeriesDate") or day("StudyDate")
    return Header(
        SOPInstanceUID=text("SOPInstanceUID"),
        SOPClassUID=text("SOPClassUID"),
        StudyInstanceUID=text("StudyInstanceUID"),
        SeriesInstanceUID=text("SeriesInstanceUID"),
        TransferSyntaxUID=str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or ImplicitVRLittleEndian),
        Modality=text("Modality"),
        PatientName=text("PatientName"),
        PatientID=text("PatientID"),
        IssuerOfPatientID=text("IssuerOfPatientID"),
        PatientSex=text("PatientSex"),
        PatientSpeciesDescription=text("PatientSpeciesDescription"),
        BodyPartExamined=text("BodyPartExamined"),
        ViewPosition=text("ViewPosition"),
        PresentationIntentType=text("PresentationIntentType"),
        StudyDescription=text("StudyDescription"),
        StudyID=text("StudyID"),
        StudyDate=day("StudyDate"),
        StudyTime=text("StudyTime"),
        TimezoneOffsetFromUTC=text("TimezoneOffsetFromUTC"),
        AccessionNumber=ordered("AccessionNumber"),
        ReferringPhysicianName=text("ReferringPhysicianName"),
        PlacerOrderNumberImagingServiceRequest=ordered("PlacerOrderNumberImagingServiceRequest"),
        RequestedProcedureID=ordered("RequestedProcedureID"),
        PatientBirthDate=day("PatientBirthDate"),
        Manufacturer=text("Manufacturer"),
        ManufacturerModelName=text("ManufacturerModelName"),
        Rows=number("Rows"),
        Columns=number("Columns"),
        age_years=age_years(text("PatientAge"), day("PatientBirthDate"), taken),
        grays=_grays(dataset),
    )


def _grays(dataset: Dataset) -> Grays | None:
    def numbers(keyword: str) -> list[float]:
        value = dataset.get(keyword)
        if value is None:
            return []
        found = [float(one) for one in (value if hasattr(value, "append") else [value])]
        return found if all(map(math.isfinite, found)) else []

    try:
        interpretation = str(dataset.get("PhotometricInterpretation"))
        if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
            return None
        if dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"):
            return None
        intercept, slope = numbers("RescaleIntercept"), numbers("RescaleSlope")
        center, width = numbers("WindowCenter"), numbers("WindowWidth")
        aspect = [int(side) for side in numbers("PixelAspectRatio")]
        function = str(dataset.get("VOILUTFunction") or "")
        return Grays(
            inverted=interpretation == "MONOCHROME1" or str(dataset.get("PresentationLUTShape")) == "INVERSE",
            rescale=(intercept[0], slope[0]) if intercept and slope and slope[0] else None,
            window=(center[0], width[0]) if center and width and width[0] >= 1 else None,
            function=function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "",
            aspect=(aspect[0], aspect[1]) if len(aspect) == 2 and min(aspect) > 0 else (1, 1),
        )
    except Exception:  # noqa: BLE001  one unreadable attribute must not hide the others
        return None


def age_years(age: str, born: date | None, taken: date | None) -> float | None:
    """The age at the film, in years: PatientAge (`034Y`, but also `34`, `6 M`), else the birth date, else None.

    `000Y` and a birth date of 1 January 1900 or before are what systems write when they do not know.
    """
    if (match := _AGE.fullmatch(age)) and int(match[1]) > 0:
        return int(match[1]) * _YEARS[match[2].upper()]
    if born is None or taken is None or born <= date(1900, 1, 1) or born > taken:
        return None
    return (taken - born).days / 365.25
