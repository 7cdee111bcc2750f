"""The clinic's pages, asked without a browser: what they say, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from edge.config import Config, Hub, Policy, Sink, Web, Worker
from edge.errors import Misconfigured
from edge.records import Assessment, Decision, Display, Finding, Header, Outcome, Reason, Refusal, Urgency
from edge.state import acceptances, arrivals, notices, queue, results
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from tests.people import sign_in
from web import clinic, phrases, worklist

ACCEPTED = "2.25.1"
NO_HUB = Hub()
SHOWN_AT_ONCE = Policy(impression_first=False)
OWN = {"Sec-Fetch-Site": "same-origin"}
LOOKALIKE = "<script>alert('x')</script>"


class Box:
    """A box's state and its pages."""

    def __init__(
        self, folder: Path, policy: Policy = SHOWN_AT_ONCE, sinks: tuple[Sink, ...] = (), hub: Hub = NO_HUB
    ) -> None:
        (folder / "card.md").write_text("# The card\n\nA demonstrator.\n\n- This\n  and\n- that\n", encoding="utf-8")
        self.config = Config(
            state=str(folder / "state"), worker=Worker(bundle=str(folder)), policy=policy, sinks=sinks, hub=hub
        )
        self.client = clinic.create(self.config).test_client()
        sign_in(self.client, Path(self.config.state))
        self.store = open_store(Path(self.config.state))
        self.count = 0

    def film(
        self,
        outcome: Outcome | None = None,
        name: str = "DOE^Jane",
        minutes: float = 0,
        reason: Reason | None = None,
        device: str = ACCEPTED,
        uid: str = "",
        urgency: Urgency = Urgency.ROUTINE,
        unsure: bool = False,
    ) -> int:
        """A film that came so many minutes ago, with its outcome if it has one."""
        self.count += 1
        with transaction(self.store):
            sha256 = Objects(Path(self.config.state)).put(b"film %d" % self.count).sha256
            at = now() - timedelta(minutes=minutes)
            number, _ = arrivals.add(self.store, uid or f"1.2.{self.count}", sha256, "XRAY", at, urgency)
            queue.add(self.store, number, urgency, at)
            if outcome is not None:
                finding = Finding(
                    "tb", "Tuberculosis", "SCT", "56717001", 0.72, 0.58, 0.83, "balanced", 0.3, 0.7, None, unsure
                )
                decision = Decision(
                    outcome, () if reason else (finding,), "model 1", device, Refusal(reason, "why") if reason else None
                )
                header = Header(PatientName=name, PatientID="P-1", PatientSex="F", age_years=None if reason else 34.5)
                results.add(self.store, number, 1, Assessment(header, decision, None, {"infer": 1.0}), now())
        return number

    def accept(self) -> None:
        """Sign the model that `film` takes for granted."""
        with transaction(self.store):
            acceptances.sign(self.store, ACCEPTED, "balanced", "Dr Ba", now())

    def text(self, path: str) -> str:
        """The page's source."""
        return str(self.client.get(path).text).replace("\xa0", " ")

    def order(self) -> list[int]:
        """The films' numbers as the worklist has them."""
        return [int(number) for number in re.findall(r'id="film-(\d+)"', self.text("/"))]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        yield box


def test_an_accepted_model_ranks(box: Box) -> None:
    routine = box.film(Outcome.ROUTINE, minutes=50)
    refused = box.film(Outcome.COULD_NOT_ASSESS, minutes=40, reason=Reason.NOT_FRONTAL)
    waiting = box.film(minutes=30)
    soon = box.film(Outcome.SOON, minutes=20)
    immediate = box.film(Outcome.IMMEDIATE, minutes=10)
    starving = box.film(Outcome.ROUTINE, minutes=300)
    box.accept()
    assert box.order() == [starving, immediate, refused, waiting, soon, routine]
    assert "Shadow mode" not in box.text("/")
    assert "Waited over 4 h: goes before later films" in box.text("/")


def test_shadow_mode_keeps_the_order_of_arrival_and_says_so(box: Box) -> None:
    routine = box.film(Outcome.ROUTINE, minutes=50)
    immediate = box.film(Outcome.IMMEDIATE, minutes=10)
    assert box.order() == [routine, immediate]
    assert "the AI computes but does not rank" in box.text("/")
    assert "the AI computes but does not rank" in box.text(f"/films/{immediate}")
    assert "data-news" not in box.text("/")


def test_a_changed_model_does_not_rank_its_films(box: Box) -> None:
    box.accept()
    routine = box.film(Outcome.ROUTINE, minutes=50)
    accepted = box.film(Outcome.IMMEDIATE, minutes=20)
    changed = box.film(Outcome.IMMEDIATE, minutes=10, device="2.25.2")
    assert box.order() == [accepted, routine, changed]
    assert "the model has changed since this site accepted it" in box.text("/")


@pytest.mark.parametrize("name", [LOOKALIKE, f"A^{LOOKALIKE}", "Нгуен ليلى 陳 " * 22, '"><img src=x onerror=alert(1)>'])
def test_any_name_is_only_text(box: Box, name: str) -> None:
    box.accept()
    number = box.film(Outcome.IMMEDIATE, name=name)
    for path in ("/", "/worklist", f"/films/{number}"):
        page = box.text(path)
        assert "<script>" not in page and "<img src=x" not in page
        assert '<bdi dir="auto">' in page


def test_a_refusal_says_why_and_what_next(box: Box) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.CROPPED)
    for path in ("/", f"/films/{number}"):
        assert "AI could not assess" in box.text(path)
        assert "Part of the chest is missing." in box.text(path)
        assert "Repeat the film with both lungs in the picture." in box.text(path)


def test_a_finding_says_its_probability_in_words_and_figures(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    for path in ("/", f"/films/{number}"):
        page = " ".join(re.sub("<[^>]+>", "", box.text(path)).split())
        assert "Tuberculosis: likely" in page
        assert "72 %" in page and "(95 % interval 58 to 83 %)" in page
    answer, findings = page.split("Tuberculosis: likely")[1:]
    assert answer.startswith(", about 7 of 10 such films (95 % interval 58 to 83 %).")
    assert "about 7 of 10 such films (95 % interval 58 to 83 %)." in findings
    assert findings.index("not for clinical use") < findings.index("For the technician"), "the limits stand next to it"
    assert "SCT 56717001" in page and "balanced" in page and ACCEPTED in page


def test_what_the_ai_is_unsure_of_is_said_beside_its_probability(box: Box) -> None:
    numbers = [box.film(Outcome.SOON, unsure=unsure) for unsure in (False, True)]
    assert ["The AI is unsure." in box.text(f"/films/{number}/sheet") for number in numbers] == [False, True]
    sure, unsure = (box.text(f"/films/{number}") for number in numbers)
    assert "unsure" not in sure
    assert "The AI is unsure." in unsure and "such a percentage did not tell whether it is there." in unsure


def test_a_conflict_leads_to_the_other_film(box: Box) -> None:
    first, second = (box.film(Outcome.ROUTINE, uid="1.2.3.4") for _ in range(2))
    alone = box.film(Outcome.ROUTINE)
    assert "same identifier but different content" in box.text("/")
    assert f'href="/films/{second}"' in box.text(f"/films/{first}")
    assert f'href="/films/{first}"' in box.text(f"/films/{second}")
    assert "same identifier" not in box.text(f"/films/{alone}")


def test_a_film_that_waits_long_for_the_ai_says_not_to(box: Box) -> None:
    box.film(minutes=1)
    assert "Do not wait for it" not in box.text("/")
    number = box.film(minutes=10)
    assert "Do not wait for it" in box.text("/")
    assert "Do not wait for it" in box.text(f"/films/{number}")


def test_what_is_wrong_with_the_box_is_on_every_page(box: Box) -> None:
    number = box.film(Outcome.ROUTINE)
    with transaction(box.store):
        notices.post(box.store, "worker", "The AI is stopped.", now())
    for path in ("/", "/worklist", f"/films/{number}", "/model", "/nothing"):
        assert box.text(path).count("The AI is stopped.") == 1


def test_the_age_is_taken_once_and_the_film_runs_again(box: Box) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN, urgency=Urgency.STAT)
    assert 'class="age"' in box.text(f"/films/{number}")
    for years in ("34,5", "7"):
        answer = box.client.post(f"/films/{number}/age", data={"years": years}, headers=OWN)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/films/{number}")
    kept = box.store.execute("SELECT supplied_age, age_supplied_by FROM arrival WHERE id = ?", (number,)).fetchone()
    assert tuple(kept) == (34.5, "Amina")
    jobs = box.store.execute("SELECT run, priority FROM job WHERE arrival_id = ? ORDER BY run", (number,)).fetchall()
    assert [tuple(job) for job in jobs] == [(1, 0), (2, 0)]
    page = box.text(f"/films/{number}")
    assert 'class="age"' not in page and "is being assessed again" in page and "34 years (entered here)" in page
    assert "Being assessed" in box.text("/")
    decision = Decision(Outcome.ROUTINE, (), "model 1", ACCEPTED, None)
    with transaction(box.store):
        results.add(box.store, number, 2, Assessment(Header(age_years=34.5), decision, None, {}), now())
    for years, status in (("34.5", 303), ("7", 409)):
        answer = box.client.post(f"/films/{number}/age", data={"years": years}, headers=OWN)
        assert answer.status_code == status, "the same once more is a form that was sent again"


@pytest.mark.parametrize("years", ["", "121", "-1", "nan", "1e1"])
def test_a_bad_age_changes_nothing_and_keeps_what_was_typed(box: Box, years: str) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN)
    answer = box.client.post(f"/films/{number}/age", data={"years": years}, headers=OWN)
    assert answer.status_code == 422
    assert "Give the age in years" in answer.text
    assert f'value="{years}"' in answer.text
    assert queue.open_jobs(box.store, "assess") == 1


def test_an_age_that_is_known_is_not_overwritten(box: Box) -> None:
    number = box.film(Outcome.ROUTINE)
    answer = box.client.post(f"/films/{number}/age", data={"years": "3"}, headers=OWN)
    assert answer.status_code == 409
    assert box.store.execute("SELECT supplied_age FROM arrival").fetchone()[0] is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 303),
        (OWN, 303),
    ],
)
def test_only_the_boxes_own_pages_change_anything(box: Box, headers: dict[str, str], status: int) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN)
    answer = box.client.post(f"/films/{number}/age", data={"years": "3"}, headers=headers)
    assert answer.status_code == status
    assert queue.open_jobs(box.store, "assess") == (2 if status == 303 else 1)
    if status == 403:
        assert "nothing was changed" in answer.text and 'href="/"' in answer.text


def test_every_answer_is_protected_and_loads_nothing_from_elsewhere(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    paths = [
        "/",
        "/worklist",
        f"/films/{number}",
        f"/films/{number}/sections",
        "/model",
        "/films/99",
        "/nothing",
        "/health",
    ]
    static = [f"/static/{file.name}" for file in (Path(clinic.__file__).parent / "static").iterdir() if file.is_file()]
    for path in paths + static:
        answer = box.client.get(path, buffered=True)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; img-src 'self'; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if path in paths:
            assert answer.headers["Cache-Control"] == "no-store"
        text = re.sub(r'url\("fonts/[\w-]+\.woff2"\)', "", answer.data.decode("latin-1"))
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|\bstyle=|\son\w+=", text), path
    for path in ["/", f"/films/{number}", "/model", "/nothing"]:
        assert "Preliminary: a person decides." in box.text(path)


def test_pictures_come_from_the_store_and_are_asked_for_once(box: Box) -> None:
    number = box.film(Outcome.ROUTINE)
    assert box.client.get(f"/films/{number}/film.png").status_code == 404
    assert box.client.get(f"/films/{number}/map.png").status_code == 404
    assert "being prepared" in box.text(f"/films/{number}")
    picture = Objects(Path(box.config.state)).put(b"png")
    with transaction(box.store):
        results.add_rendition(box.store, number, picture.sha256, picture.sha256, Display(((32768, 65535),), None, True))
    first = box.client.get(f"/films/{number}/film.png")
    assert (first.data, first.mimetype) == (b"png", "image/png")
    again = box.client.get(f"/films/{number}/film.png", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    picture.path.chmod(0o600)
    picture.path.write_bytes(b"rot")
    answer = box.client.get(f"/films/{number}/film.png")
    assert answer.status_code == 503 and "has changed on disk" in answer.text


def test_the_list_is_sent_again_only_when_something_changed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist, "SETTLED", timedelta(0))
    at = now() + timedelta(seconds=1)
    monkeypatch.setattr(worklist, "now", lambda: at)
    box.film(Outcome.ROUTINE)
    etag = box.client.get("/worklist").headers["ETag"]
    assert box.client.get("/worklist", headers={"If-None-Match": etag}).status_code == 304
    assert box.client.get("/worklist?all=1", headers={"If-None-Match": etag}).status_code == 200
    box.film(Outcome.IMMEDIATE)
    assert box.client.get("/worklist", headers={"If-None-Match": etag}).status_code == 200
    monkeypatch.setattr(worklist, "SETTLED", timedelta(minutes=1))
    assert "ETag" not in box.client.get("/worklist").headers


def test_a_long_list_is_shown_in_parts(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.ranking.PART", 2)
    for minutes in (3, 2, 1):
        box.film(Outcome.ROUTINE, minutes=minutes)
    assert len(box.order()) == 2
    assert "Films 1 to 2 of 3" in box.text("/") and "More films" in box.text("/")
    for path in ("/?page=2", "/worklist?page=2"):
        assert "Films 3 to 3 of 3" in box.text(path) and "Films before" in box.text(path)
        assert box.text(path).count('<li id="film-') == 1
    for nonsense in ("0", "-1", "٣", "x", "9" * 99, "99"):
        assert box.text(f"/?page={nonsense}").count('<li id="film-') in (1, 2)


def test_the_card_and_the_health_are_served(box: Box) -> None:
    box.film()
    assert "<h1>The card</h1>" in box.text("/model") and "- This and\n- that</p>" in box.text("/model")
    assert box.client.get("/health").json == {"status": "ok", "to_assess": 1}


# cheroot forgets the socket that it cannot bind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_taken_port_is_said(tmp_path: Path) -> None:
    from socket import create_server

    with create_server(("127.0.0.1", 0)) as taken:
        config = Config(state=str(tmp_path), web=Web(port=taken.getsockname()[1]))
        with pytest.raises(Misconfigured, match=r"web\.port"):
            clinic.run(config, Event(), lambda port: None)


@pytest.mark.parametrize(
    ("phrase", "value", "words"),
    [
        (phrases.person, "DOE^Jane^Ann^Dr^PhD", "DOE, Dr Jane Ann PhD"),
        (phrases.person, "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎)"),
        (phrases.person, "=山田^太郎", "山田, 太郎"),
        (phrases.person, "A^B^C^D^E^F", "A, D B C E"),
        (phrases.person, "^^^^", "Name not given"),
        (phrases.duration, timedelta(seconds=-5), "under\xa01\xa0min"),
        (phrases.duration, timedelta(minutes=12, seconds=59), "12\xa0min"),
        (phrases.duration, timedelta(hours=3, minutes=5), "3\xa0h 05\xa0min"),
        (phrases.duration, timedelta(hours=52), "2\xa0days 4\xa0h"),
        (phrases.likelihood, 0.10, "unlikely"),
        (phrases.likelihood, 1.0, "very likely"),
        (phrases.percent, 0.0, "under 1\xa0%"),
        (phrases.percent, 1.0, "over 99\xa0%"),
        (phrases.frequency, 0.72, "about 7 of 10 such films"),
    ],
)
def test_phrases(phrase: Any, value: Any, words: str) -> None:
    assert phrase(value) == words
