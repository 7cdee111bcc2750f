"""A film is read at the hub: blinded first, with ten seconds to take it back, by one at a time, never routine while rough."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from edge import cards
from edge.records import Concern, Outcome
from edge.stages.parcel import Public
from edge.stages.report import fhir, sr
from tests import hub as hubs
from tests import reading
from tests.reading import PROGRAMME, Hub
from tests.unit.test_hub_people import OWN, later
from tests.unit.test_languages import Pseudo, left_out
from web import languages
from web.hub import drafts, films, instances, read, store, sync
from web.hub.config import Config, Policy
from web.hub.records import Device, Review, TaskKind

STREAM = bytes(range(256)) * 400
"""Stands for a codestream: the pages only count its bytes."""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return reading.made(Config(state=str(tmp_path), policy=Policy(second_share=0)))


def take(client: Any, task: int | None = None) -> str:
    answer = client.post("/next", data={"task": task} if task else {}, headers=OWN)
    assert answer.status_code == 303
    return str(answer.headers["Location"])


def post(client: Any, path: str, *codes: str, **form: Any) -> Any:
    data = {"codes": list(codes), "request": "k" * 20, "seen": str(1 << 30)} | form
    return client.post(path, data=data, headers=OWN)


def sealed_and_sent(client: Any, path: str, *codes: str, **form: Any) -> Any:
    assert post(client, f"{path}/impression", *codes, **form).status_code == 303
    return post(client, f"{path}/send", *codes, **form)


def down(hub: Hub, site: str = "north") -> list[Any]:
    """What the hub tells a clinic."""
    with hub.held.store.reading(PROGRAMME) as db:
        rows = db.rows("SELECT body FROM answer WHERE programme = :programme AND site = :site ORDER BY seq", site=site)
    return [msgspec.json.decode(row["body"], type=cards.Down) for row in rows]


def picture_of(hub: Hub, film: int) -> cards.Picture:
    with hub.held.store.reading(PROGRAMME) as db:
        case = films.case(db, film)
    assert case is not None and case.picture is not None
    return case.picture


def flushed(hub: Hub, seconds: float = 11) -> list[Review]:
    """The reads that leave so many seconds from now."""
    with hub.held.store.transaction(PROGRAMME) as db:
        return drafts.flush(db, hub.held.rules, store.now() + seconds)


def test_what_the_ai_says_is_nowhere_on_the_page_before_the_impression_is_sealed(hub: Hub) -> None:
    number = hub.film(Outcome.IMMEDIATE, stream=STREAM)
    with hub.held.store.reading(PROGRAMME) as db:
        case = films.case(db, number)
    assert case is not None
    hub.came(case, "SR")
    client = hub.client()
    queue = re.sub(r"\?v=\w+", "", client.get("/").text)  # the versions of scripts and styles may hold any digits
    assert "Immediate" not in queue and "81" not in queue
    path = take(client)
    page = client.get(path).text
    assert "Pneumonia" not in page and "81\xa0%" not in page and "demonstrator" not in page and "next-door" not in page
    assert post(client, f"{path}/send", "normal").status_code == 409, "nor can anything be sent before"
    part = client.post(
        f"{path}/impression", data={"codes": ["effusion"], "outcome": "soon"}, headers={**OWN, "Outpost-Part": "1"}
    )
    assert "Report (<bdi>next-door</bdi>" in part.text
    assert "Pneumonia" in part.text and "81\xa0%" in part.text and "You saw: Fluid in the chest." in part.text
    post(client, f"{path}/impression", "normal")
    assert "You saw: Fluid in the chest." in client.get(path).text, "the first impression counts"
    post(client, f"{path}/send", "consolidation", outcome="immediate", advice=["send"])
    (review,) = flushed(hub)
    assert review.finding.before_ai is not None and review.finding.before_ai.codes == ("effusion",)
    assert (review.finding.codes, review.finding.advice, review.finding.outcome) == (
        ("consolidation",),
        ("send",),
        "immediate",
    )
    assert review.finding.seconds is not None


def test_the_map_says_where_and_not_before_the_impression_is_sealed(hub: Hub) -> None:
    hub.film(Outcome.IMMEDIATE, stream=STREAM)
    client, other = hub.client(), hub.client("Dr Diop")
    path = take(client)
    assert "Heat map" not in client.get(path).text and client.get(f"{path}/map.png").status_code == 404
    part = client.post(f"{path}/impression", data={"codes": ["normal"]}, headers={**OWN, "Outpost-Part": "1"}).text
    assert f'src="{path}/map.png"' in part and "Where, not why:" in part and "“Pneumonia” comes from" in part
    assert 'name="map" autocomplete="off">' in part, "it is off until somebody asks for it"
    assert other.get(f"{path}/map.png").status_code == 410
    with Image.open(io.BytesIO(client.get(f"{path}/map.png").data)) as map_:
        assert map_.getchannel("A").tobytes() == bytes([0, 0, 90, 0, 200, 90, 0, 0, 0])
    hub.film(Outcome.IMMEDIATE, waited=10**6, stream=STREAM, saliency=None)  # the clinic shows no map
    path = take(client, hub.task(2))
    part = client.post(f"{path}/impression", data={"codes": ["normal"]}, headers={**OWN, "Outpost-Part": "1"}).text
    assert "Heat map" not in part and client.get(f"{path}/map.png").status_code == 404


def test_of_what_the_ai_is_unsure_is_told_to_readers_and_archives(hub: Hub) -> None:
    seen = cards.Likelihood(finding="pneumonia", scheme="SCT", code="233604007", probability=0.31, low=0.2, high=0.4)
    client, client_sees = hub.client(), []
    for finding in (seen, msgspec.structs.replace(seen, unsure=True)):
        number = hub.film(Outcome.SOON, waited=600, stream=STREAM, findings=(finding,))
        path = take(client, hub.task(number))
        page = client.get(path).text
        assert post(client, f"{path}/impression", "normal").status_code == 303
        client_sees.append(("The AI is unsure." in page, "The AI is unsure." in client.get(path).text))
        with hub.held.store.reading(PROGRAMME) as db:
            case = films.case(db, number)
        assert case is not None
        said = instances.content(case)
        told = [sr.document(said, None, ()).data, fhir.document(said).data]
        assert [b"373068000" in form for form in told] == [finding.unsure] * 2
    assert client_sees == [(False, False), (False, True)]


def test_a_reader_sees_the_earlier_films_of_the_same_patient_and_no_others(hub: Hub) -> None:
    def film(day: str, site: str = "north", **changes: Any) -> int:
        same = {"patient": reading.PATIENT, "waited": 600, "stream": STREAM + day.encode()}
        return hub.film(Outcome.SOON, site=site, day=day, **(same | changes))

    earlier, first = film("2026-10-16"), film("2026-09-20", have=100)
    others = [
        film("2026-12-01"),
        film("2026-10-01", site="south"),
        film("2026-10-02", sex="M"),
        film("2026-10-03", study="2.25.9"),
        film("2026-10-04", patient="P" + "B" * 16),
        film("2026-10-05", stream=None),
    ]
    this = film("2026-11-20", study="2.25.9")
    client = hub.client()
    path = take(client, hub.task(this))
    page = client.get(path).text
    assert re.findall(r"beside=(\d+)", page) == [str(earlier), str(first)], "the latest first"
    assert "Compare with the film from 35 days before" in page and "data-earlier" not in page
    assert "The film from 61 days before" in client.get(f"{path}?beside={first}").text
    assert "data-earlier" not in client.get(f"{path}?beside={others[0]}").text
    head = {"Range": "bytes=2-9"}
    answer = client.get(f"{path}/earlier/{earlier}", headers=head)
    assert (answer.status_code, answer.data) == (206, STREAM[2:10])
    for one in (*others, this):
        assert client.get(f"{path}/earlier/{one}", headers=head).status_code == 404
    (want,) = [one for one in down(hub) if isinstance(one, cards.Want)]
    assert want.upto == read.enough(picture_of(hub, first)), "only the one that was opened is asked for"
    assert hub.client("Dr Diop").get(f"{path}/earlier/{earlier}", headers=head).status_code == 410


def test_without_blinding_the_answer_is_shown_at_once(tmp_path: Path) -> None:
    hub = reading.made(Config(state=str(tmp_path), policy=Policy(impression_first=False)))
    hub.film(Outcome.IMMEDIATE, stream=STREAM)
    client = hub.client()
    assert "Immediate" in client.get("/").text
    path = take(client)
    assert "Pneumonia" in client.get(path).text
    assert post(client, f"{path}/send", "normal").status_code == 303


def test_a_read_can_be_taken_back_for_ten_seconds_and_leaves_then(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = hub.film(Outcome.SOON, waited=900, stream=STREAM), hub.film(Outcome.SOON, waited=800, stream=STREAM)
    client = hub.client()
    path = take(client)
    answer = sealed_and_sent(client, path, "normal")
    assert answer.headers["Location"] == f"/read/{hub.task(second)}", "the next film is opened"
    assert not [one for one in down(hub) if isinstance(one, cards.Read)], "nothing has left"
    assert "Take it back" in client.get(answer.headers["Location"]).text
    other = hub.client("Dr Diop")
    assert "none" in take(other), "one has the next film, and that of the read that leaves is nobody's"
    assert client.post(f"{path}/back", headers=OWN).headers["Location"] == path
    assert client.get(path).status_code == 200
    post(client, f"{path}/send", "effusion", outcome="soon")
    assert post(client, f"{path}/send", "effusion", outcome="soon").status_code == 303, "a second tap changes nothing"
    later(monkeypatch, 11)
    assert client.post(f"{path}/back", headers=OWN).status_code == 409
    client.get("/")
    (sent,) = [one for one in down(hub) if isinstance(one, cards.Read)]
    assert (sent.codes, sent.outcome, sent.reader) == (("effusion",), Outcome.SOON, "Dr Ba")
    assert hub.task(first)


def test_a_box_that_asks_lets_a_read_go_that_is_due(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.film(Outcome.SOON, stream=STREAM)
    client = hub.client()
    sealed_and_sent(client, take(client), "normal")
    assert flushed(hub, 5) == []
    public = Public(b"s" * 32, b"e" * 32)
    box = Device(fingerprint="f", programme=PROGRAMME, site="north", public=public, enrolled_at=0, revoked_at=None)

    def told() -> list[Any]:
        answered = sync.take(hub.held, box, [cards.ToHub(hub_epoch="", upto=0)], "a parcel").answers
        return [one.body for one in answered if isinstance(one.body, cards.Read)]

    assert told() == []
    monkeypatch.setattr("web.hub.sync.now", lambda: store.now() + 11)
    assert [one.codes for one in told()] == [("normal",)]
    assert [one.codes for one in told()] == [("normal",)], "the same one again until the box has it"


def test_a_film_is_one_readers_until_they_are_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    film = hub.film(Outcome.SOON, stream=STREAM)
    first, second = hub.client(), hub.client("Dr Diop")
    path = take(first)
    for method, part in (("GET", ""), ("GET", "/film"), ("POST", "/impression"), ("POST", "/send")):
        answer = second.open(f"{path}{part}", method=method, data={"request": "k" * 20}, headers=OWN)
        assert answer.status_code == 410, part
    assert second.post(f"{path}/hold", headers=OWN).status_code == 410
    assert "none" in take(second, hub.task(film))
    assert first.post(f"{path}/hold", headers=OWN).status_code == 204
    later(monkeypatch, 16 * 60)
    assert take(second) == path
    assert first.get(path).status_code == 410


def test_who_signs_out_keeps_no_film_and_holds_no_read_back(hub: Hub) -> None:
    hub.film(Outcome.SOON, waited=900, stream=STREAM)
    hub.film(Outcome.SOON, waited=800, stream=STREAM)
    first, second = hub.client(), hub.client("Dr Diop")
    path = str(sealed_and_sent(first, take(first), "normal").headers["Location"])
    assert first.post("/sign-out", headers=OWN).status_code == 303
    assert [one.codes for one in down(hub) if isinstance(one, cards.Read)] == [("normal",)]
    assert take(second) == path


def test_a_film_that_is_given_back_is_the_next_ones(hub: Hub) -> None:
    hub.film(Outcome.SOON, stream=STREAM)
    first, second = hub.client(), hub.client("Dr Diop")
    path = take(first)
    assert first.post(f"{path}/release", headers=OWN).status_code == 303
    assert take(second) == path


@pytest.mark.parametrize(
    ("codes", "form", "outcome"),
    [
        (("normal",), {"outcome": "immediate"}, "routine"),
        (("unsure",), {"outcome": "routine"}, "soon"),
        (("unsure",), {"outcome": "immediate"}, "immediate"),
        (("heart", "effusion"), {"outcome": "routine"}, "routine"),
        (("heart",), {"outcome": "routine", "advice": ["act_now"]}, "immediate"),
    ],
)
def test_how_urgent_a_read_is(hub: Hub, codes: tuple[str, ...], form: dict[str, Any], outcome: str) -> None:
    hub.film(Outcome.COULD_NOT_ASSESS, stream=STREAM)
    client = hub.client()
    assert post(client, f"{take(client)}/send", *codes, **form).status_code == 303
    assert [one.finding.outcome for one in flushed(hub)] == [outcome]


@pytest.mark.parametrize(
    ("codes", "form"),
    [
        ((), {}),
        (("effusion",), {}),
        (("normal", "effusion"), {}),
        (("normal", "unsure"), {}),
        (("normal",), {"advice": ["act_now"]}),
        (("effusion",), {"outcome": "could_not_assess"}),
        (("nonsense",), {"outcome": "soon"}),
    ],
)
def test_what_is_no_read_is_refused_in_words(hub: Hub, codes: tuple[str, ...], form: dict[str, Any]) -> None:
    hub.film(Outcome.COULD_NOT_ASSESS, stream=STREAM)
    client = hub.client()
    answer = post(client, f"{take(client)}/send", *codes, **form)
    assert answer.status_code == 422 and "nothing was sent" in answer.text
    assert flushed(hub) == []


def test_a_rough_film_is_never_called_routine_and_whatever_is_seen_on_it_is_read_again(hub: Hub) -> None:
    shape = (1000, 1000)
    film = hub.film(Outcome.COULD_NOT_ASSESS, stream=STREAM, have=50_000, shape=shape)
    client = hub.client()
    path = take(client)
    assert "Preview quality" in client.get(path).text
    for seen, have in (
        (1 << 30, 50_000),
        (50_000, 100_000),
    ):  # neither more than is here, nor more than was on the screen
        hub.more(film, STREAM, have)
        answer = post(client, f"{path}/send", "normal", seen=str(seen))
        assert answer.status_code == 422 and "too rough" in answer.text
    assert post(client, f"{path}/send", "pneumothorax", outcome="immediate", seen="50000").status_code == 303
    (review,) = flushed(hub)
    assert review.finding.second and not review.final
    assert hub.task(film, TaskKind.SECOND)


def test_enough_of_a_film_is_a_twentieth_of_its_pixels_or_all_of_it() -> None:
    picture = cards.Picture(
        sha256="0" * 64, size=4_000_000, rows=2500, columns=2048, windows=(), millimetres=None, at_detector=False
    )
    assert read.enough(picture) == 512_000
    small = cards.Picture(
        sha256="0" * 64, size=90_000, rows=2500, columns=2048, windows=(), millimetres=None, at_detector=False
    )
    assert read.enough(small) == 90_000


def test_bytes_of_a_film_are_given_as_far_as_they_are_here_and_the_rest_is_asked_for_once(hub: Hub) -> None:
    film = hub.film(Outcome.SOON, stream=STREAM, have=32_768, shape=(1000, 1000))
    client = hub.client()
    path = take(client)

    def asked(start: int, stop: int) -> Any:
        return client.get(f"{path}/film", headers={"Range": f"bytes={start}-{stop}"})

    assert client.get(f"{path}/film").status_code == 404
    first = asked(0, 99_999)
    assert (first.status_code, first.headers["Content-Range"]) == (206, "bytes 0-32767/102400")
    assert first.data == STREAM[:32_768]
    nothing = asked(32_768, 99_999)
    assert (nothing.status_code, nothing.headers["Content-Range"]) == (416, "bytes */102400")
    wants = [one.upto for one in down(hub) if isinstance(one, cards.Want)]
    assert wants == [100_000], "asked for once"
    hub.more(film, STREAM, 102_400)
    assert asked(32_768, 102_399).data == STREAM[32_768:]


def test_a_picture_that_stays_home_can_only_be_answered_that_one_cannot_tell(hub: Hub) -> None:
    hub.film(Outcome.COULD_NOT_ASSESS, concern=Concern.TEXT_REMAINS)
    client = hub.client()
    path = take(client)
    assert "stays at the clinic" in client.get(path).text
    assert post(client, f"{path}/send", "effusion", outcome="soon").status_code == 422
    assert post(client, f"{path}/send", "unsure").status_code == 303


def test_two_who_differ_are_arbitrated_by_a_third_who_sees_what_they_said(hub: Hub) -> None:
    hub.film(Outcome.COULD_NOT_ASSESS, stream=STREAM)
    for name, code, outcome in (("One", "normal", ""), ("Two", "effusion", "soon")):
        client = hub.client(name)
        path = take(client)
        page = client.get(path).text
        assert "What the readers said" not in page
        form = {"second": "1"} if name == "One" else {}
        post(client, f"{path}/send", code, outcome=outcome, **form)
        flushed(hub)
    assert "none" in take(hub.client("One")), "nobody reads a film twice"
    third = hub.client("Three")
    path = take(third)
    page = third.get(path).text
    assert "What the readers said" in page and "Fluid in the chest" in page and "Two readers differ" in page
    assert "One" not in page.replace("One-time", ""), "without their names"
    post(third, f"{path}/send", "effusion", outcome="soon")
    (review,) = flushed(hub)
    assert review.final and review.kind is TaskKind.ARBITRATION


def test_rights_bound_what_a_reader_is_given(hub: Hub) -> None:
    north, south = hub.film(Outcome.SOON, stream=STREAM), hub.film(Outcome.SOON, site="south", stream=STREAM)
    for rights, film in (
        ({"sites": ("south",)}, south),
        ({"countries": ("KE",)}, north),
        ({"languages": ("ar",)}, south),
    ):
        client = hub.client(str(rights), **rights)
        forbidden = hub.task(south if film == north else north)
        assert "none" in take(client, forbidden)
        assert take(client) == f"/read/{hub.task(film)}"
        client.post(f"/read/{hub.task(film)}/release", headers=OWN)
    assert "none" in take(hub.client("no first reads", kinds=(TaskKind.AUDIT,)))


def test_a_sample_of_what_the_ai_calls_routine_is_read_with_its_weight(tmp_path: Path) -> None:
    hub = reading.made(Config(state=str(tmp_path), policy=Policy(routine=False, audit_share=0.25, second_share=0)))
    films = [hub.film(Outcome.ROUTINE, stream=STREAM) for _ in range(40)]
    client, read_here = hub.client(), 0
    while "none" not in (path := take(client)):
        assert "Audit" not in client.get(path).text, "nobody knows that it is a sample"
        sealed_and_sent(client, path, "normal")
        read_here += len(flushed(hub))
    assert 0 < read_here < len(films) / 2
    with hub.held.store.reading(PROGRAMME) as db:
        weights = {row["weight"] for row in db.rows("SELECT weight FROM task WHERE programme = :programme")}
    assert weights == {4.0}


def test_the_clinics_receipt_is_on_the_readers_page(hub: Hub) -> None:
    hub.film(Outcome.SOON, stream=STREAM)
    client = hub.client()
    sealed_and_sent(client, take(client), "normal")
    (review,) = flushed(hub)
    assert "Not seen in the clinic yet" in client.get("/reads").text
    (sent,) = [one for one in down(hub) if isinstance(one, cards.Read)]
    hub.says("north", cards.Seen(case=sent.case, read=sent.read))
    assert re.search(r"Seen in the clinic at \d", client.get("/reads").text)
    assert review.digest == sent.read


def test_turnaround_is_counted_by_clinic_and_finding_with_median_ninetieth_and_longest(hub: Hub) -> None:
    for waited in range(600, 6601, 600):  # 10, 20, … 110 minutes
        hub.film(Outcome.SOON, waited=waited, stream=STREAM)
    client = hub.client()
    while "none" not in (path := take(client)):
        sealed_and_sent(client, path, "effusion", outcome="soon")
        flushed(hub)
    page = hub.client("Lead", reading.Role.LEAD).get("/turnaround?days=7").text
    row = re.findall(r"North clinic</bdi></th><td>(.*?)</td></tr>", page)[0].split("</td><td>")
    assert row == ["11", "1\xa0h", "1\xa0h 40\xa0min", "1\xa0h 50\xa0min"]
    assert "Fluid in the chest</bdi></th><td>11</td>" in page
    assert client.get("/turnaround").status_code == 403


def test_what_the_clinic_asks_for_goes_first(hub: Hub) -> None:
    hub.film(Outcome.SOON, waited=9000, stream=STREAM)
    asked = hub.film(Outcome.ROUTINE, waited=60, stream=STREAM)
    with hub.held.store.reading(PROGRAMME) as db:
        case = films.case(db, asked)
    assert case is not None
    hub.says("north", hubs.asks(case.result.case))
    assert take(hub.client()) == f"/read/{hub.task(asked)}"


def test_numbers_and_commas_are_those_of_the_language(hub: Hub) -> None:
    film = hub.film(Outcome.SOON, stream=STREAM)
    assert film == 1
    client = hub.client("Arabic", language="ar")
    for page in (client.get("/").text, client.get(take(client)).text):
        assert "الصورة ١، <bdi>North clinic" in page and "أنثى، ٣٤ سنة" in page


@pytest.mark.parametrize("first", [True, False], ids=["impression first", "shown at once"])
def test_no_text_that_readers_see_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    monkeypatch.setattr(languages, "_catalogue", lambda code: Pseudo())
    hub = reading.made(Config(state=str(tmp_path), policy=Policy(second_share=0, impression_first=first)))
    films_ = reading.fill(hub)
    lead = hub.client("Lead", reading.Role.LEAD)
    admin, stranger = hub.client("Root", reading.Role.ADMIN), hub.app.test_client()
    unmarked = {}

    names = {site.title for site in reading.SITES}  # also where no <bdi> may be, in what is chosen from

    def look(client: Any, path: str) -> None:
        if texts := [text for text in left_out(client.get(path).text) if text not in names]:
            unmarked[path] = texts

    look(stranger, "/sign-in")
    for path in (*reading.pages(hub.app), "/nothing"):
        look(lead, path)
    look(admin, "/people")
    for number in films_.values():
        path = take(lead, hub.task(number))
        look(lead, path)
        post(lead, f"{path}/impression", "unsure")
        look(lead, path)
        post(lead, f"{path}/send", "unsure", advice=["repeat"])
        flushed(hub)
    for path in ("/", "/reads", "/turnaround"):
        look(lead, path)
    assert unmarked == {}
