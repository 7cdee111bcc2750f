"""Every page as a person meets it, found from the application itself; visited in a browser, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask

from edge.config import Config
from tests.box import PATIENCE
from tests.clinic import Filled, Pages, fill, fill_little, ready, serving
from tests.people import cookies
from web import languages

CHROMIUM = Path("/usr/bin/chromium")
SHELL = Path("/usr/bin/chromium-headless-shell")
"""The same without what nobody sees of a browser: a third quicker from page to page."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP clinic.test 127.0.0.1",  # by name, as on a clinic's network
]

TABLETS = {
    "8-portrait": (600, 960),
    "8-landscape": (960, 600),
    "10-portrait": (800, 1280),
    "10-landscape": (1280, 800),
    "12-portrait": (1024, 1366),
    "12-landscape": (1366, 1024),
}
"""CSS pixels of usual tablets."""

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "preload": {"assets": ["media"]},  # none of these rules reads style sheets
}
FINGER = 48
SMALL = """least => [...document.querySelectorAll('a, button, input, select, summary, label')]
  .filter(e => {
    const box = e.getBoundingClientRect();
    const whole = getComputedStyle(e, '::after').position === 'absolute'; // the whole row is touched
    const inside = e.matches('input') && e.closest('label'); // then the label is touched
    const plain = e.matches('label') && !e.querySelector('input:not(.unseen)');
    return !inside && !plain && !e.matches('.unseen')
      && e.checkVisibility({ visibilityProperty: true }) && box.width > 1 && box.bottom > 0 && !whole
      && (Math.round(box.height) < least || Math.round(box.width) < least);
  }).map(e => e.outerHTML)"""
OPEN = "for (const one of document.querySelectorAll('main details')) one.open = true"
WIDE = "document.documentElement.scrollWidth > innerWidth"

MAP = "document.querySelector('[name=map]').click()"
LOCKED = "dispatchEvent(new Event('signed-out'))"
SCAN = "document.getElementById('camera').showModal()"
MENU = "document.querySelector('nav details').open = true"
PERSON = "document.querySelector('.me').open = true"
PIN = """for (const [name, value] of [["pin", "000000"], ["title", "A trial"], ["size", "9"]])
  for (const field of document.querySelectorAll(`main [name=${name}]`)) field.value = value;
document.querySelector("main form:has([name=pin])").requestSubmit()"""
ONCE = """const reset = [...document.querySelectorAll("[value=reset]")].find(one => one.form.elements.name.value !== "Amina");
reset.form.requestSubmit(reset)"""
AWAY = "for (const id of ['stale', 'unsaved']) document.getElementById(id).hidden = false"


@dataclass(frozen=True)
class Screen:
    """A page, and what is done on it before it is looked at."""

    path: str
    then: str = ""
    leads: str = ""
    """What is there once that was done, where it leads elsewhere."""
    part: str = ""
    """What lies over the rest of the page, which is a screen of its own."""
    out: bool = False
    """Nobody is signed in."""
    join: bool = False
    """It is on the port without TLS."""


@dataclass(frozen=True)
class Clinic:
    """A box under test and its screens, by name."""

    pages: Pages
    screens: dict[str, Screen]
    filled: Filled


@contextmanager
def clinics(folder: Path) -> Iterator[list[Clinic]]:
    """A box with a film in every state, one in its first days, and one to which nothing has come yet."""
    with ExitStack() as stack:

        def box(name: str, filled: Callable[[Config], Any]) -> tuple[Pages, Any]:
            config = Config(state=str(folder / name))
            told = filled(config)
            return stack.enter_context(serving(config)), told

        pages, filled = box("full", fill)
        shown = [Clinic(pages, every_screen(pages.app, filled), filled)]
        for name, begun in (("begun", fill_little), ("new", ready)):
            pages, _none = box(name, begun)
            screens = {f"{name}-{path.strip('/') or 'worklist'}": Screen(path, OPEN) for path in FEW}
            shown.append(Clinic(pages, screens, Filled({}, 0)))
        yield shown


FEW = ("/", "/drift", "/trial", "/fairness", "/commission", "/learning", "/status", "/ledger")
"""Pages that say something else where little or nothing has come."""


def every_screen(app: Flask, filled: Filled) -> dict[str, Screen]:
    """Every page that can be opened, every kind of film, and what is shown over or instead of a page."""
    films = filled.films
    screens = {
        "worklist": Screen("/"),
        "worklist-undo": Screen(f"/?done={filled.done}"),
        "worklist-search": Screen("/?q=kamau"),
        "worklist-read": Screen("/?show=read"),
        "worklist-scan": Screen("/", SCAN),
        "worklist-stale": Screen("/", AWAY),
        "none": Screen("/no"),
    }
    for rule in app.url_map.iter_rules():
        name = rule.endpoint.replace(".", "-")
        if "GET" not in (rule.methods or ()) or rule.endpoint in PARTS:
            continue
        if not rule.arguments:
            screens.setdefault(name, Screen(rule.rule))
        elif rule.arguments == {"number"} and rule.endpoint != "film.page":
            screens[name] = Screen(rule.rule.replace("<int:number>", str(films["decided"])))
    screens |= {f"film-{key}": Screen(f"/films/{number}") for key, number in films.items()}
    return screens | {
        "handoff-verify": Screen("/verify?code=0000 0000 0000 0000"),
        "ledger-film": Screen(f"/ledger?film={films['decided']}"),
        "commission-page": Screen("/commission", OPEN),
        "film-open": Screen(f"/films/{films['asked']}", OPEN),
        "film-map": Screen(f"/films/{films['asked']}", MAP),
        "film-compared": Screen(f"/films/{films['other']}?beside={films['twin']}"),
        "lock": Screen(f"/films/{films['sealed']}", LOCKED),
        "menu": Screen("/", MENU, part=".top"),
        "person": Screen(f"/films/{films['sealed']}", PERSON, part=".top"),
        "drift-wrong": Screen("/drift", PIN, ".wrong"),
        "drift-page": Screen("/drift"),
        "fairness-page": Screen("/fairness", OPEN),
        "trial-page": Screen("/trial", OPEN),
        "trial-wrong": Screen("/trial", PIN, ".wrong"),
        "staff-page": Screen("/people", OPEN),
        "staff-once": Screen("/people", ONCE, ".once"),
        "signing-switch": Screen("/sign-in?switch=1"),
        "signing-out": Screen("/sign-in", out=True),
        "first-page": Screen("/setup", out=True),
        "away": Screen("/away", out=True),
        "join": Screen("/", OPEN, out=True, join=True),
    }


PARTS = frozenset(
    {
        "static",
        "worklist.home",
        "worklist.rows",
        "alerts.current",
        "status.healthy",
        "film.sections",
        "pictures.film",
        "pictures.preview",
        "pictures.saliency",
        "tablet.manifest",
        "tablet.worker",
        "tablet.away",
    }
)
"""What pages fetch for themselves."""


def launch(kind: Any, trusted: str = "", **options: Any) -> Any:
    """Debian's Chromium, of Playwright's kind of browser; its pages are waited for as patiently as a box is.

    `trusted` is the hash of a key of TLS (SubjectPublicKeyInfo, base64): it caches nothing that came under a certificate which it
    does not trust.
    """
    trust = [f"--ignore-certificate-errors-spki-list={trusted}"] if trusted else []
    chromium = kind.launch(**{"executable_path": str(SHELL), **options}, args=[*ARGUMENTS, *trust])
    chromium.on("context", lambda context: context.set_default_timeout(PATIENCE * 1000))
    return chromium


class Tablet:
    """A browser's page in one language, on which Amina, who is a lead, is signed in; or nobody."""

    def __init__(self, page: Any, pages: Pages, code: str) -> None:
        self.page, self._pages, self._code = page, pages, code

    def visit(self, screen: Screen) -> None:
        """Open a page, and wait until all of it is there."""
        url = self._pages.join if screen.join else self._pages.url
        self.page.goto(url + screen.path + (f"?language={self._code}" if screen.join else ""))
        if self.page.locator("cxr-view").count():
            self.page.wait_for_selector(".viewer:not(.ready)", state="detached")
        if screen.then:
            self.page.evaluate(f"() => {{ {screen.then} }}")
        if screen.leads:
            self.page.wait_for_selector(screen.leads)

    def settle(self) -> None:
        """Wait until a change of the tablet's size is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wrong(page: Any, part: str = "") -> list[str]:
    """What of the page, or of a part of it, is not for everyone as it stands: WCAG 2.2 AA by axe, fingers, the tablet's width."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    found = page.evaluate(
        "([part, options]) => axe.run(part || document, options)", [part, {**RULES, "resultTypes": ["violations"]}]
    )
    said = [f"{one['id']}: {node['html'][:300]}" for one in found["violations"] for node in one["nodes"]]
    said += [f"too small for a finger: {one[:300]}" for one in page.evaluate(SMALL, FINGER)]
    return said + ["wider than the tablet"] * page.evaluate(WIDE)


@lru_cache(maxsize=1)
def _axe() -> str:
    from axe_playwright_python.base import AXE_SCRIPT

    return str(AXE_SCRIPT)


@contextmanager
def tablet(browser: Any, pages: Pages, code: str, out: bool = False) -> Iterator[Tablet]:
    """A tablet of a language's own; it does not hear when the box answers again, so the page that waits for that stays."""
    context = browser.new_context(
        has_touch=True, reduced_motion="reduce", ignore_https_errors=True, service_workers="block"
    )
    page = context.new_page()
    page.route("**/health", lambda route: route.abort())
    context.add_cookies([{"name": languages.COOKIE, "value": code, "url": pages.url}])
    if not out:
        context.add_cookies(pages.cookies())
        form, own = {"code": code, "back": "/status"}, {"Sec-Fetch-Site": "same-origin"}
        page.request.post(f"{pages.url}/language", form=form, headers=own)
    yield Tablet(page, pages, code)
    context.close()


def visits(browser: Any, boxes: list[Clinic], code: str) -> Iterator[tuple[Tablet, str, Screen]]:
    """Every screen of every box with a tablet to visit it on, signed in or not as it needs."""
    for clinic in boxes:
        for out in {screen.out for screen in clinic.screens.values()}:
            with tablet(browser, clinic.pages, code, out) as held:
                for name, screen in clinic.screens.items():
                    if screen.out is out:
                        yield held, name, screen


@contextmanager
def opened(
    browser: Any, config: Config | None = None, size: str = "10-landscape", name: str = "Amina", **options: Any
) -> Iterator[Any]:
    """A page of a tablet; where the box's settings are given, with a clinician signed in on it.

    It fails the test when the page asks for anything outside the box, or logs an error that was not cleared from `page.errors`.
    """
    width, height = TABLETS[size]
    # trust is not the point here (test_trust.py), nor is what a tablet keeps (test_away.py)
    options = {"ignore_https_errors": True, "service_workers": "block", **options}
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    if config:
        held = cookies(Path(config.state), name).items()
        hosts = ("127.0.0.1", "clinic.test")
        context.add_cookies(
            [{"name": name, "value": value, "domain": host, "path": "/"} for name, value in held for host in hosts]
        )
    asked, said = [], []
    context.on("request", lambda request: asked.append(request.url))
    context.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(str(error)))
    page.errors = said
    yield page
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith(("https://127.0.0.1:", "https://clinic.test:"))] == []
    assert not said, said
