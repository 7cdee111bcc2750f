"""The box over the network: pages only over TLS, and on plain HTTP nothing but the join page."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from cryptography import x509
from flask import Flask

from edge.config import Config, Web
from edge.state import trust
from edge.state.store import BUILT
from tests.box import PATIENCE, free_port
from tests.conftest import peer
from web import clinic, server
from web.serve import pages


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = Config(state=str(tmp_path_factory.mktemp("box")), web=Web(port=0, join_port=0, names=("xray.local",)))
    with pages(config) as shown:
        https, http = map(int, re.findall(r"http[^ ]*:(\d+)/", shown))
        yield SimpleNamespace(https=https, http=http, authority=Path(config.state) / "trust/ca.crt", config=config)


@pytest.mark.peer
def test_curl_with_the_authority_is_sure_of_the_box_and_without_it_refuses(box: Any) -> None:
    curl = [peer("curl", "curl"), "-sS", "--resolve", f"xray.local:{box.https}:127.0.0.1", "--cacert"]
    for host in ("127.0.0.1", "xray.local"):
        url = f"https://{host}:{box.https}/health"
        done = subprocess.run([*curl, box.authority, url], capture_output=True, check=True)
        assert b'"status":"ok"' in done.stdout
        assert subprocess.run([*curl, "/dev/null", url], capture_output=True).returncode in (60, 77)


def test_only_tls_from_1_2_on(box: Any) -> None:
    context = ssl.create_default_context(cafile=box.authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with urllib3.PoolManager(ssl_context=context) as pool:
        assert pool.request("GET", f"https://127.0.0.1:{box.https}/health").status == 200
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with urllib3.PoolManager(ssl_context=context, retries=False) as pool, pytest.raises(urllib3.exceptions.SSLError):
        pool.request("GET", f"https://127.0.0.1:{box.https}/health")


PATHS = (
    "/",
    "/films/1",
    "/worklist",
    "/static/style.css",
    "/status",
    "/health",
    "/../etc/passwd",
    "/outpost.crt/x",
    "/?q=x",
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "HEAD"])
def test_plain_http_gives_the_join_page_whatever_is_asked(box: Any, method: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", box.http)) as connection:
        for path in PATHS:
            connection.request(
                method, path, body=b"name=x" if method == "POST" else None, headers={"Cookie": "session=x"}
            )
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
            assert not {"Set-Cookie", "Location", "Strict-Transport-Security"} & set(answer.headers)
            assert "<form" not in text and "<script" not in text
            if method != "HEAD":
                assert (
                    f"https://127.0.0.1:{box.https}/" in text and trust.read(Path(box.config.state)).fingerprint in text
                )  # type: ignore[union-attr]


def test_plain_http_on_the_pages_port_leads_to_the_join_page_without_what_was_asked(tmp_path: Path) -> None:
    config = Config(state=str(tmp_path), web=Web(port=0, join_port=free_port()))
    with pages(config) as shown, urllib3.PoolManager(retries=False) as pool:
        port = int(re.findall(r"https://127.0.0.1:(\d+)", shown)[0])
        answer = pool.request("GET", f"http://127.0.0.1:{port}/films/1?q=Diallo", redirect=False)
        assert (answer.status, answer.headers["Location"]) == (303, f"http://127.0.0.1:{config.web.join_port}/")
        assert "Join this box" in pool.request("GET", answer.headers["Location"]).data.decode()


def test_the_certificate_is_fetched_as_tablets_want_it(box: Any) -> None:
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", f"http://127.0.0.1:{box.http}/outpost.crt")
        assert answer.headers["Content-Type"] == "application/x-x509-ca-cert"
        assert "outpost.crt" in answer.headers["Content-Disposition"]
        given = x509.load_der_x509_certificate(answer.data)
        assert given == x509.load_pem_x509_certificate(box.authority.read_bytes())
        assert (
            pool.request("GET", f"http://127.0.0.1:{box.http}/style.css").headers["Content-Type"].startswith("text/css")
        )


@pytest.mark.parametrize(
    ("host", "link"), [("xray.local:1", "xray.local"), ("[::1]", "[::1]"), ("evil.example", "xray.local")]
)
def test_the_join_page_leads_to_this_box_only(box: Any, host: str, link: str) -> None:
    with urllib3.PoolManager() as pool:
        text = pool.request("GET", f"http://127.0.0.1:{box.http}/", headers={"Host": host}).data.decode()
    assert f'href="https://{link}:{box.https}/"' in text


def test_the_join_page_speaks_the_chosen_language_and_keeps_nothing(box: Any) -> None:
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", f"http://127.0.0.1:{box.http}/?language=ar", headers={"Accept-Language": "fr"})
        assert 'lang="ar" dir="rtl"' in answer.data.decode() and "Set-Cookie" not in answer.headers
        answer = pool.request("GET", f"http://127.0.0.1:{box.http}/", headers={"Accept-Language": "fr"})
        assert 'lang="fr"' in answer.data.decode()


def test_those_who_say_nothing_keep_nobody_waiting(box: Any) -> None:
    """A connection that never begins to speak TLS is waited for in its own thread."""
    context = ssl.create_default_context(cafile=box.authority)
    silent = [socket.create_connection(("127.0.0.1", box.https)) for _ in range(server.THREADS - 1)]
    try:
        with urllib3.PoolManager(ssl_context=context, timeout=PATIENCE, retries=False) as pool:
            assert pool.request("GET", f"https://127.0.0.1:{box.https}/health").status == 200
    finally:
        for one in silent:
            one.close()


def test_the_certificate_is_renewed_and_a_wrong_clock_heals_without_a_restart(tmp_path: Path) -> None:
    clock = [datetime.fromisoformat("1970-01-01T00:00:07+00:00")]
    config = Config(state=str(tmp_path))
    tls = server.Tls(config, lambda: clock[0])
    stop, ready, ports = threading.Event(), threading.Event(), list[int]()

    def listening(port: int) -> None:
        ports.append(port)
        ready.set()

    thread = threading.Thread(
        target=server.serve, args=(Flask("empty"), "web.port", "127.0.0.1", 0, stop, listening, tls)
    )
    thread.start()
    assert ready.wait(PATIENCE)

    def shown() -> x509.Certificate:
        context = ssl.create_default_context(cafile=tmp_path / "trust/ca.crt")
        context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the dates are read below
        with (
            socket.create_connection(("127.0.0.1", ports[0])) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")

    try:
        first = shown()
        assert first.not_valid_before_utc <= BUILT < first.not_valid_after_utc
        clock[0] = BUILT + timedelta(days=1200)
        second = shown()
        assert second.not_valid_before_utc <= clock[0] < second.not_valid_after_utc
        clock[0] = second.not_valid_after_utc - timedelta(days=100)
        assert shown() == second
        clock[0] += timedelta(days=11)
        assert shown().not_valid_after_utc > second.not_valid_after_utc
    finally:
        stop.set()
        thread.join()


def test_no_page_asks_for_https_on_every_port(box: Any) -> None:
    assert "Strict-Transport-Security" not in clinic.create(box.config).test_client().get("/health").headers
