"""Deciding on a tablet: the film leaves by itself, ten seconds to take it back, the next film; and finding a patient by a code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Config, Policy, Web
from edge.records import Outcome, ReadKind
from edge.state import acceptances, reads
from edge.state.store import now, open_store, transaction
from tests.clinic import DEVICE, film, serving
from tests.screens import opened

pytestmark = pytest.mark.browser

UNDO = timedelta(minutes=2)
MARGIN = 60_000
"""Milliseconds that the machine may take for the test itself; all of it is less than after what the screen locks."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A box whose model ranks, with three films; what was decided can be taken back for long, however slow this machine is."""
    config = Config(state=str(tmp_path_factory.mktemp("box")), web=Web(port=0), policy=Policy(impression_first=False))
    with closing(open_store(Path(config.state))) as store:
        with transaction(store):
            acceptances.sign(store, DEVICE, "balanced", "Dr Ba", now())
        films = [
            film(config, store, Outcome.SOON, f"{name}^Awa", minutes, patient=f"CL-{number}")
            for name, minutes, number in (("DIALLO", 9, 101), ("OKAFOR", 6, 102), ("SOW", 3, 103))
        ]
        with serving(config) as pages, pytest.MonkeyPatch.context() as patch:
            patch.setattr(reads, "UNDO", UNDO)
            yield SimpleNamespace(config=config, url=pages.url, films=films, store=store)


def test_a_decided_film_leaves_every_list_and_can_be_taken_back_while_the_time_runs(browser: Any, box: Any) -> None:
    first, second, _third = box.films
    with opened(browser, box.config) as other, opened(browser, box.config, has_touch=True) as page:
        other.goto(box.url)
        page.goto(f"{box.url}/films/{first}")
        page.tap("#decide button[value=confirm]")
        page.wait_for_selector("#undo")
        assert "Confirmed by Amina" in page.inner_text("#undo")
        assert page.locator(f"#film-{first}").count() == 0
        other.wait_for_selector(f"#film-{first}", state="detached")  # by itself, without a touch
        assert (
            page.locator("#undo .left animate").get_attribute("dur")
            == f"{page.get_attribute('#undo', 'data-seconds')}s"
        )
        assert 0 < int(page.get_attribute("#undo", "data-seconds")) <= UNDO.total_seconds()
        assert page.get_attribute("#next", "href") == f"/films/{second}"
        page.tap("#undo button")
        page.wait_for_selector("#decide button[value=confirm]")
        assert page.url.endswith(f"/films/{first}")
        other.wait_for_selector(f"#film-{first}")
        assert reads.standing(box.store) == {}


def test_what_can_no_longer_be_taken_back_is_not_offered(browser: Any, box: Any) -> None:
    first, second, _third = box.films
    with opened(browser, box.config, has_touch=True) as page:
        page.clock.install()
        page.goto(f"{box.url}/films/{first}")
        page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))  # no second passes but those below
        page.tap("#decide button[value=refer]")
        page.wait_for_selector("#undo button")
        page.wait_for_load_state()  # its script has begun to count
        left = int(page.get_attribute("#undo", "data-seconds")) * 1000
        page.clock.run_for(left - MARGIN)
        assert page.locator("#undo button").count() == 1
        page.clock.run_for(MARGIN)
        assert page.locator("#undo button").count() == 0 and page.locator("#undo .left").count() == 0
        assert page.locator("#undo a[href*='/sheet']").count() == 1
        page.tap("#next")
        page.wait_for_selector("#decide")
        assert page.url.endswith(f"/films/{second}")


def test_a_second_tap_sends_nothing_also_before_the_other_scripts_are_there(browser: Any, box: Any) -> None:
    _first, second, _third = box.films
    with opened(browser, box.config, has_touch=True) as page:
        page.route("**/tablet.js*", lambda route: None)
        page.goto(f"{box.url}/films/{second}", wait_until="commit")
        page.wait_for_selector("#decide button[value=confirm]")
        sent: list[Any] = []
        page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
        page.evaluate(
            "() => { const button = document.querySelector('#decide button[value=confirm]'); button.click(); button.click(); }"
        )
        page.wait_for_selector("#undo")
        (decided,) = [one for one in sent if one.url.endswith(f"/films/{second}/decision")]
        assert decided.headers["outpost-form"] == "1", "the script sent it, which sends it again when the box is away"


def test_two_people_on_one_film(browser: Any, box: Any) -> None:
    """The page of who came second is stale: it says so, saves nothing, and leads to the decision that stands."""
    *_, third = box.films
    with opened(browser, box.config, name="Brahim") as slow, opened(browser, box.config) as quick:
        for page in (slow, quick):
            page.goto(f"{box.url}/films/{third}")
        quick.click("#decide button[value=confirm]")
        quick.wait_for_selector("#undo")
        slow.click("#decide button[value=refer]")
        slow.wait_for_selector("text=Somebody else has decided in the meantime")
        slow.click(f"main a[href='/films/{third}']")
        slow.wait_for_selector("#decide .stands")
        assert "Confirmed by Amina" in slow.inner_text("#decide .stands")
        assert [(act.kind, act.reader) for act in reads.of_film(box.store, third)] == [(ReadKind.CONFIRM, "Amina")]
        slow.errors.clear()  # the 409 that was asked for


def test_a_tablet_that_cannot_read_codes_says_what_to_do_and_a_hand_scanner_types(browser: Any, box: Any) -> None:
    with opened(browser, box.config, has_touch=True) as page:
        page.goto(box.url)
        assert page.evaluate("'BarcodeDetector' in window") is False, "as on most tablets"
        page.tap("#scan")
        assert "scan with a hand scanner" in page.inner_text("#camera")
        assert not page.locator("#camera video").is_visible()
        page.tap("#camera button")
        page.wait_for_selector("#q:focus")  # a dialog says that it is closed when the browser has time
        page.keyboard.type("CL-103")  # a scanner is a keyboard that types a code and Enter
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Back to all films")  # the rows of the page before look the same
        assert page.locator("#rows .row").count() == 1 and "SOW" in page.inner_text("#rows")


READS = """
  window.BarcodeDetector = class { async detect(video) { return video.readyState > 1 ? [{ rawValue: "CL-102" }] : []; } };
  navigator.mediaDevices.getUserMedia = async () => {
    const canvas = document.createElement("canvas");
    canvas.getContext("2d").fillRect(0, 0, 10, 10);
    setInterval(() => canvas.getContext("2d").fillRect(0, 0, 10, 10), 50);
    return (window.filmed = canvas.captureStream());
  };
"""
"""What Chromium has on Android only: a camera, and a reader of codes that sees one."""


def test_a_code_before_the_camera_finds_the_patient(browser: Any, box: Any) -> None:
    with opened(browser, box.config, has_touch=True) as page:
        page.add_init_script(READS)
        page.goto(box.url)
        page.tap("#scan")
        page.wait_for_selector("text=Back to all films")
        assert page.locator("#rows .row").count() == 1 and "OKAFOR" in page.inner_text("#rows")
