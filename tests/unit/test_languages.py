"""Every text in every language, in its numbers and dates; nothing that people see is left out."""

from __future__ import annotations

import gettext
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from html.parser import HTMLParser
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from babel.messages.pofile import read_po
from flask import Flask, g

from edge.config import Policy
from edge.records import Outcome, Reason
from tests.unit.test_project import ROOT
from tests.unit.test_web import Box
from web import languages, phrases

OPEN, CLOSE = "⟦", "⟧"
MONTHS = languages.LANGUAGES["en"].months.replace(" ", "|")
LOCALES = {"en": "en_GB", "fr": "fr", "es": "es", "pt": "pt_PT", "sw": "sw", "ar": "ar_EG"}


@pytest.fixture
def speaking() -> Iterator[Any]:
    with Flask(__name__).test_request_context():

        def speak(code: str) -> None:
            g.language = languages.LANGUAGES[code]

        yield speak


@pytest.mark.parametrize("code", languages.LANGUAGES)
def test_numbers_and_dates_are_those_of_cldr(speaking: Any, code: str) -> None:
    speaking(code)
    language, locale = languages.LANGUAGES[code], Locale.parse(LOCALES[code])
    system = "arab" if code == "ar" else "latn"
    symbols = locale.number_symbols[system]
    assert (language.decimal, language.group) == (symbols["decimal"], symbols["group"])
    assert language.direction == locale.text_direction.replace("left-to-right", "ltr").replace("right-to-left", "rtl")
    assert language.months.split() == [locale.months["format"]["abbreviated"][month] for month in range(1, 13)]
    if code != "en":  # this project writes 72 %, as the BIPM does
        pattern = str(locale.percent_formats[None].pattern).replace("#,##0", "{}").replace("%", symbols["percentSign"])
        assert language.percent == pattern


@pytest.mark.parametrize("code", [code for code in languages.LANGUAGES if code != "en"])
def test_no_text_takes_a_number_that_is_not_written_yet(code: str) -> None:
    catalogue = (ROOT / "web" / "translations" / code / "LC_MESSAGES" / "outpost.po").read_text(encoding="utf-8")
    assert re.findall(r"%\(\w+\)[dif]", catalogue) == [], (
        "numbers come from phrases.number, in the language's own digits"
    )


def test_no_line_ends_between_a_french_word_and_its_sign() -> None:
    with (languages.TRANSLATIONS / "fr/LC_MESSAGES/outpost.po").open("rb") as file:
        texts = [
            text
            for one in read_po(file)
            if one.id
            for text in ([one.string] if isinstance(one.string, str) else one.string)
        ]
    assert len(texts) > 500
    assert [text for text in texts if re.search(r" [:;!?»]|« | %%", text)] == []


def test_arabic_is_written_in_its_own_digits(speaking: Any) -> None:
    speaking("ar")
    assert phrases.number(1234) == "١٬٢٣٤"
    assert phrases.number(2.5) == "٢٫٥"
    assert phrases.day(date(2026, 11, 25)) == "٢٥ نوفمبر ٢٠٢٦"


def test_a_patient_can_be_spoken_to_in_another_language(speaking: Any) -> None:
    speaking("en")
    with languages.speaking("sw"):
        assert languages.current().code == "sw"
    assert languages.current().code == "en"


@pytest.mark.parametrize(
    ("asked", "spoken"), [("", "sw"), ("de, nl;q=0.5", "sw"), ("de, ar;q=0.5", "ar"), ("en-GB", "en")]
)
def test_a_tablet_that_asks_for_none_of_the_six_is_spoken_to_in_the_sites(asked: str, spoken: str) -> None:
    app = Flask(__name__)
    languages.speak(app, "sw")
    with app.test_request_context(headers={"Accept-Language": asked}):
        assert languages.current().code == spoken


class Pseudo(gettext.NullTranslations):
    """A language in which every text is seen to have gone through the catalogue."""

    def gettext(self, message: str) -> str:
        return f"{OPEN}{message}{CLOSE}"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


class Texts(HTMLParser):
    """What people see or hear of a page, but for what is data: names, identifiers, the model's own card."""

    DATA = frozenset({"bdi", "script", "style"})
    SEEN = frozenset({"aria-label", "title", "placeholder", "alt"})
    VOID = frozenset({"meta", "link", "input", "img", "br", "path", "rect", "use"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._data: list[bool] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.texts += [value for name, value in attrs if value and (name in self.SEEN or name.startswith("data-say"))]
        if tag not in self.VOID:
            data = tag in self.DATA or given.get("class") in ("card", "data") or given.get("name") == "code"
            self._data.append(data or (given.get("lang") is not None and tag in ("a", "button")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [value for name, value in attrs if value and name in self.SEEN]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            self._data.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._data):
            self.texts.append(data)


def left_out(page: str) -> list[str]:
    """The texts that did not go through the catalogue."""
    found = []
    for text in Texts(page).texts:
        rest = text
        while rest != (rest := re.sub(f"{OPEN}[^{OPEN}{CLOSE}]*{CLOSE}", "", rest)):
            pass
        rest = re.sub(rf"Outpost|SOP Instance UID|\d ({MONTHS}) \d", "", rest)
        if re.search(r"[^\W\d_]{2,}", rest):
            found.append(text.strip())
    return found


@pytest.mark.parametrize("first", [True, False], ids=["impression first", "shown at once"])
def test_no_text_that_people_see_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    monkeypatch.setattr(languages, "_catalogue", lambda code: Pseudo())
    with closing((box := Box(tmp_path, Policy(impression_first=first))).store):
        films = [box.film(outcome, minutes=7) for outcome in (Outcome.IMMEDIATE, Outcome.SOON, Outcome.ROUTINE)]
        films += [box.film(Outcome.COULD_NOT_ASSESS, reason=reason) for reason in Reason]
        films += [
            box.film(),
            box.film(minutes=30),
            box.film(Outcome.ROUTINE, uid="1.9"),
            box.film(Outcome.ROUTINE, uid="1.9"),
        ]
        pages = [
            "/",
            "/?show=read",
            "/?q=doe",
            "/status",
            "/model",
            "/learning",
            "/register",
            "/verify",
            "/verify?code=00",
            "/nothing",
        ]
        pages += [f"/films/{film}{part}" for film in films for part in ("", "/sheet", "/slip")]
        unmarked = {path: texts for path in pages if (texts := left_out(box.text(path)))}
    assert unmarked == {}


def test_the_check_itself_finds_what_is_left_out() -> None:
    assert left_out(f"<p title='No way'>{OPEN}Yes{CLOSE} <b>no</b></p>") == ["No way", "no"]


def test_the_translator_names_what_is_wrong() -> None:
    loader = SourceFileLoader("translate", str(ROOT / "build/translate"))
    spec = importlib.util.spec_from_loader("translate", loader)
    assert spec is not None
    translate: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(translate)
    wanted, made = translate.Catalog(locale="fr"), translate.Catalog(locale="fr")
    for text in ("Film %(number)s", "Saved", "Gone"):
        wanted.add(text)
    made.add("Film %(number)s", "Film %(nombre)s")
    made.add("Gone", "Parti")
    made.add("Old", "Vieux")
    assert translate.problems("fr", made, wanted) == [
        "fr: missing: Saved",
        "fr: no longer used: Old",
        "fr: other places to fill in than in English: Film %(nombre)s",
    ]


def test_no_language_lacks_a_text() -> None:
    """A text that somebody can meet and that is in no catalogue fails the build: type build/translate, then translate it."""
    done = subprocess.run([sys.executable, str(ROOT / "build/translate"), "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")
