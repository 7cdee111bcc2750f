"""How many films an hour a reader's pages let through on a slow link: 512 kbit/s with 600 ms, by Chromium's network emulation.

    .venv/bin/python -m tests.bench.reads [COUNT [near]]

Films of 2048 × 2500 pixels at 16 bits wait at a hub of this machine. Each is opened, seen as sharp as a final read needs, sealed
by one key, sent by another; the next opens by itself. No time is spent looking: at 40 films an hour, what is left of 90 seconds is
the reader's. `near` leaves the slow link out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

from edge.records import Outcome
from tests import reading
from tests.reading import Hub
from tests.screens import CHROMIUM, launch
from web.hub.config import Config, Policy

SLOW, NEAR = (600, 512_000 // 8), (0, -1)
"""Milliseconds, and bytes a second; -1 is no limit (Chrome DevTools Protocol, Network.emulateNetworkConditions)."""
SHAPE = (2500, 2048)
HOUR_SECONDS, READS_AN_HOUR = 3600, 40


def reads(browser: Any, hub: Hub, count: int, link: tuple[int, int] = SLOW) -> list[dict[str, float]]:
    """So many films are read; the seconds of each until it was seen, until it was sharp, and until the next was open."""
    stream = reading.stream(1, SHAPE)
    for place in range(count + 1):
        hub.film(Outcome.SOON, waited=100_000 - place, stream=stream, shape=SHAPE)
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.add_cookies(hub.cookies("Fast"))
    page = context.new_page()
    context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": link[0],
            "downloadThroughput": link[1],
            "uploadThroughput": link[1],
        },
    )
    page.goto(hub.url)
    found = []
    start = time.monotonic()
    page.keyboard.press("n")
    for _ in range(count):
        page.wait_for_selector(".viewer.ready", timeout=120_000)
        seen = time.monotonic()
        page.wait_for_selector(".viewer.ready:not(.rough)", timeout=120_000)
        sharp = time.monotonic()
        page.keyboard.press("n")
        page.wait_for_selector("#ai .outcome", timeout=120_000)
        before = page.url
        page.keyboard.press("Enter")
        page.wait_for_function(
            "before => location.href !== before && document.querySelector('#read')", arg=before, timeout=120_000
        )
        end = time.monotonic()
        found.append({"seen": seen - start, "sharp": sharp - start, "whole": end - start})
        start = end
    context.close()
    return found


def main() -> None:
    """Read, and say how long it took."""
    from playwright.sync_api import sync_playwright

    count = int(sys.argv[1]) if len(sys.argv) > 1 else READS_AN_HOUR
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        hub = reading.made(Config(state=state, policy=Policy(second_share=0)))
        with reading.serving(hub):
            browser = launch(playwright.chromium, reading.trusted(hub.config), executable_path=str(CHROMIUM))
            found = reads(browser, hub, count, NEAR if "near" in sys.argv else SLOW)
            browser.close()
    for what in ("seen", "sharp", "whole"):
        values = sorted(one[what] for one in found)
        ninetieth = values[(9 * len(values) + 9) // 10 - 1]
        median = statistics.median(values)
        print(f"{what:6} median {median:.1f} s, 90th {ninetieth:.1f} s, longest {values[-1]:.1f} s, n={len(values)}")
    mean = statistics.mean(one["whole"] for one in found)
    left = HOUR_SECONDS / READS_AN_HOUR - mean
    print(f"{HOUR_SECONDS / mean:.0f} an hour with no time to look; at {READS_AN_HOUR} an hour {left:.0f} s are left")


if __name__ == "__main__":
    main()
