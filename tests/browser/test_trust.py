"""A tablet that has joined is sure of the box, one that has not refuses; and the page by which it joins."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Config, Web
from tests.conftest import peer
from tests.screens import launch
from web.serve import pages

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = Config(
        state=str(tmp_path_factory.mktemp("box")), web=Web(port=0, join_port=0, names=("outpost.local", "clinic.test"))
    )
    with pages(config) as shown:
        https, http = re.findall(r"https?://\S+", shown)
        yield SimpleNamespace(https=https, http=http, authority=Path(config.state) / "trust/ca.crt")


def trusting(home: Path, authority: Path) -> dict[str, str]:
    """The environment of a Chromium in whose user's certificates the authority is installed."""
    certutil = peer("certutil", "libnss3-tools")
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "outpost", "-i", str(authority)]):
        subprocess.run([certutil, "-d", f"sql:{database}", *arguments], check=True)
    return {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}


@contextmanager
def tablet(browser: Any, **options: Any) -> Iterator[Any]:
    """A browser of its own, with its own certificates."""
    chromium = launch(browser.browser_type, executable_path=str(peer("chromium", "chromium")), **options)
    yield chromium.new_page()
    chromium.close()


@pytest.mark.peer
def test_a_tablet_that_has_joined_is_sure_of_the_box(browser: Any, box: Any, tmp_path: Path) -> None:
    with tablet(browser, env=trusting(tmp_path, box.authority)) as page:
        page.goto(box.http)
        page.click("text=It works now")
        page.wait_for_url(f"{box.https}**")
        assert page.evaluate("isSecureContext")
        devtools = page.context.new_cdp_session(page)
        states = list[Any]()
        devtools.on("Security.visibleSecurityStateChanged", lambda state: states.append(state))
        devtools.send("Security.enable")
        page.goto(box.https.replace("127.0.0.1", "clinic.test"))
        assert page.evaluate("isSecureContext")
        assert states and states[-1]["visibleSecurityState"]["securityState"] == "secure"


def test_a_tablet_that_has_not_joined_refuses(browser: Any, box: Any, tmp_path: Path) -> None:
    from playwright.sync_api import Error

    with tablet(browser, env={"HOME": str(tmp_path)}) as page, pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
        page.goto(box.https)


def test_the_join_page_gives_the_certificate_in_the_tablets_language(browser: Any, box: Any) -> None:
    page = browser.new_page()
    page.goto(f"{box.http}?language=ar")
    assert page.get_attribute("html", "dir") == "rtl"
    for summary in page.locator("summary").all():
        summary.click()
    with page.expect_download() as download:
        page.click("a[href='/outpost.crt']")
    assert download.value.suggested_filename == "outpost.crt"
    page.context.close()
