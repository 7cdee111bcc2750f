"""Where releases come from: a mirror by its address, or a stick by its folder; what is half here is continued."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

BLOCK = 256 * 1024
SECONDS = 60.0
MOST_LINKS = 5
"""So often an address may lead to another, or a link turn out to have ended."""
ELSEWHERE = (301, 302, 303, 307, 308)


class Source(FetcherInterface):  # type: ignore[misc]
    """A mirror or a stick; of a mirror, one link serves for all that is asked."""

    def __init__(self, where: str) -> None:
        self.where = where.rstrip("/")
        self.remote = where.startswith(("http://", "https://"))
        self.begins = 0
        """Where the bytes that `opened` gives begin in their file."""
        self._links: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def opened(self, url: str, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from `begin` on, to `end` or its end; or from its beginning where the mirror knows no ranges."""
        self.begins = begin
        if not self.remote:
            try:
                with Path(url).open("rb") as file:
                    file.seek(begin)
                    while data := file.read(BLOCK):
                        yield data
            except (FileNotFoundError, NotADirectoryError):
                raise DownloadHTTPError("not there", 404) from None
            return
        answer = self._answer(url, f"bytes={begin}-{'' if end is None else end - 1}" if begin or end else "")
        try:
            if answer.status not in (200, 206):
                raise DownloadHTTPError(f"HTTP {answer.status} {answer.reason}", answer.status)
            self.begins = begin if answer.status == 206 else 0
            while data := answer.read1(BLOCK):  # as it comes: a cut takes nothing back
                yield data
            if answer.length:
                raise ConnectionError("it ended too early")
        finally:
            if answer.length == 0:
                answer.close()  # the link serves for the next
            elif not answer.isclosed():  # what nobody has read would stand before it
                self.close()

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.opened(url)

    def _answer(self, url: str, wanted: str) -> http.client.HTTPResponse:
        """What a server answers, over the link that there is to it or a new one."""
        for _ in range(MOST_LINKS):
            parts = urlsplit(url)
            key = parts.scheme, parts.netloc
            if known := key in self._links:
                link = self._links[key]
            else:
                kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                link = self._links[key] = kind(parts.netloc, timeout=SECONDS)
            try:
                path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
                link.request("GET", path, headers={"Range": wanted} if wanted else {})
                answer = link.getresponse()
            except (OSError, http.client.HTTPException):
                self.close()
                if not known:
                    raise
                continue  # it had ended since the last answer
            if answer.status not in ELSEWHERE:
                return answer
            answer.read()
            url = urljoin(url, answer.getheader("Location") or "")
        raise ConnectionError("the address leads to no file")

    def close(self) -> None:
        """End the links to mirrors."""
        for link in self._links.values():
            link.close()
        self._links.clear()
