"""The languages that the pages speak; the language of a request is its person's, else the browser's."""

from __future__ import annotations

from dataclasses import dataclass

from flask import g, has_request_context, request


@dataclass(frozen=True)
class Language:
    """A language as people choose it."""

    code: str
    name: str
    """In its own script."""
    direction: str = "ltr"


LANGUAGES = {
    language.code: language
    for language in (
        Language("en", "English"),
        Language("fr", "Français"),
        Language("es", "Español"),
        Language("pt", "Português"),
        Language("sw", "Kiswahili"),
        Language("ar", "العربية", "rtl"),
    )
}


def current() -> Language:
    """The language of this request."""
    if not has_request_context():
        return LANGUAGES["en"]
    if "language" not in g:
        account = g.get("account")
        code = account.language if account else request.accept_languages.best_match(LANGUAGES)
        g.language = LANGUAGES.get(code or "en", LANGUAGES["en"])
    language = g.language
    assert isinstance(language, Language)
    return language


def gettext(text: str) -> str:
    """The text in this request's language."""
    return text


def ngettext(one: str, many: str, count: int) -> str:
    """The text for that many of something in this request's language."""
    return one if count == 1 else many


def N_(text: str) -> str:  # noqa: N802  gettext's own name for it
    """Mark a text for translation that is translated where it is shown."""
    return text
