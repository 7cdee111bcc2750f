"""Each way out against real peers and against peers that misbehave: what became of it, by name, and never a patient's data."""

from __future__ import annotations

import gc
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, build_role

from edge import config as settings
from edge.config import Config, DicomSink, DicomwebSink, FhirSink, FolderSink, Hl7Sink, Intake
from edge.records import Delivery, Document, Receipt, Trouble
from edge.samples import film
from edge.sinks import commitment, open_sink
from edge.stages import report
from models import phantom
from tests import fhir, peers, results
from tests.box import PATIENCE, Box, free_port, until
from tests.conftest import peer
from tests.orthanc import Orthanc
from tests.peers import strict  # noqa: F401  a fixture

# pynetdicom leaves a socket that did not connect to the garbage collector
pytestmark = [
    pytest.mark.usefixtures("strict"),
    pytest.mark.filterwarnings(r"ignore:unclosed <(ssl\.SSLS|socket\.s)ocket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


DELIVERY = Delivery(1, "PACS", 1, 1, None, 1, results.NOON, "2.25.1234567")
NAME = "Diallo"


def stored(kind: str, number: int, sop_class: str) -> Document:
    """An object of one kind, as a file."""
    dataset = film(phantom.chest(1, (64, 64)), f"{NAME}^Awa", "040Y", "F")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.777{number}"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return Document(kind, "application/dicom", f"2.25.777{number}", file.getvalue())


SR, SC = stored("sr", 1, Comprehensive3DSRStorage), stored("sc", 2, SecondaryCaptureImageStorage)
BOTH = (SR, SC)
FORMS = {one.kind: one for one in report.documents(results.example())}
FHIR, ORU = FORMS["fhir"], FORMS["oru"]


def dicom(port: int, seconds: float = PATIENCE, **more: Any) -> DicomSink:
    return DicomSink(name="PACS", host="127.0.0.1", port=port, ae_title="PACS", seconds=seconds, **more)


def given(settings: Any, *documents: Document, attempt: int = 1) -> Receipt:
    delivery = Delivery(1, "PACS", 1, 1, None, attempt, results.NOON, "2.25.1234567")
    receipt = open_sink(settings).deliver(documents, delivery)
    assert NAME not in receipt.detail and "Yamada" not in receipt.detail
    return receipt


# a PACS by C-STORE


@pytest.mark.peer
def test_orthanc_keeps_what_it_is_sent_once_by_either_way(tmp_path: Path) -> None:
    with Orthanc(tmp_path) as pacs:
        by_stow = DicomwebSink(name="PACS", url=f"{pacs.url}/dicom-web")
        assert given(dicom(pacs.port), *BOTH) == Receipt(taken=(SR.uid, SC.uid))
        assert given(by_stow, *BOTH) == Receipt(taken=(SR.uid, SC.uid))
        kept = {one["SOPInstanceUID"]: dcmread(io.BytesIO(pacs.file(one["ID"]))) for one in pacs.instances()}
        assert set(kept) == {SR.uid, SC.uid}
        assert kept[SC.uid].PixelData == dcmread(io.BytesIO(SC.data)).PixelData
        assert open_sink(dicom(pacs.port)).probe() == Receipt(detail="takes every kind it is sent")
        assert open_sink(by_stow).probe() == Receipt(detail="answers")


@pytest.mark.parametrize(
    ("statuses", "trouble", "detail", "taken"),
    [
        ({}, None, "", (SR, SC)),
        ({Comprehensive3DSRStorage: 0xB000}, Trouble.WARNED, "sr: B000", (SR, SC)),
        ({Comprehensive3DSRStorage: 0xA700}, Trouble.FULL, "sr: A700", ()),
        ({Comprehensive3DSRStorage: 0xA900}, Trouble.REJECTED, "sr: A900", (SC,)),
        ({Comprehensive3DSRStorage: 0xC001}, Trouble.REJECTED, "sr: C001", (SC,)),
        ({Comprehensive3DSRStorage: 0x0122}, Trouble.WARNED, "sr: 0122", (SC,)),
        ({Comprehensive3DSRStorage: 0x0124}, Trouble.KEPT_OUT, "sr: 0124", ()),
        ({Comprehensive3DSRStorage: 0x0111}, None, "", (SR, SC)),
    ],
)
def test_what_a_pacs_answers(
    statuses: dict[str, int], trouble: Trouble | None, detail: str, taken: tuple[Document, ...]
) -> None:
    with peers.pacs(statuses=statuses) as pacs:
        assert given(dicom(pacs.port), *BOTH) == Receipt(trouble, detail, tuple(one.uid for one in taken))


def test_a_pacs_that_takes_some_kinds_gets_those() -> None:
    with peers.pacs(classes=(SecondaryCaptureImageStorage,)) as pacs:
        assert given(dicom(pacs.port), *BOTH) == Receipt(Trouble.WARNED, "sr: not taken", (SC.uid,))
        assert given(dicom(pacs.port), SR).trouble is Trouble.UNSUPPORTED
        assert open_sink(dicom(pacs.port)).probe() == Receipt(detail="does not take sr, gsps, assessment")
        assert open_sink(dicom(pacs.port, send=("sr",))).probe().trouble is Trouble.UNSUPPORTED


def test_a_pacs_that_lets_nobody_in_or_is_away() -> None:
    with peers.pacs(callers=("ROOM1",)) as pacs:
        told = Receipt(Trouble.KEPT_OUT, "association rejected, source 1, reason 3")
        assert given(dicom(pacs.port), *BOTH) == open_sink(dicom(pacs.port)).probe() == told
    assert given(dicom(free_port()), *BOTH).trouble is Trouble.UNREACHABLE
    nowhere = DicomSink(name="PACS", host="nowhere.invalid", ae_title="PACS")
    assert given(nowhere, *BOTH).trouble is Trouble.UNREACHABLE


def test_a_pacs_that_hangs_before_or_in_the_middle() -> None:
    with peers.silent() as port:
        assert given(dicom(port, 0.5), *BOTH).trouble is Trouble.HANGS
    with peers.pacs(hangs=threading.Event()) as pacs:
        assert given(dicom(pacs.port, 0.5), *BOTH).trouble is Trouble.HANGS
        assert open_sink(dicom(pacs.port)).probe().trouble is None  # by which the result is known to be to blame


def test_a_pacs_that_aborts_over_one_object_gets_the_other_at_the_next_attempt() -> None:
    with peers.pacs(aborts=True) as pacs:
        assert given(dicom(pacs.port), *BOTH).trouble is Trouble.CLOSED
        assert given(dicom(pacs.port), *BOTH, attempt=2).trouble is Trouble.CLOSED
        assert pacs.got == [SR.uid, SC.uid]


def test_what_speaks_no_dicom() -> None:
    with peers.web((200, b"")) as web:
        port = int(web.url.rpartition(":")[2])
        assert given(dicom(port, 0.5), *BOTH).trouble in (Trouble.CLOSED, Trouble.HANGS)


# storage commitment


def kept(asked: Dataset) -> Dataset:
    report = Dataset()
    report.TransactionUID, report.ReferencedSOPSequence = asked.TransactionUID, asked.ReferencedSOPSequence
    return report


def lost(asked: Dataset) -> Dataset:
    report = Dataset()
    report.TransactionUID, report.FailedSOPSequence = asked.TransactionUID, asked.ReferencedSOPSequence
    for item in report.FailedSOPSequence:
        item.FailureReason = 0x0112
    return report


def test_a_commitment_on_the_same_association() -> None:
    with peers.pacs(commits=kept) as pacs:
        assert given(dicom(pacs.port, commitment=True), *BOTH) == Receipt(taken=(SR.uid, SC.uid))
        (asked,) = pacs.asked
        assert asked.TransactionUID == DELIVERY.transaction_uid
        assert [item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence] == [SR.uid, SC.uid]
    with peers.pacs(commits=lost) as pacs:
        receipt = given(dicom(pacs.port, commitment=True), *BOTH)
        assert (receipt.trouble, receipt.detail) == (Trouble.NOT_COMMITTED, "2 objects not kept: 0112")


def test_a_pacs_that_offers_no_commitment_is_told_so() -> None:
    with peers.pacs() as pacs:
        told = Receipt(Trouble.NOT_COMMITTED, "does not offer storage commitment", (SR.uid, SC.uid))
        assert given(dicom(pacs.port, commitment=True), *BOTH) == told
        assert open_sink(dicom(pacs.port, commitment=True)).probe().trouble is Trouble.NOT_COMMITTED


@pytest.mark.parametrize("caller", ["PACS", "STRANGER"])
def test_only_a_pacs_that_was_asked_calls_back(tmp_path: Path, caller: str) -> None:
    """Where senders are named, a PACS that commits may call too; what it was not asked for is no commitment."""
    box = Box(tmp_path, "intake")
    sinks = (dicom(104, commitment=True),)
    named = Intake(port=box.port, calling_ae_titles=("ROOM1",), disk_floor_mib=0)
    settings.save(Config(state=box.config.state, intake=named, sinks=sinks), box.file)
    with box:
        ae = AE(caller)
        ae.add_requested_context(commitment.CLASS)
        role = build_role(commitment.CLASS, scp_role=True)
        association = ae.associate("127.0.0.1", box.port, ae_title="OUTPOST", ext_neg=[role])
        assert association.is_established is (caller == "PACS")
        if caller == "PACS":
            report = Dataset()
            report.TransactionUID, report.ReferencedSOPSequence = "2.25.42", []
            status, _ = association.send_n_event_report(report, 1, commitment.CLASS, commitment.INSTANCE)
            association.release()
            assert status.Status == 0x0115


# encryption


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[tuple[trustme.CA, Path, Path]]:
    """A certificate authority, its certificate's file, and that of another one."""
    right, wrong = trustme.CA(), trustme.CA()
    files = tmp_path / "ca.pem", tmp_path / "other.pem"
    right.cert_pem.write_to_path(files[0])
    wrong.cert_pem.write_to_path(files[1])
    yield right, *files


@pytest.mark.peer
def test_orthanc_over_tls_takes_each_object_once_and_only_from_whom_it_knows(
    tmp_path: Path, authority: tuple[trustme.CA, Path, Path]
) -> None:
    ca, right, wrong = authority
    theirs, ours, stranger = (
        ca.issue_cert("127.0.0.1"),
        ca.issue_cert("outpost.example"),
        trustme.CA().issue_cert("x.example"),
    )
    theirs.private_key_pem.write_to_path(tmp_path / "key.pem")
    theirs.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for name, one in (("ours", ours), ("stranger", stranger)):
        one.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    files = {
        "DicomTlsCertificate": "cert.pem",
        "DicomTlsPrivateKey": "key.pem",
        "DicomTlsTrustedCertificates": "ca.pem",
    }
    more = {"DicomTlsEnabled": True, **{key: str(tmp_path / name) for key, name in files.items()}}
    with Orthanc(tmp_path, more=more) as orthanc:
        settings = {"tls": True, "ca": str(right), "certificate": str(tmp_path / "ours.pem")}

        def out(**changed: Any) -> Receipt:
            return given(dicom(orthanc.port, **{**settings, **changed}), SC)

        for _ in range(2):
            assert out().trouble is None
            assert [one["SOPInstanceUID"] for one in orthanc.instances()] == [SC.uid]
        assert out(ca=str(wrong)).trouble is Trouble.TLS
        assert out(certificate=str(tmp_path / "stranger.pem")).trouble is Trouble.TLS
        assert len(orthanc.instances()) == 1


@pytest.mark.peer
def test_dcmtk_over_tls_and_certificates_of_somebody_else(
    tmp_path: Path, authority: tuple[trustme.CA, Path, Path]
) -> None:
    storescp, (ca, right, wrong) = peer("storescp", "dcmtk"), authority
    theirs, ours = ca.issue_cert("127.0.0.1", "localhost"), ca.issue_cert("outpost.example")
    stranger = trustme.CA().issue_cert("outpost.example")
    theirs.private_key_pem.write_to_path(tmp_path / "key.pem")
    theirs.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for name, one in (("ours", ours), ("stranger", stranger)):
        one.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    port = free_port()
    command = [storescp, "+tls", "key.pem", "cert.pem", "+cf", right, "-od", inbox, "-aet", "PACS", str(port)]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        try:
            settings = {"port": port, "tls": True, "ca": str(right), "certificate": str(tmp_path / "ours.pem")}
            until(lambda: given(dicom(**settings), SC).trouble is None, "storescp takes the object")  # type: ignore[arg-type]
            assert [dcmread(path).SOPInstanceUID for path in inbox.iterdir()] == [SC.uid]
            untrusted = given(dicom(**{**settings, "ca": str(wrong)}), SC)  # type: ignore[arg-type]
            assert untrusted.trouble is Trouble.TLS and untrusted.detail.startswith("its certificate: ")
            refused = given(dicom(**{**settings, "certificate": str(tmp_path / "stranger.pem")}), SC)  # type: ignore[arg-type]
            assert refused.trouble is Trouble.TLS
            other = {**settings, "certificate": str(tmp_path / "nothing.pem")}
            assert given(dicom(**other), SC).trouble is Trouble.NOT_CONFIGURED  # type: ignore[arg-type]
            assert given(dicom(port, 2), SC).trouble in (
                Trouble.CLOSED,
                Trouble.HANGS,
            )  # unencrypted to one that encrypts
        finally:
            process.kill()


def test_tls_with_what_does_not_speak_it(tmp_path: Path) -> None:
    with peers.pacs() as pacs:
        assert given(dicom(pacs.port, tls=True), SC).trouble is Trouble.TLS


@pytest.mark.parametrize("way", ["https", "mllp"])
def test_certificates_of_the_other_ways(authority: tuple[trustme.CA, Path, Path], way: str) -> None:
    import ssl

    ca, right, wrong = authority
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(secure)
    if way == "mllp":
        with peers.mllp(peers.acknowledgement, secure) as (port, _):
            settings = Hl7Sink(name="EHR", host="localhost", port=port, tls=True, ca=str(right), seconds=PATIENCE)
            assert given(settings, ORU) == Receipt(taken=(ORU.uid,))
            settings = Hl7Sink(name="EHR", host="localhost", port=port, tls=True, ca=str(wrong), seconds=PATIENCE)
            assert given(settings, ORU).trouble is open_sink(settings).probe().trouble is Trouble.TLS
    else:
        with peers.web((200, json.dumps({"type": "transaction-response"}).encode()), secure=secure) as web:
            assert given(FhirSink(name="EHR", url=web.url, ca=str(right)), FHIR) == Receipt(taken=(FHIR.uid,))
            receipt = given(FhirSink(name="EHR", url=web.url, ca=str(wrong)), FHIR)
            assert receipt.trouble is Trouble.TLS and "certificate" in receipt.detail


# DICOMweb


def stow(failed: dict[str, int], warned: dict[str, int], stored: tuple[Document, ...] = ()) -> bytes:
    def item(uid: str, tag: str, code: int) -> dict[str, Any]:
        known = {"00081155": {"vr": "UI", "Value": [uid]}}
        return known | ({tag: {"vr": "US", "Value": [code]}} if code else {})

    taken = warned | {one.uid: 0 for one in stored}
    said = {
        "00081198": {"vr": "SQ", "Value": [item(uid, "00081197", code) for uid, code in failed.items()]},
        "00081199": {"vr": "SQ", "Value": [item(uid, "00081196", code) for uid, code in taken.items()]},
    }
    return json.dumps({tag: value for tag, value in said.items() if value["Value"]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "trouble", "detail", "taken"),
    [
        (200, stow({}, {}, BOTH), None, "", BOTH),
        (200, b"<NativeDicomModel/>", None, "", BOTH),
        (200, stow({}, {SR.uid: 0xB007}, (SC,)), Trouble.WARNED, "sr: B007", BOTH),
        (202, stow({SR.uid: 0xC122}, {}, (SC,)), Trouble.REJECTED, "sr: C122", (SC,)),
        (202, stow({SR.uid: 0x0122}, {}, (SC,)), Trouble.WARNED, "sr: 0122", (SC,)),
        (202, stow({SR.uid: 0xA700}, {}, (SC,)), Trouble.FULL, "sr: A700", (SC,)),
        (202, stow({SR.uid: 0x0111}, {}, (SC,)), None, "", BOTH),
        (202, stow({}, {}, (SC,)), Trouble.REJECTED, "sr: HTTP 202 does not name it", (SC,)),
        (409, stow({SR.uid: 0x0110, SC.uid: 0x0110}, {}), Trouble.REJECTED, "sr: 0110, sc: 0110", ()),
        (400, b"Diallo", Trouble.REJECTED, "HTTP 400", ()),
        (401, b"", Trouble.KEPT_OUT, "HTTP 401", ()),
        (403, b"", Trouble.KEPT_OUT, "HTTP 403", ()),
        (404, b"", Trouble.NOT_CONFIGURED, "HTTP 404", ()),
        (302, b"", Trouble.NOT_CONFIGURED, "HTTP 302: it is elsewhere", ()),
        (415, b"", Trouble.UNSUPPORTED, "HTTP 415", ()),
        (500, b"Diallo", Trouble.REJECTED, "HTTP 500", ()),
        (503, b"", Trouble.BUSY, "HTTP 503", ()),
        (507, b"", Trouble.FULL, "HTTP 507", ()),
    ],
)
def test_what_a_dicomweb_server_answers(
    status: int, body: bytes, trouble: Trouble | None, detail: str, taken: tuple[Document, ...]
) -> None:
    with peers.web((status, body)) as web:
        receipt = given(DicomwebSink(name="PACS", url=f"{web.url}/dicom-web/"), *BOTH)
        assert receipt == Receipt(trouble, detail, tuple(one.uid for one in taken))
        ((method, path, headers, sent),) = web.got
    assert (method, path) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert SR.data in sent and SC.data in sent


def test_an_http_peer_that_is_away_hangs_or_closes(tmp_path: Path) -> None:
    def way(url: str, seconds: float = PATIENCE) -> FhirSink:
        return FhirSink(name="EHR", url=url, seconds=seconds)

    assert given(way(f"http://127.0.0.1:{free_port()}"), FHIR).trouble is Trouble.UNREACHABLE
    assert given(way("http://nowhere.invalid/fhir"), FHIR).trouble is Trouble.UNREACHABLE
    with peers.silent() as port:
        assert given(way(f"http://127.0.0.1:{port}", 0.5), FHIR).trouble is Trouble.HANGS
    with peers.mllp(lambda _: None) as (port, _):
        assert given(way(f"http://127.0.0.1:{port}", 0.5), FHIR).trouble in (Trouble.CLOSED, Trouble.HANGS)


@pytest.mark.peer
def test_a_server_that_asks_who_is_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with Orthanc(tmp_path, users={"box": "word"}) as pacs:
        settings = {"name": "PACS", "url": f"{pacs.url}/dicom-web"}
        assert given(DicomwebSink(**settings), SC).trouble is Trouble.KEPT_OUT
        authorized = DicomwebSink(**settings, authorization=str(secret))
        assert given(authorized, SC).trouble is Trouble.NOT_CONFIGURED
        secret.write_text("Basic Ym94OndvcmQ=\n")
        assert given(authorized, SC) == Receipt(taken=(SC.uid,))


# FHIR


@pytest.mark.peer
def test_a_fhir_server_has_everything_once_and_a_person_makes_it_final() -> None:
    source = results.example()
    (final,) = [one for one in report.assessment(source, results.confirmed()) if one.kind == "fhir"]
    with fhir.Server() as server:
        settings = FhirSink(name="EHR", url=server.url)
        assert open_sink(settings).probe() == Receipt(detail="takes FHIR R4 transactions")
        for _ in range(2):
            assert given(settings, FHIR) == Receipt(taken=(FHIR.uid,))
        counted = {
            kind: len(server.resources(kind)) for kind in ("ImagingStudy", "Device", "Observation", "Provenance")
        }
        assert counted == {"ImagingStudy": 1, "Device": 1, "Observation": 3, "Provenance": 1}
        assert [one["status"] for one in server.resources("DiagnosticReport")] == ["preliminary"]
        for document in (final, FHIR):  # a preliminary one that comes late changes nothing
            assert given(settings, document) == Receipt(taken=(document.uid,))
            (shown,) = server.resources("DiagnosticReport")
            assert (shown["status"], shown["resultsInterpreter"][0]["display"]) == ("final", "Amina")
        broken = Document("fhir", FHIR.media_type, "urn:uuid:1", FHIR.data.replace(b'"transaction"', b'"bogus"'))
        assert given(settings, broken) == Receipt(Trouble.REJECTED, "HTTP 400 invalid")


def transaction(*statuses: str) -> dict[str, Any]:
    return {"type": "transaction-response", "entry": [{"response": {"status": status}} for status in statuses]}


@pytest.mark.parametrize(
    ("status", "said", "trouble", "detail"),
    [
        (200, transaction("201 Created"), None, ""),
        (200, transaction("201", "409"), Trouble.REJECTED, "entries answered 409"),
        (200, {"resourceType": "Bundle"}, Trouble.NOT_CONFIGURED, "HTTP 200, but no transaction took place"),
        (422, {"issue": [{"code": "invalid", "diagnostics": "Diallo"}]}, Trouble.REJECTED, "HTTP 422 invalid"),
        (422, {"issue": [{"code": "Diallo, Awa"}]}, Trouble.REJECTED, "HTTP 422"),
        (429, {}, Trouble.BUSY, "HTTP 429"),
    ],
)
def test_what_a_fhir_server_answers(status: int, said: Any, trouble: Trouble | None, detail: str) -> None:
    with peers.web((status, json.dumps(said).encode())) as web:
        receipt = given(FhirSink(name="EHR", url=f"{web.url}/fhir"), FHIR)
        assert (receipt.trouble, receipt.detail) == (trouble, detail)
        assert web.got[0][:2] == ("POST", "/fhir") and web.got[0][3] == FHIR.data


# HL7 v2


@pytest.mark.parametrize(
    ("code", "error", "trouble", "detail"),
    [
        ("AA", "", None, ""),
        ("CA", "", None, ""),
        ("AE", "207^Application internal error^HL70357", Trouble.REJECTED, "AE 207"),
        ("AR", "201^Unsupported event code^HL70357", Trouble.UNSUPPORTED, "AR 201"),
        ("AR", "", Trouble.REJECTED, "AR"),
        ("CE", "", Trouble.REJECTED, "CE"),
        ("CR", "203", Trouble.UNSUPPORTED, "CR 203"),
        ("XX", "", Trouble.NOT_CONFIGURED, "the acknowledgement has no known code"),
    ],
)
def test_what_an_hl7_engine_answers(code: str, error: str, trouble: Trouble | None, detail: str) -> None:
    with peers.mllp(lambda message: peers.acknowledgement(message, code, error)) as (port, got):
        receipt = given(Hl7Sink(name="EHR", host="127.0.0.1", port=port, seconds=PATIENCE), ORU)
        assert receipt == Receipt(trouble, detail, (ORU.uid,) if trouble is None else ())
        assert got == [ORU.data]


def test_an_hl7_engine_that_cuts_hangs_or_answers_something_else() -> None:
    late = peers.acknowledgement(ORU.data, "AR", control="ANOTHER")
    own = peers.acknowledgement(ORU.data)
    told = [
        (None, Trouble.CLOSED),
        (b"", Trouble.HANGS),
        (late, Trouble.HANGS),  # of another message only
        (late + own, None),
        (b"HTTP/1.1 400 Bad Request\r\n\x1c\r", Trouble.NOT_CONFIGURED),
    ]
    for answer, trouble in told:
        with peers.mllp(lambda _, said=answer: said) as (port, _):  # type: ignore[misc]
            seconds = 0.5 if trouble is Trouble.HANGS else PATIENCE
            assert given(Hl7Sink(name="EHR", host="127.0.0.1", port=port, seconds=seconds), ORU).trouble is trouble
    away = Hl7Sink(name="EHR", host="127.0.0.1", port=free_port())
    assert given(away, ORU).trouble is open_sink(away).probe().trouble is Trouble.UNREACHABLE


# a folder


def test_a_folder_has_whole_files_with_names_of_nobody(tmp_path: Path) -> None:
    share = tmp_path / "share"
    settings = FolderSink(name="share", path=str(share))
    assert given(settings, *BOTH).trouble is open_sink(settings).probe().trouble is Trouble.UNREACHABLE
    share.mkdir()
    (share / ".sr-2.25.7771.dcm.part").write_bytes(b"cut off")
    (share / "sc-2.25.7772.dcm").write_bytes(b"half of it")
    for _ in range(2):
        assert given(settings, *BOTH, FHIR, ORU) == Receipt(taken=(SR.uid, SC.uid, FHIR.uid, ORU.uid))
        assert open_sink(settings).probe() == Receipt(detail="can be written")
    kept = {path.name: path.read_bytes() for path in share.iterdir()}
    assert sorted(kept.values()) == sorted(one.data for one in (*BOTH, FHIR, ORU))
    assert kept["sr-2.25.7771.dcm"] == SR.data and kept["sc-2.25.7772.dcm"] == SC.data
    before = {path: path.stat().st_mtime_ns for path in share.iterdir()}
    given(settings, *BOTH)
    assert {path: path.stat().st_mtime_ns for path in share.iterdir()} == before  # not written again
    shutil.rmtree(share)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    settings = FolderSink(name="share", path="/dev")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    sink = open_sink(settings)
    document = Document("oru", "", "x", b"data")
    name = f".oru-{document.uid}.hl7.part"
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / name).symlink_to("/dev/full")
    sink = open_sink(FolderSink(name="share", path=str(folder)))
    assert sink.deliver([document], DELIVERY) == Receipt(Trouble.FULL, "No space left on device")
