"""Our results as others see them: the OHIF viewer on a real Orthanc, in Chromium, shows the finding and its region."""

from __future__ import annotations

import mimetypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from cheroot.wsgi import Server
from pydicom import dcmread

from edge.records import Source, Station
from edge.samples import film
from edge.stages import decide, header, report
from models import phantom
from tests import results
from tests.box import ROOT
from tests.conftest import CI, peer
from tests.orthanc import Orthanc

pytestmark = [pytest.mark.browser, pytest.mark.peer]

VIEWER = ROOT / ".venv" / "ohif" / "dist"
SETTINGS = """window.config = {
    name: 'outpost', routerBasename: '/', extensions: [], modes: [], showStudyList: true, showCPUFallbackMessage: false,
    showWarningMessageForCrossOrigin: false, investigationalUseDialog: {option: 'never'}, defaultDataSourceName: 'orthanc',
    dataSources: [{
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
        configuration: {
            friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
            imageRendering: 'wadors', thumbnailRendering: 'wadors', omitQuotationForMultipartRequest: true,
        },
    }],
};"""
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
"""A viewer that draws with WebGL, on machines without a graphics processor."""
PATIENCE = (15, 15, 30, 30, 60, 60, 120, 120)
"""Seconds for each try: a second one soon, and one that is patient enough for the slowest machine."""


def application(orthanc: str) -> Callable[..., list[bytes]]:
    """The viewer, and Orthanc's DICOMweb below the same origin."""
    pool = urllib3.PoolManager()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        status, kind = "200 OK", "text/javascript"
        if path.startswith("/dicom-web"):
            accept = {"Accept": environ.get("HTTP_ACCEPT", "*/*")}
            found = pool.request("GET", f"{orthanc}{path}?{environ['QUERY_STRING']}", headers=accept)
            status, kind, body = f"{found.status} Orthanc's", found.headers.get("Content-Type", ""), found.data
        elif path == "/app-config.js":
            body = SETTINGS.encode()
        else:
            file = VIEWER / path.lstrip("/")
            file = file if file.is_file() else VIEWER / "index.html"
            kind, body = mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes()
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return answer


@contextmanager
def serving(orthanc: str) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), application(orthanc))
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()


@pytest.mark.timeout(2 * sum(PATIENCE))
def test_ohif_shows_the_finding_and_its_region(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not VIEWER.is_dir():
        missing = "the OHIF viewer is missing: build/ohif fetches it"
        pytest.fail(missing) if CI else pytest.skip(missing)
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "film.dcm"
    film(phantom.chest(4, opacity=True), "Mwangi^Neema", "002Y", "F").save_as(path, enforce_file_format=True)
    parsed = header.read(path)
    assert isinstance(parsed, tuple)
    saliency = results.heat(np.array([[0, 0, 0], [200, 90, 0], [120, 40, 0]], np.uint8))
    decision = decide.decide((results.PNEUMONIA,), "cxr-lite0 0.1.0", "2.25.314159265358979")
    source = Source(results.film(parsed[1], decision, saliency), None, Station("OUTPOST"))
    (sr,) = report.documents(source, ("sr",))
    pictures = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    pictures.mkdir(parents=True, exist_ok=True)
    with Orthanc(tmp_path) as orthanc, serving(orthanc.url) as url, playwright.sync_playwright() as chromium:
        for data in (path.read_bytes(), sr.data):
            orthanc.post("/instances", data)
        browser = chromium.chromium.launch(executable_path=str(peer("chromium", "chromium")), args=ARGUMENTS)
        for seconds in PATIENCE:
            # the viewer lists the series before it listens to them, and never hears of what it has missed
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(seconds * 1000)
            with suppress(playwright.TimeoutError):
                page.goto(f"{url}/viewer?StudyInstanceUIDs={dcmread(path).StudyInstanceUID}", wait_until="networkidle")
                page.get_by_text("Skip all").click()  # the tour
                page.wait_for_load_state("networkidle")
                page.get_by_text("Pneumonia: AI triage, preliminary").first.dblclick()
                page.get_by_text("Probability: 87.10 %").first.wait_for()
                break
            page.close()
        assert "Lower end of the 95 % interval: 80.20 %" in page.inner_text("body")
        outline = page.locator("svg.svg-layer polyline").first
        drawn = np.array([float(number) for number in outline.get_attribute("points").replace(",", " ").split()])
        page.screenshot(path=str(pictures / "ohif.png"))
        shown = page.locator("svg.svg-layer").first.bounding_box()
        browser.close()
    # the film, a square, fills the height of its window: two of three thirds down, and the first of three across
    corners = drawn.reshape(-1, 2)
    side, middle = shown["height"], shown["width"] / 2
    expected = np.array([[middle - side / 2, side / 3], [middle - side / 6, side]])
    assert np.allclose([corners.min(axis=0), corners.max(axis=0)], expected, atol=side / 50)
