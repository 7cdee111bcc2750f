"""Results on their way out of a real box: to peers of other projects, through their absence, until they have them exactly once."""

from __future__ import annotations

import io
import json
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from edge import config as settings
from edge.config import Config, DicomSink, DicomwebSink, FhirSink, FolderSink, Hl7Sink, Intake, Policy, Site
from edge.courier import Desk
from edge.records import Assessment, Delivery, Outcome, Read, ReadKind, Sha256, Trouble, Urgency
from edge.samples import film
from edge.sending import send
from edge.state import arrivals, audit, outbox, reads, results
from edge.state.store import now, open_store, transaction
from models import phantom
from tests import fhir, peers
from tests.box import PATIENCE, ROOT, Box, free_port, until
from tests.orthanc import Orthanc
from tests.results import NOON, decided, example

AI = {"SR", "OT", "PR"}
"""The modalities of what the AI sends: SR, picture, presentation state."""


def sample(folder: Path, number: int = 1, size: int = 1024, opacity: bool = True) -> Path:
    """A film of its own."""
    path = folder / f"film{number}.dcm"
    dataset = film(phantom.chest(number, (size, size), opacity=opacity), f"Test^{number}", "040Y", "F")
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"courier {number}"])
    dataset.save_as(path, enforce_file_format=True)
    return path


def pacs_of(folder: Path, box_port: int, **more: Any) -> Orthanc:
    """An Orthanc that knows the box, and calls it back with what it commits to keep."""
    known = {"AET": "OUTPOST", "Host": "127.0.0.1", "Port": box_port, "AllowStorageCommitment": True}
    return Orthanc(folder, modalities={"box": known}, **more)


def decide(box: Box, kind: ReadKind, outcome: Outcome) -> Read:
    """What the page does when a person decides, longer ago than they may take it back."""
    with closing(open_store(Path(box.config.state))) as store, transaction(store):
        at = now() - reads.UNDO
        read, _ = reads.add(store, 1, 1, kind, "Amina", at, f"{kind}", outcome=outcome)
        outbox.of_read(store, box.config, read)
    return read


def reconfigured(box: Box, *sinks: Any) -> Box:
    """The same box with other ways out, before it is started."""
    changed = Box(box.folder, sinks=sinks)
    changed.config = type(box.config)(
        state=box.config.state, intake=box.config.intake, web=box.config.web, sinks=tuple(sinks)
    )
    settings.save(changed.config, changed.file)
    return changed


@pytest.mark.peer
def test_a_film_that_a_pacs_sends_comes_back_as_results_in_its_study_and_goes_round_no_further(tmp_path: Path) -> None:
    """By C-STORE with a commitment that Orthanc calls back with, and by STOW-RS; a person's decision follows the same ways."""
    box = Box(tmp_path)
    pacs, archive = pacs_of(tmp_path, box.port), Orthanc(tmp_path, ae_title="ARCHIVE")
    box = reconfigured(
        box,
        DicomSink(name="PACS", host="127.0.0.1", port=pacs.port, ae_title="ORTHANC", commitment=True),
        DicomwebSink(name="archive", url=f"{archive.url}/dicom-web"),
    )
    with pacs, archive, box:
        send("127.0.0.1", pacs.port, "ORTHANC", sample(tmp_path))
        (original,) = pacs.instances()
        assert pacs.post("/modalities/box/store", [original["ID"]])["FailedInstancesCount"] == 0
        box.delivered(2)
        there = {one["SOPInstanceUID"]: one for one in pacs.instances()}
        del there[original["SOPInstanceUID"]]
        assert {one["StudyInstanceUID"] for one in there.values()} == {original["StudyInstanceUID"]}
        assert original["SeriesInstanceUID"] not in {one["SeriesInstanceUID"] for one in there.values()}
        assert "SR" in {one["Modality"] for one in there.values()}
        assert {one["SOPInstanceUID"] for one in archive.instances()} == set(there)

        decide(box, ReadKind.CONFIRM, Outcome.SOON)
        box.delivered(4)
        (added,) = [one for one in archive.instances() if one["SOPInstanceUID"] not in there]
        assert dcmread(io.BytesIO(archive.file(added["ID"]))).VerificationFlag == "VERIFIED"

        # the PACS forwards everything that is new to the box, as some do: nothing comes of it
        everything = pacs.instances()
        ours = [one["ID"] for one in everything if one["ID"] != original["ID"]]
        assert pacs.post("/modalities/box/store", ours)["FailedInstancesCount"] == 0
        box.decided(1 + len(ours))
        box.delivered(4 + 2 * len(ours))
        assert pacs.instances() == everything
    with closing(open_store(Path(box.config.state))) as store:
        exported = [event.detail["uids"] for event in audit.records(store) if event.event is audit.Event.EXPORTED]
    assert sum(map(len, exported)) == 2 * (len(there) + 1)


@pytest.mark.peer
def test_with_the_pacs_away_and_the_box_killed_everything_arrives_once(tmp_path: Path) -> None:
    box = Box(tmp_path)
    pacs = pacs_of(tmp_path, box.port, more={"OverwriteInstances": True})
    sinks = [DicomSink(name="PACS", host="127.0.0.1", port=pacs.port, ae_title="ORTHANC", send=("sr", "sc"))]
    box = reconfigured(box, *sinks)
    films = 3
    box.start()
    for number in range(films):
        send("127.0.0.1", box.port, "OUTPOST", sample(tmp_path, number, 256))
    box.decided(films)
    until(lambda: any(attempts for _, _, attempts in box.deliveries().values()), "the PACS is found to be away")
    box.kill()
    with pacs:
        with box:
            until(lambda: len(pacs.get("/instances")) > 0, "the first arrives")
            box.process.kill()
            box.process.wait()
        with box:
            box.delivered(films)
        kept = pacs.instances()
        assert len({one["StudyInstanceUID"] for one in kept}) == films
        assert len(kept) == 2 * films
        changes = [one for one in pacs.get("/changes?limit=1000")["Changes"] if one["ChangeType"] == "NewInstance"]
        assert len(changes) >= 2 * films
    with closing(open_store(Path(box.config.state))) as store:
        exported = [event.arrival_id for event in audit.records(store) if event.event is audit.Event.EXPORTED]
    assert sorted(exported) == list(range(1, films + 1))


@pytest.mark.peer
def test_only_a_person_makes_a_result_final_at_the_ehr(tmp_path: Path) -> None:
    with fhir.Server() as server, peers.mllp(peers.acknowledgement) as (port, messages):
        sinks = [FhirSink(name="FHIR", url=server.url), Hl7Sink(name="EHR", host="127.0.0.1", port=port)]
        with Box(tmp_path, sinks=sinks) as box:
            send("127.0.0.1", box.port, "OUTPOST", sample(tmp_path))
            box.delivered(2)
            (shown,) = server.resources("DiagnosticReport")
            assert shown["status"] == "preliminary"
            decide(box, ReadKind.OVERRIDE, Outcome.ROUTINE)
            box.delivered(4)
        (shown,) = server.resources("DiagnosticReport")
        assert (shown["status"], shown["resultsInterpreter"][0]["display"]) == ("final", "Amina")
        requests = [line.split(b"|") for message in messages for line in message.split(b"\r") if line[:4] == b"OBR|"]
        assert [request[25] for request in requests] == [b"P", b"F"]


def test_a_folder_gets_every_form_while_a_pacs_hangs_and_another_is_away(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    with peers.silent() as port:
        sinks = [
            DicomSink(name="hangs", host="127.0.0.1", port=port, ae_title="PACS", seconds=600),
            Hl7Sink(name="away", host="127.0.0.1", port=free_port()),
            FolderSink(name="share", path=str(share)),
        ]
        box = Box(tmp_path, "courier", sinks=sinks)
        decided(box.config, 1)
        box.launch()
        until(lambda: box.deliveries()["share", 1, 1, 0][0] == "delivered", "the folder has it")
        until(lambda: box.deliveries()["away", 1, 1, 0][1] == Trouble.UNREACHABLE, "one is found to be away")
        until(lambda: box.deliveries()["hangs", 1, 1, 0][2] == 1, "one hangs")
        states = {name: state for (name, *_), state in box.deliveries().items()}
        with closing(open_store(Path(box.config.state))) as store:
            ways = {way.sink: way for way in outbox.ways(store, box.config)}
        box.process.terminate()  # the peer hangs still
        assert box.process.wait(PATIENCE) == 0
    assert states["hangs"] == ("waiting", "interrupted", 1) and states["away"][0] == "waiting"
    assert ways["away"].next_at is not None
    kinds = {path.name.partition("-")[0] for path in share.iterdir()}
    assert {"sr", "sc", "fhir", "oru"} <= kinds
    (bundle,) = share.glob("*.json")
    assert json.loads(bundle.read_bytes())["type"] == "transaction"


def test_a_result_that_takes_the_pacs_down_waits_alone(tmp_path: Path) -> None:
    """It is the one to blame, by its name and with its next attempt; the others arrive, each object once."""
    with peers.pacs() as pacs:
        sink = DicomSink(name="PACS", host="127.0.0.1", port=pacs.port, ae_title="PACS", seconds=5)
        box = Box(tmp_path, "courier", sinks=[sink])
        for number in range(1, 5):
            decided(box.config, number)
        with closing(open_store(Path(box.config.state))) as store:
            wanted = {number: uids(box, store, number) for number in range(1, 5)}
            pacs.poison = frozenset(wanted[2])
            box.launch()
            try:
                until(lambda: sum(one[0] == "delivered" for one in box.deliveries().values()) == 3, "the others arrive")
                until(lambda: box.deliveries()["PACS", 2, 1, 0][0] == "refused", "one is refused")
            finally:
                box.process.kill()
                box.process.wait()
            (way,) = outbox.ways(store, box.config)
        assert (way.waiting, way.refused, way.refusal, way.trouble) == (1, 1, Trouble.CLOSED, None)
        assert way.next_at is not None and way.next_at > now()
        assert sorted(uid for uid in pacs.got if uid not in pacs.poison) == sorted(wanted[1] + wanted[3] + wanted[4])
        assert sum(uid in pacs.poison for uid in pacs.got) == 1


def test_settings_that_change_between_two_sends_change_no_byte(tmp_path: Path) -> None:
    """What was made under the clinic's old name is sent again under it, and so is what a person says of it."""
    before = Config(
        state=str(tmp_path),
        site=Site(name="Nord", timezone="Africa/Lagos"),
        sinks=(FolderSink(name="share", path="/x"),),
    )
    renamed = msgspec.structs.replace(
        before,
        site=Site(name="Sud", timezone="Asia/Tokyo"),
        intake=Intake(ae_title="NEW"),
        policy=Policy(triage_only=True),
    )
    film_ = example().film
    assert film_.decision is not None
    with closing(open_store(tmp_path)) as store:
        for number, letterhead in ((1, settings.letterhead(before)), (2, None)):
            with transaction(store):
                arrivals.add(store, f"1.{number}", Sha256(f"{number:064x}"), "XRAY", now(), Urgency.ROUTINE)
                made = Assessment(film_.header, film_.decision, film_.saliency, {})
                results.add(store, number, 1, made, NOON, letterhead)
        read, _ = reads.add(store, 1, 1, ReadKind.CONFIRM, "Amina", NOON, "once", outcome=Outcome.SOON)
        for film_id, read_id, same in ((1, None, True), (1, read.id, True), (2, None, False)):
            delivery = Delivery(1, "share", film_id, 1, read_id, 1, NOON, "")
            first, again = (Desk(config).documents(store, delivery) for config in (before, renamed))
            assert first and (first == again) == same  # of the last nobody wrote the settings down: the test can fail


def uids(box: Box, store: sqlite3.Connection, film: int) -> list[str]:
    """What the DICOM objects of a film's result are called."""
    delivery = Delivery(film, "PACS", film, 1, None, 1, now(), "")
    documents = Desk(box.config).documents(store, delivery)
    return [one.uid for one in documents if one.kind in ("sr", "sc", "gsps")]


def test_check_asks_each_way_out_and_says_what_to_do(tmp_path: Path) -> None:
    with peers.pacs(callers=("ROOM1",)) as strict, peers.pacs() as pacs:
        sinks = [
            DicomSink(name="strict", host="127.0.0.1", port=strict.port, ae_title="PACS"),
            DicomSink(name="PACS", host="127.0.0.1", port=pacs.port, ae_title="PACS"),
            FolderSink(name="share", path=str(tmp_path / "nowhere")),
        ]
        box = Box(tmp_path, sinks=sinks)
        command = [sys.executable, "-m", "edge", "--config", str(box.file), "check"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if "way out" in line]
    assert said[0].startswith("✘ way out     strict: It does not let this box in. (127.0.0.1:")
    assert said[0].endswith("Have this box's AE title, or its user, allowed there.")
    assert said[1] == "✔ way out     PACS: takes every kind it is sent"
    assert said[2].startswith("✘ way out     share: It cannot be reached. (/")
    assert "nowhere, No such file or directory) " in said[2] and "`outpost check`" not in done.stdout


def test_an_idle_courier_starts_afresh_and_holds_no_library(tmp_path: Path) -> None:
    """The same process, a good deal smaller, and still at work."""
    with peers.pacs() as pacs:
        box = Box(
            tmp_path, "courier", sinks=[DicomSink(name="PACS", host="127.0.0.1", port=pacs.port, ae_title="PACS")]
        )
        script = (
            "import sys, threading; from edge import config, courier; courier.AFRESH_SECONDS = 1.0;"
            f"from pathlib import Path; courier.run(config.load(Path({str(box.file)!r})), threading.Event())"
        )
        decided(box.config, 1)
        with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
            try:
                box.delivered(1)
                large = resident(process.pid)
                until(lambda: resident(process.pid) < large - 20, "it starts afresh")
                decided(box.config, 2)
                box.delivered(2)
            finally:
                process.kill()


def resident(pid: int) -> float:
    """The memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
