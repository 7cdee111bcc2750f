"""A film that comes piece by piece, in Debian's Chromium: shown from its first bytes, then exact; no byte is asked for twice."""

from __future__ import annotations

import base64
import errno
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask, Response, request

import web
from models import phantom
from web import server

imagecodecs = pytest.importorskip("imagecodecs")
pytestmark = pytest.mark.browser

PREFIX = 32 * 1024
PAGE = """<!doctype html><html lang="en"><title>A film</title>
<link rel="stylesheet" href="/static/cxr-view.css"><script type="module" src="/static/cxr-view.js"></script>
<div class="viewer rough"><cxr-view data-src="/film" data-frames="/static/hub/frames.js" data-enough="ENOUGH"
  data-windows="[[32768, 65535]]"><canvas></canvas><canvas></canvas></cxr-view><output></output></div></html>"""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; worker-src 'self'"
)


def chest(rows: int = 1250, columns: int = 1024) -> Any:
    """A chest with a film's noise, at 16 bits."""
    clean = np.clip(phantom.chest(3, (rows, columns), opacity=True), 0, 1) * 60000 + 2000
    noise = np.random.default_rng(1).normal(0, 90, (rows, columns))
    return np.clip(np.rint(clean + noise), 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def film() -> Any:
    values = chest()
    return SimpleNamespace(values=values, stream=imagecodecs.htj2k_encode(values))


class Hub:
    """Serves a codestream as far as it has come; notes what is asked for."""

    def __init__(self, stream: bytes, there: int, enough: int) -> None:
        self.stream, self.there, self.enough = stream, there, enough
        self.served: list[tuple[int, int]] = []
        self.cut: threading.Event | None = None
        self.app = Flask("web", root_path=str(Path(web.__file__).parent))
        self.app.add_url_rule("/", "page", lambda: PAGE.replace("ENOUGH", str(self.enough)))
        self.app.add_url_rule("/film", "film", self.film)
        self.app.after_request(self._protect)

    def film(self) -> Response:
        start, end = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
        end = min(end + 1, self.there)
        size = len(self.stream)
        if start >= end:
            return Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        if self.cut:
            cut, self.cut, whole, end = self.cut, None, end - start, start + (end - start) // 2
            self.served.append((start, end))

            def torn() -> Iterator[bytes]:
                yield self.stream[start:end]
                cut.wait(60)
                raise ConnectionResetError(errno.ECONNRESET, "cut")

            return Response(torn(), 206, headers | {"Content-Length": str(whole)})
        self.served.append((start, end))
        return Response(self.stream[start:end], 206, headers)

    def _protect(self, response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response


@pytest.fixture
def serve() -> Iterator[Any]:
    stop, threads = threading.Event(), []

    def start(hub: Hub) -> str:
        ready, ports = threading.Event(), list[int]()

        def listening(port: int) -> None:
            ports.append(port)
            ready.set()

        threads.append(
            threading.Thread(target=server.serve, args=(hub.app, "hub.port", "127.0.0.1", 0, stop, listening))
        )
        threads[-1].start()
        assert ready.wait(60)
        return f"http://127.0.0.1:{ports[0]}/"

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def opened(browser: Any, url: str) -> Any:
    page = browser.new_context(viewport={"width": 1000, "height": 800}).new_page()
    page.add_init_script("globalThis.heard = []; addEventListener('bytes', ({ detail }) => heard.push(detail.have));")
    page.goto(url)
    return page


def shown(page: Any) -> Any:
    """The grays that the film on the page has now, all 16 bits of each."""
    plain = page.evaluate("""async () => {
      const bytes = new Uint8Array(document.querySelector("cxr-view").film.values.buffer);
      const reader = new FileReader();
      reader.readAsDataURL(new Blob([bytes]));
      await new Promise(done => (reader.onload = done));
      return reader.result.split(",")[1];
    }""")
    rows, columns = page.evaluate("(({ rows, columns }) => [rows, columns])(document.querySelector('cxr-view').film)")
    return np.frombuffer(base64.b64decode(plain), "<u2").reshape(rows, columns)


def decibels(one: Any, other: Any) -> float:
    """Peak signal-to-noise ratio at 16 bits."""
    return float(10 * np.log10(65535**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def test_the_first_bytes_are_the_whole_film_softly_and_all_of_them_every_gray(
    browser: Any,
    film: Any,
    serve: Any,
) -> None:
    hub = Hub(film.stream, PREFIX, len(film.stream))
    page = opened(browser, serve(hub))
    page.wait_for_selector(".viewer.ready.rough", timeout=60_000)
    soft = shown(page)
    assert soft.shape == film.values.shape
    assert decibels(soft, film.values) > 35
    painted = """() => {
      const view = document.querySelector("cxr-view");
      view.paint({ matrix: view.matrix, center: view.center, width: view.width, inverted: false });
      const copy = new OffscreenCanvas(view.canvas.width, view.canvas.height).getContext("2d");
      copy.drawImage(view.canvas, 0, 0);
      return [...copy.getImageData(view.canvas.width / 2, view.canvas.height / 2, 20, 20).data];
    }"""
    before = page.evaluate(painted)
    hub.there = len(film.stream)
    page.wait_for_selector(".viewer.exact:not(.rough)", timeout=60_000)
    assert (shown(page) == film.values).all(), "every gray of it"
    assert page.evaluate(painted) != before, "what is drawn is refined too"
    assert page.locator(".viewer.failed").count() == 0
    once = sorted(hub.served)
    assert once[0][0] == 0 and once[-1][1] == len(film.stream)
    assert all(one[1] == other[0] for one, other in pairwise(once)), "no byte twice"
    page.context.close()


def test_no_more_is_asked_for_than_a_read_needs_until_somebody_wants_all(
    browser: Any,
    film: Any,
    serve: Any,
) -> None:
    enough = 3 * PREFIX
    hub = Hub(film.stream, len(film.stream), enough)
    page = opened(browser, serve(hub))
    page.wait_for_selector(".viewer.ready:not(.rough)", timeout=60_000)
    assert max(end for _, end in hub.served) == enough
    page.evaluate("document.querySelector('cxr-view').do('whole')")
    page.wait_for_selector(".viewer.exact", timeout=60_000)
    assert (shown(page) == film.values).all()
    assert hub.served[0] == (0, enough) and hub.served[1][0] == enough
    page.context.close()


def test_what_came_before_a_cut_is_not_fetched_again(browser: Any, film: Any, serve: Any) -> None:
    hub = Hub(film.stream, len(film.stream), len(film.stream))
    hub.cut = cut = threading.Event()
    page = opened(browser, serve(hub))
    page.wait_for_function("() => heard.length > 0", timeout=60_000)
    came = page.evaluate("heard.at(-1)")
    cut.set()
    page.wait_for_selector(".viewer.exact", timeout=60_000)
    assert (shown(page) == film.values).all()
    assert came <= hub.served[1][0] <= hub.served[0][1] == len(film.stream) // 2
    page.context.close()
