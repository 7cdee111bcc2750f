"""One day's films over one bad link, three ways: this box to its hub, STOW-RS to Orthanc, tus (tuspy to tuspyserver).

Run by `outpost bench --sync`, each part at its end of the link: `python -m tests.bench.uploads {hub|orthanc|tusd} FOLDER BEGIN`
where things arrive, `{box|stow|tus} FOLDER BEGIN` where they come from. The folder has `plan.json`, what there is to send and since
when. The clients of others are what a careful site would write: the most urgent first, chosen again after each request, with the
socket options that this box has. Where things arrive, a line is printed for each item once it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import urllib3
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from edge import cards, config, link
from edge.box import wait_for_port
from edge.netem import ADDRESSES, FAR
from edge.records import Sha256
from edge.state import arrivals, sync
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from tests.fault.apart import PROGRAMME, SITE, enrol, result
from web.hub import config as hub_config

PORT = 8042
POLL_SECONDS = 0.1
PAUSE_SECONDS = 1.0
"""How long a client waits after a failure."""
SILENCE_SECONDS = 20.0
"""After so long without an answer a client gives up a request."""
CHUNK = 16 * 1024
"""Bytes of one PATCH: two seconds of the link."""
SOCKET = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, 13, b"bbr"),  # TCP_CONGESTION
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_SECONDS * 1000)),
]


FILM = 4_000_000
"""Bytes of a whole film, losslessly."""
PREVIEW = 32 * 1024
"""Bytes of a film that is good enough to look at: for others an object of its own, for this box the film's beginning."""
RESULT = 3_000
"""Bytes of a result for others, a small DICOM SR; this box says the same in fewer."""


class Item(msgspec.Struct, frozen=True):
    """Something to send; an urgent result is followed by the one with its film's preview."""

    number: int
    lane: int
    at: float
    """Since when there is something to send, in seconds after the beginning."""

    @property
    def name(self) -> str:
        """Of its file in the folder, and the end of its SOP Instance UID."""
        return str(self.number)


def content(item: Item) -> bytes:
    """The bytes of an item, the same whenever they are asked for: nothing in them can be compressed."""
    size = {cards.Lane.URGENT: RESULT, cards.Lane.URGENT_IMAGE: PREVIEW}.get(cards.Lane(item.lane), FILM)
    return random.Random(item.number).randbytes(size)


class Plan:
    """What has to be sent, the most urgent first."""

    def __init__(self, folder: Path) -> None:
        self.left = msgspec.json.decode((folder / "plan.json").read_bytes(), type=list[Item])
        self.begin = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
        """On the machine's monotonic clock."""

    def __iter__(self) -> Iterator[Item]:
        while self.left:
            there = [item for item in self.left if self.begin + item.at <= time.monotonic()]
            if there:
                yield min(there, key=lambda item: (item.lane, item.at))
            else:
                time.sleep(POLL_SECONDS)


def stow(folder: Path) -> None:
    """STOW-RS (PS3.18 10.5): one instance a request, whole or not at all."""
    peer = urllib3.HTTPConnectionPool(
        ADDRESSES[FAR], PORT, maxsize=1, retries=False, timeout=SILENCE_SECONDS, socket_options=SOCKET
    )
    plan = Plan(folder)
    for item in plan:
        head = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
        body = head + instance(item) + b"\r\n--part--\r\n"
        kind = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
            "Content-Length": str(len(body)),
        }
        try:
            # a file, not bytes: the time-out then is for each block and not for all of it
            if peer.request("POST", "/dicom-web/studies", body=io.BytesIO(body), headers=kind).status == 200:
                plan.left.remove(item)
                continue
        except (urllib3.exceptions.HTTPError, OSError):
            pass
        time.sleep(PAUSE_SECONDS)


def instance(item: Item) -> bytes:
    """An item as a DICOM object."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"2.25.1.{item.name}"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"2.25.2.{item.name}", f"2.25.3.{item.name}"
    made.PatientID, made.Modality, made.EncapsulatedDocument = "P", "OT", content(item)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def tus(folder: Path) -> None:
    """Tus 1.0 in chunks: after each, something more urgent may go first."""
    import requests
    from tusclient.client import TusClient
    from urllib3.connection import HTTPConnection

    HTTPConnection.default_socket_options = SOCKET
    once = requests.Session.request

    def patient(self: requests.Session, *what: Any, **how: Any) -> requests.Response:
        how["timeout"] = how.get("timeout") or SILENCE_SECONDS
        return once(self, *what, **how)

    requests.Session.request = patient  # type: ignore[method-assign]  tuspy would wait for ever
    client = TusClient(f"http://{ADDRESSES[FAR]}:{PORT}/files")
    begun: dict[str, Any] = {}
    plan = Plan(folder)
    for item in plan:
        try:
            if item.name not in begun:
                begun[item.name] = client.uploader(
                    file_stream=io.BytesIO(content(item)), chunk_size=CHUNK, metadata={"filename": item.name}
                )
            uploader = begun[item.name]
            uploader.upload_chunk()
            if uploader.offset >= uploader.get_file_size():
                plan.left.remove(item)
        except Exception:  # noqa: BLE001  tuspy raises its own, those of requests and those of sockets
            time.sleep(PAUSE_SECONDS)
            if item.name in begun and begun[item.name].url:
                try:
                    begun[item.name].offset = begun[item.name].get_offset()
                except Exception:  # noqa: BLE001
                    time.sleep(PAUSE_SECONDS)


def orthanc(folder: Path) -> None:
    """Debian's Orthanc with its DICOMweb plugin, reachable from the link."""
    storage = folder / "storage"
    storage.mkdir()
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "HttpPort": PORT,
                "DicomServerEnabled": False,
                "RemoteAccessAllowed": True,
                "AuthenticationEnabled": False,
                "StorageDirectory": str(storage),
                "IndexDirectory": str(storage),
                "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                "HttpTimeout": 0,
                "KeepAlive": True,
            }
        )
    )
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/Orthanc", str(settings)], stdout=log, stderr=log)
    own = urllib3.HTTPConnectionPool("127.0.0.1", PORT, retries=False, timeout=60)

    def look() -> tuple[set[str], int]:
        try:
            found = own.request("GET", "/instances?expand").json()
        except (urllib3.exceptions.HTTPError, OSError):
            return set(), 0
        names = {one["MainDicomTags"]["SOPInstanceUID"].rpartition(".")[2] for one in found}
        return names, sum(one["FileSize"] for one in found)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        told(look)
    finally:
        process.terminate()
        process.wait()


def tusd(folder: Path) -> None:
    """Tuspyserver under uvicorn, reachable from the link."""
    import uvicorn
    from fastapi import FastAPI
    from tuspyserver import create_tus_router

    files = folder / "files"
    files.mkdir()
    app = FastAPI()
    app.include_router(create_tus_router(prefix="files", files_dir=str(files), max_size=1 << 30))
    server = uvicorn.Server(uvicorn.Config(app, host="0.0.0.0", port=PORT, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()

    def look() -> tuple[set[str], int]:
        whole, kept = set(), 0
        for information in files.glob("*.info"):
            try:
                known = json.loads(information.read_text())
            except ValueError:  # it is being written
                continue
            data = information.with_suffix("")
            kept += known["offset"]
            if data.exists() and data.stat().st_size == known["size"] == known["offset"]:
                whole.add(known["metadata"]["filename"])
        return whole, kept

    told(look)


def hub(folder: Path) -> None:
    """This project's hub, on its default storage, reachable from the link."""
    from web.hub import films
    from web.hub.serve import run
    from web.hub.store import open_store as open_hub

    settings = hub_settings(folder)
    threading.Thread(target=run, args=(settings, threading.Event(), lambda port: None), daemon=True).start()
    store = open_hub(settings)
    plan = Plan(folder).left
    pictures = {item.number: hashlib.sha256(film(item)).hexdigest() for item in plan if item.lane != cards.Lane.URGENT}

    def look() -> tuple[set[str], int]:
        with store.reading(PROGRAMME) as db:
            sizes = {number: films.size(db, SITE, sha256) or (0, 0) for number, sha256 in pictures.items()}
            cases = {one.result.case for one in films.cases(db, range(1, len(plan) + 1)).values()}
        need = {cards.Lane.URGENT_IMAGE: PREVIEW, cards.Lane.BULK: FILM}
        whole = {
            item.name for item in plan if item.number in sizes and sizes[item.number][1] >= need[cards.Lane(item.lane)]
        }
        whole |= {item.name for item in plan if item.lane == cards.Lane.URGENT and case(item) in cases}
        return whole, sum(have for _, have in sizes.values())

    told(look)


def box(folder: Path) -> None:
    """This box's courier; what the worker would tell is told at its time."""
    settings = config.Config(
        state=str(folder / "box"), hub=config.Hub(url=f"https://{ADDRESSES[FAR]}:{PORT}", whole_films=True)
    )
    with closing(open_store(Path(settings.state))) as store:
        threading.Thread(target=link.run, args=(settings, threading.Event()), daemon=True).start()
        plan = Plan(folder)
        plan.left = [one for one in plan.left if one.lane != cards.Lane.BULK]
        for item in plan:
            plan.left.remove(item)
            tell(store, item)
    threading.Event().wait()


def film(item: Item) -> bytes:
    """The whole film of an item."""
    return content(msgspec.structs.replace(item, lane=cards.Lane.BULK))


def case(item: Item) -> str:
    """The case of an item: a preview is that of the result before it."""
    return f"2.25.{item.number - (item.lane == cards.Lane.URGENT_IMAGE)}"


def tell(store: sqlite3.Connection, item: Item) -> None:
    """File what the worker would file for an item."""
    at = now()
    with transaction(store):
        number, _ = arrivals.add(
            store, case(item), Sha256(hashlib.sha256(case(item).encode()).hexdigest()), "bench", at
        )
        sync.case(store, number, case(item))
        if item.lane == cards.Lane.URGENT:
            body = result(case(item), 1, urgent=True)
            sync.tell(store, body, cards.Lane.URGENT, at, about=f"result {number}", arrival_id=number)
            return
        urgent = item.lane == cards.Lane.URGENT_IMAGE
        picture = cards.Picture(
            sha256=hashlib.sha256(film(item)).hexdigest(), size=FILM, rows=2500, columns=2000, windows=((32768.0, 65536.0),),
            millimetres=None, at_detector=False,
        )  # fmt: skip
        lane = cards.Lane.URGENT_IMAGE if urgent else cards.Lane.ROUTINE_IMAGE
        told_ = cards.Image(case=case(item), picture=picture)
        sync.tell(store, told_, lane, at, about=f"image {number}", arrival_id=number)


def hub_settings(folder: Path) -> hub_config.Config:
    """Of the hub in a folder."""
    return hub_config.Config(
        state=str(folder / "hub"), web=hub_config.Web(host="0.0.0.0", port=PORT, names=(ADDRESSES[FAR],))
    )


def prepare(folder: Path) -> None:
    """Make a box and a hub in a folder that know each other; the box has its films, and all but what will be urgent to send."""
    from web.hub import keys
    from web.hub.serve import certificate

    settings = hub_settings(folder)
    enrol(folder, settings, keys.pin(certificate(settings)))
    objects = Objects(folder / "box")
    with closing(open_store(folder / "box")) as store:
        for item in Plan(folder).left:
            if item.lane != cards.Lane.URGENT:
                objects.put(film(item))
            if item.lane == cards.Lane.BULK:
                tell(store, item)


def told(look: Callable[[], tuple[set[str], int]]) -> None:
    """Say what has arrived whole since the last time and how many bytes are kept, until this process is ended.

    The first line is said once the server can be reached.
    """
    wait_for_port(PORT)
    arrived: set[str] = set()
    before = -1
    while True:
        whole, kept = look()
        if whole - arrived or kept != before:
            said = {"at": time.monotonic(), "names": sorted(whole - arrived), "kept": kept}
            print(json.dumps(said), flush=True)
            arrived, before = arrived | whole, kept
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    parts = {part.__name__: part for part in (prepare, hub, box, orthanc, stow, tusd, tus)}
    parts[sys.argv[1]](Path(sys.argv[2]))
