"""The first start of a real box: the code that it prints makes the lead, who is still signed in after the power was cut."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from tests.box import ROOT, Box
from tests.people import PIN


def launch(box: Box) -> subprocess.Popen[str]:
    """Start the pages of a box, and read what stands on its screen."""
    command = [sys.executable, "-u", "-m", "edge", "--config", str(box.file), "web"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(process: subprocess.Popen[str], word: str) -> str:
    """The line of the screen that begins with the word."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"the box never said {word}")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_the_code_on_the_screen_makes_the_lead_and_a_power_cut_signs_nobody_out(tmp_path: Path) -> None:
    box, cookies = Box(tmp_path), CookieJar()
    first = launch(box)
    try:
        code = until(first, "Setup").split()[2]
        assert re.fullmatch(r"[0-9A-Z]{5}-[0-9A-Z]{5}", code)
        trusting = ssl.create_default_context(cafile=Path(box.config.state) / "trust/ca.crt")
        tablet = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trusting), urllib.request.HTTPCookieProcessor(cookies)
        )
        form = {"code": code, "name": "Grace", "new": PIN, "again": PIN}
        asked = urllib.request.Request(
            f"{box.url}/setup", urllib.parse.urlencode(form).encode(), {"Origin": box.url, "Accept-Language": "en"}
        )
        with tablet.open(asked) as answer:
            assert "<bdi>Grace</bdi>" in answer.read().decode()
        assert all(cookie.secure for cookie in cookies)
    finally:
        kill(first)
    second = launch(box)
    try:
        until(second, "Pages")
        with tablet.open(f"{box.url}/people") as answer:
            assert "<bdi>Grace</bdi>" in answer.read().decode()
    finally:
        kill(second)
