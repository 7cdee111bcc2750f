"""How PINs, pass phrases and one-time codes are made, judged and kept: as Argon2id hashes (RFC 9106), never as themselves.

32 MiB and three passes: about a tenth of a second on an N100, bearable on a 1 GB board because only one is computed at a time. Six
digits are few: what protects them is the lock-out (`edge/state/tries.py`), not the hash, once somebody has the disk.
"""

from __future__ import annotations

import secrets
import threading
import unicodedata
from functools import cache
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

HASHER = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
LONGEST = 128
"""Characters; a longer secret is refused before it costs anything."""
DIGITS, CHARACTERS = 6, 10
"""The least of a PIN, and of a pass phrase."""
ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Of one-time codes: nothing that is read or typed as something else."""

_one_at_a_time = threading.Lock()


def plain(secret: str) -> str:
    """A secret as it is compared: the same from every keyboard, digits of every script as 0 to 9."""
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in unicodedata.normalize("NFKC", secret).strip()
    )


def hashed(secret: str) -> str:
    """The encoded hash of a secret."""
    with _one_at_a_time:
        return HASHER.hash(plain(secret))


def fits(secret: str, encoded: str) -> bool:
    """Whether the secret is the one that was hashed."""
    if len(secret) > LONGEST:
        return False
    try:
        with _one_at_a_time:
            return HASHER.verify(encoded, plain(secret))
    except (VerificationError, InvalidHashError):
        return False


@cache
def nobodys() -> str:
    """A hash that no secret fits, so that an unknown name takes as long as a known one."""
    return hashed(secrets.token_urlsafe(32))


def weak(secret: str, name: str) -> bool:
    """Whether anybody would guess it: too short, one digit again and again, a run, a repeated pair or triple, the own name."""
    secret = plain(secret)
    if len(secret) > LONGEST or len(secret) < (DIGITS if digits(secret) else CHARACTERS):
        return True
    steps = {(ord(after) - ord(before)) % 10 for before, after in pairwise(secret)}
    repeated = any(secret == (secret[:size] * len(secret))[: len(secret)] for size in (1, 2, 3))
    run = digits(secret) and steps in ({1}, {9})
    return run or repeated or secret.casefold() == name.casefold()


def digits(secret: str) -> bool:
    """Whether a secret is a PIN, for a keyboard of digits; else it is a pass phrase."""
    return plain(secret).isdigit()


def one_time_pin() -> str:
    """A PIN for a person to sign in with once and choose their own."""
    return "".join(secrets.choice("0123456789") for _ in range(8))


def one_time_code() -> str:
    """A code for the first start: 49 bits, in two groups."""
    drawn = "".join(secrets.choice(ALPHABET) for _ in range(10))
    return f"{drawn[:5]}-{drawn[5:]}"
