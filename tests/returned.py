"""What an archive next door to a hub sends back about a film: a report, key objects, marks, a mask; each full of a patient."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SegmentationStorage,
)

from edge.stages import header
from tests import seeds

assert header, "with it pydicom writes what is too long, as systems do"
PNEUMONIA = ("SCT", "233604007", "Pneumonia")


def file(ds: FileDataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """As it is sent."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    written = io.BytesIO()
    ds.save_as(written, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)
    return written.getvalue()


def report(film: Dataset, who: seeds.Person, number: int = 1) -> FileDataset:
    """A radiologist's report, coded and in words."""
    ds = _object(film, who, ComprehensiveSRStorage, "SR", number)
    name = f"{who.family}^{who.given}"
    _content(ds, film, ("LN", "18748-4", "Diagnostic imaging report"))
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "VERIFIED", "FINAL"
    verifier = Dataset()
    verifier.VerifyingObserverName, verifier.VerifyingOrganization = name, who.address
    verifier.VerificationDateTime = f"{who.taken:%Y%m%d}101010"
    verifier.VerifyingObserverIdentificationCodeSequence = []
    ds.VerifyingObserverSequence = [verifier]
    ds.ContentSequence = [
        _item("HAS OBS CONTEXT", "PNAME", ("DCM", "121008", "Person Observer Name"), PersonName=name),
        _item(
            "CONTAINS", "TEXT", ("DCM", "121071", "Finding"), TextValue=f"{who.given} {who.family}, seen {who.taken}"
        ),
        _item("CONTAINS", "DATE", ("DCM", "121071", "Finding"), Date=f"{who.born:%Y%m%d}"),
        _item("CONTAINS", "CODE", ("DCM", "121071", "Finding"), ConceptCodeSequence=[_code(PNEUMONIA)]),
        _item("CONTAINS", "CODE", ("DCM", "121071", "Finding"), ConceptCodeSequence=[_code(("99X", "1", who.family))]),
    ]
    return ds


def words_alone(film: Dataset, who: seeds.Person) -> FileDataset:
    """A report without one code."""
    ds = report(film, who, 5)
    ds.ContentSequence = [one for one in ds.ContentSequence if one.ValueType != "CODE"]
    return ds


def key_objects(film: Dataset, who: seeds.Person) -> FileDataset:
    """A note that the film matters."""
    ds = _object(film, who, KeyObjectSelectionDocumentStorage, "KO", 2)
    _content(ds, film, ("DCM", "113000", "Of Interest"))
    ds.ContentSequence = [
        _item("CONTAINS", "TEXT", ("DCM", "113012", "Key Object Description"), TextValue=f"show {who.family}"),
        _item("CONTAINS", "IMAGE", None, ReferencedSOPSequence=[_reference(film)]),
    ]
    return ds


def marks(film: Dataset, who: seeds.Person) -> FileDataset:
    """A line, and words, on layers that are named after the patient."""
    ds = _object(film, who, GrayscaleSoftcopyPresentationStateStorage, "PR", 3)
    ds.Laterality = ""
    ds.PresentationCreationDate, ds.PresentationCreationTime = f"{who.taken:%Y%m%d}", "101010"
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = who.number, who.family, f"{who.family}^{who.given}"
    referenced = Dataset()
    referenced.SeriesInstanceUID, referenced.ReferencedImageSequence = film.SeriesInstanceUID, [_reference(film)]
    ds.ReferencedSeriesSequence = [referenced]
    layers = [who.number, who.family[:16].upper()]
    ds.GraphicLayerSequence = [
        _filled(GraphicLayer=one, GraphicLayerOrder=place) for place, one in enumerate(layers, 1)
    ]
    line = _filled(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=2,
        GraphicData=[1.0, 2.0, 30.5, 40.0],
        GraphicType="POLYLINE",
        GraphicFilled="N",
    )
    text = _filled(
        UnformattedTextValue=f"{who.given} {who.family}",
        AnchorPointAnnotationUnits="PIXEL",
        AnchorPoint=[1.0, 1.0],
        AnchorPointVisibility="N",
    )
    ds.GraphicAnnotationSequence = [
        _filled(ReferencedImageSequence=[_reference(film)], GraphicLayer=layers[1], GraphicObjectSequence=[line]),
        _filled(ReferencedImageSequence=[_reference(film)], GraphicLayer=layers[0], TextObjectSequence=[text]),
    ]
    shown = _filled(
        ReferencedImageSequence=[_reference(film)],
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[60, 70],
        PresentationSizeMode="SCALE TO FIT",
        PresentationPixelAspectRatio=["1", "1"],
    )
    ds.DisplayedAreaSelectionSequence = [shown]
    ds.SoftcopyVOILUTSequence = [
        _filled(WindowCenter="30000", WindowWidth="20000", WindowCenterWidthExplanation=who.family)
    ]
    ds.PresentationLUTShape = "IDENTITY"
    return ds


def segmentation(film: Dataset, who: seeds.Person) -> FileDataset:
    """A mask, as far as it takes to be refused."""
    ds = _object(film, who, SegmentationStorage, "SEG", 4)
    ds.PixelData = b"\0\0"
    ds["PixelData"].VR = "OB"
    return ds


TAKEN: tuple[Callable[[Dataset, seeds.Person], FileDataset], ...] = (report, key_objects, marks)


def _object(film: Dataset, who: seeds.Person, class_uid: str, modality: str, number: int) -> FileDataset:
    """An object of the film's study, in a series of its own."""
    ds = FileDataset("", Dataset(), file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyTime, ds.ReferringPhysicianName, ds.StudyID, ds.AccessionNumber = "101010", "", "", ""
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "", number, 1
    seeds.plant(ds, who, random.Random(number))
    del ds.BodyPartExamined
    ds.SOPClassUID, ds.Modality = class_uid, modality
    ds.StudyInstanceUID = film.StudyInstanceUID
    ds.SOPInstanceUID = f"1.2.826.{who.telephone[1:]}.{number}"
    ds.SeriesInstanceUID = f"{ds.SOPInstanceUID}.9"
    ds.PatientSex = ""
    return ds


def _content(ds: Dataset, film: Dataset, title: tuple[str, str, str]) -> None:
    ds.ValueType, ds.ContinuityOfContent, ds.ConceptNameCodeSequence = "CONTAINER", "SEPARATE", [_code(title)]
    ds.ContentTime, ds.ReferencedPerformedProcedureStepSequence = "101010", []
    if title[0] == "LN":
        ds.PerformedProcedureCodeSequence = []
    series = _filled(SeriesInstanceUID=film.SeriesInstanceUID, ReferencedSOPSequence=[_reference(film)])
    evidence = _filled(StudyInstanceUID=film.StudyInstanceUID, ReferencedSeriesSequence=[series])
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]


def _item(relation: str, kind: str, name: tuple[str, str, str] | None, **value: object) -> Dataset:
    named = {} if name is None else {"ConceptNameCodeSequence": [_code(name)]}
    return _filled(RelationshipType=relation, ValueType=kind, **named, **value)


def _code(said: tuple[str, str, str]) -> Dataset:
    scheme, value, meaning = said
    return _filled(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _reference(film: Dataset) -> Dataset:
    return _filled(ReferencedSOPClassUID=film.SOPClassUID, ReferencedSOPInstanceUID=film.SOPInstanceUID)


def _filled(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds
