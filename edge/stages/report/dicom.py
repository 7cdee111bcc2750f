"""What all DICOM objects of a result have in common: whose they are, in which study, by which equipment; and how they become bytes.

The content tree of the reports and the graphics of the presentation state are highdicom's. What stands around them is written
here, because highdicom's own objects take the time of making from the clock (PS3.3 C.12.1), and a resend would differ.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import date, datetime, time

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from edge.records import Document
from edge.stages.report import terms
from edge.stages.report.content import MANUFACTURER, Content, Name, derived_uid, within
from edge.stages.report.terms import Term

IMPLEMENTATION = UID(derived_uid("the implementation that wrote the file"))
"""Implementation Class UID (PS3.7 D.3.3.2)."""

_LATEST, _EARLIEST = 14 * 60, -12 * 60
"""Of Timezone Offset From UTC, in minutes (PS3.3 C.12.1.1.8)."""

Reference = tuple[str, str, str]
"""Of an object in the same study: its series, class and instance."""


def framed(content: Content, kind: str, class_uid: str, modality: str, number: int, act: str = "") -> Dataset:
    """An object of its own series in the film's study; `act` is what a person did, where that is what it is about.

    Patient, General Study, General Series, (Enhanced) General Equipment and SOP Common Module.
    """
    ds = placed(content, kind, class_uid, modality, number, act)
    _equipment(ds, content)
    return ds


def placed(content: Content, kind: str, class_uid: str, modality: str, number: int, act: str = "") -> Dataset:
    """The same without equipment: who made it stands elsewhere."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = class_uid, content.uid(kind, act) if act else content.uid(kind)
    ds.PatientName = name(content.patient_names)
    ds.PatientID = within(content.patient_id, 64)
    if content.issuer and within(content.issuer, 64):
        ds.IssuerOfPatientID = content.issuer
    ds.PatientBirthDate = _known(content.birth_date)
    ds.PatientSex = content.sex
    ds.StudyInstanceUID = content.study_uid
    ds.StudyID, ds.AccessionNumber = within(content.study_id, 16), within(content.accession, 16)
    ds.StudyDate = _known(content.study_date)
    ds.StudyTime = "" if content.study_time is None else clock(content.study_time)
    ds.ReferringPhysicianName = name(content.referring)
    ds.SeriesInstanceUID, ds.Modality = content.uid("series", kind, act), modality
    ds.SeriesNumber, ds.InstanceNumber = number, 1
    ds.SeriesDescription = SERIES[kind]
    return ds


SERIES = {
    "sr": "AI triage, preliminary",
    "sc": "AI triage, preliminary: picture",
    "banner": "AI triage, preliminary: words",
    "gsps": "AI triage, preliminary: region",
    "assessment": "A person's assessment of the AI triage",
    "film": "Film, de-identified",
    "read": "A teleradiologist's read",
}
"""What a list of series says of each, in at most 64 characters."""


def _equipment(ds: Dataset, content: Content) -> None:
    """Which software, under which Device UID: another model, calibration or operating point is another device (IHE AIR)."""
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, short(content.algorithm) or MANUFACTURER
    ds.SoftwareVersions, ds.DeviceSerialNumber = short(content.version) or "0", content.device_uid
    ds.DeviceUID = content.device_uid
    if short(content.institution):
        ds.InstitutionName = content.institution
    if within(content.ae_title, 16):
        ds.StationName = content.ae_title
    part = Dataset()
    part.PurposeOfReferenceCodeSequence = [code(terms.PROCESSING)]
    for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "DeviceUID"):
        setattr(part, keyword, ds[keyword].value)
    if "InstitutionName" in ds:
        part.InstitutionName = ds.InstitutionName
    part.ContributionDateTime = moment(content.decided_at)
    part.ContributionDescription = "Triage; preliminary until a person decides"
    ds.ContributingEquipmentSequence = [part]
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeUID = terms.OUTPOST, terms.OUTPOST_UID
    scheme.CodingSchemeName = "Outpost's own codes"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    ds.CodingSchemeIdentificationSequence = [scheme]


def made_at(ds: Dataset, at: datetime) -> None:
    """When the object came to be: when the result did, however often it is made."""
    ds.InstanceCreationDate = ds.SeriesDate = day(at)
    ds.InstanceCreationTime = ds.SeriesTime = clock(at.time())
    if _in_range(at):
        ds.TimezoneOffsetFromUTC = f"{at:%z}"[:5]


def document(kind: str, ds: Dataset, transfer_syntax: UID = ExplicitVRLittleEndian) -> Document:
    """The object as a file (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, "OUTPOST"
    ds.file_meta = meta
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return Document(kind, "application/dicom", str(ds.SOPInstanceUID), file.getvalue())


def film(content: Content) -> Reference:
    """The film itself."""
    return content.series_uid, content.class_uid, content.instance_uid


def instance(reference: Reference) -> Dataset:
    """SOP Instance Reference Macro (PS3.3 10.8)."""
    ds = Dataset()
    _, ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = reference
    return ds


def series(references: Iterable[Reference], called: str = "ReferencedSOPSequence") -> list[Dataset]:
    """Objects of one study by their series; each module calls the sequence of instances by another name."""
    found: dict[str, list[Dataset]] = {}
    for reference in references:
        found.setdefault(reference[0], []).append(instance(reference))
    items = []
    for uid, instances in found.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        setattr(item, called, instances)
        items.append(item)
    return items


def code(term: Term) -> Dataset:
    """Code Sequence Macro (PS3.3 8.8)."""
    ds = Dataset()
    setattr(ds, "CodeValue" if len(term.code) <= 16 else "LongCodeValue", term.code)
    ds.CodingSchemeDesignator, ds.CodeMeaning = term.scheme, term.meaning
    return ds


def name(scripts: tuple[Name, ...]) -> str:
    """A name in those of its scripts for which DICOM has room, 64 characters each (PS3.5 6.2)."""
    groups = [within(str(script).replace("=", " "), 64) for script in scripts]
    return "=".join(groups).rstrip("=")


def short(text: str) -> str:
    """What a Long String has room for."""
    return within(text, 64)


def day(at: date) -> str:
    """DA."""
    return f"{at.year:04}{at.month:02}{at.day:02}"


def _known(at: date | None) -> str:
    """No date that a patient may have begins with a zero; what does was written by a system that did not know."""
    return "" if at is None or at.year < 1000 else day(at)


def clock(at: time) -> str:
    """TM."""
    return f"{at:%H%M%S}" + (f".{at.microsecond:06}" if at.microsecond else "")


def moment(at: datetime) -> str:
    """DT."""
    return day(at) + clock(at.time()) + (f"{at:%z}"[:5] if _in_range(at) else "")


def _in_range(at: datetime) -> bool:
    shift = at.utcoffset()
    return shift is not None and _EARLIEST <= shift.total_seconds() / 60 <= _LATEST
