"""Intake: accepts films and says so only once they are safe on disk.

Three doors, one way in (`accept`): the DICOM port (Storage SCP, PS3.4 B), a watched folder, and files named by a person.
Nothing is decoded or refused here for what it is; that is the worker's work, and it ends with a reason people see. The port also
answers modalities that ask for their worklist (`edge.ordering`).
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from pydicom import Dataset, dcmread

from edge import ordering, phantom, trial
from edge.config import Config, DicomSink
from edge.errors import Misconfigured, Transient
from edge.records import Urgency
from edge.stages import header
from edge.state import arrivals, connections, orders, outbox, queue
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction

if TYPE_CHECKING:  # it takes half a second to import: only a process that opens the port does
    from pynetdicom import AE
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 B.2.3
PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0110, 0x0115  # PS3.7 10.1.1.1.8
WATCH_SECONDS = 2.0
NOTED_EVERY = timedelta(seconds=5)

NO_SUCH_SERVICE = 0x0122  # SOP class not supported, PS3.7 C.4.2

_URGENCY = {
    1: Urgency.HIGH
}  # DIMSE Priority, PS3.7 9.3.1.1: 0 medium, 1 high, 2 low; a low one never goes below routine


class Intake:
    """The doors of one box. Keeps one database connection per thread that delivers films."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.objects = Objects(Path(config.state))
        self._local = threading.local()

    @property
    def store(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._local, "store"):
            self._local.store = open_store(Path(self.config.state))
        store: sqlite3.Connection = self._local.store
        return store

    def accept(
        self, file: Path, sop_instance_uid: str, source: str, urgency: Urgency = Urgency.ROUTINE
    ) -> tuple[int, bool]:
        """Take over a finished file of the incoming folder: bytes, name and rows are durable when this returns.

        Returns the arrival's id and whether it is new; bytes that were here already make no second film.
        Raises `Transient` below the disk floor, and then nothing is kept.
        """
        if self.objects.free_mib() < self.config.intake.disk_floor_mib:
            file.unlink()
            raise Transient("the disk is nearly full")
        stored = self.objects.adopt(file)
        said = header.identify(stored.path) if orders.any_findable(self.store, now()) else None
        with transaction(self.store):
            at = now()
            arrival, new = arrivals.add(self.store, sop_instance_uid, stored.sha256, source, at, urgency)
            if new:
                queue.add(self.store, arrival, urgency, at)
                if source != arrivals.FOR_ACCEPTANCE:
                    trial.allocate(self.config, self.store, arrival, sop_instance_uid, at)
                if said is not None:
                    ordering.meet(self.store, arrival, said, "intake", at)
        return arrival, new

    def accept_copy(self, path: Path, source: str) -> tuple[int, bool]:
        """Take in a copy of a person's file, whatever it is; see `accept`. Raises OSError when it cannot be read."""
        handle, name = tempfile.mkstemp(dir=self.objects.incoming)
        try:
            with path.open("rb") as original, os.fdopen(handle, "wb") as copy:
                shutil.copyfileobj(original, copy, 2**20)
        except OSError:
            Path(name).unlink()
            raise
        return self.accept(Path(name), sop_instance_uid(path), source)

    def store_film(self, event: Event) -> int:
        """Answer a C-STORE request (PS3.7 9.1.1): success only after file, name and row are durable."""
        request = cast("C_STORE", event.request)
        try:
            if phantom.arrives(self.store, self.objects, event.dataset_path):
                return SUCCESS
            self.accept(
                event.dataset_path,
                str(request.AffectedSOPInstanceUID),
                _sender(str(event.assoc.requestor.ae_title)),
                _URGENCY.get(request.Priority, Urgency.ROUTINE),
            )
        except Transient as error:
            log.warning("refused a film with A700: %s", error)
            return OUT_OF_RESOURCES
        except (OSError, sqlite3.Error):
            log.exception("a film could not be stored; the sender keeps it")
            return OUT_OF_RESOURCES
        return SUCCESS

    def committed(self, event: Event) -> tuple[int, None]:
        """Answer a PACS that calls back with what it commits to keep of our results (N-EVENT-REPORT, PS3.4 J.3.3)."""
        from edge.sinks import commitment

        said = commitment.answer(event.event_information)
        try:
            with transaction(self.store):
                known = outbox.commit(self.store, said.transaction_uid, said.kept, said.missing, now())
        except sqlite3.Error:
            log.exception("a storage commitment could not be noted; the result is sent again later")
            return PROCESSING_FAILURE, None
        return SUCCESS if known else INVALID_ARGUMENT, None

    def echoed(self, event: Event) -> int:
        """Answer a C-ECHO request (PS3.7 9.1.5), and remember who asked, for the page of connections."""
        self._called(event, refused=False)
        return SUCCESS

    def refused(self, event: Event) -> None:
        """Remember who was turned away for their AE title."""
        named = self.callers()
        if named and event.assoc.requestor.ae_title not in named:
            self._called(event, refused=True)

    def _called(self, event: Event, refused: bool) -> None:
        peer = event.assoc.requestor
        caller = connections.Caller(str(peer.ae_title), str(peer.address), now(), refused)
        known = next((one for one in connections.callers(self.store) if one.ae_title == caller.ae_title), None)
        if known and known.refused == refused and abs(caller.at - known.at) < NOTED_EVERY:
            return  # who calls in a loop costs no commits
        try:
            with transaction(self.store):
                connections.called(self.store, caller)
        except sqlite3.Error:
            log.exception("a call of %s could not be noted", caller.ae_title)

    def callers(self) -> list[str]:
        """The AE titles that may call, where some are named: those that send films, each PACS that commits to results, the box."""
        named = self.config.intake.calling_ae_titles
        pacs = [sink.ae_title for sink in self.config.sinks if isinstance(sink, DicomSink) and sink.commitment]
        return sorted({*named, *pacs, self.config.intake.ae_title}) if named else []

    def find_orders(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a C-FIND request of the modality worklist; see `edge.ordering.find`."""
        # pynetdicom accepts, as if for storage, classes that it does not know
        if event.context.abstract_syntax != ordering.WORKLIST:
            return iter([(NO_SUCH_SERVICE, None)])
        return ordering.find(event, self.config, self.store)

    def listen(self) -> AE:
        """Open the DICOM port for verification, the worklist, commitments, and storage of every SOP class in every transfer syntax.

        Raises `Misconfigured` when the port is taken.
        """
        from pynetdicom import evt

        settings = self.config.intake
        tempfile.tempdir = str(self.objects.incoming)  # where pynetdicom streams data sets to
        ae = entity(self.config)
        ae.require_calling_aet = self.callers()
        try:
            ae.start_server(
                (settings.host, settings.port),
                block=False,
                evt_handlers=[
                    (evt.EVT_C_STORE, self.store_film),
                    (evt.EVT_C_ECHO, self.echoed),
                    (evt.EVT_REJECTED, self.refused),
                    (evt.EVT_C_FIND, self.find_orders),
                    (evt.EVT_N_EVENT_REPORT, self.committed),
                ],
            )
        except OSError as error:
            raise Misconfigured(
                f"DICOM port {settings.host}:{settings.port}: {error.strerror}. Choose another intake.port in the settings."
            ) from error
        return ae


def entity(config: Config) -> AE:
    """The application entity behind the DICOM port, with everything that it negotiates; `edge/conformance.md` is made from it."""
    from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        ModalityWorklistInformationFind,
        StorageCommitmentPushModel,
        Verification,
    )

    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # patients are in no log
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)  # every oddity of every film is no news to an operator
    ae = AE(config.intake.ae_title)
    ae.maximum_pdu_size = 0  # no limit of ours: the sender chooses, and fewer, larger PDUs are twice as fast
    ae.add_supported_context(Verification, ALL_TRANSFER_SYNTAXES)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    ae.add_supported_context(ModalityWorklistInformationFind)
    return ae


def sop_instance_uid(path: Path) -> str:
    """The SOP Instance UID in a file, or the empty string where it has none that can be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            # mapped: a file object would allocate whatever length a damaged element claims
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            dataset = dcmread(
                cast(BinaryIO, mapped), force=True, specific_tags=["SOPInstanceUID"], stop_before_pixels=True
            )
            return str(dataset.get("SOPInstanceUID") or "")
    except Exception:  # noqa: BLE001  pydicom raises nearly every built-in exception on damaged input
        return ""


def _sender(ae_title: str) -> str:
    """Who sent a film: the calling AE title, which a sender may choose, and never the box's own word for films on no list."""
    return f"AE {ae_title}" if ae_title == arrivals.FOR_ACCEPTANCE else ae_title


class Watch:
    """A folder whose DICOM files are taken in once they stop changing; the folder itself is never touched."""

    def __init__(self, intake: Intake, folder: Path) -> None:
        self.intake = intake
        self.folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self._done: dict[Path, tuple[int, int]] = {}

    def look(self) -> int:
        """Take in what is new and has not changed since the last look; say how many films that were."""
        taken = 0
        present: dict[Path, tuple[int, int]] = {}
        for path in sorted(self.folder.rglob("*")):
            try:
                if not path.is_file() or not (path.suffix.lower() == ".dcm" or _has_preamble(path)):
                    continue
                state = path.stat()
                present[path] = mark = (state.st_size, state.st_mtime_ns)
                if self._seen.get(path) == mark and self._done.get(path) != mark:
                    taken += self.intake.accept_copy(path, f"folder {self.folder.name}")[1]
                    self._done[path] = mark
            except (
                OSError,
                Transient,
            ) as error:  # the stick was pulled, or the disk is full: the next look tries again
                log.warning("%s: %s", path, error)
        self._seen = present
        return taken


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def run(config: Config, stop: threading.Event, ready: Callable[[int], None] = lambda port: None) -> None:
    """Accept films until `stop` is set; `ready` is called with the DICOM port once it is open."""
    intake = Intake(config)
    if leftovers := intake.objects.sweep():
        log.warning(
            "%d unfinished files of an interrupted transfer were removed; they had not been acknowledged", leftovers
        )
    with closing(intake.store):
        ae = intake.listen()
        try:
            port = ae._servers[0].server_address[1]
            ready(port)
            watches = [Watch(intake, Path(folder)) for folder in config.intake.watch]
            while not stop.wait(WATCH_SECONDS):
                phantom.send(config, intake.store, intake.objects, port)
                for watch in watches:
                    watch.look()
        finally:
            ae.shutdown()
