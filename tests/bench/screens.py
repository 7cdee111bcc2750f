"""How long the screens take: a list of 5,000 films, a film of 10 megapixels, one of 100 MB, and windowing, in Debian's Chromium.

    .venv/bin/python -m tests.bench.screens [--films 5000]

The times belong to the machine that they were taken on. Without a graphics chip Chromium draws WebGL by SwiftShader, on the
processor: a tablet's chip is faster.
"""

from __future__ import annotations

import json
import ssl
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edge.config import Config
from edge.records import Assessment, Decision, Display, Finding, Header, Outcome, Reason, Refusal, Rendition, Urgency
from edge.stages import png
from edge.state import acceptances, arrivals, queue, results
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from tests.box import until
from tests.clinic import DEVICE, Pages, heat, serving
from tests.screens import CHROMIUM, launch
from web import ranking

FILMS = 5000
ROUNDS = 5
SIZE: Any = {"width": 1280, "height": 800}


def fill_many(config: Config, count: int) -> None:
    """So many films, of all outcomes, waiting to be read."""
    outcomes, map_png = list(Outcome), heat()
    with closing(open_store(Path(config.state))) as store, transaction(store):
        acceptances.sign(store, DEVICE, "balanced", "Dr Ba", now())
        for number in range(count):
            at = now()
            film, _ = arrivals.add(store, f"1.2.{number}", f"{number:064x}", "XRAY", at, Urgency.ROUTINE)  # type: ignore[arg-type]
            queue.add(store, film, Urgency.ROUTINE, at)
            outcome = outcomes[number % len(outcomes)] if number % 50 else Outcome.ROUTINE
            refused = outcome is Outcome.COULD_NOT_ASSESS
            finding = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.7, 0.6, 0.8, "balanced", 0.3, 0.7)
            decision = Decision(
                outcome, () if refused else (finding,), "m", DEVICE, Refusal(Reason.CROPPED) if refused else None
            )
            header = Header(PatientName=f"DIALLO^Patient {number}", PatientID=f"CL-{number:05}", age_years=34.0)
            results.add(store, film, 1, Assessment(header, decision, map_png, {"infer": 66.0}), at)


def put_film(config: Config, rows: int, columns: int) -> int:
    """One film of that size, as the worker leaves it; its number."""
    objects = Objects(Path(config.state))
    draw = np.random.default_rng(7)
    values = (np.add.outer(np.arange(rows), np.arange(columns)) * 6).astype(np.uint16)
    values += draw.integers(0, 64, values.shape, np.uint16)
    film = Rendition(values, Display(((32768, 65535),), 0.15, True))
    with closing(open_store(Path(config.state))) as store, transaction(store):
        sha256 = objects.put(values.tobytes()[:4096]).sha256
        number, _ = arrivals.add(store, f"1.3.{rows}", sha256, "XRAY", now(), Urgency.ROUTINE)
        finding = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.7, 0.6, 0.8, "balanced", 0.3, 0.7)
        decision = Decision(Outcome.SOON, (finding,), "m", DEVICE, None)
        results.add(
            store, number, 1, Assessment(Header(PatientName="BIG^Film", age_years=34.0), decision, None, {}), now()
        )
        pictures = objects.put(png.film(values)).sha256, objects.put(png.preview(film)).sha256
        results.add_rendition(store, number, *pictures, film.display)
    return number


PAINT = (
    "performance.getEntriesByType('paint').find(entry => entry.name === 'first-contentful-paint')?.startTime ?? null"
)
PREVIEW = "(image => image?.complete && image.naturalWidth)(document.querySelector('img.preview'))"
DRAWN = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  document.querySelector("cxr-view").canvas.getContext("webgl2")?.finish();
  done();
})))"""
FRAMES = """() => new Promise(done => {
  const view = document.querySelector("cxr-view");
  const gl = view.canvas.getContext("webgl2");
  let frames = 0, start = 0;
  const step = (at) => {
    start ||= at;
    if (at - start > 2000) return done([frames / (at - start) * 1000, gl !== null, view.canvas.width, view.canvas.height]);
    frames += 1;
    view.window(20000 + (frames * 200) % 20000, 30000);
    if (gl) gl.finish();
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def painted(page: Any, url: str) -> float:
    """Milliseconds from asking for a page to its first contentful paint."""
    page.goto(url)
    until(lambda: page.evaluate(PAINT) is not None, "the page is painted")
    return float(page.evaluate(PAINT))


def answered(pages: Pages, path: str, cookie: str, **headers: str) -> tuple[float, int, str | None]:
    """Milliseconds and bytes of an answer, and its ETag."""
    request = urllib.request.Request(pages.url + path, headers={"Cookie": cookie, **headers})
    start = time.perf_counter()
    try:
        trusting = ssl.create_default_context(cafile=Path(pages.config.state) / "trust/ca.crt")
        with urllib.request.urlopen(request, context=trusting) as response:
            body, etag = response.read(), response.headers["ETag"]
    except urllib.error.HTTPError as error:
        body, etag = b"", error.headers["ETag"]
    return (time.perf_counter() - start) * 1000, len(body), etag


def measure(count: int) -> dict[str, Any]:
    """All figures."""
    from playwright.sync_api import sync_playwright

    said: dict[str, Any] = {"films": count}
    with tempfile.TemporaryDirectory() as state:
        config = Config(state=state)
        fill_many(config, count)
        usual, largest = put_film(config, 3000, 3300), put_film(config, 7200, 7200)
        with serving(config) as pages, sync_playwright() as playwright:
            cookie = "; ".join(f"{one['name']}={one['value']}" for one in pages.cookies())
            time.sleep(1)
            times = [answered(pages, "/", cookie) for _ in range(ROUNDS)]
            said["worklist, ms until answered"] = statistics.median(one[0] for one in times)
            said["worklist, bytes"] = times[0][1]
            etag = answered(pages, "/worklist", cookie)[2]
            again = [answered(pages, "/worklist", cookie, **{"If-None-Match": etag or ""}) for _ in range(ROUNDS)]
            said["unchanged, ms"] = statistics.median(one[0] for one in again)
            said["search, ms"] = statistics.median(answered(pages, "/?q=cl-04321", cookie)[0] for _ in range(ROUNDS))
            browser = launch(playwright.chromium, executable_path=str(CHROMIUM))
            context = browser.new_context(
                viewport={"width": 1280, "height": 800}, ignore_https_errors=True, service_workers="block"
            )
            context.add_cookies(pages.cookies())
            page = context.new_page()
            said["worklist, first paint, ms"] = statistics.median(painted(page, f"{pages.url}/") for _ in range(ROUNDS))
            said["its last part, first paint, ms"] = painted(page, f"{pages.url}/?page={count // ranking.PART}")
            for name, number in (("10 megapixels", usual), ("100 MB", largest)):
                start = time.perf_counter()
                page.goto(f"{pages.url}/films/{number}", wait_until="commit")
                until(lambda: bool(page.evaluate(PREVIEW)), "the preview is there")
                said[f"{name}, preview on screen, ms"] = (time.perf_counter() - start) * 1000
                page.wait_for_selector(".viewer.ready")
                page.evaluate(DRAWN)
                said[f"{name}, 16 bits on screen, ms"] = (time.perf_counter() - start) * 1000
                said[f"{name}, frames/s, WebGL2, size"] = page.evaluate(FRAMES)
            browser.close()
    return said


if __name__ == "__main__":
    films = int(sys.argv[sys.argv.index("--films") + 1]) if "--films" in sys.argv else FILMS
    print(json.dumps(measure(films), indent=2))
