"""Time-based one-time passwords (RFC 6238) as every authenticator app makes them: SHA-1, six digits, steps of 30 seconds."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from urllib.parse import quote, urlencode

STEP_SECONDS = 30
DIGITS = 6
SECRET = re.compile("[A-Z2-7]{32}")
"""160 bits in base32, as long as the hash (RFC 4226 4, R6)."""
DRIFT = 1
"""A telephone's clock may be a step early or late (RFC 6238 5.2)."""


def new_secret() -> str:
    """What hub and telephone share."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def code(key: bytes, counter: int, digits: int = DIGITS, algorithm: str = "sha1") -> str:
    """The one-time password of a counter (RFC 4226 5.3)."""
    digest = hmac.digest(key, counter.to_bytes(8, "big"), algorithm)
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


def matched(secret: str, typed: str, at: float, last: int) -> int | None:
    """The step whose code was typed, if it is later than the last that was accepted, so that no code counts twice; else None.

    `at` is in seconds since 1970.
    """
    if not re.fullmatch(rf"[0-9]{{{DIGITS}}}", typed):
        return None
    now = int(at // STEP_SECONDS)
    fitting = [
        step
        for step in range(now - DRIFT, now + DRIFT + 1)
        if hmac.compare_digest(code(base64.b32decode(secret), step), typed) and step > last
    ]
    return fitting[0] if fitting else None


def uri(secret: str, name: str) -> str:
    """What an authenticator app reads from a QR code (the Key Uri Format that all of them share)."""
    label = f"Outpost:{name}"
    return f"otpauth://totp/{quote(label)}?{urlencode({'secret': secret, 'issuer': 'Outpost'})}"
