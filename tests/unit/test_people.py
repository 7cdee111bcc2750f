"""Who is let in, to what, and for how long; asked without a browser."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from click.testing import CliRunner

from edge import check, pins, setup
from edge import config as settings
from edge.records import Outcome, Reason, Role
from edge.state import accounts, audit, reads, sessions, setup_code, tries
from edge.state.audit import Event
from edge.state.store import now
from tests.people import PIN, TABLET, person, sign_in
from tests.unit.test_web import LOOKALIKE, OWN, Box
from web import clinic, people

OTHER = "571938"
SENTENCE = "do not fit together"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        box.film(Outcome.IMMEDIATE, name="DIALLO^Mariama")
        yield box


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hashes that protect nobody, for these tests make hundreds."""
    monkeypatch.setattr(pins, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    pins.nobodys.cache_clear()
    yield
    pins.nobodys.cache_clear()


def state(box: Box) -> Path:
    return Path(box.config.state)


def tablet(box: Box, name: str = "", role: Role = Role.CLINICIAN) -> Any:
    """Another browser, with that person signed in where one is named."""
    client = clinic.create(box.config).test_client()
    if name:
        sign_in(client, state(box), name, role)
    return client


def post(client: Any, path: str, **form: object) -> Any:
    return client.post(path, data=form, headers=OWN)


def enter(client: Any, name: str = "Amina", pin: str = PIN, **form: object) -> Any:
    return post(client, "/sign-in", typed=name, pin=pin, **form)


def events(box: Box) -> list[str]:
    return [record.event for record in audit.records(box.store)]


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """The clock of the pages, set."""
    for module in ("people", "signing", "first", "staff", "reads"):
        monkeypatch.setattr(f"web.{module}.now", lambda: now() + by)


def test_every_page_says_who_may_see_it(box: Box) -> None:
    app = clinic.create(box.config)
    unguarded = {
        rule.rule for rule in app.url_map.iter_rules() if not hasattr(app.view_functions[rule.endpoint], "roles")
    }
    assert unguarded == {"/static/<path:filename>"}


def test_a_page_that_says_nothing_is_for_carers(box: Box) -> None:
    app = clinic.create(box.config)
    app.add_url_rule("/forgotten", "forgotten", lambda: "DIALLO")
    assert app.test_client().get("/forgotten").status_code == 303
    client = app.test_client()
    sign_in(client, state(box), "Tekla", Role.TECHNICIAN)
    assert client.get("/forgotten").status_code == 403


def paths(app: Any) -> Iterator[tuple[str, str, Any]]:
    for rule in app.url_map.iter_rules():
        page = app.view_functions[rule.endpoint]
        for method in rule.methods & {"GET", "POST"}:
            if rule.endpoint != "static":
                yield method, rule.rule.replace("<int:number>", "1"), page


def test_nobody_sees_anything_of_a_patient_before_signing_in(box: Box) -> None:
    for method, path, page in paths(clinic.create(box.config)):
        answer = tablet(box).open(path, method=method, headers=OWN)
        assert "DIALLO" not in answer.text, path
        if page.roles is not None:
            assert answer.status_code == (401 if page.part else 303), path
            if not page.part:
                assert answer.headers["Location"].startswith("/sign-in"), path


def test_a_technician_sees_the_box_and_no_patient(box: Box) -> None:
    box.accept()
    client = tablet(box, "Tekla", Role.TECHNICIAN)
    assert client.get("/").headers["Location"] == "/status"
    for method, path, page in paths(clinic.create(box.config)):
        if path in ("/sign-out", "/lock"):
            continue
        answer = client.open(path, method=method, headers=OWN)
        assert "DIALLO" not in answer.text, path
        if page.roles and Role.TECHNICIAN not in page.roles and path != "/":
            assert answer.status_code == 403, path
    assert client.get("/status").status_code == client.get("/model").status_code == 200


def test_a_clinician_does_not_manage_people(box: Box) -> None:
    assert box.client.get("/people").status_code == 403
    assert post(box.client, "/people/add", name="Binta", role="lead").status_code == 403
    assert len(accounts.everyone(box.store)) == 1


@pytest.mark.parametrize(
    ("back", "place"),
    [
        ("/films/1?show=1", "/films/1?show=1"),
        ("//elsewhere.example", "/"),
        ("https://elsewhere.example/", "/"),
        ("/\\elsewhere.example", "/"),
        ("/\t/elsewhere.example", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
    ],
)
def test_signing_in_leads_back_to_a_page_of_this_box(box: Box, back: str, place: str) -> None:
    answer = enter(tablet(box), back=back)
    assert (answer.status_code, answer.headers["Location"]) == (303, place)


def test_the_sign_in_page_is_asked_for_with_the_way_back(box: Box) -> None:
    answer = tablet(box).get("/films/1?x=%C3%A9&still=1")
    assert answer.headers["Location"] == "/sign-in?back=/films/1?x%3D%25C3%25A9"


def test_a_session_is_new_each_time_and_its_cookie_is_for_this_box_alone(box: Box) -> None:
    client = tablet(box)
    tokens = set()
    for _ in range(2):
        answer = enter(client)
        (cookie,) = [one for one in answer.headers.getlist("Set-Cookie") if one.startswith(people.SESSION)]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
        tokens.add(cookie.split(";")[0].partition("=")[2])
    assert len(tokens) == 2
    kept = [session.id for session in sessions.everyones(box.store)]
    assert len(kept) == 2  # this one, and the one that the test's box was made with
    assert not tokens & set(kept), "the box keeps no token, only its hash"
    secured = client.post("/sign-in", data={"typed": "Amina", "pin": PIN}, headers=OWN, base_url="https://localhost")
    assert all("Secure" in cookie for cookie in secured.headers.getlist("Set-Cookie"))


def test_a_restarted_box_knows_its_tablets(box: Box) -> None:
    client = tablet(box)
    enter(client)
    again = clinic.create(box.config).test_client()
    for cookie in client._cookies.values():
        again.set_cookie(cookie.key, cookie.value)
    assert "DIALLO" in again.get("/").text


def test_wrong_tries_wait_longer_and_longer_also_after_a_restart(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tablet(box)
    for count in range(tries.FREE):
        assert (SENTENCE in enter(client, pin="000000").text) is (count < tries.FREE - 1)
    said = enter(tablet(box)).text
    assert "Too many wrong tries. Wait 1\xa0min" in said, "even the right PIN waits, on every new tablet"
    assert events(box).count(Event.SIGN_IN_FAILED) == tries.FREE and events(box)[-1] == Event.LOCKED_OUT
    later(monkeypatch, tries.FIRST)
    assert enter(tablet(box)).status_code == 303
    assert events(box)[-1] == Event.SIGNED_IN


def test_whoever_guesses_elsewhere_keeps_nobody_out_on_their_own_tablet(box: Box) -> None:
    stranger = tablet(box)
    for _ in range(tries.FREE):
        enter(stranger, pin="000000")
    own = tablet(box)
    own.set_cookie(people.TABLET, TABLET)
    assert enter(own).status_code == 303


@pytest.mark.parametrize("name", ["Nobody", "x" * 300, LOOKALIKE, "", "\x00", "Tekla"])
def test_a_name_that_nobody_has_is_answered_like_a_wrong_pin(box: Box, name: str) -> None:
    person(state(box), "Tekla")
    accounts.set_active(box.store, "Tekla", False)
    known, unknown = tablet(box), tablet(box)
    for _ in range(tries.FREE + 2):
        answers = [enter(known, pin="000000"), enter(unknown, name, PIN)]
        said = [re.findall(r'role="alert">([^<]*)', answer.text) for answer in answers]
        assert said[0] == said[1] != []
        assert [answer.status_code for answer in answers] == [422, 422]
        assert "<script>alert" not in answers[1].text


def test_a_name_that_nobody_has_costs_as_much_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pins.nobodys.cache_clear()
    parameters = extract_parameters(pins.nobodys())
    assert parameters == extract_parameters(pins.hashed(PIN)) and str(parameters.type) == "Type.ID"
    assert (parameters.memory_cost, parameters.time_cost) == (32 * 1024, 3)
    assert not pins.fits(PIN, pins.nobodys())


def test_a_flood_of_names_fills_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "STRANGERS", 3)
    monkeypatch.setattr(pins, "fits", lambda secret, encoded: False)
    client = tablet(box)
    for number in range(60):
        answer = enter(client, f"Nobody {number}")
    assert "Too many wrong tries" in answer.text
    assert box.store.execute("SELECT COUNT(*) FROM tries").fetchone()[0] <= 5
    assert all(record.actor != "Nobody 1" for record in audit.records(box.store))


def test_a_pin_is_the_same_from_every_keyboard(box: Box) -> None:
    assert enter(tablet(box), "aMINA ", "٤٨٢٦١٥").status_code == 303


@pytest.mark.parametrize(
    ("secret", "weak"),
    [
        ("123456", True),
        ("987654", True),
        ("901234", True),
        ("111111", True),
        ("121212", True),
        ("123123", True),
        ("48261", True),
        ("482615", False),
        ("Amina Diop", True),
        ("blue house", False),
        ("short", True),
        ("ab" * 64 + "c", True),
    ],
)
def test_what_anybody_would_guess_is_no_pin(secret: str, weak: bool) -> None:
    assert pins.weak(secret, "Amina Diop") is weak


def test_names_are_blanked_after_a_while_and_the_pin_brings_the_page_back(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tablet(box)
    enter(client)
    later(monkeypatch, timedelta(minutes=4))
    assert client.get("/worklist").status_code == 200  # asked by the page itself: no sign of anybody
    later(monkeypatch, timedelta(minutes=6))
    assert client.get("/worklist").status_code == 401
    answer = client.get("/films/1", follow_redirects=True)
    assert "The screen is locked" in answer.text and "Amina" in answer.text and "DIALLO" not in answer.text
    later(monkeypatch, timedelta(0))
    assert client.get("/worklist").status_code == 401, "a clock that is set back unlocks nothing"
    assert post(client, "/sign-in", name="Amina", pin="000000", quiet=1).status_code == 422
    assert post(client, "/sign-in", name="Amina", pin=PIN, quiet=1).status_code == 204
    assert client.get("/worklist").status_code == 200


@pytest.mark.parametrize("by", [timedelta(hours=-1), timedelta(days=-9000), timedelta(days=9000), timedelta(hours=25)])
def test_a_clock_that_is_set_wrong_asks_for_the_pin(box: Box, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    client = tablet(box)
    enter(client)
    later(monkeypatch, by)
    assert client.get("/").status_code == 303
    assert enter(client).status_code == 303
    assert "DIALLO" in client.get("/").text


def test_who_works_is_not_locked_out_until_the_day_is_over(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tablet(box)
    enter(client)
    for minutes in range(4, 40, 4):
        later(monkeypatch, timedelta(minutes=minutes))
        assert post(client, "/present").status_code == 204
    later(monkeypatch, timedelta(hours=24, minutes=1))
    box.store.execute("UPDATE session SET seen_at = ?", ((now() + timedelta(hours=24)).isoformat(),))
    assert client.get("/").status_code == 303


def test_locking_and_signing_out(box: Box) -> None:
    client = tablet(box)
    enter(client)
    answer = post(client, "/lock", back="/films/1")
    assert answer.headers["Location"] == "/sign-in?back=/films/1"
    assert "DIALLO" not in client.get("/", follow_redirects=True).text
    enter(client)
    assert post(client, "/sign-out").status_code == 303
    assert client.get("/").status_code == 303 and events(box)[-1] == Event.SIGNED_OUT


def test_a_locked_screen_calls_for_an_immediate_film_and_names_nobody(box: Box) -> None:
    box.accept()
    client = tablet(box, "Amina")
    assert "DIALLO" in client.get("/alerts").text
    post(client, "/lock")
    for path in ("/alerts", "/sign-in"):
        page = client.get(path).text
        assert "Immediate: look at this film now." in page and "DIALLO" not in page and '/alert"' not in page
    technician = tablet(box, "Tekla", Role.TECHNICIAN)
    post(technician, "/lock")
    assert technician.get("/alerts").status_code == 401 and "Immediate" not in technician.get("/sign-in").text


def test_the_people_of_a_tablet_pick_their_name(box: Box) -> None:
    client = tablet(box)
    person(state(box), "Binta")
    for name in ("Amina", "Binta"):
        enter(client, name)
    page = client.get("/sign-in?switch=1").text
    assert re.findall(r'name="name" value="(\w+)"', page) == [
        "Binta",
        "Amina",
        "Binta",
    ]  # the last in the locked screen
    assert 'name="typed"' not in page and 'name="typed"' in tablet(box).get("/sign-in").text
    assert post(client, "/sign-in", name="Amina", pin=PIN).status_code == 303
    assert "<bdi>Amina</bdi>" in client.get("/").text


def test_an_expired_session_offers_the_decision_again_and_saves_it_once(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, key = tablet(box), "a" * 20
    enter(client)
    form = {"act": "override", "outcome": "routine", "reason": "nothing", "run": 1, "standing": 0, "request": key}
    later(monkeypatch, timedelta(hours=13))
    answer = post(client, "/films/1/decision", **form)
    place = client.get(answer.headers["Location"]).text
    assert answer.status_code == 303 and not reads.standing(box.store) and "DIALLO" not in place
    back = re.findall(r'name="back" value="([^"]*)"', place)[0].replace("&amp;", "&")
    page = client.get(enter(client, back=back).headers["Location"]).text
    assert "signed out before your decision was saved" in page and not reads.standing(box.store)
    assert re.search(r'value="routine" required checked', page) and re.search(r'value="nothing" required checked', page)
    assert f'name="request" value="{key}"' in page
    for _ in range(2):
        assert post(client, "/films/1/decision", **form).status_code == 303
    assert len(reads.of_film(box.store, 1)) == 1


def test_what_one_person_was_about_to_do_is_not_offered_to_another(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tablet(box)
    enter(client)
    person(state(box), "Binta")
    later(monkeypatch, timedelta(hours=13))
    assert enter(client, "Binta", back="/films/1?act=confirm").headers["Location"] == "/films/1"


def test_a_form_that_came_too_late_keeps_the_age(box: Box) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN)
    answer = post(tablet(box), f"/films/{number}/age", years="34", name="x" * 300)
    assert answer.headers["Location"] == f"/sign-in?back=/films/{number}?years%3D34"
    assert 'value="34"' in box.text(f"/films/{number}?years=34")


# The first start


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Box]:
    """A box that nobody has an account on."""
    with closing((box := Box(tmp_path)).store):
        box.store.executescript("DELETE FROM session; DELETE FROM tablet_person; DELETE FROM account;")
        yield box


def start(client: Any, code: str, name: str = "Grace", new: str = PIN, **form: object) -> Any:
    return post(client, "/setup", code=code, name=name, new=new, **{"again": new, **form})


def test_the_code_on_the_box_makes_the_lead_once(new: Box) -> None:
    client = tablet(new)
    assert client.get("/setup").status_code == 404
    code = setup.code(new.config)
    assert code is not None and code == setup.code(new.config), "the same after each restart"
    file = setup.file(new.config)
    assert file.read_text().strip() == code and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert code not in "".join(new.store.iterdump())
    assert client.get("/").headers["Location"] == "/setup"
    answer = start(client, code.lower().replace("-", " "))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "<bdi>Grace</bdi>" in client.get("/").text
    assert [(one.name, one.role) for one in accounts.everyone(new.store)] == [("Grace", Role.LEAD)]
    assert not file.exists() and setup_code.get(new.store) is None and setup.code(new.config) is None
    assert start(tablet(new), code, "Eve").status_code == 404 and tablet(new).get("/setup").status_code == 404
    assert events(new) == [Event.ACCOUNT_CHANGED, Event.SIGNED_IN]


def test_a_wrong_code_makes_nobody_and_soon_waits(new: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    code = setup.code(new.config)
    assert code
    for wrong in ("", "AAAAA-AAAAA", "x" * 300, LOOKALIKE, code[:-1]):
        answer = start(tablet(new), wrong)
        assert answer.status_code == 422 and "<script>alert" not in answer.text
    assert "Too many wrong tries" in start(tablet(new), code).text
    assert not accounts.everyone(new.store) and Event.LOCKED_OUT in events(new)
    later(monkeypatch, tries.FIRST)
    assert start(tablet(new), code).status_code == 303


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"name": "x" * 300}, "Give your name"),
        ({"name": " "}, "Give your name"),
        ({"name": "a\u202eb"}, "Give your name"),
        ({"new": "123456"}, "Choose at least 6 digits"),
        ({"again": "571938"}, "not the same"),
    ],
)
def test_a_form_that_is_not_right_costs_no_try_of_the_code(new: Box, form: dict[str, str], sentence: str) -> None:
    code = setup.code(new.config)
    assert code
    for _ in range(tries.FREE + 1):
        answer = start(tablet(new), code, **form)
        assert answer.status_code == 422 and sentence in answer.text
    assert start(tablet(new), code).status_code == 303


def test_the_only_lead_who_lost_the_pin_gets_in_by_a_new_code_from_a_root_shell(new: Box, tmp_path: Path) -> None:
    person(state(new), "Grace", Role.LEAD)
    lost = tablet(new, "Grace")
    assert setup.code(new.config) is None
    settings.save(new.config, tmp_path / "outpost.toml")
    shown = CliRunner().invoke(check.check, ["--setup-code"], obj=tmp_path / "outpost.toml", catch_exceptions=False)
    code = shown.output.split()[0]
    assert start(tablet(new), code, "grace", OTHER).status_code == 303
    assert lost.get("/").status_code == 303, "signed out everywhere"
    assert enter(tablet(new), "Grace").status_code == 422 and enter(tablet(new), "Grace", OTHER).status_code == 303
    assert len(accounts.everyone(new.store)) == 1


# The lead's page


@pytest.fixture
def lead(box: Box) -> Any:
    return tablet(box, "Grace", Role.LEAD)


def change(box: Box, lead: Any, name: str, act: str, **form: object) -> Any:
    page = lead.get("/people").text
    version = re.findall(rf'name="name" value="{name}"><input type="hidden" name="version" value="(\w+)"', page)[0]
    return post(lead, "/people/change", name=name, act=act, **{"version": version, **form})


def given(answer: Any) -> str:
    return re.findall(r'class="once"><bdi>([\d ]+)<', answer.text)[0].replace(" ", "")


def test_a_new_person_signs_in_with_a_pin_that_is_good_once_and_chooses_their_own(box: Box, lead: Any) -> None:
    pin = given(post(lead, "/people/add", name=" Binta  Sow ", role="clinician"))
    assert pin not in "".join(box.store.iterdump()) and pin not in lead.get("/people").text
    client = tablet(box)
    assert enter(client, "Binta Sow", pin, back="/films/1").status_code == 303
    for path in ("/", "/films/1", "/status"):
        assert client.get(path).headers["Location"].startswith("/pin?back=")
    assert client.get("/worklist").status_code == 401
    for new, again in ((pin, pin), ("123456", "123456"), (OTHER, PIN)):
        assert post(client, "/pin", new=new, again=again).status_code == 422
    answer = post(client, "/pin", new=OTHER, again=OTHER, back="/films/1")
    assert answer.headers["Location"] == "/films/1" and "DIALLO" in client.get("/films/1").text
    assert enter(tablet(box), "Binta Sow", pin).status_code == 422
    assert enter(tablet(box), "Binta Sow", OTHER).status_code == 303


def test_an_own_pin_is_changed_by_who_knows_the_present_one(box: Box) -> None:
    client, elsewhere = tablet(box, "Amina"), tablet(box, "Amina")
    assert post(client, "/pin", pin="000000", new=OTHER, again=OTHER).status_code == 422
    assert post(client, "/pin", pin=PIN, new=OTHER, again=OTHER).status_code == 303
    assert client.get("/").status_code == 200 and elsewhere.get("/").status_code == 303
    assert enter(tablet(box), pin=OTHER).status_code == 303
    assert post(client, "/pin", pin=OTHER, new="blue house", again="blue house").status_code == 303
    post(client, "/lock")
    assert "Your pass phrase" in client.get("/sign-in").text


def test_who_was_asked_for_the_pin_alone_is_told_of_no_name(box: Box, lead: Any) -> None:
    client = tablet(box, "Amina")
    post(client, "/lock")
    for quiet in ({}, {"quiet": "1"}):
        said = enter(client, pin="000000", **quiet).text
        assert "That PIN is wrong" in said and SENTENCE not in said
    assert SENTENCE in enter(client, "Nobody", "000000").text
    enter(client)
    post(client, "/pin", pin=PIN, new="blue house", again="blue house")
    assert "That pass phrase is wrong" in post(client, "/pin", pin="red house", new=OTHER, again=OTHER).text
    assert "That PIN is wrong" in post(lead, "/trial", pin="000000").text


@pytest.mark.parametrize("name", ["x" * 300, "", "\x00", "a\u202eb"])
def test_a_name_that_is_none_gets_no_account(box: Box, lead: Any, name: str) -> None:
    answer = post(lead, "/people/add", name=name, role="clinician")
    assert answer.status_code == 422 and len(accounts.everyone(box.store)) == 2


def test_a_name_is_only_text_and_only_once(box: Box, lead: Any) -> None:
    assert post(lead, "/people/add", name=LOOKALIKE, role="clinician").status_code == 200
    assert "<script>alert" not in lead.get("/people").text
    for name in (LOOKALIKE, LOOKALIKE.upper()):
        assert post(lead, "/people/add", name=name, role="clinician").status_code == 409
    assert post(lead, "/people/add", name="Binta", role="root").status_code == 400


def test_who_is_no_longer_let_in_is_out_at_once(box: Box, lead: Any) -> None:
    assert box.client.get("/").status_code == 200
    assert change(box, lead, "Amina", "off").status_code == 200
    assert box.client.get("/").status_code == 303 and enter(tablet(box)).status_code == 422
    assert "Amina" not in box.client.get("/sign-in").text
    change(box, lead, "Amina", "on")
    assert box.client.get("/").status_code == 303 and enter(tablet(box)).status_code == 303


def test_another_role_means_signing_in_again(box: Box, lead: Any) -> None:
    assert change(box, lead, "Amina", "role", role="technician").status_code == 200
    assert box.client.get("/").status_code == 303
    enter(box.client)
    assert box.client.get("/").headers["Location"] == "/status"


def test_a_form_sent_twice_gives_one_new_pin(box: Box, lead: Any) -> None:
    page = lead.get("/people").text
    version = re.findall(r'name="name" value="Amina"><input type="hidden" name="version" value="(\w+)"', page)[0]
    for _ in range(tries.FREE):
        enter(tablet(box), pin="000000")
    pin = given(post(lead, "/people/change", name="Amina", act="reset", version=version))
    assert post(lead, "/people/change", name="Amina", act="reset", version=version).status_code == 409
    assert enter(tablet(box), pin=pin).status_code == 303, "and nobody waits who was given a new PIN"


@pytest.mark.parametrize(("act", "form"), [("off", {}), ("role", {"role": "clinician"})])
def test_the_last_lead_stays(box: Box, lead: Any, act: str, form: dict[str, str]) -> None:
    assert change(box, lead, "Grace", act, **form).status_code == 409
    post(lead, "/people/add", name="Fatou", role="lead")
    assert change(box, lead, "Grace", act, **form).status_code == 303
    assert lead.get("/people").status_code in (303, 403)


def test_all_of_it_is_in_the_ledger_and_no_secret_is(box: Box, lead: Any) -> None:
    pin = given(post(lead, "/people/add", name="Binta", role="clinician"))
    change(box, lead, "Binta", "off")
    written = [(one.event, one.actor, one.detail) for one in audit.records(box.store)]
    assert (Event.ACCOUNT_CHANGED, "Grace", {"account": "Binta", "change": "added", "role": "clinician"}) in written
    assert pin not in str(written) and audit.verify(box.store) is None
