"""A parcel: what it refuses, with which word, and what it takes of a stick that was pulled out too early."""

from __future__ import annotations

import io
import re
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge import cards
from edge.cards import Event, Likelihood, Piece, Seen, ToHub, Waited, canonical
from edge.stages import parcel
from edge.stages.parcel import Fault, Keys, Opened


def keys() -> Keys:
    return Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())


BOX, HUB, STRANGER = keys(), keys(), keys()
IDENTIFIER = bytes(range(16))


def event(seq: int) -> Event:
    return Event(site="S1", epoch="0123456789abcdef", seq=seq, body=Seen(case="2.25.7", read="ab" * 32))


def messages(count: int) -> list[ToHub]:
    return [ToHub(events=(Waited(event=event(seq), seconds=seq),)) for seq in range(1, count + 1)]


def sealed(contents: list, sender: Keys = BOX, to: Keys = HUB) -> bytes:
    return b"".join(parcel.seal(contents, len(contents), sender, to.public, IDENTIFIER))


def opened(data: bytes, known=lambda _: BOX.public, receiver: Keys = HUB) -> tuple[list, Fault | None]:
    read = Opened(io.BytesIO(data), receiver, known)
    return list(read), read.fault


def test_what_was_sealed_is_what_is_opened():
    contents = [*messages(3), Piece(sha256="cd" * 32, size=10, offset=2, data=b"\0\1 bytes")]
    read = Opened(io.BytesIO(sealed(contents)), HUB, lambda _: BOX.public)
    assert list(read) == contents
    assert (read.fault, read.taken) == (None, 4)
    assert read.header.sender == BOX.public.fingerprint
    assert read.header.identifier == IDENTIFIER.hex()


def test_nobody_else_can_read_it():
    data = sealed(messages(1))
    assert b"S1" not in data
    assert b"2.25.7" not in data
    assert opened(data, receiver=STRANGER) == ([], Fault.NOT_FOR_US)
    # even one who pretends to be the receiver
    other = data[:40] + bytes.fromhex(STRANGER.public.fingerprint) + data[72:]
    assert opened(other, receiver=STRANGER) == ([], Fault.DAMAGED)


def test_of_a_stick_that_was_pulled_out_the_whole_sections_are_taken():
    contents = messages(3)
    data = sealed(contents)
    ends = [len(b"".join(parcel.seal(contents[:n], n, BOX, HUB.public, IDENTIFIER))) for n in range(1, 4)]
    for cut in range(0, len(data), 7):
        taken, fault = opened(data[:cut])
        assert taken == contents[: sum(end <= cut for end in ends)]
        assert fault is (Fault.NOT_A_PARCEL if not cut else Fault.CUT)
    assert opened(data) == (contents, None)


def test_who_sent_it_is_asked_for_before_anything_is_opened():
    data = sealed(messages(2))
    for fault in (Fault.UNKNOWN_SENDER, Fault.REVOKED):
        assert opened(data, lambda _, fault=fault: fault) == ([], fault)
    assert opened(data, lambda _: STRANGER.public) == ([], Fault.UNKNOWN_SENDER)
    # somebody who has the hub's public key and says they are the box
    forged = sealed(messages(2), STRANGER)
    forged = forged[:8] + bytes.fromhex(BOX.public.fingerprint) + forged[40:]
    assert opened(forged) == ([], Fault.DAMAGED)


def test_a_signature_by_another_is_refused_although_it_can_be_opened(monkeypatch):
    class Box:
        public, signing = BOX.public, STRANGER.signing

    data = b"".join(parcel.seal(messages(1), 1, Box(), HUB.public, IDENTIFIER))
    assert opened(data) == ([], Fault.DAMAGED)


def test_sections_can_be_neither_swapped_nor_left_out_nor_taken_from_another_parcel():
    contents = messages(3)
    data = sealed(contents)
    head, parts, at = data[:92], [], 92
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        parts.append(data[at : at + 4 + size])
        at += 4 + size
    assert opened(head + parts[1] + parts[0] + parts[2]) == ([], Fault.DAMAGED)
    assert opened(head + parts[0] + parts[2]) == (contents[:1], Fault.DAMAGED)
    assert opened(head + parts[0] + parts[0] + parts[2]) == (contents[:1], Fault.DAMAGED)
    fewer = head[:88] + (2).to_bytes(4)
    assert opened(fewer + parts[0] + parts[1]) == ([], Fault.DAMAGED)
    another = b"".join(parcel.seal(contents, 3, BOX, HUB.public, bytes(16)))
    assert opened(another[:92] + parts[0] + parts[1] + parts[2]) == ([], Fault.DAMAGED)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"OUTPOST2" + bytes(200), bytes(5000), b"PK\x03\x04" + bytes(200)],
)
def test_what_is_no_parcel_is_said_to_be_none(data: bytes):
    assert opened(data) == ([], Fault.NOT_A_PARCEL)


def test_an_absurd_length_costs_no_memory():
    data = sealed(messages(1))
    assert opened(data[:92] + b"\xff\xff\xff\xff" + data[96:]) == ([], Fault.DAMAGED)


def test_what_is_authentic_and_not_understood_is_no_damage(monkeypatch):
    for plain in (b"\0not deflated", b"\2", b"", b"\1short", b"\0" + parcel.zlib.compress(b'{"message":"newer"}')):
        monkeypatch.setattr(parcel, "_packed", lambda _, plain=plain: plain)
        assert opened(sealed(messages(1))) == ([], Fault.UNREADABLE)
    bomb = b"\0" + parcel.zlib.compress(bytes(parcel.MOST_MESSAGE + 1))
    monkeypatch.setattr(parcel, "_packed", lambda _: bomb)
    assert opened(sealed(messages(1))) == ([], Fault.UNREADABLE)


def test_a_section_that_would_be_too_long_is_not_sealed():
    with pytest.raises(ValueError, match="a section has"):
        sealed([Piece(sha256="cd" * 32, size=1 << 21, offset=0, data=bytes(1 << 20))])
    with pytest.raises(ValueError, match="2 sections were promised"):
        list(parcel.seal(messages(1), 2, BOX, HUB.public, IDENTIFIER))


def test_a_key_is_not_shown():
    assert "private" not in repr(BOX).lower()
    with pytest.raises(ValueError, match="32 bytes"):
        parcel.Public(b"short", bytes(32))


def test_a_request_is_signed_for_one_method_path_offset_and_body():
    text = parcel.request("PATCH", "/sync/objects/ab", 4096, b"bytes")
    signature = BOX.signing.sign(text)
    assert BOX.public.signed(signature, text)
    assert not STRANGER.public.signed(signature, text)
    for other in (
        parcel.request("HEAD", "/sync/objects/ab", 4096, b"bytes"),
        parcel.request("PATCH", "/sync/objects/ac", 4096, b"bytes"),
        parcel.request("PATCH", "/sync/objects/ab", 0, b"bytes"),
        parcel.request("PATCH", "/sync/objects/ab", None, b"bytes"),
        parcel.request("PATCH", "/sync/objects/ab", 4096, b"Bytes"),
    ):
        assert not BOX.public.signed(signature, other)
    assert not BOX.public.signed(b"", text)


def test_a_card_has_one_form_and_nothing_that_nobody_named():
    made = canonical(event(3))
    assert made == (
        b'{"body":{"case":"2.25.7","kind":"seen","read":"' + b"ab" * 32 + b'"},'
        b'"epoch":"0123456789abcdef","seq":3,"site":"S1"}'
    )
    assert msgspec.json.decode(made, type=Event) == event(3)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(made.replace(b'"seq":3', b'"seq":3,"name":"Mary"'), type=Event)


def test_what_an_earlier_box_said_of_a_finding_is_read_and_stays_the_same_bytes():
    """Else the hub would take it for another event when it comes again."""
    earlier = b'{"code":"233604007","finding":"pneumonia","high":0.4,"low":0.2,"probability":0.31,"scheme":"SCT"}'
    said = msgspec.json.decode(earlier, type=Likelihood)
    assert not said.unsure and canonical(said) == earlier
    unsure = msgspec.structs.replace(said, unsure=True)
    assert canonical(unsure) == earlier.replace(b"}", b',"unsure":true}')
    assert msgspec.json.decode(canonical(unsure), type=Likelihood) == unsure


def test_no_card_toward_the_hub_has_room_for_free_text():
    """Every text in it is bound by a pattern without room for a name, or is of an enumeration."""

    def texts(kind: msgspec.inspect.Type, path: str):
        if isinstance(kind, msgspec.inspect.StructType):
            for field in kind.fields:
                yield from texts(field.type, f"{path}.{field.encode_name}")
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                yield from texts(one, path)
        elif isinstance(kind, msgspec.inspect.VarTupleType):
            yield from texts(kind.item_type, path)
        elif isinstance(kind, msgspec.inspect.TupleType):
            for one in kind.item_types:
                yield from texts(one, path)
        elif isinstance(kind, msgspec.inspect.StrType):
            yield path, kind.pattern
        else:
            assert not isinstance(kind, (msgspec.inspect.AnyType, msgspec.inspect.DictType)), path

    found = dict(texts(msgspec.inspect.type_info(Event), "Event"))
    assert len(found) > 20
    loose = {"Event.body.model", "Event.body.device_uid", "Event.body.operating_point", "Event.body.version"}
    loose |= {"Event.body.findings.scheme", "Event.body.findings.code"}  # of the model's manifest, by the door
    for path, pattern in found.items():
        assert pattern, path
        assert re.match(pattern, "Mary Okafor") is None or path in loose, path
        assert re.match(pattern, "any\ntext, however long; 1987-03-02") is None, path


def test_values_that_both_sides_share_need_neither_pixels_nor_a_database():
    for module in (cards, parcel):
        text = Path(module.__file__).read_text()
        assert not re.search(r"^(import|from) (sqlite3|numpy|pydicom|flask)", text, re.M)
