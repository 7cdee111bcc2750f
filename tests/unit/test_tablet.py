"""The pages as an app on a tablet: what it is told, and for whom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from edge.records import Outcome
from tests.people import sign_in
from tests.unit.test_web import OWN, Box
from web import languages, tablet


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.parametrize("code", languages.LANGUAGES)
def test_the_manifest_speaks_the_persons_language(box: Box, code: str) -> None:
    sign_in(box.client, Path(box.config.state), f"Person {code}", language=code)
    answer = box.client.get("/manifest.webmanifest")
    told = json.loads(answer.data)
    assert answer.mimetype == "application/manifest+json"
    assert (told["lang"], told["dir"]) == (code, languages.LANGUAGES[code].direction)


def test_every_icon_is_as_large_as_it_says(box: Box) -> None:
    told = json.loads(box.client.get("/manifest.webmanifest").data)
    assert {icon["purpose"] for icon in told["icons"]} == {"any", "maskable"}
    for icon in told["icons"]:
        with Image.open(tablet.STATIC / icon["src"].partition("?")[0].removeprefix("/static/")) as picture:
            assert f"{picture.width}x{picture.height}" == icon["sizes"]


def test_a_tablet_keeps_every_file_that_the_list_and_a_film_load(box: Box) -> None:
    number = box.film(Outcome.SOON)
    kept = set(json.loads(re.findall(r"const STATIC = (.*);", box.text("/worker.js"))[0]))
    loaded = {found for path in ("/", f"/films/{number}") for found in re.findall(r'"(/static/[^"]+)"', box.text(path))}
    assert loaded and loaded <= kept
    for address in kept:
        with box.client.get(address) as answer:
            assert answer.status_code == 200


def test_a_changed_file_has_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> str:
        tablet.files.cache_clear()
        tablet.version.cache_clear()
        return tablet.version()

    monkeypatch.setattr(tablet, "STATIC", tmp_path)
    (tmp_path / "style.css").write_text("a")
    first = version()
    assert version() == first
    (tmp_path / "style.css").write_text("b")
    assert version() != first
    monkeypatch.undo()
    version()


def test_an_answer_says_for_whom_it_is(box: Box) -> None:
    def whose(path: str = "/") -> str | None:
        with box.client.get(path) as answer:
            return answer.headers.get("Outpost-Person")

    amina = whose()
    assert amina and "Amina" not in amina and whose("/worklist") == whose("/films/999") == amina
    sign_in(box.client, Path(box.config.state), "Brahim")
    assert whose() not in (None, amina)
    assert whose("/static/style.css") is None
    box.client.post("/lock", headers=OWN)
    assert whose("/away") is None and whose("/worklist") is None
    box.client.delete_cookie("signed_in")
    assert whose("/away") is None


def test_a_form_that_is_waited_for_is_told_where_to_go(box: Box) -> None:
    number = box.film(Outcome.SOON)
    acted = {"act": "confirm", "run": "1", "standing": "0", "request": "a" * 20}
    plain = box.client.post(f"/films/{number}/decision", data=acted, headers=OWN)
    waited = box.client.post(f"/films/{number}/decision", data=acted, headers=OWN | {"Outpost-Form": "1"})
    assert (plain.status_code, waited.status_code) == (303, 204)
    assert waited.headers["Outpost-Next"] == plain.headers["Location"] and "Location" not in waited.headers
    assert box.store.execute("SELECT COUNT(*) FROM read").fetchone()[0] == 1
