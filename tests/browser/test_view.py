"""<cxr-view> in Debian's Chromium: what it shows is what the numbers say, and everything is done by touch, keyboard and buttons."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.records import Display, Rendition
from edge.stages import png
from edge.state import audit, results
from edge.state.objects import Objects
from edge.state.store import transaction
from tests.clinic import serving
from tests.unit.test_web import Box, Outcome
from web import clinic

pytestmark = pytest.mark.browser

SIDE = 256
LARGE = 7200
WINDOWS = ((20000.0, 30000.0), (50000.0, 8000.0))


def values() -> Any:
    """A wedge of all grays with noise in the low bits, and a step that no 8-bit picture could show."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    wedge = (columns * 257 + (rows * 7919) % 251).astype(np.uint16)
    wedge[:32] = 30000 + (columns[:32] > SIDE // 2) * 40
    return wedge


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    filled = Box(tmp_path_factory.mktemp("box"))
    objects = Objects(Path(filled.config.state))
    film = Rendition(values(), Display(WINDOWS, 0.5, True))
    prior = filled.film(Outcome.ROUTINE)
    earlier = Rendition(values()[::-1, :-1].copy(), film.display)  # an odd number of columns
    with transaction(filled.store):
        pictures = objects.put(png.film(earlier.values)).sha256, objects.put(png.preview(earlier)).sha256
        results.add_rendition(filled.store, prior, *pictures, film.display)
    number = filled.film(Outcome.SOON)
    with transaction(filled.store):
        pictures = objects.put(png.film(film.values)).sha256, objects.put(png.preview(film)).sha256
        results.add_rendition(filled.store, number, *pictures, film.display)
        heat = io.BytesIO()
        Image.fromarray(np.full((7, 7, 4), (255, 0, 0, 255), np.uint8)).save(heat, "PNG")
        filled.store.execute("UPDATE result SET saliency = ?", (heat.getvalue(),))
    with serving(filled.config) as pages:
        url = f"{pages.url}/films/{number}"
        yield SimpleNamespace(url=url, cookies=pages.cookies(), film=film, box=filled, prior=prior, earlier=earlier)


@contextmanager
def viewer(browser: Any, box: Any, plain: bool = False, size: tuple[int, int] = (1280, 800)) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        has_touch=True,
        service_workers="block",
        ignore_https_errors=True,
    )
    context.add_cookies(box.cookies)
    if plain:
        context.add_init_script(
            "addEventListener('DOMContentLoaded', () => document.querySelector('cxr-view').setAttribute('plain', ''))"
        )
    page = context.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(box.url)
    page.wait_for_selector(".viewer.ready")
    yield page
    context.close()
    assert failed == []


def view(page: Any, expression: str) -> Any:
    return page.evaluate(f"(() => {{ const view = document.querySelector('cxr-view'); return {expression}; }})()")


def settle(page: Any) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


DRAWN = """() => {
  const view = document.querySelector("cxr-view");
  const copy = new OffscreenCanvas(view.canvas.width, view.canvas.height).getContext("2d");
  view.paint({ matrix: view.matrix, center: view.center, width: view.width, inverted: view.inverted });
  copy.drawImage(view.canvas, 0, 0);
  return [...copy.getImageData(0, 0, view.canvas.width, view.canvas.height).data].filter((_, i) => i % 4 === 0);
}"""
SIZED = """(side) => new Promise((done) => {
  const all = [...document.querySelectorAll("cxr-view canvas")];
  const look = () => all.every(({ width, height }) => width === side && height === side) ? done() : requestAnimationFrame(look);
  look();
})"""
PLACE = """([x, y]) => {
  const p = document.querySelector("cxr-view").matrix.transformPoint({ x, y });
  return [p.x, p.y];
}"""
RED = "[...view.over.getContext('2d').getImageData(view.over.width / 2, view.over.height / 2, 1, 1).data]"


def shown(page: Any) -> Any:
    """The grays drawn at one to one, the film's own size."""
    page.click("[data-do=actual]")
    settle(page)
    width, height = view(page, "[view.canvas.width, view.canvas.height]")
    grays = np.array(page.evaluate(DRAWN)).reshape(height, width)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return grays[top : top + SIDE, left : left + SIDE]


def windowed(film: Any, center: float, width: float, inverted: bool = False) -> Any:
    share = np.clip((film.values.astype(float) - center) / width + 0.5, 0, 1)
    return np.rint(255 * (1 - share if inverted else share)).astype(int)


@pytest.mark.parametrize("plain", [False, True], ids=["webgl2", "2d"])
def test_every_pixel_is_what_the_window_makes_of_its_16_bits(browser: Any, box: Any, plain: bool) -> None:
    with viewer(browser, box, plain, size=(1280, 801)) as page:
        assert view(page, "view.canvas.getContext('webgl2') !== null") is not plain
        page.evaluate("document.querySelector('cxr-view').style.setProperty('height', '400px')")
        page.evaluate("document.querySelector('cxr-view').style.setProperty('width', '400px')")
        page.evaluate(SIZED, 400)
        settle(page)
        for number, (center, width) in enumerate(WINDOWS):
            page.evaluate(f"document.querySelector('cxr-view').do('window:{number}')")
            assert np.abs(shown(page) - windowed(box.film, center, width)).max() <= 1
        page.click("[data-do=invert]")
        assert np.abs(shown(page) - windowed(box.film, *WINDOWS[1], inverted=True)).max() <= 1
        page.click("[data-do=invert]")
        page.evaluate("document.querySelector('cxr-view').window(30020, 80)")
        step = shown(page)[:32]
        assert abs(int(step[16, 250]) - int(step[16, 5])) > 100, (
            "a step of 40 in 65,535 is seen where the window is narrow"
        )


def test_buttons_and_keys_do_everything_without_dragging(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        fitted = view(page, "view.zoom")
        page.click("[data-do=in]")
        assert view(page, "view.zoom") == pytest.approx(fitted * 1.4)
        page.click("[data-do=left]")
        assert view(page, "view.x") > 0
        page.click("[data-do=fit]")
        assert (view(page, "view.zoom"), view(page, "view.x")) == (fitted, 0)
        page.focus("cxr-view")
        for key, name, value in (
            ("+", "zoom", fitted * 1.4),
            ("0", "zoom", fitted),
            ("1", "zoom", 1),
            ("r", "turns", 1),
        ):
            page.keyboard.press(key)
            assert view(page, f"view.{name}") == pytest.approx(value), key
        page.keyboard.press("ArrowRight")
        assert view(page, "view.x") < 0
        page.keyboard.press("i")
        assert page.get_attribute("[data-do=invert]", "aria-pressed") == "true"
        width = view(page, "view.width")
        page.keyboard.press("h")
        assert view(page, "view.width") < width
        page.click("[data-do=reset]")
        assert view(page, "[view.turns, view.inverted, view.center, view.width]") == [0, False, *WINDOWS[0]]
        for preset in ("lungs", "bones", "everything"):
            page.click(f"[data-do='window:{preset}']")
        assert view(page, "view.width") > 60000


def test_measures_by_taps_and_by_arrow_keys(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        page.click("details.fine summary")
        page.click("[data-do='measure:length']")
        corner = page.locator("cxr-view").bounding_box()
        for x, y in ((28, 128), (228, 128)):
            across, down = page.evaluate(PLACE, [x, y])
            page.touchscreen.tap(corner["x"] + across, corner["y"] + down)
            settle(page)
        assert "100 mm at the detector" in page.inner_text(".viewer output")
        late = "document.querySelector('.handle').dispatchEvent(new MouseEvent('mousedown', {bubbles: true, cancelable: true}))"
        assert not page.evaluate(late), "the mouse that browsers make up after a tap would choose another handle"
        page.locator(".handle").nth(1).focus()
        zoom = view(page, "view.zoom")
        for _ in range(10):
            page.keyboard.press("Shift+ArrowRight")
        assert view(page, "view.handles[1].x") == pytest.approx(min(228 + 100 / zoom, SIDE), abs=1)
        page.click("[data-do='measure:ratio']")
        assert page.locator(".handle").count() == 4
        assert "Cardio-thoracic ratio: 0.4" in page.inner_text(".viewer output")
        page.keyboard.press("Escape")
        assert page.locator(".handle").count() == 0


def test_a_side_is_marked_and_sliders_move_by_keyboard(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        page.click("details.fine summary")
        for side in ("R", "L"):
            page.click(f"[data-do='side:{side}']")
            assert page.inner_text(".marker") == side
        page.click("[data-do=side]")
        assert page.locator(".marker").is_hidden()
        for name, value in (("brightness", "view.center"), ("contrast", "view.width")):
            before = view(page, value)
            page.focus(f"[name={name}]")
            page.keyboard.press("ArrowRight")
            assert view(page, value) < before, name


def test_a_film_of_100_megabytes_is_shown_with_every_gray(browser: Any, box: Any) -> None:
    """All of it; and of a picture that is cut off the preview, which says so."""
    grays = (np.add.outer(np.arange(LARGE), np.arange(LARGE)) * 4).astype(np.uint16)
    picture, cut = png.film(grays), png.film(values())[:-999]
    context = browser.new_context(service_workers="block", ignore_https_errors=True)
    context.add_cookies(box.cookies)
    for sent, then in ((picture, ".viewer.ready"), (cut, ".viewer.failed")):
        page = context.new_page()
        page.route("**/film.png", lambda route, _, sent=sent: route.fulfill(body=sent, content_type="image/png"))
        page.goto(box.url)
        page.wait_for_selector(then)
        if sent is picture:
            for row, column in ((0, 0), (1, LARGE - 1), (LARGE - 1, 0), (LARGE - 1, LARGE - 1), (4321, 1234)):
                assert view(page, f"view.film.values[{row * LARGE + column}]") == grays[row, column]
            assert view(page, "view.film.values.byteLength") == grays.nbytes > 100e6
        else:
            assert page.locator("img.preview").is_visible() and page.locator(".unshown").is_visible()
        page.close()
    context.close()


def test_pinch_and_drag_by_touch(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        before = view(page, "view.zoom")
        corner = page.locator("cxr-view").bounding_box()
        x, y = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, *points: tuple[float, float]) -> None:
            touch.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]},
            )

        fingers("touchStart", (x - 50, y), (x + 50, y))
        for far in (60, 80, 100):
            fingers("touchMove", (x - far, y), (x + far, y))
        fingers("touchEnd")
        assert view(page, "view.zoom") == pytest.approx(before * 2, rel=0.1)
        at = view(page, "view.x")
        fingers("touchStart", (x, y))
        fingers("touchMove", (x + 40, y))
        fingers("touchMove", (x + 80, y))
        fingers("touchEnd")
        assert view(page, "view.x") == pytest.approx(at + 80, abs=2)


MOVE = """() => {
  const view = document.querySelector("cxr-view");
  const paint = view.paint;
  view.frames = [];
  view.paint = (how) => { view.frames.push(how.rough); paint(how); };
  const move = () => view.frames.includes(true) || (view.pan(1, 0), requestAnimationFrame(move));
  const rest = () => (performance.now() - view.drawn > 500 ? move() : requestAnimationFrame(rest));
  rest();
}"""
FINE = """() => {
  const { frames } = document.querySelector("cxr-view");
  return frames.includes(true) && frames.at(-1) === false && frames;
}"""


def test_a_film_that_moves_is_drawn_rough_and_then_fine(browser: Any, box: Any) -> None:
    """However slow the tablet draws: what is looked at in the end is fine, and so is the first frame after a rest."""
    with viewer(browser, box) as page:
        page.evaluate("document.querySelector('cxr-view').style.setProperty('width', '120px')")
        settle(page)
        page.evaluate(MOVE)  # until a frame is rough; nothing moves it after that
        frames = page.wait_for_function(FINE, timeout=60_000).json_value()
        assert frames[0] is False, "the first after a rest"
        rough, fine = (
            np.array(page.evaluate(DRAWN.replace("inverted: view.inverted", f"inverted: view.inverted, rough: {how}")))
            for how in ("true", "false")
        )
        assert np.abs(rough - fine).max() > 0, "else nothing is won"


def test_the_earlier_film_is_beside_it_and_moves_with_it(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        page.click("text=Compare with")
        page.wait_for_selector(".films.two")
        page.wait_for_selector(".viewer:not(.ready)", state="detached")
        grays = [
            np.array(
                page.evaluate(DRAWN.replace('querySelector("cxr-view")', f'querySelectorAll("cxr-view")[{place}]'))
            )
            for place in (0, 1)
        ]
        assert page.locator("cxr-view").nth(0).get_attribute("data-src") == f"/films/{box.prior}/film.png"
        assert grays[0].shape == grays[1].shape and np.abs(grays[0] - grays[1]).max() > 50, "each shows its own film"
        both = "[...document.querySelectorAll('cxr-view')].map(view => view.zoom)"
        fitted = page.evaluate(both)
        page.locator("[data-do=in]").nth(1).click()
        settle(page)
        settle(page)
        assert page.evaluate(both) == [pytest.approx(1.4 * zoom) for zoom in fitted]
        page.uncheck("[name=linked]")
        page.locator("[data-do=in]").nth(0).click()
        settle(page)
        settle(page)
        assert page.evaluate(both) == [pytest.approx(1.4**2 * fitted[0]), pytest.approx(1.4 * fitted[1])]
        assert page.locator("[name=map]").count() == 1, "the map is this film's only"
        page.click("text=This film alone")
        page.wait_for_selector(".films:not(.two)")
        assert page.locator("cxr-view").count() == 1
    seen = {record.arrival_id for record in audit.records(box.box.store) if record.event is audit.Event.VIEWED}
    assert box.prior in seen


def test_the_map_is_off_until_asked_for_and_fades(browser: Any, box: Any) -> None:
    with viewer(browser, box) as page:
        assert view(page, RED) == [0, 0, 0, 0]
        page.check("[name=map]")  # only now it is fetched
        page.wait_for_function("() => document.querySelector('cxr-view').map.complete")
        settle(page)
        assert view(page, RED)[3] == pytest.approx(0.6 * 255, abs=2)
        page.focus("[name=opacity]")
        page.keyboard.press("End")
        settle(page)
        assert view(page, RED)[3] == 255
        assert "Where, not why" in page.inner_text(".heat")


def test_a_film_that_cannot_be_fetched_leaves_the_preview_and_says_so(browser: Any, box: Any) -> None:
    context = browser.new_context(service_workers="block", ignore_https_errors=True)
    context.add_cookies(box.cookies)
    page = context.new_page()
    page.route("**/film.png", lambda route: route.abort())
    page.goto(box.url)
    page.wait_for_selector(".viewer.failed")
    assert page.locator("img.preview").is_visible()
    assert page.locator(".unshown").is_visible()
    context.close()


def test_the_tablets_scripts_are_small() -> None:
    import gzip

    static = Path(clinic.__file__).parent / "static"
    assert sum(len(gzip.compress(file.read_bytes())) for file in static.glob("*.js")) <= 40 * 1024
