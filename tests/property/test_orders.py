"""Orders and films: a query is answered with what it asks for and nothing else; no film gets another patient's order or priors."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filewriter import dcmwrite

from edge.intake import sop_instance_uid
from edge.records import Header, Order, Station, Urgency
from edge.stages import header, match, query
from tests import mutations
from tests.results import names

PROCEDURE = ("LN", "30745-4", "Chest X-ray")
few = st.text("ab*?[é^", max_size=6)
identifiers = st.sampled_from(["", "A-1", "A-2", "7", "0", "unknown"])
uids = st.sampled_from(["", "1.2.3", "1.2.4"])
days = st.sampled_from([None, date(1900, 1, 1), date(1984, 7, 31), date(2025, 1, 2)])
sexes = st.sampled_from(["", "F", "M", "m", "O", "?"])

orders = st.builds(
    Order,
    id=st.integers(1, 9),
    source=st.just("tablet"),
    made_by=st.just("Amina"),
    made_at=st.datetimes(datetime(2026, 11, 24), datetime(2026, 11, 26)).map(lambda at: at.replace(tzinfo=UTC)),
    StudyInstanceUID=uids,
    AccessionNumber=identifiers,
    RequestedProcedureID=identifiers,
    ScheduledProcedureStepID=identifiers,
    PatientName=names(),
    PatientID=identifiers,
    IssuerOfPatientID=identifiers,
    PatientSex=sexes,
    PatientBirthDate=days,
    age_years=st.sampled_from([None, 0.5, 34.0]),
    urgency=st.sampled_from(Urgency),
)
SHARED = (
    "StudyInstanceUID",
    "AccessionNumber",
    "RequestedProcedureID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientSex",
    "PatientBirthDate",
)
registered = st.builds(replace, orders, PatientSex=st.sampled_from(["", "F", "M", "O"]))
"""As the form has them."""
films = st.builds(
    Header,
    StudyInstanceUID=uids,
    AccessionNumber=identifiers,
    RequestedProcedureID=identifiers,
    PatientName=st.sampled_from(["", "DOE^Jane", "Doe^J", "ROE^Amy", "山田^太郎"]),
    PatientID=identifiers,
    IssuerOfPatientID=identifiers,
    PatientSex=sexes,
    PatientBirthDate=days,
    StudyDate=st.sampled_from([None, date(2026, 11, 25), date(2001, 1, 1)]),
    age_years=st.sampled_from([None, 1.0, 34.0, 70.0]),
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Header, Order]:
    """A film and an order that agree in most of what they say, as those of the same patient and of neighbours do."""
    film, order = draw(films), draw(orders)
    shared = draw(st.sets(st.sampled_from(SHARED), min_size=len(SHARED) - 2))
    return replace(film, **{keyword: getattr(order, keyword) for keyword in shared}), order


@st.composite
def twins(draw: st.DrawFn) -> tuple[Header, Header]:
    """Two films that say the same but for one thing or two."""
    one, other = draw(films), draw(films)
    names = (
        "PatientID",
        "IssuerOfPatientID",
        "PatientSex",
        "PatientBirthDate",
        "PatientName",
        "age_years",
        "StudyDate",
    )
    shared = draw(st.sets(st.sampled_from(names), min_size=len(names) - 2))
    return one, replace(other, **{name: getattr(one, name) for name in shared})


@given(few, few)
def test_wild_cards_mean_what_they_say(pattern: str, text: str) -> None:
    described = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    assert query.like(pattern, text) is (re.fullmatch(described, text, re.DOTALL) is not None)


def test_no_pattern_takes_long() -> None:
    assert not query.like("*a" * 200 + "b", "a" * 20_000)


@given(
    st.dates(date(2026, 11, 20), date(2026, 11, 30)),
    *[st.none() | st.dates(date(2026, 11, 20), date(2026, 11, 30))] * 2,
)
def test_a_range_of_dates_holds_its_ends(day: date, first: date | None, last: date | None) -> None:
    assume(first or last)
    asked = f"{first:%Y%m%d}-" if first else "-"
    asked += f"{last:%Y%m%d}" if last else ""
    inside = (first is None or first <= day) and (last is None or day <= last)
    assert query.in_range(asked, f"{day:%Y%m%d}", 8) is inside
    assert not query.in_range(asked, "", 8)


@given(st.integers(0, 86399), st.integers(0, 23), st.integers(0, 59))
def test_a_minute_holds_all_its_seconds(second: int, hour: int, minute: int) -> None:
    time = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"
    assert query.in_range(f"{hour:02}{minute:02}", time, 12) is time.startswith(f"{hour:02}{minute:02}")
    assert query.in_range(f"{hour:02}-", time, 12) is (second // 3600 >= hour)
    assert query.in_range(f"-{hour:02}", time, 12) is (second // 3600 <= hour)


def test_an_unreadable_date_is_in_no_range() -> None:
    for wrong in ("2026", "yesterday", "-", "20261125-20261126-", "١٢٣٤٥٦٧٨"):
        assert not query.in_range(wrong, "20261125", 8), wrong


KEYS = {
    "PatientName": ["*", "DOE*", "?*^*", "doe^jane"],
    "PatientID": ["*", "A-?", "A-1"],
    "AccessionNumber": ["A*", "7"],
    "RequestedProcedurePriority": ["STAT", "HIGH"],
    "PatientBirthDate": ["19840101-19841231", "-20000101"],
    "StudyInstanceUID": ["1.2.3", ["1.2.3", "1.2.4"]],
    "PatientSex": ["F"],
    "InstitutionalDepartmentName": ["Casualty"],
}
STEP = {
    "Modality": ["DX", "CR", "CT"],
    "ScheduledStationAETitle": ["ROOM1", "ROOM*", "OTHER*"],
    "ScheduledProcedureStepStartDate": ["20261125", "20261124-20261125"],
}


@st.composite
def queries(draw: st.DrawFn) -> Dataset:
    """What a modality may ask, as it arrives: encoded and read again."""
    valued = draw(st.sets(st.sampled_from([*KEYS, *STEP]), max_size=2))
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    for keyword, values in KEYS.items():
        if keyword in valued or draw(st.booleans()):
            setattr(asked, keyword, draw(st.sampled_from(values)) if keyword in valued else "")
    if valued & set(STEP) or draw(st.booleans()):
        step = Dataset()
        for keyword, values in STEP.items():
            if keyword in valued or draw(st.booleans()):
                setattr(step, keyword, draw(st.sampled_from(values)) if keyword in valued else "")
        asked.ScheduledProcedureStepSequence = [step] if valued & set(STEP) else draw(st.sampled_from([[], [step]]))
    file = BytesIO()
    dcmwrite(file, asked, implicit_vr=False, little_endian=True, force_encoding=True)
    return dcmread(BytesIO(file.getvalue()), force=True)


def _stated(asked: str, value: str) -> bool:
    """The standard's rule for one text, said a second time."""
    if asked == "":
        return True
    described = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in asked)
    return re.fullmatch(described, value, re.DOTALL) is not None


@given(registered)
def test_keys_without_a_value_ask_for_nothing(order: Order) -> None:
    """Modalities list every attribute they would like to have, also in sequences of which this box has no item."""
    asked, study = Dataset(), Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "", ""
    asked.ReferencedStudySequence = asked.ReferencedPatientSequence = [study]
    asked.RequestedProcedureCodeSequence = asked.ScheduledProcedureStepSequence = [Dataset()]
    asked.PatientName = asked.PatientID = asked.PatientBirthDate = asked.AdmissionID = ""
    asked.add_new("MedicalAlerts", "LO", "  ")
    whole = query.item(order, PROCEDURE, Station(), "ROOM1", asked)
    assert query.matches(asked, whole) and query.supports(asked, whole)
    back = query.answer(asked, whole)
    assert back.RequestedProcedureCodeSequence[0].CodeValue == "30745-4"
    assert len(back.ReferencedStudySequence) == 0


@given(queries(), registered)
def test_nothing_is_answered_that_was_not_asked_for(asked: Dataset, order: Order) -> None:
    whole = query.item(order, PROCEDURE, Station(), "ROOM1", asked)
    if not query.matches(asked, whole):
        return
    for keyword in ("PatientID", "AccessionNumber", "RequestedProcedurePriority", "PatientSex"):
        assert _stated(str(asked.get(keyword) or ""), str(whole.get(keyword) or "")), keyword
    name = str(asked.get("PatientName") or "").casefold()
    groups = [order.PatientName, *order.PatientName.split("=")]
    assert any(_stated(name, group.casefold().rstrip("^")) for group in groups)
    if "StudyInstanceUID" in asked and asked.StudyInstanceUID:
        assert order.StudyInstanceUID in asked["StudyInstanceUID"].value
    if asked.get("PatientBirthDate"):
        low, _, high = asked.PatientBirthDate.partition("-")
        assert order.PatientBirthDate is not None
        assert low <= f"{order.PatientBirthDate:%Y%m%d}" <= high
    for step in asked.get("ScheduledProcedureStepSequence") or []:
        assert step.get("Modality") != "CT"
        assert step.get("ScheduledStationAETitle") != "OTHER*"
        if step.get("ScheduledProcedureStepStartDate"):
            low, _, high = step.ScheduledProcedureStepStartDate.partition("-")
            assert low <= f"{order.made_at:%Y%m%d}" <= (high or low)


@given(queries(), registered)
def test_what_is_asked_comes_back_and_nothing_else(asked: Dataset, order: Order) -> None:
    whole = query.item(order, PROCEDURE, Station(), "ROOM1", asked)
    given_back = query.answer(asked, whole)
    assert {key.keyword for key in given_back} == {key.keyword for key in asked} | {"SpecificCharacterSet"}
    assert given_back.SpecificCharacterSet == "ISO_IR 192"
    file = BytesIO()
    dcmwrite(file, given_back, implicit_vr=True, little_endian=True, force_encoding=True)
    read = dcmread(BytesIO(file.getvalue()), force=True)
    if "PatientName" in asked:
        assert str(read.PatientName) == order.PatientName
    unknown = "InstitutionalDepartmentName"
    assert query.supports(asked, whole) is not bool(asked.get(unknown))
    if unknown in asked:
        assert not given_back.get(unknown)
    for step, back in zip(
        asked.get("ScheduledProcedureStepSequence") or [],
        given_back.get("ScheduledProcedureStepSequence") or [],
        strict=False,
    ):
        if len(step):
            assert {key.keyword for key in back} == {key.keyword for key in step}
        else:
            assert back.ScheduledProcedureStepStatus == "SCHEDULED"


@given(pairs(), st.lists(orders, max_size=2))
@settings(max_examples=400)
def test_no_film_gets_another_patients_order(pair: tuple[Header, Order], others: list[Order]) -> None:
    film, order = pair
    found = match.order_of(film, [order, *others])
    if found is None:
        return
    own = bool(film.StudyInstanceUID) and film.StudyInstanceUID == found.StudyInstanceUID
    ids = film.PatientID == found.PatientID and film.PatientID not in ("", "0", "unknown")
    named = (film.AccessionNumber and film.AccessionNumber == found.AccessionNumber) or (
        film.RequestedProcedureID and film.RequestedProcedureID == found.RequestedProcedureID
    )
    assert own or (ids and named)
    for keyword in ("PatientID", "IssuerOfPatientID", "AccessionNumber"):
        assert "" in (getattr(film, keyword), getattr(found, keyword)) or getattr(film, keyword) == getattr(
            found, keyword
        )
    assert {film.PatientSex.upper(), found.PatientSex.upper()} not in ({"F", "M"}, {"F", "O"}, {"M", "O"})
    born = {film.PatientBirthDate, found.PatientBirthDate} - {None, date(1900, 1, 1)}
    assert len(born) <= 1


@given(films, st.lists(orders, max_size=4), st.randoms())
def test_the_order_of_the_orders_does_not_matter(film: Header, known: list[Order], random: object) -> None:
    unlike = [replace(order, id=number) for number, order in enumerate(known)]
    assert match.order_of(film, unlike) == match.order_of(film, unlike[::-1])


@given(films, orders)
def test_a_film_finds_the_order_it_was_taken_for(film: Header, order: Order) -> None:
    """The X-ray unit copies from the worklist what the film says of patient and request."""
    assume(order.StudyInstanceUID)
    taken = replace(
        film,
        **{
            keyword: getattr(order, keyword)
            for keyword in (
                "StudyInstanceUID",
                "AccessionNumber",
                "PatientID",
                "IssuerOfPatientID",
                "PatientSex",
                "PatientBirthDate",
            )
        },
    )
    assert match.order_of(taken, [order]) == order


@given(films, orders)
def test_an_order_fills_in_and_never_overrules(film: Header, order: Order) -> None:
    completed = match.complete(film, order)
    changed = {
        name
        for name in ("PatientSex", "age_years", "PatientBirthDate")
        if getattr(completed, name) != getattr(film, name)
    }
    assert changed <= set(completed.from_order)
    if film.age_years is not None:
        assert completed.age_years == film.age_years
    if film.PatientSex in ("F", "M", "O"):
        assert completed.PatientSex == film.PatientSex
    assert completed.age_years is None or completed.age_years >= 0
    assert (
        replace(
            completed,
            PatientSex=film.PatientSex,
            age_years=film.age_years,
            PatientBirthDate=film.PatientBirthDate,
            from_order=(),
        )
        == film
    )


@given(twins())
@settings(max_examples=400)
def test_a_wrong_patient_is_never_the_same_person(films: tuple[Header, Header]) -> None:
    one, other = films
    same = match.same_person(one, other)
    assert same is match.same_person(other, one)
    if not same:
        return
    assert one.PatientID == other.PatientID and one.PatientID in ("A-1", "A-2", "7")
    assert one.IssuerOfPatientID == other.IssuerOfPatientID
    assert {one.PatientSex.upper(), other.PatientSex.upper()} not in ({"F", "M"}, {"F", "O"}, {"M", "O"})
    born = {one.PatientBirthDate, other.PatientBirthDate} - {None, date(1900, 1, 1)}
    assert len(born) <= 1
    if None not in (one.StudyDate, other.StudyDate, one.age_years, other.age_years):
        assert one.StudyDate and other.StudyDate and one.age_years is not None and other.age_years is not None
        between = (one.StudyDate - other.StudyDate) / timedelta(days=365.25)
        assert abs(between - (one.age_years - other.age_years)) <= 1.6
    if {one.PatientName, other.PatientName} in ({"DOE^Jane", "ROE^Amy"}, {"DOE^Jane", "山田^太郎"}):
        assert one.PatientBirthDate == other.PatientBirthDate and len(born) == 1


@given(films)
def test_a_later_film_of_the_same_patient_is_recognised(film: Header) -> None:
    assume(film.PatientID in ("A-1", "A-2", "7"))
    later = replace(
        film, StudyInstanceUID="1.2.9", StudyDate=date(2026, 11, 26) if film.age_years is None else film.StudyDate
    )
    assert match.same_person(film, later)


@given(st.sampled_from(mutations.ENCODINGS), st.integers(0, 2**32), st.integers(0, 200), st.floats(0, 1))
def test_a_glance_at_any_film_ends_well(encoding: str, seed: int, count: int, share: float) -> None:
    """Intake looks at every film before it is acknowledged: whatever it is, nothing is raised and little is allocated."""
    data = mutations.flipped(mutations.whole(encoding)[: 1500 + int(share * 2000)], seed, count)
    with NamedTemporaryFile(suffix=".dcm") as file:
        file.write(data)
        file.flush()
        tracemalloc.start()
        try:
            header.identify(Path(file.name))
            sop_instance_uid(Path(file.name))
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()
