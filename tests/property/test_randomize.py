"""The lots of a trial: balanced, the same again from the seed, and not to be told before."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from edge.records import Arm
from edge.validity.randomize import arm, blocks, commitment, differs

SEEDS = st.binary(min_size=32, max_size=32)


def oracle(seed: bytes, places: int) -> list[Arm]:
    """The arms as whoever has only the published description would compute them."""
    found: list[Arm] = []
    block = 0
    while len(found) < places:
        number = hmac.new(seed, b"block %d" % block, hashlib.sha256).hexdigest()[:16]
        size = 4 + 2 * (int(number, 16) % 3)
        keys = {
            place: hmac.new(seed, b"place %d %d" % (block, place), hashlib.sha256).hexdigest() for place in range(size)
        }
        first = sorted(keys, key=lambda place: keys[place])[: size // 2]
        found += [Arm.AI_RANKED if place in first else Arm.ARRIVAL_ORDER for place in range(size)]
        block += 1
    return found[:places]


@given(SEEDS)
def test_every_block_is_balanced(seed: bytes) -> None:
    for block in islice(blocks(seed), 20):
        assert len(block) in (4, 6, 8)
        assert block.count(Arm.AI_RANKED) == block.count(Arm.ARRIVAL_ORDER)


@given(SEEDS, st.integers(0, 300))
def test_the_arms_are_never_far_from_even_and_the_same_again(seed: bytes, places: int) -> None:
    arms = [arm(seed, place) for place in range(places)]
    assert abs(2 * arms.count(Arm.AI_RANKED) - places) <= 4
    assert arms == oracle(seed, places)
    assert commitment(seed) == hashlib.sha256(seed).hexdigest()


def test_every_order_of_a_block_is_as_likely() -> None:
    """Of 6,000 seeds: the first block has each size, and one of four each of its six orders, equally often."""
    draw = random.Random(3)
    first = [next(blocks(draw.randbytes(32))) for _ in range(6000)]
    sizes = Counter(map(len, first))
    orders = Counter(block for block in first if len(block) == 4)
    assert len(sizes) == 3 and chisquare(list(sizes.values())).pvalue > 0.001
    assert len(orders) == 6 and chisquare(list(orders.values())).pvalue > 0.001


def test_what_is_known_before_the_end_does_not_tell_the_next_arm() -> None:
    """Whoever has the commitment and takes its bits, or those of a seed like it, for the lots is right half of the time."""
    draw, right = random.Random(4), 0
    for _ in range(4000):
        seed = draw.randbytes(32)
        guess = arm(bytes.fromhex(commitment(seed)), 0)
        right += guess is arm(seed, 0)
    assert binomtest(right, 4000).pvalue > 0.001


@given(SEEDS, st.integers(1, 60), st.data())
def test_any_other_allocation_is_found(seed: bytes, places: int, data: st.DataObject) -> None:
    given_ = [(place, arm(seed, place)) for place in range(places) for _ in range(data.draw(st.integers(1, 2)))]
    assert differs(seed, commitment(seed), given_) == []
    at = data.draw(st.integers(0, len(given_) - 1))
    place, was = given_[at]
    other = next(one for one in Arm if one is not was)
    assert differs(seed, commitment(seed), [*given_[:at], (place, other), *given_[at + 1 :]]) != []
    assert differs(seed, commitment(b"another"), given_) != []
    without = [one for one in given_ if one[0] != place]
    assert (differs(seed, commitment(seed), without) == []) is (place == places - 1)


def test_a_trial_without_a_film_follows_from_its_seed() -> None:
    assert differs(b"seed", commitment(b"seed"), []) == []
