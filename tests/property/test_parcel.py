"""Parcels, whatever happens to their bytes: what is taken is what was sent, or a beginning of it; nothing else, ever."""

from __future__ import annotations

import io

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge.cards import Answer, Had, Piece, ToBox, ToHub, Want
from edge.stages import parcel
from edge.stages.parcel import Fault, Keys, Opened

BOX, HUB = (Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate()) for _ in range(2))

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
epochs = st.binary(min_size=8, max_size=8).map(bytes.hex)
counts = st.integers(0, 2**53 - 1)
pieces = st.builds(
    lambda sha256, offset, data, more: Piece(sha256=sha256, size=offset + len(data) + more, offset=offset, data=data),
    digests,
    st.integers(0, 2**40),
    st.binary(max_size=400),
    st.integers(0, 9),
)
answers = st.builds(
    Answer, epoch=epochs, seq=st.integers(1, 2**53 - 1), body=st.builds(Want, sha256=digests, upto=counts)
)
had = st.builds(Had, upto=counts, beyond=st.lists(st.tuples(counts, counts), max_size=3).map(tuple))
messages = st.builds(ToHub, objects=st.lists(digests, max_size=4).map(tuple), upto=counts) | st.builds(
    ToBox,
    epoch=epochs,
    had=st.dictionaries(epochs, had, max_size=2),
    answers=st.lists(answers, max_size=4).map(tuple),
)
contents = st.lists(messages | pieces, min_size=1, max_size=4)


def sealed(of: list) -> bytes:
    return b"".join(parcel.seal(of, len(of), BOX, HUB.public, b"identifier of it"))


def opened(data: bytes) -> tuple[list, Fault | None]:
    read = Opened(io.BytesIO(data), HUB, lambda _: BOX.public)
    return list(read), read.fault


@given(contents)
def test_there_and_back(of: list):
    assert opened(sealed(of)) == (of, None)


@given(contents, st.data())
def test_no_bit_can_be_turned_unseen(of: list, data: st.DataObject):
    whole = bytearray(sealed(of))
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[at // 8] ^= 1 << at % 8
    taken, fault = opened(bytes(whole))
    assert fault is not None
    assert taken == of[: len(taken)]
    assert len(taken) < len(of)


@given(contents, st.data())
def test_a_cut_leaves_whole_sections(of: list, data: st.DataObject):
    whole = sealed(of)
    taken, fault = opened(whole[: data.draw(st.integers(1, len(whole) - 1))])
    assert fault in (Fault.CUT, Fault.NOT_A_PARCEL)
    assert taken == of[: len(taken)]


@given(st.binary(max_size=300), st.booleans())
def test_anything_at_all_is_read_without_a_crash(data: bytes, begins_well: bool):
    head = sealed([ToHub()])[:92] if begins_well else b""
    taken, fault = opened(head + data)
    assert (taken, fault is None) == ([], False)
