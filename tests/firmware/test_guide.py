"""The technician's guide: one printed page, with pictures of our own, and every command and sentence on it is the program's."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

from edge.cli import COMMANDS
from firmware import image
from tests.conftest import peer

GUIDE = image.HERE / "guide.html"


class Read(HTMLParser):
    """What a page says, what it asks for elsewhere, and the names of its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.asked, self.pictures = "", list[str](), list[str]()
        self.feed(GUIDE.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.asked += [str(held[name]) for name in ("src", "href", "xlink:href") if name in held]
        if tag == "svg":
            self.pictures.append(held.get("aria-label") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_is_one_page_of_paper(tmp_path: Path) -> None:
    out = tmp_path / "guide.pdf"
    chromium = [peer("chromium", "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run(
        [*chromium, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={out}", GUIDE.as_uri()],
        check=True,
        capture_output=True,
        timeout=240,
    )
    assert len(re.findall(rb"/Type\s*/Page\b", out.read_bytes())) == 1


def test_it_says_what_the_programs_say_and_asks_nobody() -> None:
    read = Read()
    assert read.asked == []
    assert len(read.pictures) == 8 and all(read.pictures)
    commands = re.findall(r"outpost ([a-z]+)", read.text)
    assert commands and set(commands) <= set(COMMANDS)
    said = "".join(
        (image.HERE / name).read_text(encoding="utf-8") for name in ("flash.py", "card.py", "disks.py", "signature.py")
    )
    quoted = re.findall("“([^”]+)”", read.text)
    assert len(quoted) == 7
    assert [text for text in quoted if re.sub(r"\s+", " ", text) not in re.sub(r'"\s+f?"', "", said)] == []
