"""One-time passwords against the vectors of RFC 4226 and RFC 6238, and what is not accepted twice."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from web.hub import totp

KEYS = {"sha1": b"1234567890" * 2, "sha256": b"1234567890" * 3 + b"12", "sha512": b"1234567890" * 6 + b"1234"}
SECRET = base64.b32encode(KEYS["sha1"]).decode()
VECTORS = """59 94287082 46119246 90693936
1111111109 07081804 68084774 25091201
1111111111 14050471 67062674 99943326
1234567890 89005924 91819424 93441116
2000000000 69279037 90698825 38618901
20000000000 65353130 77737706 47863826"""


@pytest.mark.parametrize("line", VECTORS.splitlines())
def test_the_codes_are_those_of_rfc_6238(line: str) -> None:
    at, *expected = line.split()
    counter = int(at) // totp.STEP_SECONDS
    assert [totp.code(key, counter, 8, algorithm) for algorithm, key in KEYS.items()] == expected


def test_the_codes_are_those_of_rfc_4226() -> None:
    expected = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
    assert [totp.code(KEYS["sha1"], counter) for counter in range(10)] == expected


def test_a_clock_may_be_a_step_off_and_no_more() -> None:
    at, step = 1_000_000_000.0, 1_000_000_000 // 30
    codes = {off: totp.code(KEYS["sha1"], step + off) for off in range(-2, 3)}
    found = {off: totp.matched(SECRET, typed, at, 0) for off, typed in codes.items()}
    assert found == {-2: None, -1: step - 1, 0: step, 1: step + 1, 2: None}


def test_a_code_counts_once_and_nothing_before_it_does_afterwards() -> None:
    at, step = 1_000_000_000.0, 1_000_000_000 // 30
    typed = totp.code(KEYS["sha1"], step)
    assert totp.matched(SECRET, typed, at, step) is None
    assert totp.matched(SECRET, totp.code(KEYS["sha1"], step - 1), at, step) is None
    assert totp.matched(SECRET, totp.code(KEYS["sha1"], step + 1), at, step) == step + 1


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "１２３４５６", "12 456"])
def test_what_is_no_code_is_refused(typed: str) -> None:
    assert totp.matched(SECRET, typed, 59, 0) is None


def test_a_secret_is_new_each_time_and_an_app_can_read_it() -> None:
    secret = totp.new_secret()
    assert totp.SECRET.fullmatch(secret) and secret != totp.new_secret()
    asked = urlsplit(totp.uri(secret, "Dr Ba"))
    assert (asked.scheme, asked.netloc, asked.path) == ("otpauth", "totp", "/Outpost%3ADr%20Ba")
    assert parse_qs(asked.query) == {"secret": [secret], "issuer": ["Outpost"]}
