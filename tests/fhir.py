"""FHIR programs of other projects, from the npm registry: a server (Medplum) and a validator; `build/test` fetches them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.box import PATIENCE, ROOT, free_port, until
from tests.conftest import CI, peer

FOLDER = ROOT / "tests/npm"


def node() -> Path:
    """Node.js with the programs; where they are missing the test is skipped, in CI it fails."""
    found = peer("node", "nodejs npm")
    if not (FOLDER / "node_modules").is_dir():
        missing = "FHIR programs are missing: npm ci --prefix tests/npm --ignore-scripts"
        pytest.fail(missing) if CI else pytest.skip(missing)
    return found


def validated(bundles: Iterable[bytes]) -> list[list[dict[str, str]]]:
    """What the validator has against each Bundle, but for codes of value sets that it does not have, and for tags.

    The value set of `meta.tag` is an example of FHIR's, which it holds everything against.
    """
    asked = b"[" + b",".join(bundles) + b"]"
    command = [node(), FOLDER / "validate.cjs"]
    said = subprocess.run(command, input=asked, capture_output=True, check=True, timeout=PATIENCE).stdout
    found = []
    for answer in json.loads(said):
        unknown = {
            (message["resourceId"], message["location"])
            for message in answer["messages"]
            if (message["severity"] == "info" and "could not be found" in message["message"])
            or "meta.tag" in message["location"]
        }
        found.append(
            [
                message
                for message in answer["messages"]
                if message["severity"] != "info"
                and not (message["severity"] == "warning" and (message["resourceId"], message["location"]) in unknown)
            ]
        )
    return found


class Server:
    """A FHIR R4 server that keeps what it is given as long as it runs."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self.process = subprocess.Popen([node(), FOLDER / "fhir_server.cjs", str(self.port)])
        until(lambda: self.answers() or self.process.poll() is not None, "the FHIR server answers")
        assert self.process.poll() is None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            self.get("/metadata")
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        """What is at a path."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def resources(self, kind: str) -> list[dict[str, Any]]:
        """Everything of one kind that it has."""
        return [entry["resource"] for entry in self.get(f"/{kind}?_count=1000").get("entry", [])]
