"""The languages that the pages speak: a request's is its person's, else what this browser chose, else what it prefers.

Where that is none of the six, it is the site's. Texts are in `translations/`, one gettext catalogue a language, made by
`build/translate`. Numbers and dates follow CLDR, whose few rules for six languages stand here, so that the box needs no locale
data; a test holds them against Babel's.
"""

from __future__ import annotations

import gettext as catalogues
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Flask, current_app, g, has_request_context, request

TRANSLATIONS = Path(__file__).parent / "translations"
DOMAIN = "outpost"
COOKIE = "language"


@dataclass(frozen=True)
class Language:
    """A language as people choose and write it."""

    code: str
    name: str
    """In its own script."""
    months: str
    """January to December, abbreviated as in a date."""
    direction: str = "ltr"
    decimal: str = "."
    group: str = ","
    percent: str = "{}%"
    digits: str = "0123456789"
    colon: str = ":"
    comma: str = ", "


LANGUAGES = {
    language.code: language
    for language in (
        Language("en", "English", "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec", percent="{}\xa0%"),
        Language(
            "fr",
            "Français",
            "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
            decimal=",",
            group="\u202f",
            percent="{}\xa0%",
            colon="\xa0:",
        ),
        Language(
            "es",
            "Español",
            "ene feb mar abr may jun jul ago sept oct nov dic",
            decimal=",",
            group=".",
            percent="{}\xa0%",
        ),
        Language(
            "pt",
            "Português",
            "jan. fev. mar. abr. mai. jun. jul. ago. set. out. nov. dez.",
            decimal=",",
            group="\xa0",
        ),
        Language("sw", "Kiswahili", "Jan Feb Mac Apr Mei Jun Jul Ago Sep Okt Nov Des"),
        Language(
            "ar",
            "العربية",
            "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
            direction="rtl",
            decimal="٫",
            group="٬",
            percent="{}٪\u061c",
            digits="٠١٢٣٤٥٦٧٨٩",
            comma="، ",
        ),
    )
}


def current() -> Language:
    """The language of this request."""
    if not has_request_context():
        return LANGUAGES["en"]
    if "language" not in g:
        account = g.get("account")
        chosen = account.language if account else request.cookies.get(COOKIE)
        if chosen not in LANGUAGES:
            chosen = request.accept_languages.best_match(LANGUAGES)
        g.language = LANGUAGES[chosen or current_app.extensions["language"]]
    language = g.language
    assert isinstance(language, Language)
    return language


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """Inside the block this request speaks another language: a patient's, not the reader's."""
    before = current()
    g.language = LANGUAGES[code]
    try:
        yield
    finally:
        g.language = before


def speak(app: Flask, language: str = "en") -> None:
    """Let an application's templates speak the language of the request, and `language` to a browser that asks for none of ours."""
    app.extensions["language"] = language
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.add_template_filter(translated)
    app.add_template_filter(digits)
    app.add_template_global(colon)
    app.add_template_global(comma)


@cache
def _catalogue(code: str) -> catalogues.NullTranslations:
    return catalogues.translation(DOMAIN, TRANSLATIONS, [code], fallback=True)


def gettext(text: str) -> str:
    """The text in this request's language."""
    return _catalogue(current().code).gettext(text) if text else ""


def ngettext(one: str, many: str, count: int) -> str:
    """The text for that many of something in this request's language."""
    return _catalogue(current().code).ngettext(one, many, count)


def translated(text: str) -> str:
    """A text that was marked elsewhere, as a filter: a label of the model, a sentence of `edge.words`."""
    return gettext(text)


def N_(text: str) -> str:  # noqa: N802  gettext's own name for it
    """Mark a text for translation that is translated where it is shown."""
    return text


def colon() -> str:
    """The colon after a label, as this language sets it."""
    return current().colon


def comma() -> str:
    """The comma between two things that are said of one, as this language sets it."""
    return current().comma


def digits(text: object) -> str:
    """A text, or the number of a film, with its digits as this language writes them."""
    return str(text).translate(str.maketrans("0123456789", current().digits))
