"""HTTP as the two ways out over it use it: one question, one answer, and what urllib3 may raise ends here."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import urllib3
from urllib3 import exceptions

from edge.config import Http
from edge.errors import Misconfigured
from edge.records import Receipt, Trouble
from edge.sinks import encryption

LONGEST = 8 * 2**20
"""No answer that means anything is longer."""


@dataclass(frozen=True)
class Answer:
    """What an HTTP server said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON, or None where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class Client:
    """One HTTP server."""

    def __init__(self, settings: Http) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/")

    def ask(
        self, method: str, path: str, accept: str, body: bytes | None = None, content_type: str = ""
    ) -> Answer | Receipt:
        """Ask once, following no redirection, which might lead results elsewhere; a receipt says why there is no answer."""
        try:
            headers = {"Accept": accept, "User-Agent": "Outpost", **self._authorization()}
            if content_type:
                headers["Content-Type"] = content_type
            with self._pool() as pool:
                response = pool.request(
                    method, self.url + path, body=body, headers=headers, retries=False, redirect=False,
                    preload_content=False,
                )  # fmt: skip
                try:
                    return Answer(response.status, response.read(LONGEST, decode_content=True))
                finally:
                    response.close()
        except (Misconfigured, exceptions.LocationValueError) as error:
            detail = str(error) if isinstance(error, Misconfigured) else "the url cannot be used"
            return Receipt(Trouble.NOT_CONFIGURED, detail)
        except (exceptions.HTTPError, OSError) as error:
            return _failed(error)

    def _pool(self) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=self.settings.seconds, read=self.settings.seconds)
        if not self.url.startswith("https:"):
            return urllib3.PoolManager(timeout=timeout)
        return urllib3.PoolManager(timeout=timeout, ssl_context=encryption.context(self.settings))

    def _authorization(self) -> dict[str, str]:
        """Read each time: a token may be renewed beside us."""
        if not self.settings.authorization:
            return {}
        path = Path(self.settings.authorization)
        try:
            lines = path.read_text(encoding="latin-1").splitlines()
        except OSError as error:
            raise Misconfigured(f"{path}: {error.strerror}") from None
        if not lines or not lines[0].strip():
            raise Misconfigured(f"{path}: its first line is empty")
        return {"Authorization": lines[0].strip()}


def refused(status: int) -> Receipt | None:
    """What an HTTP status means whatever was asked; None where it depends on that (RFC 9110 15)."""
    said = f"HTTP {status}"
    match status:
        case 401 | 403 | 407:
            return Receipt(Trouble.KEPT_OUT, said)
        case 408 | 425 | 429 | 502 | 503 | 504:
            return Receipt(Trouble.BUSY, said)
        case 507:
            return Receipt(Trouble.FULL, said)
        case 404 | 405 | 410 | 501:
            return Receipt(Trouble.NOT_CONFIGURED, said)
        case _ if 300 <= status < 400:
            return Receipt(Trouble.NOT_CONFIGURED, f"{said}: it is elsewhere")
    return None


def _failed(error: Exception) -> Receipt:
    cause = error.__cause__ or error
    match error:
        case exceptions.SSLError():
            reason = error.args[0] if error.args else None
            found = next((one for one in (reason, cause) if isinstance(one, ssl.SSLError)), None)
            return Receipt(Trouble.TLS, encryption.ENDED if found is None else encryption.failed(found))
        case exceptions.ReadTimeoutError():
            return Receipt(Trouble.HANGS)
        case exceptions.ConnectTimeoutError() | exceptions.NewConnectionError():
            return Receipt(Trouble.UNREACHABLE, type(error).__name__)
        case exceptions.ProtocolError() if any(isinstance(one, ssl.SSLError) for one in error.args):
            return Receipt(Trouble.TLS, encryption.ENDED)
        case TimeoutError():
            return Receipt(Trouble.HANGS)
        case _:
            return Receipt(Trouble.CLOSED, type(error).__name__)
