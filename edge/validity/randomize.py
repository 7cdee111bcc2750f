"""Randomization: which arm each unit of a trial is in, from a secret seed, in permuted blocks; anybody can compute it again.

Block b has 4, 6 or 8 places: `4 + 2 * (number(b) mod 3)`. Of its places p, the half with the smallest keys is AI-ranked. The
number is the first 8 bytes, big-endian, of HMAC-SHA256(seed, `block b`), the key all 32 of HMAC-SHA256(seed, `place b p`); b and p
are decimal, from 0. Where one block ends the next begins. The commitment is the SHA-256 of the seed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice

from edge.records import Arm

METHOD = "permuted blocks of 4, 6 and 8 from HMAC-SHA256"
SEED_BYTES = 32


def commitment(seed: bytes) -> str:
    """What binds whoever has drawn a seed to it, and tells nothing of it: its SHA-256."""
    return hashlib.sha256(seed).hexdigest()


def blocks(seed: bytes) -> Iterator[tuple[Arm, ...]]:
    """The arms, block by block, without end; each block has as many of one arm as of the other."""
    for block in count():
        size = 4 + 2 * (int.from_bytes(_hash(seed, f"block {block}")[:8]) % 3)
        keys = [_hash(seed, f"place {block} {place}") for place in range(size)]
        half = sorted(keys)[size // 2]
        yield tuple(Arm.AI_RANKED if key < half else Arm.ARRIVAL_ORDER for key in keys)


def arm(seed: bytes, place: int) -> Arm:
    """The arm of the unit at a place of the sequence, from 0."""
    return next(islice(chain.from_iterable(blocks(seed)), place, None))


def _hash(seed: bytes, text: str) -> bytes:
    return hmac.new(seed, text.encode("ascii"), hashlib.sha256).digest()


def differs(seed: bytes, committed: str, allocated: Sequence[tuple[int, Arm]]) -> list[str]:
    """What of a trial does not follow from its seed, in English; empty where all does. `allocated` is in order of arrival."""
    wrong = [] if commitment(seed) == committed else ["the seed is not the one that was committed to"]
    places = max((place for place, _ in allocated), default=-1) + 1
    arms = list(islice(chain.from_iterable(blocks(seed)), places))
    following = 0
    for place, given in allocated:
        if place > following:
            wrong.append(f"place {place} comes where place {following} is due")
        following = max(following, place + 1)
        if arms[place] is not given:
            wrong.append(f"place {place} is {given.value}, by the seed {arms[place].value}")
    return wrong
