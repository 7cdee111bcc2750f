"""Results under test: any film that a clinic may have, with any outcome, and what a person said of it."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from edge.config import Config
from edge.records import (
    Arrival,
    Assessment,
    Decision,
    Film,
    Finding,
    Grays,
    Header,
    Outcome,
    Read,
    ReadKind,
    Reason,
    Refusal,
    Sha256,
    Source,
    Station,
    Urgency,
)
from edge.stages import decide
from edge.state import arrivals, outbox
from edge.state import results as stored
from edge.state.store import now, open_store, transaction
from edge.vocabulary import IMPRESSIONS, OVERRIDES

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PNEUMONIA = Finding("pneumonia", "Pneumonia", "SCT", "233604007", 0.871, 0.802, 0.914, "balanced", 0.6938, 0.7781)
OPACITY = Finding(
    "lung_opacity", "Lung opacity", "RADLEX", "RID28530", 0.12, 0.02, 0.31, "balanced", 0.3382, 0.7926, unsure=True
)

SCRIPTS = "Núñez Ødegård", "Диалло Фату", "ዓለሙ ተስፋዬ", "عبد الله", "山田 太郎", "やまだ", "अमिता", "김희중", "𞤁𞤭𞤢𞤤𞤮"

letters = st.one_of(
    st.sampled_from(SCRIPTS),
    # whatever a person's name may hold in DICOM (PS3.5 6.2): no control characters, no backslash, caret or equals sign
    st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\\^="), min_size=1, max_size=12),
)
identifiers = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\\"), min_size=1, max_size=16)
uids = st.lists(st.integers(0, 10**9), min_size=1, max_size=5).map(lambda parts: "1.2." + ".".join(map(str, parts)))
broken = st.sampled_from(["", "1", "1.2.", "1.02.3", "abc", "1." + "9" * 70, "é", "1.2\n3"])


@st.composite
def names(draw: st.DrawFn) -> str:
    """A person's name in one to three scripts, each of one to five parts."""
    groups = draw(st.lists(st.lists(letters, min_size=1, max_size=5).map("^".join), min_size=1, max_size=3))
    return "=".join(group[:64].rstrip("^ ") for group in groups)


@st.composite
def headers(draw: st.DrawFn, uid: st.SearchStrategy[str] = uids) -> Header:
    """What a film says of itself."""
    return Header(
        SOPInstanceUID=draw(uid),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        StudyInstanceUID=draw(uid),
        SeriesInstanceUID=draw(uid),
        Modality="DX",
        PatientName=draw(names()),
        PatientID=draw(identifiers),
        IssuerOfPatientID=draw(st.one_of(st.just(""), identifiers)),
        PatientSex=draw(st.sampled_from(["M", "F", "O", "", "?"])),
        StudyID=draw(identifiers),
        StudyDate=draw(st.one_of(st.none(), st.dates(date(1990, 1, 1), date(2030, 1, 1)))),
        StudyTime=draw(st.sampled_from(["", "0800", "235959.123", "25", "8 o'clock"])),
        TimezoneOffsetFromUTC=draw(st.sampled_from(["", "+0100", "-0330", "hm"])),
        AccessionNumber=draw(st.one_of(st.just(""), identifiers)),
        ReferringPhysicianName=draw(st.one_of(st.just(""), names())),
        PatientBirthDate=draw(st.one_of(st.none(), st.dates(date(1901, 1, 1), date(2026, 1, 1)))),
        Rows=draw(st.sampled_from([200, 1024, 4280])),
        Columns=900,
        grays=draw(st.one_of(st.none(), grays)),
    )


sides = st.integers(1, 9)
grays = st.builds(
    Grays,
    inverted=st.booleans(),
    rescale=st.one_of(st.none(), st.tuples(st.floats(-2e5, 2e5), st.floats(0.001, 9).filter(bool))),
    window=st.one_of(st.none(), st.tuples(st.floats(-1e6, 1e6), st.floats(1, 1e6))),
    function=st.sampled_from(["", "LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    aspect=st.tuples(sides, sides),
)


@st.composite
def maps(draw: st.DrawFn) -> bytes:
    """A heat map of any shape and content, as the worker writes it."""
    rows, columns = draw(sides), draw(sides)
    values = draw(st.lists(st.integers(0, 200), min_size=rows * columns, max_size=rows * columns))
    return heat(np.array(values, np.uint8).reshape(rows, columns))


def heat(opaque: np.typing.NDArray[np.uint8]) -> bytes:
    """A heat map whose opacity is given."""
    rgba = np.zeros((*opaque.shape, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 255, opaque
    return png(rgba)


def png(pixels: np.typing.NDArray[np.uint8]) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PREVIEW = png(np.tile(np.arange(90, dtype=np.uint8), (102, 1)))


@st.composite
def findings(draw: st.DrawFn) -> tuple[Finding, ...]:
    """One or two findings of any probability."""
    drawn = []
    for known in draw(st.sampled_from([(PNEUMONIA,), (OPACITY,), (PNEUMONIA, OPACITY)])):
        low, value, high = sorted(draw(st.tuples(*[st.floats(0, 1)] * 3)))
        drawn.append(replace(known, probability=value, low=low, high=high, unsure=draw(st.booleans())))
    return tuple(drawn)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any outcome; *could not assess* for any reason for which a film is sent on."""
    model, device = "cxr-lite0 0.1.0", "2.25.314159265358979"
    if draw(st.booleans()):
        reason = draw(st.sampled_from([reason for reason in Reason if reason is not Reason.NOT_A_RADIOGRAPH]))
        return decide.refuse(Refusal(reason, "for the technician"), model, device)
    return decide.decide(draw(findings()), model, device)


def film(header: Header, decision: Decision, saliency: bytes | None = None, run: int = 1) -> Film:
    """A film on a box, with its outcome."""
    arrival = Arrival(1, header.SOPInstanceUID, Sha256("5f" * 32), "XRAY", NOON, Urgency.ROUTINE, False)
    at = NOON + timedelta(minutes=1)
    return Film(
        arrival=arrival,
        run=run,
        header=header,
        decision=decision,
        decided_at=at,
        milliseconds={},
        supplied_age=None,
        again=False,
        rendition=None,
        preview=None,
        display=None,
        saliency=saliency,
        failed="",
    )


@st.composite
def sources(draw: st.DrawFn, uid: st.SearchStrategy[str] = uids) -> Source:
    """Everything that a film's results are made of."""
    station = Station("OUTPOST", draw(st.sampled_from(["", "Centre de santé Nord"])), "Africa/Lagos")
    shown = film(draw(headers(uid)), draw(decisions()), draw(st.one_of(st.none(), maps())))
    return Source(shown, draw(st.sampled_from([None, PREVIEW])), station, draw(st.booleans()))


@st.composite
def reads(draw: st.DrawFn) -> Read:
    """What a person decided."""
    kind = draw(st.sampled_from([ReadKind.CONFIRM, ReadKind.OVERRIDE, ReadKind.REFER, ReadKind.WITHDRAW]))
    outcome = draw(st.sampled_from(Outcome)) if kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE) else None
    codes = (
        draw(st.lists(st.sampled_from(list(IMPRESSIONS)), max_size=3).map(tuple)) if kind is ReadKind.OVERRIDE else ()
    )
    reason = draw(st.sampled_from(list(OVERRIDES))) if kind is ReadKind.OVERRIDE else ""
    return Read(7, 1, 1, kind, draw(letters), NOON + timedelta(hours=1), outcome, codes, reason, "")


def confirmed(outcome: Outcome = Outcome.IMMEDIATE) -> Read:
    """What a person decided who agreed with the AI."""
    return Read(7, 1, 1, ReadKind.CONFIRM, "Amina", NOON + timedelta(hours=1), outcome, (), "", "")


def example() -> Source:
    """One source with everything in it."""
    header = Header(
        SOPInstanceUID="1.2.3.4",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1",
        Modality="DX",
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        PatientID="A|1&2~3^4",
        IssuerOfPatientID="Nord",
        PatientSex="M",
        StudyID="7",
        StudyDate=date(2026, 11, 23),
        StudyTime="080000",
        AccessionNumber="2026-117",
        ReferringPhysicianName="Diallo^Fatou",
        PatientBirthDate=date(1980, 2, 29),
        Rows=1024,
        Columns=900,
        age_years=46.7,
        grays=Grays(False, None, (2048, 4096), "", (1, 1)),
    )
    decision = decide.decide((PNEUMONIA, OPACITY), "cxr-lite0 0.1.0", "2.25.314159265358979")
    saliency = heat(np.array([[0, 0, 0], [0, 90, 200], [0, 40, 120]], np.uint8))
    station = Station("OUTPOST", "Centre de santé Nord", "Africa/Lagos")
    return Source(film(header, decision, saliency), PREVIEW, station)


def decided(config: Config, number: int) -> None:
    """What the worker commits at the end of a film."""
    film = example().film
    assert film.decision is not None
    with closing(open_store(Path(config.state))) as store, transaction(store):
        digest = Sha256(f"{number:064x}")
        arrival, _ = arrivals.add(store, f"1.2.{number}", digest, "XRAY", now(), Urgency.ROUTINE)
        stored.add(store, arrival, 1, Assessment(film.header, film.decision, None, {}), now())
        outbox.of_result(store, config, arrival, 1, film.decision.outcome, now())
