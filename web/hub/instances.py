"""What a film is to an archive, as DICOM: the film, what the AI of its box says, what each reader said, a series each; and what
an archive sent of it.

All but the last are made when they are asked for, the same each time. All dates are moved as the patient's are (PS3.15 E.3.6), so
that what lies between them stays. A film's pixels are those of its box's rendition, bit for bit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version

import numpy as np
from highdicom.sr import ObserverContext, PersonObserverIdentifyingAttributes
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
)

from edge.errors import Unreadable
from edge.records import Decision, Display, Document, Finding, Refusal
from edge.stages.deidentify import datasets
from edge.stages.report import dicom, leading, sr, terms, verdict
from edge.stages.report.content import Content, Name, derived_uid
from web.hub import zoo
from web.hub.records import Case, Review, Taken

UNDATED = date(1970, 1, 1)
"""The day of a film that has none."""
HUB = "Outpost hub"
SIDE = 1 << 15
"""No film has more pixels to a side."""


@dataclass(frozen=True)
class Instance:
    """One object, as a search finds it."""

    case: Case = field(repr=False)
    said: Content = field(repr=False)
    review: Review | None
    """Whose report it is; None for the film and for what the AI says."""
    series: str
    class_uid: str
    uid: str
    taken: Taken | None = None
    """As an archive sent it."""

    @property
    def is_film(self) -> bool:
        """Whether it has pixels."""
        return self.class_uid == ComputedRadiographyImageStorage

    @property
    def modality(self) -> str:
        """Of its series."""
        return self.taken.modality if self.taken else "CR" if self.is_film else "SR"

    @property
    def here(self) -> bool:
        """Whether all of it is at the hub; of a film a part may be."""
        return not self.is_film or (self.case.picture is not None and self.case.have == self.case.picture.size)


def of_study(
    cases: Sequence[Case], reviews: Mapping[int, Sequence[Review]], taken: Sequence[Taken]
) -> Iterator[Instance]:
    """The objects of a study: of each of its films, then what came of it from archives."""
    for case in cases:
        yield from of(case, reviews[case.id])
    for one in taken:
        yield Instance(cases[0], content(cases[0]), None, one.series, one.class_uid, one.uid, one)


def of(case: Case, reviews: Sequence[Review]) -> Iterator[Instance]:
    """The objects of a film; without the film where its picture stays home."""
    said = content(case)
    if case.picture is not None:
        yield Instance(case, said, None, *dicom.film(said))
    yield Instance(case, said, None, *sr.reference(said))
    for review in reviews:
        own = _of_reader(said, case, review)
        yield Instance(case, own, review, own.uid("series", "read", ""), Comprehensive3DSRStorage, own.uid("read"))


def moved(case: Case, at: float) -> datetime:
    """A moment of the hub's clock as the patient's dates are: as long after the film's day as it was after its assessment."""
    return datetime.fromtimestamp(at, UTC) - shift(case)


def shift(case: Case) -> timedelta:
    """By how much the dates of a film's patient are moved back, in whole days."""
    return datetime.fromtimestamp(case.since, UTC).date() - (day(case) or UNDATED)


def day(case: Case) -> date | None:
    """The film's day, as its box has moved it."""
    try:
        return date.fromisoformat(case.result.day)
    except ValueError:
        return None


def study(case: Case) -> str:
    """The study that a film is of; one that does not say is one of its own (`films.STUDIES`)."""
    return case.result.study or case.result.case


def content(case: Case) -> Content:
    """What the box's AI says, as all forms of a result have it."""
    result = case.result
    algorithm, _, number = result.model.rpartition(" ")
    return Content(
        patient_names=(Name(result.patient, "", "", "", ""),),
        patient_id=result.patient,
        issuer=case.site,
        birth_date=None,
        sex=result.sex,
        age_years=None,
        study_uid=study(case),
        series_uid=derived_uid("series of the film", case.site, result.case),
        instance_uid=derived_uid("film", case.site, result.case),
        class_uid=ComputedRadiographyImageStorage,
        modality="CR",
        study_id="",
        study_date=day(case),
        study_time=None,
        accession="",
        placer_order="",
        requested_procedure="",
        referring=(),
        rows=case.picture.rows if case.picture else 0,
        columns=case.picture.columns if case.picture else 0,
        decision=Decision(
            result.outcome,
            tuple(
                Finding(
                    one.finding,
                    zoo.labels().get(one.finding, one.finding.replace("_", " ").capitalize()),
                    one.scheme,
                    one.code,
                    one.probability,
                    one.low,
                    one.high,
                    result.operating_point,
                    *zoo.thresholds(result, one),
                    unsure=one.unsure,
                )
                for one in result.findings
            ),
            result.model,
            result.device_uid,
            None if result.reason is None else Refusal(result.reason),
        ),
        algorithm=algorithm or result.model or "Outpost",
        version=number if algorithm else "0",
        device_uid=result.device_uid or derived_uid("device", result.model),
        institution="",
        ae_title="OUTPOST",
        decided_at=moved(case, case.since),
        key=(case.site, result.case, str(result.run), result.device_uid),
    )


def dataset(one: Instance, kept: bytes = b"") -> Dataset:
    """All of an object but its pixels; `kept` is the file of one that an archive sent."""
    if one.taken is not None:
        return Dataset(dcmread(io.BytesIO(kept)))
    if one.is_film:
        return _film(one)
    if one.review is not None:
        return _read(one, one.review)
    made = dcmread(io.BytesIO(sr.document(one.said, leading(one.said), ()).data))
    _mark(made, one.case, datasets.CLEAN_STRUCTURED, datasets.DEVICE)
    return made


def whose(one: Instance) -> Dataset:
    """What all objects of a study have in common."""
    ds = dicom.placed(one.said, "film", one.class_uid, "", 1)
    _mark(ds, one.case, datasets.CLEAN_PIXELS)
    return ds


def file(one: Instance, kept: bytes, stored: bool) -> Document:
    """An object as a file; a film with its codestream, which is `kept`, as it is `stored`, else with its pixels plain.

    Raises `Unreadable` where the codestream is no such picture.
    """
    if one.taken is not None:
        return Document("taken", "application/dicom", one.uid, kept)
    ds, transfer_syntax = dataset(one), ExplicitVRLittleEndian
    if one.is_film and stored:
        transfer_syntax = HTJ2KLossless
        ds.add_new("PixelData", "OB", encapsulate([kept]))
        ds["PixelData"].is_undefined_length = True
    elif one.is_film:
        ds.add_new("PixelData", "OW", pixels(one.case, kept))
    return dicom.document("film" if one.is_film else "sr", ds, transfer_syntax)


def pixels(case: Case, codestream: bytes) -> bytes:
    """The pixels that a codestream has, 16 bits each, little-endian. Raises `Unreadable` where it is no such picture."""
    from imagecodecs import htj2k_decode  # OpenJPH; only where somebody asks for plain pixels

    picture = case.picture
    assert picture is not None
    # SOC, then SIZ with its length and capabilities, then the size (ITU-T T.800 A.5.1): believed before memory is taken for it
    columns, rows = (int.from_bytes(codestream[start : start + 4]) for start in (8, 12))
    if (
        codestream[:4] != b"\xff\x4f\xff\x51"
        or (rows, columns) != (picture.rows, picture.columns)
        or max(rows, columns) > SIDE
    ):
        raise Unreadable("The film's picture is not what its box said it is.")
    try:
        values = htj2k_decode(codestream)
    except Exception as error:  # its own kinds
        raise Unreadable(f"The film's picture cannot be decoded ({type(error).__name__}).") from error
    if values.shape != (rows, columns) or values.dtype != np.uint16:
        raise Unreadable("The film's picture is not what its box said it is.")
    return bytes(values.astype("<u2", copy=False).tobytes())


def _film(one: Instance) -> Dataset:
    picture = one.case.picture
    assert picture is not None
    ds = dicom.placed(one.said, "film", one.class_uid, "CR", 1)
    ds.SOPInstanceUID, ds.SeriesInstanceUID = one.uid, one.series
    ds.Manufacturer = ""
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CHEST", one.case.result.view, ""
    display = Display(picture.windows, picture.millimetres, picture.at_detector)
    datasets.neutral(ds, picture.rows, picture.columns, display)
    ds.DerivationDescription = "Neutral rendition of the film at its box: before any window, bones bright"
    _mark(ds, one.case, datasets.CLEAN_PIXELS)
    return ds


def _of_reader(said: Content, case: Case, review: Review) -> Content:
    """As the AI's, made by a person at the hub: a later run of the AI changes nothing in it."""
    return replace(
        said,
        algorithm=HUB,
        version=version("outpost-cxr"),
        device_uid=derived_uid(HUB),
        decided_at=moved(case, review.at),
        key=("read", review.digest),
    )


def _read(one: Instance, review: Review) -> Dataset:
    """A reader's report: coded, by a named person; preliminary while another read is awaited."""
    ds = dicom.placed(one.said, "read", one.class_uid, "SR", 9002)
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Outpost", HUB, one.said.version
    who = verdict.person(review.shown_as)
    observer = ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(who, organization_name=HUB),
    )
    found = review.finding
    items = [
        sr.said(terms.TRIAGE, terms.OUTCOMES[found.outcome]),
        *(sr.said(terms.IMPRESSION, terms.chosen(code)) for code in found.codes),
        *(sr.said(terms.ADVISED, terms.chosen(advice)) for advice in found.advice),
    ]
    sr.fill(ds, one.said, observer, [sr.container(sr.coded(terms.EVALUATIONS), *items)], [dicom.film(one.said)])
    dicom.made_at(ds, one.said.decided_at)
    ds.ContentDate, ds.ContentTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.PreliminaryFlag, ds.VerificationFlag = "FINAL" if review.final else "PRELIMINARY", "VERIFIED"
    verifier = Dataset()
    verifier.VerifyingObserverName, verifier.VerifyingOrganization = who, HUB
    verifier.VerificationDateTime = dicom.moment(one.said.decided_at)
    verifier.VerifyingObserverIdentificationCodeSequence = []
    ds.VerifyingObserverSequence = [verifier]
    _mark(ds, one.case, datasets.CLEAN_STRUCTURED)
    return ds


def _mark(ds: Dataset, case: Case, *done: tuple[str, str]) -> None:
    datasets.mark(ds, case.result.patient, case.result.sex, case.result.age, done)
