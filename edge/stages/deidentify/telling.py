"""Telling: a film's outcome, what people said of it and its picture, as the hub may know them, made of what is allowed.

A card has no place for free text (`edge/cards.py`): a text here is a pseudonym, a code, or one of the box's own, by the door.
"""

from __future__ import annotations

from dataclasses import replace

from pydicom import Dataset

from edge.cards import Decided, Image, Likelihood, Picture, Result, Saliency, StaysHome
from edge.records import Arrival, Decision, Display, Header, Read, ReadKind, Rendition, Withheld
from edge.stages.deidentify.datasets import announced
from edge.stages.deidentify.door import Door, age


def case(arrival: Arrival, first: bool, door: Door) -> str:
    """The name of a film at the hub; of films with the same SOP Instance UID, all but the `first` are named by their content."""
    return door.uid(arrival.sop_instance_uid if arrival.sop_instance_uid and first else f"sha256 {arrival.sha256}")


def result(
    name: str,
    run: int,
    arrival: Arrival,
    header: Header,
    decision: Decision,
    supplied_age: float | None,
    shadow: bool,
    saliency: Saliency | None,
    door: Door,
) -> Result:
    """The outcome of one run of a film of that name."""
    # a film that says nothing of itself is nobody else's
    header = replace(header, SOPInstanceUID=header.SOPInstanceUID or arrival.sha256)
    patient = door.patient(header)
    day = None if header.StudyDate is None else patient.day(header.StudyDate)
    point = decision.findings[0].operating_point if decision.findings else ""
    known = [one for one in decision.findings if (one.scheme, one.code) in door.terms]
    return Result(
        case=name,
        run=run,
        study=door.uid(header.StudyInstanceUID) or None,
        patient=patient.pseudonym,
        age=patient.age if supplied_age is None else age(supplied_age),
        sex=patient.sex,
        day="" if day is None else day.isoformat(),
        view=header.ViewPosition if header.ViewPosition in ("PA", "AP") else "",
        urgency=arrival.urgency,
        outcome=decision.outcome,
        reason=None if decision.refusal is None else decision.refusal.reason,
        findings=tuple(
            Likelihood(
                finding=one.finding,
                scheme=one.scheme,
                code=one.code,
                probability=round(one.probability, 6),
                low=round(one.low, 6),
                high=round(one.high, 6),
                unsure=one.unsure,
            )
            for one in known
        ),
        model=decision.model if decision.model in door.texts else "",
        device_uid=decision.device_uid if decision.device_uid in door.uids else "",
        operating_point=point if point in door.texts else "",
        shadow=shadow,
        saliency=saliency if saliency and any(one.finding == saliency.finding for one in known) else None,
    )


def decided(name: str, read: Read, door: Door) -> Decided:
    """What somebody at the clinic said of the film of that name."""
    return Decided(
        case=name,
        run=read.run,
        act=read.kind,
        outcome=read.outcome,
        codes=read.codes,
        reason=read.reason,
        reader=door.person(read.reader) or door.person("nobody"),
        before_ai=read.kind is ReadKind.IMPRESSION,
    )


def cleaned(rendition: Rendition, dataset: Dataset) -> Rendition | Withheld:
    """A film's picture without text, or that it stays home."""
    from edge.stages.deidentify import pixels  # only a film needs numpy; the pages, which make pseudonyms, have none

    seen = pixels.clean(rendition.values, announced(dataset))
    return seen if isinstance(seen, Withheld) else Rendition(seen.values, rendition.display)


def image(name: str, sha256: str, size: int, shape: tuple[int, int], display: Display) -> Image:
    """That the picture of the film of that name exists, in a file of so many bytes."""
    picture = Picture(
        sha256=sha256,
        size=size,
        rows=shape[0],
        columns=shape[1],
        windows=tuple((round(center, 3), round(width, 3)) for center, width in display.windows),
        millimetres=None if display.millimetres is None else round(display.millimetres, 6),
        at_detector=display.at_detector,
    )
    return Image(case=name, picture=picture)


def stays_home(name: str, withheld: Withheld) -> StaysHome:
    """That it does not leave the clinic."""
    return StaysHome(case=name, concern=withheld.concern)
