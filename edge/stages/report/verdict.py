"""Verdict: what a person made of the AI's result, as an SR that refers to it (IHE AI Result Assessment).

Accepted, modified or rejected, with the coded reason, by a named person. A decision is verified and final, and that is what
verifies the result: the AI's own report stays as it was sent. A referral, or a decision that was taken back, verifies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import (
    CompositeContentItem,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    RelationshipTypeValues,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from edge.records import Document, Read, ReadKind
from edge.stages.report import dicom, sr, terms
from edge.stages.report.content import Content, act, plain


def document(content: Content, read: Read) -> Document:
    """The report of a person's decision."""
    ds = dicom.framed(content, "assessment", Comprehensive3DSRStorage, "SR", 9004, act(read))
    who, organization = person(read.reader), dicom.short(content.institution) or content.ae_title
    observer = ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(who, organization_name=organization),
    )
    said = sr.container(sr.coded(terms.EVALUATIONS), *_said(content, read))
    sr.fill(ds, content, observer, [said], [dicom.film(content), sr.reference(content)])
    at = read.at.astimezone(content.decided_at.tzinfo)
    dicom.made_at(ds, at)
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    if read.kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE):
        ds.PreliminaryFlag, ds.VerificationFlag = "FINAL", "VERIFIED"
        verifier = Dataset()
        verifier.VerifyingObserverName, verifier.VerifyingOrganization = who, organization
        verifier.VerificationDateTime = dicom.moment(at)
        verifier.VerifyingObserverIdentificationCodeSequence = []
        ds.VerifyingObserverSequence = [verifier]
    else:
        ds.PreliminaryFlag, ds.VerificationFlag = "PRELIMINARY", "UNVERIFIED"
    return dicom.document("assessment", ds)


def person(name: str) -> str:
    """Who decided, as a person's name; accounts have one name only, which the caret says."""
    return plain(name.translate({ord("^"): " ", ord("="): " "}))[:63].strip() + "^"


def _said(content: Content, read: Read) -> Iterator[sr.Items]:
    yield sr.said(terms.ASSESSMENT, terms.KINDS[read.kind])
    if (verdict := terms.verdict(read)) is not None:
        yield sr.said(terms.VERDICT, verdict)
    if read.outcome is not None:
        yield sr.said(terms.TRIAGE, terms.OUTCOMES[read.outcome])
    for code in read.codes:
        yield sr.said(terms.IMPRESSION, terms.chosen(code))
    if read.reason:
        yield sr.said(terms.WHY, terms.chosen(read.reason))
    _, class_uid, instance_uid = sr.reference(content)
    contains = RelationshipTypeValues.CONTAINS
    yield [CompositeContentItem(sr.coded(terms.SOURCE), class_uid, instance_uid, relationship_type=contains)]
