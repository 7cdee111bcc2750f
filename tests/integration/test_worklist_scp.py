"""A modality asks for its worklist: dcmtk's findscu asks this box, and Orthanc for the same, and takes the film it finds."""

from __future__ import annotations

import subprocess
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from edge import config as settings
from edge.config import Config, Intake
from edge.ordering import identifiers
from edge.records import Order, Urgency
from edge.samples import film
from edge.state import orders
from edge.state.store import now, open_store, transaction
from models import phantom
from tests.box import Box, until
from tests.conftest import peer
from tests.orthanc import Orthanc

KEYS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedurePriority",
    "ReferringPhysicianName",
)
STEP = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
)
NAMES = ("Диалло^Фату", "عبد الله^ليلى", "山田^太郎", "Núñez^Ødegård", "ዓለሙ^ተስፋዬ")


def register(box: Box, key: str, at: datetime | None = None, **said: object) -> Order:
    """Put a patient on the box's list, as the form does."""
    study, number = identifiers(key)
    values: dict[str, object] = {
        "PatientName": "Okafor^Chidi",
        "PatientID": "P-7",
        "PatientSex": "M",
        "PatientBirthDate": date(1984, 7, 31),
        "urgency": Urgency.HIGH,
        "procedure": "chest",
        "StudyInstanceUID": study,
        "AccessionNumber": number,
        "RequestedProcedureID": number,
        "ScheduledProcedureStepID": number,
    }
    order = Order(0, "tablet", "Amina", at or now(), **{**values, **said})  # type: ignore[arg-type]
    with closing(open_store(Path(box.config.state))) as store, transaction(store):
        return orders.register(store, order, key)[0]


def listed(box: Box) -> list[Order]:
    with closing(open_store(Path(box.config.state))) as store:
        return orders.listed(store, now())


def findscu(folder: Path, port: int, ae_title: str, *keys: str) -> list[Dataset]:
    """What a worklist answers to these keys."""
    folder.mkdir()
    command = [peer("findscu", "dcmtk"), "-W", "-X", "-od", folder, "-aet", "ROOM1", "-aec", ae_title]
    asked = [part for key in keys for part in ("-k", key)]
    subprocess.run([*command, *asked, "127.0.0.1", str(port)], check=True, capture_output=True)
    return [dcmread(path, force=True) for path in sorted(folder.glob("*.dcm"))]


def all_keys(modality: str = "DX") -> list[str]:
    step = [f"ScheduledProcedureStepSequence[0].{keyword}" for keyword in STEP]
    step[0] += f"={modality}"
    return [*KEYS, *step, "SpecificCharacterSet=ISO_IR 192"]


def said(answer: Dataset) -> dict[str, str]:
    step = answer.ScheduledProcedureStepSequence[0]
    return {
        **{keyword: str(answer[keyword].value or "") for keyword in KEYS},
        **{keyword: str(step[keyword].value or "") for keyword in STEP},
    }


@pytest.mark.peer
def test_our_answer_is_orthancs(tmp_path: Path) -> None:
    """The same patient in Orthanc's worklist and registered here: findscu is told the same by both."""
    folder = tmp_path / "worklists"
    folder.mkdir()
    box = Box(tmp_path, "intake")
    with box, Orthanc(tmp_path, worklist=folder, more={"DefaultEncoding": "Utf8"}) as orthanc:
        for number, name in enumerate(("Okafor^Chidi", *NAMES)):
            order = register(box, f"key-of-registration-{number}", PatientName=name, PatientID=f"P-{number}")
            _wl(order).save_as(folder / f"{number}.wl", enforce_file_format=True)
        (folder / "lockfile").touch()
        theirs = findscu(tmp_path / "theirs", orthanc.port, "ORTHANC", *all_keys())
        ours = findscu(tmp_path / "ours", box.port, "OUTPOST", *all_keys())
        keyed = {answer.PatientID: said(answer) for answer in ours}
        assert len(ours) == 6 and keyed == {answer.PatientID: said(answer) for answer in theirs}
        assert {one["PatientName"] for one in keyed.values()} == {"Okafor^Chidi", *NAMES}
        assert {one["RequestedProcedurePriority"] for one in keyed.values()} == {"HIGH"}
        for number, keys in enumerate(
            (
                [*all_keys(), "PatientName=Ok*"],
                [*all_keys(), "PatientName=?kafor^Chidi"],
                [*all_keys(), "PatientName=Диалло*"],
                [*all_keys(), "PatientID=P-3"],
                [*all_keys(), "PatientID=P-9"],
                [*all_keys(), "PatientBirthDate=19840101-19841231"],
                [*all_keys(), "PatientBirthDate=-19831231"],
                [*all_keys(), f"ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate={now():%Y%m%d}"],
                [*all_keys(), "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20200101-20201231"],
                [*all_keys(), "ScheduledProcedureStepSequence[0].ScheduledStationAETitle=ROOM1"],
                all_keys("CT"),
            )
        ):
            one = findscu(tmp_path / f"theirs-{number}", orthanc.port, "ORTHANC", *keys)
            other = findscu(tmp_path / f"ours-{number}", box.port, "OUTPOST", *keys)
            assert {answer.PatientID for answer in one} == {answer.PatientID for answer in other}, keys
    assert all(answer.SpecificCharacterSet == "ISO_IR 192" for answer in ours)


def _wl(order: Order) -> Dataset:
    """The registered patient as an entry of Orthanc's worklist, written without this project's help."""
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "DX", "ROOM1"
    step.ScheduledProcedureStepStartDate = order.made_at.astimezone(UTC).strftime("%Y%m%d")
    step.ScheduledProcedureStepStartTime = order.made_at.astimezone(UTC).strftime("%H%M%S")
    step.ScheduledProcedureStepDescription = "Chest X-ray"
    step.ScheduledProcedureStepID = order.ScheduledProcedureStepID
    entry = Dataset()
    entry.file_meta = FileMetaDataset()
    entry.file_meta.MediaStorageSOPClassUID = ModalityWorklistInformationFind
    entry.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    entry.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    entry.SpecificCharacterSet = "ISO_IR 192"
    entry.PatientName, entry.PatientID = order.PatientName, order.PatientID
    entry.PatientBirthDate, entry.PatientSex = "19840731", "M"
    entry.AccessionNumber, entry.StudyInstanceUID = order.AccessionNumber, order.StudyInstanceUID
    entry.RequestedProcedureID = order.RequestedProcedureID
    entry.RequestedProcedureDescription = "Chest X-ray"
    entry.RequestedProcedurePriority = order.urgency.upper()
    entry.ReferringPhysicianName = ""
    entry.ScheduledProcedureStepSequence = [step]
    return entry


@pytest.mark.peer
def test_a_registered_patients_film_takes_the_priority(tmp_path: Path) -> None:
    """The unit picks the patient from its list and sends the film; it goes first, its age is the order's, the entry is gone."""
    storescu = peer("storescu", "dcmtk")
    with Box(tmp_path) as box:
        other = film(phantom.chest(2), "Doe^Jane", "040Y", "F")
        other.save_as(tmp_path / "other.dcm", enforce_file_format=True)
        subprocess.run([storescu, "127.0.0.1", str(box.port), tmp_path / "other.dcm"], check=True)
        register(box, "key-of-registration-1", urgency=Urgency.STAT)
        picked = findscu(tmp_path / "picked", box.port, "OUTPOST", *all_keys())[0]
        taken = film(phantom.chest(1), str(picked.PatientName), "", "")
        taken.PatientID, taken.AccessionNumber = picked.PatientID, picked.AccessionNumber
        taken.StudyInstanceUID = picked.StudyInstanceUID
        taken.save_as(tmp_path / "film.dcm", enforce_file_format=True)
        subprocess.run([storescu, "127.0.0.1", str(box.port), tmp_path / "film.dcm"], check=True)
        assert box.films()[1].arrival.urgency is Urgency.STAT  # before anybody has decoded it
        assert listed(box) == []
        found = findscu(tmp_path / "after", box.port, "OUTPOST", *all_keys())
        first, second = box.decided(2)
    assert found == []
    assert first.arrival.urgency is Urgency.ROUTINE and first.header.from_order == ()
    assert second.header.from_order == ("PatientSex", "age_years", "PatientBirthDate")
    assert second.header.PatientSex == "M" and 42 < (second.header.age_years or 0) < 43
    assert second.decision is not None and second.decision.refusal is None


def test_an_unknown_key_is_said_to_be_unknown(tmp_path: Path) -> None:
    with Box(tmp_path, "intake") as box:
        register(box, "key-of-registration-1")
        asked = Dataset()
        asked.PatientName, asked.InstitutionalDepartmentName = "", ""
        assert _statuses(box, asked) == [0xFF00, 0x0000]
        asked.InstitutionalDepartmentName = "Casualty"
        assert _statuses(box, asked) == [0xFF01, 0x0000]
        asked.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
        assert _statuses(box, asked) == [0xA900]


def _cancelled(box: Box) -> list[int]:
    """The statuses of a query that is cancelled at its first answer."""
    ae = AE("ROOM1")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate("127.0.0.1", box.port, ae_title="OUTPOST")
    asked = Dataset()
    asked.PatientName = ""
    statuses: list[int] = []
    for status, _ in association.send_c_find(asked, ModalityWorklistInformationFind, msg_id=7):
        if not statuses:
            association.send_c_cancel(7, query_model=ModalityWorklistInformationFind)
        statuses.append(status.Status)
    association.release()
    return statuses


def test_a_modality_that_cancels_gets_no_more(tmp_path: Path) -> None:
    with Box(tmp_path, "intake") as box:
        for number in range(1500):  # far more than is on its way before the cancel comes
            register(box, f"key-of-registration-{number}", PatientID=f"P-{number}")
        said: list[list[int]] = []

        def cancelled() -> bool:
            said.append(_cancelled(box))
            return said[-1][-1] == 0xFE00

        # a cancel may come after the last answer (PS3.7 9.3.2.3), then there is nothing to see
        until(cancelled, "a cancel comes before the last answer")
    assert len(said[-1]) < 1500


def test_only_the_modalities_that_were_named(tmp_path: Path) -> None:
    box = Box(tmp_path, "intake")
    settings.save(Config(state=box.config.state, intake=Intake(port=box.port, calling_ae_titles=("ROOM1",))), box.file)
    with box:
        for title, welcome in (("ROOM1", True), ("STRANGER", False)):
            ae = AE(title)
            association = ae.associate(
                "127.0.0.1", box.port, [build_context(ModalityWorklistInformationFind)], ae_title="OUTPOST"
            )
            assert association.is_established is welcome
            if welcome:
                association.release()


def test_bytes_that_are_no_query_are_refused_and_the_port_lives(tmp_path: Path) -> None:
    with Box(tmp_path, "intake") as box:
        register(box, "key-of-registration-1")
        asked = Dataset()
        asked.PatientName = ""
        asked.add_new(0x00400100, "LO", "no sequence")
        assert _statuses(box, asked)[-1] in (0xC000, 0xA900, 0xC311, 0x0000)
        until(box.answers, "the port is open still")
        assert _statuses(box, _name_only()) == [0xFF00, 0x0000]


def _name_only() -> Dataset:
    asked = Dataset()
    asked.PatientName = ""
    return asked


def _statuses(box: Box, asked: Dataset) -> list[int]:
    ae = AE("ROOM1")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate("127.0.0.1", box.port, ae_title="OUTPOST")
    statuses = [status.Status for status, _ in association.send_c_find(asked, ModalityWorklistInformationFind)]
    association.release()
    return statuses
