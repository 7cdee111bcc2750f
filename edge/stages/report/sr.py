"""SR: what the AI says as a Comprehensive 3D SR, TID 1500 (PS3.16), as IHE AI Results asks for it; preliminary and unverified.

The outcome, or why the film could not be assessed, is a qualitative evaluation. Each finding is a measurement group: its code, its
probability with both ends of the 95 % interval in percent, where that lies against the operating point, and that its presence is
undetermined where the AI is unsure. The finding that the outcome comes from has its region on the film.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset, Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from edge import words
from edge.records import Document, Finding
from edge.stages.report import dicom, terms
from edge.stages.report.content import MANUFACTURER, Content, within
from edge.stages.report.region import Point
from edge.stages.report.terms import Term

Items = Iterable[Dataset]
"""Content items; every template of highdicom's is a sequence of them."""


def document(content: Content, leading: Finding | None, region: tuple[Point, ...]) -> Document:
    """The report of the AI; `region` is where the leading finding was seen."""
    ds = dicom.framed(content, "sr", Comprehensive3DSRStorage, "SR", 9001)
    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=content.device_uid,
            name=content.ae_title,
            manufacturer_name=MANUFACTURER,
            model_name=content.algorithm,
        ),
    )
    groups = [_group(content, finding, region if finding is leading else ()) for finding in content.decision.findings]
    parts = [container(codes.DCM.ImagingMeasurements, *groups)] if groups else []
    parts.append(container(coded(terms.EVALUATIONS), *_outcome(content)))
    fill(ds, content, observer, parts, [dicom.film(content)])
    # a viewer's list of series is where most people look first, and OHIF names the finding nowhere else
    named = terms.of_finding(leading) if leading is not None else terms.OUTCOMES[content.decision.outcome]
    ds.SeriesDescription = dicom.short(f"{named.meaning}: {ds.SeriesDescription}") or ds.SeriesDescription
    dicom.made_at(ds, content.decided_at)
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.PreliminaryFlag, ds.VerificationFlag = "PRELIMINARY", "UNVERIFIED"
    return dicom.document("sr", ds)


def reference(content: Content) -> dicom.Reference:
    """The report of the AI, as others refer to it."""
    return content.uid("series", "sr", ""), Comprehensive3DSRStorage, content.uid("sr")


def fill(
    ds: Dataset,
    content: Content,
    observer: ObserverContext,
    parts: Iterable[ContainerContentItem],
    evidence: Iterable[dicom.Reference],
) -> None:
    """The SR Document modules (PS3.3 C.17.2, C.17.3), with a measurement report (TID 1500) as their content."""
    # highdicom's own MeasurementReport wants a measurement, which a film that could not be assessed has none of
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    procedure = CodeContentItem(
        # the imaging procedure, not the algorithm (IHE AIR)
        codes.DCM.ProcedureReported,
        coded(terms.IMAGING),
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    english = LanguageOfContentItemAndDescendants(CodedConcept("en", "RFC5646", "English"))
    root.ContentSequence = Sequence([*english, *observer, procedure, *parts])
    ds.update(root)
    ds.CompletionFlag = "COMPLETE"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = content.study_uid, dicom.series(evidence)
    ds.CurrentRequestedProcedureEvidenceSequence = [item]
    if ds.AccessionNumber:
        ds.ReferencedRequestSequence = [_request(ds, content)]


def container(name: CodedConcept, *parts: Items) -> ContainerContentItem:
    """A part of the report and what is in it."""
    item = ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    item.ContentSequence = Sequence(inner for part in parts for inner in part)
    return item


def coded(term: Term) -> CodedConcept:
    """A term as highdicom has it."""
    return CodedConcept(term.code, term.scheme, term.meaning)


def said(name: Term, value: Term) -> QualitativeEvaluation:
    """Something that was evaluated, and as what."""
    return QualitativeEvaluation(coded(name), coded(value))


def _outcome(content: Content) -> Iterator[Items]:
    contains = RelationshipTypeValues.CONTAINS
    notes = [words.PRELIMINARY]
    yield said(terms.TRIAGE, terms.OUTCOMES[content.decision.outcome])
    if content.decision.refusal is not None:
        yield said(terms.REASON, terms.why_not(content.decision.refusal.reason))
        notes += words.REASONS[content.decision.refusal.reason]
    # this part of TID 1500 has no row for TID 4019 and takes any text that it contains
    yield [TextContentItem(item.name, item.value, contains) for item in _algorithm(content)]
    yield [TextContentItem(coded(terms.NOTE), note, contains) for note in notes]


def _group(content: Content, finding: Finding, region: tuple[Point, ...]) -> Items:
    part, term = f"finding {finding.finding}", terms.of_finding(finding)
    tracked = TrackingIdentifier(content.uid("track", part), f"{term.meaning} {content.uuid('track', part)}")
    rest: dict[str, Any] = {
        "tracking_identifier": tracked,
        "finding_type": coded(term),
        "algorithm_id": _algorithm(content, finding),
        "measurements": [
            Measurement(coded(name), terms.percent(value), coded(terms.PERCENT))
            for name, value in (
                (terms.PROBABILITY, finding.probability),
                (terms.LOW, finding.low),
                (terms.HIGH, finding.high),
            )
        ],
        "qualitative_evaluations": [said(name, value) for name, value in terms.evaluated(finding)],
    }
    if not region:
        film = SourceImageForMeasurementGroup(content.class_uid, content.instance_uid)
        return MeasurementsAndQualitativeEvaluations(source_images=[film], **rest)
    seen_on = SourceImageForRegion(content.class_uid, content.instance_uid)
    where = ImageRegion("POLYLINE", np.array(region), seen_on)
    return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=where, **rest)


def _algorithm(content: Content, finding: Finding | None = None) -> AlgorithmIdentification:
    """TID 4019."""
    parameters = None
    if finding is not None:
        soon, immediate = terms.percent(finding.soon), terms.percent(finding.immediate)
        parameters = [f"operating point: {finding.operating_point}"]
        if terms.level(finding) is not terms.UNKNOWN:
            parameters.append(f"soon from {soon} %, immediate from {immediate} %")
    return AlgorithmIdentification(content.algorithm, content.version, parameters, manufacturer=MANUFACTURER)


def _request(ds: Dataset, content: Content) -> Dataset:
    """The request that the film was taken for (PS3.3 C.17.2)."""
    request = Dataset()
    request.StudyInstanceUID, request.AccessionNumber = ds.StudyInstanceUID, ds.AccessionNumber
    request.RequestedProcedureID = within(content.requested_procedure, 16)
    request.PlacerOrderNumberImagingServiceRequest = within(content.placer_order, 64)
    request.FillerOrderNumberImagingServiceRequest = request.RequestedProcedureDescription = ""
    request.ReferencedStudySequence, request.RequestedProcedureCodeSequence = [], []
    return request
