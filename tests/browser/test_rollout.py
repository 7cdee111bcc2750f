"""A model goes out to two boxes: the first refuses it, the roll-out halts and says so; mended, it goes on to both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from edge import config as settings
from edge import passport
from edge.cli import main
from edge.config import Hub as HubSettings
from edge.config import Worker
from edge.state.store import open_store as open_box
from edge.words import ORDERS
from models import bundle as bundles
from tests import bundles as signed
from tests.box import Box, until
from tests.hub import PROGRAMME, SITE, Served
from tests.people import SECRET
from tests.screens import TABLETS, wrong
from web import languages
from web.hub import accounts, keys, people, rollouts, serve, sites
from web.hub import config as hub_settings
from web.hub.accounts import Account, Role
from web.hub.records import Rollout
from web.hub.store import now, open_store

pytestmark = pytest.mark.browser

SHIPPED = bundles.load(bundles.SHIPPED).manifest.version
SITES = (SITE, msgspec.structs.replace(SITE, name="south", title="South clinic"))


class Programme:
    """A hub in a process of its own, as a lead and as its command line meet it."""

    def __init__(self, served: Served) -> None:
        self.served, self.config = served, hub_settings.load(served.config)
        self.store = open_store(self.config)
        self.url = f"https://127.0.0.1:{served.port}"
        with self.store.transaction() as db:
            sites.add_programme(db, PROGRAMME, "Lakes")
            lead = Account(name="Lena", programme=PROGRAMME, role=Role.LEAD, secret=SECRET, totp="A" * 32)
            accounts.add(db, lead)
            self.token = accounts.start(db, "Lena", now())
        with self.store.transaction(PROGRAMME) as db:
            for site in SITES:
                sites.add(db, site)

    def outpost(self, *arguments: str, config: Path | None = None) -> str:
        told = CliRunner().invoke(
            main, ["--config", str(config or self.served.config), *arguments], catch_exceptions=False
        )
        assert told.exit_code == 0, told.output
        return str(told.stdout)

    def enrolled(self, folder: Path, site: str, worker: Worker) -> Box:
        """A clinic's box, which knows the hub."""
        folder.mkdir()
        box = Box(folder, "courier")
        hub = HubSettings(url=self.url, poll_seconds=0.5)
        box.config = msgspec.structs.replace(box.config, hub=hub, worker=worker)
        settings.save(box.config, box.file)
        with self.store.transaction() as db:
            code = f"{sites.invite(db, PROGRAMME, site, now())}.{keys.pin(serve.certificate(self.config))}"
        self.outpost("enrol", code, config=box.file)
        return box

    def heard(self) -> int:
        with self.store.reading(PROGRAMME) as db:
            return sum(one.status is not None for one in sites.contacts(db))

    def newest(self) -> Rollout:
        with self.store.reading(PROGRAMME) as db:
            return rollouts.current(db) or rollouts.past(db, 1)[0]

    @contextmanager
    def lead(self, browser: Any, code: str, size: str) -> Iterator[Any]:
        width, height = TABLETS[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, ignore_https_errors=True, has_touch=True
        )
        cookies = {people.SESSION: self.token, languages.COOKIE: code}
        context.add_cookies([{"name": name, "value": value, "url": self.url} for name, value in cookies.items()])
        yield context.new_page()
        context.close()


def model_of(box: Box) -> str:
    with closing(open_box(Path(box.config.state))) as store:
        return passport.at_work(box.config, store)[0].manifest.version


def test_a_model_goes_to_two_boxes_in_waves_halts_at_the_first_and_goes_on_once_it_is_mended(
    browser: Any, tmp_path: Path
) -> None:
    pytest.importorskip("axe_playwright_python")
    bundle = signed.copied(
        tmp_path / "bundle", lambda text: re.sub('version = "[^"]*"', 'version = "9.2.0"', text, count=1)
    )
    trusting = Worker(runtime="onnx", authorities=(str(signed.authority(tmp_path)),))
    with ExitStack() as stack:
        programme = Programme(stack.enter_context(Served(tmp_path)))
        stack.enter_context(closing(programme.store))
        programme.outpost("hub", "model", str(bundle))
        north = programme.enrolled(tmp_path / "north", "north", Worker(runtime="onnx"))
        south = programme.enrolled(tmp_path / "south", "south", trusting)
        for box in (north, south):
            box.launch()
            stack.callback(box.kill)
        until(lambda: programme.heard() == 2, "both boxes have said how they are")

        with programme.lead(browser, "en", "8-portrait") as page:
            page.goto(f"{programme.url}/fleet")
            assert page.locator(".fleet > li.look").count() == 2, "shadow mode, both"
            page.tap("text=Roll-out")
            page.check("input[value^='model:']")
            page.select_option("#first", "north")
            page.fill("#hours", "0")
            assert wrong(page) == []
            page.tap("text=Begin the roll-out")
            page.wait_for_selector("#state")
            until(lambda: programme.newest().state == "halted", "the first box refuses it")
            page.goto(f"{programme.url}/fleet")
            sentence, action = ORDERS[rollouts.Carried.UNSIGNED]
            banner = page.inner_text(".banner")
            assert "It has halted at North clinic." in banner and sentence in banner and action in banner
            assert wrong(page) == []
        with programme.lead(browser, "ar", "8-landscape") as page:
            for path in ("/fleet", "/fleet/rollout", "/fleet/box/north"):
                page.goto(programme.url + path)
                page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
                assert wrong(page) == [], path
        assert [model_of(box) for box in (north, south)] == [SHIPPED, SHIPPED]

        north.kill()
        north.config = msgspec.structs.replace(north.config, worker=trusting)
        settings.save(north.config, north.file)
        north.launch()
        with programme.lead(browser, "en", "8-portrait") as page:
            page.goto(f"{programme.url}/fleet/rollout")
            page.tap("text=Go on with it")
            page.wait_for_selector("#state.good")
            until(lambda: programme.newest().state == "done", "both boxes run the model")
            page.goto(f"{programme.url}/fleet/rollout")
            assert "finished" in page.inner_text("main")
            page.goto(f"{programme.url}/fleet/box/north")
            told = page.inner_text("main")
            assert "cxr-lite0 9.2.0 (shadow mode)" in told and sentence in told and "The order was carried out." in told
        assert [model_of(box) for box in (north, south)] == ["9.2.0", "9.2.0"]
