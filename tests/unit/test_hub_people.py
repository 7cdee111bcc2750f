"""Who may do what on the hub's pages: signing in with a second factor, what ends a session, what a role may see."""

from __future__ import annotations

import base64
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge import pins
from edge.cli import main
from tests import reading
from tests.people import PIN
from tests.reading import PROGRAMME, Hub
from web.hub import accounts, keys, people, sqlite, store, totp
from web.hub.accounts import Account, Role
from web.hub.config import Config

OWN = {"Sec-Fetch-Site": "same-origin"}
PHRASE = "four words of none"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return reading.made(Config(state=str(tmp_path)))


def enter(client: Any, name: str = "Dr Ba", secret: str = PIN, code: str | None = None) -> Any:
    form = {"name": name, "secret": secret, "code": reading.code() if code is None else code, "back": "/reads"}
    return client.post("/sign-in", data=form, headers=OWN)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The clock of the pages, set forward."""
    for module in ("people", "queue", "read", "signing", "turnaround"):
        monkeypatch.setattr(f"web.hub.{module}.now", lambda: store.now() + seconds)


def pages_of(hub: Hub) -> list[Any]:
    return [rule for rule in hub.app.url_map.iter_rules() if not rule.rule.startswith(people.MACHINE_PATHS)]


def test_every_page_says_who_may_see_it(hub: Hub) -> None:
    unguarded = {one.rule for one in pages_of(hub) if not hasattr(hub.app.view_functions[one.endpoint], "roles")}
    assert unguarded == {"/static/<path:filename>"}


def test_nobody_sees_anything_before_signing_in_and_an_admin_no_film(hub: Hub) -> None:
    film = hub.film()
    admin, stranger = hub.client("Root", Role.ADMIN), hub.app.test_client()
    for rule in pages_of(hub):
        page = hub.app.view_functions[rule.endpoint]
        if getattr(page, "roles", None) is None:
            continue
        path = rule.rule.replace("<int:number>", str(hub.task(film))).replace("<int:other>", str(film))
        for method in rule.methods & {"GET", "POST"}:
            assert stranger.open(path, method=method, headers=OWN).status_code == (401 if page.part else 303), path
            if Role.ADMIN not in page.roles and path != "/":
                assert admin.open(path, method=method, headers=OWN).status_code == 403, path


def test_one_signs_in_by_name_pass_phrase_and_a_code_that_works_once(hub: Hub) -> None:
    hub.person()
    client = hub.app.test_client()
    code = reading.code()
    answer = enter(client, code=code)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/reads")
    first = client.get_cookie(people.SESSION).value
    assert client.get("/reads").status_code == 200
    again = enter(hub.app.test_client(), code=code)
    assert again.status_code == 422 and "do not fit together" in again.text
    for wrong in ({"secret": "482616"}, {"code": ""}, {"code": "000000"}, {"name": "Dr Be"}):
        assert enter(hub.app.test_client(), **wrong).status_code == 422, wrong
    with hub.held.store.transaction() as db:
        db.run("UPDATE account SET totp_step = 0")
    assert enter(client).status_code == 303
    assert client.get_cookie(people.SESSION).value != first
    stale = hub.app.test_client()
    stale.set_cookie(people.SESSION, first)
    assert stale.get("/reads").status_code == 303, "the session before has ended"


def test_wrong_tries_make_one_wait_but_not_in_the_persons_own_browser(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.person()
    own, thief = hub.app.test_client(), hub.app.test_client()
    assert enter(own).status_code == 303
    for _ in range(5):
        said = enter(thief, secret="482616").text
    assert "Too many wrong tries" in said
    assert "Too many wrong tries" in enter(thief).text, "also the right one has to wait"
    with hub.held.store.transaction() as db:
        db.run("UPDATE account SET totp_step = 0")
    assert enter(own).status_code == 303, "nobody is kept out where they have signed in before"
    later(monkeypatch, 60)
    at = store.now() + 60
    assert enter(thief, code=reading.code(at)).status_code == 303


def test_the_first_sign_in_is_by_a_one_time_code_and_leads_to_ones_own_secrets_only(hub: Hub) -> None:
    with hub.held.store.transaction() as db:
        code = accounts.invite(db, Account(name="New", programme=PROGRAMME, role=Role.READER))
    assert code is not None
    client = hub.app.test_client()
    assert enter(client, "New", code, "").status_code == 303
    assert client.get("/").headers["Location"].startswith("/own")
    page = client.get("/own").text
    secret = re.findall('name="totp" value="([A-Z2-7]{32})"', page)[0]
    form = {"new": PHRASE, "again": PHRASE, "totp": secret, "code": "000000"}
    assert "not the code" in client.post("/own", data=form, headers=OWN).text
    shown = totp.code(base64.b32decode(secret), int(store.now() // totp.STEP_SECONDS))
    weak = client.post("/own", data=form | {"new": "1234567890", "again": "1234567890", "code": shown}, headers=OWN)
    assert weak.status_code == 422 and "nobody guesses" in weak.text
    assert client.post("/own", data=form | {"code": shown}, headers=OWN).status_code == 303
    assert client.get("/").status_code == 200
    other = hub.app.test_client()
    assert enter(other, "New", code, "").status_code == 422, "the code worked once"
    assert enter(other, "New", PHRASE, shown).status_code == 422, "and so did that of the app"


def test_what_an_app_shares_with_the_hub_is_nowhere_in_its_database_and_useless_without_its_key(tmp_path: Path) -> None:
    config, state = Config(state=str(tmp_path)), tmp_path / sqlite.DATABASE
    hub = reading.made(config)
    hub.person(), hub.person("Dr Diop")
    with hub.held.store.transaction() as db:  # as an earlier version kept it
        db.run("UPDATE account SET totp = :plain WHERE folded = 'dr ba'", plain=reading.TOTP)
        first = accounts.get(db, "Dr Diop")
    hub.held.store.close()
    assert reading.TOTP.encode() in state.read_bytes()
    hub = reading.made(config)
    assert enter(hub.app.test_client()).status_code == 303, "nobody notices"
    with hub.held.store.transaction() as db:
        both = [accounts.get(db, name) for name in ("Dr Ba", "Dr Diop")]
        assert first == both[1] and both[0] and both[1] and both[0].totp != both[1].totp
        db.run("UPDATE account SET totp = :other WHERE folded = 'dr diop'", other=both[0].totp)
        assert accounts.unreadable(db, hub.held.seal) == ["Dr Diop"], "one person's is not another's"
        db.run("UPDATE account SET totp = :own, totp_step = 0 WHERE folded = 'dr diop'", own=both[1].totp)
        db.run("UPDATE account SET totp_step = 0")
        assert accounts.unreadable(db, hub.held.seal) == []
    hub.held.store.close()
    assert reading.TOTP.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob(f"{sqlite.DATABASE}*"))
    (tmp_path / keys.FILE).rename(tmp_path / "away")
    hub = reading.made(config)
    client = hub.app.test_client()
    assert "can no longer check your app" in enter(client).text
    assert "do not fit together" in enter(client, secret="482616").text, "only who knows the pass phrase learns that"
    hub.held.store.close()
    file = tmp_path / "hub.toml"
    file.write_text(f'state = "{tmp_path}"\n')
    run = ["--config", str(file), "hub"]
    said = CliRunner().invoke(main, [*run, "check"]).output
    assert f"Dr Ba cannot sign in: {tmp_path}/keys.pem is not the file" in said
    assert "outpost hub account code 'Dr Diop'" in said
    assert CliRunner().invoke(main, [*run, "account", "code", "Dr Diop"]).exit_code == 0
    said = CliRunner().invoke(main, [*run, "check"]).output
    assert "Dr Ba" in said and "Dr Diop" not in said
    (tmp_path / "away").rename(tmp_path / keys.FILE)
    assert "cannot sign in" not in CliRunner().invoke(main, [*run, "check"]).output
    hub = reading.made(config)
    assert enter(hub.app.test_client()).status_code == 303


def test_a_session_ends_by_silence_by_age_and_with_the_account(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client = hub.client()
    assert client.get("/reads").status_code == 200
    with monkeypatch.context() as patched:
        later(patched, 31 * 60)
        assert client.get("/reads").status_code == 303
    with monkeypatch.context() as patched:
        later(patched, 20 * 60)
        assert client.get("/", headers={"Outpost-Again": "1"}).status_code == 200
        later(patched, 31 * 60)
        assert client.get("/reads").status_code == 303, "a list that looks by itself is nobody"
    lead = hub.client("Lead", Role.LEAD)
    version = re.findall(
        'value="Dr Ba"><input type="hidden" name="version" value="([0-9a-f]+)"', lead.get("/people").text
    )
    form = {"name": "Dr Ba", "version": version[0], "act": "off"}
    assert lead.post("/people/change", data=form, headers=OWN).status_code == 200
    assert client.get("/reads").status_code == 303
    assert lead.post("/people/change", data=form, headers=OWN).status_code == 409, "a form sent twice acts once"


def test_a_lead_gives_an_account_with_its_rights_and_no_admin(hub: Hub) -> None:
    lead = hub.client("Lead", Role.LEAD)
    form = {
        "name": "Dr Diop",
        "role": "reader",
        "kinds": ["first", "second"],
        "languages": ["ar"],
        "sites": ["south", "elsewhere"],
        "countries": "sd, ke x1",
    }
    answer = lead.post("/people/add", data=form, headers=OWN)
    assert re.search(r"[0-9A-Z]{5}-[0-9A-Z]{5}", answer.text)
    with hub.held.store.reading() as db:
        account = accounts.get(db, "dr DIOP")
    assert account is not None
    assert (account.kinds, account.languages) == (("first", "second"), ("ar",))
    assert (account.sites, account.countries) == (("south",), ("SD", "KE"))
    assert lead.post("/people/add", data=form, headers=OWN).status_code == 409
    assert lead.post("/people/add", data=form | {"name": "X y", "role": "admin"}, headers=OWN).status_code == 400


def test_a_form_from_elsewhere_changes_nothing(hub: Hub) -> None:
    client = hub.client()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}, {}):
        assert client.post("/next", headers=headers).status_code == 403


def test_what_a_lost_database_gives_away_signs_nobody_in(hub: Hub) -> None:
    token = hub.token()
    with hub.held.store.reading() as db:
        rows = [*db.rows("SELECT * FROM session"), *db.rows("SELECT * FROM account"), *db.rows("SELECT * FROM browser")]
    assert token not in str(rows) and PIN not in str(rows)


def test_the_first_account_is_made_at_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'state = "{tmp_path / "hub"}"\n')

    def outpost(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["--config", str(file), "hub", *arguments])

    assert outpost("programme", "lakes").exit_code == 0
    made = outpost("account", "add", "Amina Lead", "--role", "lead")
    assert made.exit_code == 0 and re.search(r"^[0-9A-Z]{5}-[0-9A-Z]{5}$", made.stdout.strip())
    assert outpost("account", "add", "amina lead").exit_code == 2
    anew = outpost("account", "code", "amina lead")
    assert anew.exit_code == 0 and anew.stdout != made.stdout
    assert "Amina Lead" in outpost("account", "list").stdout
    with closing(store.open_store(Config(state=str(tmp_path / "hub")))) as kept, kept.reading() as db:
        account = accounts.get(db, "Amina Lead")
    assert account is not None and pins.fits(anew.stdout.strip(), account.secret)
    assert accounts.person("A") == accounts.person("a")
