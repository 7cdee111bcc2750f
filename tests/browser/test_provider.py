"""Signing in at the hub by an OpenID provider of another project, in Debian's Chromium; and answers that are not its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests import reading
from tests.reading import PROGRAMME
from web.hub import accounts, people
from web.hub.accounts import Account, Role
from web.hub.config import Config, Oidc

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_spec("oidc_provider_mock") is None, reason="pip install oidc-provider-mock"),
]

PROVIDER = """
import sys
from oidc_provider_mock import run_server_in_thread
with run_server_in_thread(require_nonce=True) as server:
    print(server.server_port, flush=True)
    sys.stdin.read()
"""
BASE = "https://hub.test"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """A provider, and a hub that it signs people in to."""
    command = [sys.executable, "-W", "ignore", "-c", PROVIDER]  # its own warnings are its own business
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as provider:
        assert provider.stdin is not None and provider.stdout is not None
        issuer = f"http://localhost:{provider.stdout.readline().strip()}"
        secret = tmp_path / "secret"
        secret.write_text("the hub's secret\n")
        said = Oidc(issuer=issuer, client_id="hub", secret_file=str(secret), title="Lakes ID")
        hub = reading.made(Config(state=str(tmp_path / "hub"), oidc=said))
        yield SimpleNamespace(hub=hub, issuer=issuer)
        provider.stdin.close()


def invited(hub: Any, name: str = "Dr Ba") -> str:
    with hub.held.store.transaction() as db:
        code = accounts.invite(db, Account(name=name, programme=PROGRAMME, role=Role.READER))
    assert code is not None
    return code


def test_one_signs_in_by_the_provider_and_is_tied_to_the_account_once(browser: Any, place: Any) -> None:
    code = invited(place.hub)
    with reading.serving(place.hub) as hub:
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()

        def enter() -> None:
            page.goto(f"{hub.url}/reads")
            page.click("text=Sign in by Lakes ID")
            page.fill("input[name=sub]", "u-4711")
            page.click("button:has-text('Authorize')")

        enter()
        page.fill("#name", "dr ba")
        page.fill("#secret", "23456-23456")
        page.click("main button")
        page.wait_for_selector("#wrong")
        page.fill("#secret", code)
        page.click("main button")
        page.wait_for_url(f"{hub.url}/reads")
        page.click("text=Sign out")
        page.wait_for_selector("#code")
        enter()
        page.wait_for_url(f"{hub.url}/reads")
        assert "Dr Ba" in page.inner_text("header")
        context.close()
    with hub.held.store.reading() as db:
        account = accounts.get(db, "Dr Ba")
    assert account is not None
    assert (account.issuer, account.subject, account.secret) == (place.issuer, "u-4711", "")


def left(place: Any, client: Any, subject: str = "u-1") -> str:
    """Leave for the provider and sign in there; gives the way back."""
    away = client.get("/sign-in/leave", base_url=BASE).headers["Location"]
    asked = parse_qs(urlsplit(away).query)
    assert {"state", "nonce", "code_challenge"} <= set(asked) and asked["code_challenge_method"] == ["S256"]
    answer = requests.post(away, data={"sub": subject}, allow_redirects=False, timeout=60)
    return str(answer.headers["Location"]).removeprefix(BASE)


def signed_in(client: Any) -> bool:
    return client.get_cookie(people.SESSION, domain="hub.test") is not None


def tied(place: Any, subject: str = "u-1") -> None:
    place.hub.person("Dr Ba", secret="", totp="", issuer=place.issuer, subject=subject)


def test_an_answer_counts_once_and_only_where_it_was_asked_for(place: Any) -> None:
    tied(place)
    client, other = place.hub.app.test_client(), place.hub.app.test_client()
    back = left(place, client)
    assert other.get(back, base_url=BASE).status_code == 502 and not signed_in(other), "it was asked for elsewhere"
    assert client.get(back, base_url=BASE).status_code == 200 and signed_in(client)
    fresh = place.hub.app.test_client()
    left(place, fresh)
    assert fresh.get(back, base_url=BASE).status_code == 502 and not signed_in(fresh), "an answer of before"


def test_a_provider_that_signs_with_another_key_or_for_another_client_lets_nobody_in(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied(place)
    client = place.hub.app.test_client()
    back = left(place, client)
    provider = place.hub.app.extensions["outpost.oidc"]
    monkeypatch.setattr(provider, "client_id", "another")
    assert client.get(back, base_url=BASE).status_code == 502 and not signed_in(client)
    monkeypatch.undo()
    back = left(place, client)
    from joserfc.jwk import RSAKey

    foreign = RSAKey.generate_key(2048, {"kid": "x"}).as_dict(private=False)
    metadata = {**provider.load_server_metadata(), "jwks": {"keys": [foreign]}}
    monkeypatch.setattr(provider, "server_metadata", metadata)
    assert client.get(back, base_url=BASE).status_code == 502 and not signed_in(client)


def test_who_is_not_let_in_here_or_has_no_code_stays_out(place: Any) -> None:
    client = place.hub.app.test_client()
    page = client.get(left(place, client), base_url=BASE)
    assert "Which account is yours?" in page.text and not signed_in(client)
    place.hub.person("Local", totp="")
    form, own = {"name": "Local", "secret": reading.PIN}, {"Sec-Fetch-Site": "same-origin"}
    answer = client.post("/sign-in/claim", data=form, headers=own, base_url=BASE)
    assert answer.status_code == 422 and not signed_in(client), "an account that is set up already cannot be taken"
    place.hub.person("Gone", secret="", issuer=place.issuer, subject="u-2", active=False)
    assert client.get(left(place, client, "u-2"), base_url=BASE).status_code == 403 and not signed_in(client)


def test_a_provider_that_is_away_is_said_in_words(tmp_path: Path) -> None:
    said = Oidc(issuer="http://127.0.0.1:9", client_id="hub", title="Lakes ID")
    hub = reading.made(Config(state=str(tmp_path), oidc=said))
    answer = hub.app.test_client().get("/sign-in/leave", base_url=BASE)
    assert answer.status_code == 502 and "Signing in by Lakes ID did not work" in answer.text
