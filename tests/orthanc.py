"""A real Orthanc on free ports of loopback: start it, stop it and start it again; what it has been given stays in its folder."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.box import PATIENCE, free_port, until
from tests.conftest import peer

PLUGINS = Path("/usr/share/orthanc/plugins")
DICOMWEB, WORKLISTS = PLUGINS / "libOrthancDicomWeb.so", PLUGINS / "libModalityWorklists.so"


class Orthanc:
    """A PACS with DICOMweb, and with a worklist where it is given a folder of `.wl` files.

    `modalities` are those it knows, as Orthanc's own settings have them; `users` those who may use its REST API, all where there
    are none; `more` is any other of its settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        worklist: Path | None = None,
        users: Mapping[str, str] | None = None,
        modalities: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.program = peer("Orthanc", "orthanc")
        self.folder = folder / ae_title.lower()
        self.folder.mkdir()
        self.ae_title = ae_title
        self.port, self.http_port = free_port(), free_port()
        self.users = dict(users or {})
        self.settings: dict[str, Any] = {
            "Name": ae_title,
            "DicomAet": ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(users),
            "RegisteredUsers": self.users,
            "Plugins": [str(_plugin(DICOMWEB, "orthanc-dicomweb"))],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
            "DicomModalities": dict(modalities or {}),
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowFindWorklist": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowGet": True,
            "DicomScuTimeout": 10,
            "StableAge": 1,
            **(more or {}),
        }
        if worklist is not None:
            self.settings["Plugins"].append(str(_plugin(WORKLISTS, "orthanc")))
            self.settings["Worklists"] = {"Enable": True, "Database": str(worklist)}

    @property
    def url(self) -> str:
        """The root of its REST API; DICOMweb is at `/dicom-web` below it."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> Orthanc:
        """Start it, with what it had been given before, and wait until both ports answer."""
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self.settings))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, str(file)], stdout=log, stderr=log)
        until(lambda: self.answers() or self.process.poll() is not None, "Orthanc answers")
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self

    def stop(self) -> None:
        """Stop it as its administrator would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def answers(self) -> bool:
        """Whether its REST API does, which it opens after its DICOM port."""
        try:
            self.get("/system")
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False
        return True

    def __enter__(self) -> Orthanc:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()  # it takes seconds to stop in order, and nobody starts it again
        self.process.wait()

    def get(self, path: str) -> Any:
        """What is at a path of its REST API, from JSON."""
        return json.loads(self._ask("GET", path))

    def file(self, instance: str) -> bytes:
        """The DICOM file of one of its `instances()`."""
        return self._ask("GET", f"/instances/{instance}/file")

    def post(self, path: str, body: Any) -> Any:
        """The answer to JSON, or to bytes as they are, sent to a path of its REST API."""
        return json.loads(self._ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode()))

    def instances(self) -> list[dict[str, Any]]:
        """Everything it keeps: each with its `ID` and its main DICOM tags by keyword, from patient to instance."""
        found = []
        for one in self.get("/instances?expand"):
            series = self.get(f"/instances/{one['ID']}/series")
            study = self.get(f"/instances/{one['ID']}/study")
            tags = {
                **study["PatientMainDicomTags"],
                **study["MainDicomTags"],
                **series["MainDicomTags"],
                **one["MainDicomTags"],
            }
            found.append({"ID": one["ID"], **tags})
        return found

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, body, method=method)
        for user, word in list(self.users.items())[:1]:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            said: bytes = answer.read()
        return said


def _plugin(path: Path, package: str) -> Path:
    """A plugin of Orthanc's; missing, it is treated as a missing peer."""
    return path if path.exists() else peer(path.name, package)
