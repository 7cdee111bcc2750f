"""A hub as it shall behave, in memory: what a box may rely on, in a few lines, with backups and a link that cuts.

`Hub` takes parcels and bytes as the real one does (`web/hub/sync.py`); `Cut` is a transport that loses requests and answers at any
byte. Both do as a seeded `random.Random` says.
"""

from __future__ import annotations

import copy
import hashlib
import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.cards import Answer, Down, Enrolled, Event, Had, Image, Piece, ToBox, ToHub, canonical, chain
from edge.link import Lost, Reply
from edge.records import Trouble
from edge.stages import parcel
from edge.stages.parcel import Fault, Keys, Opened, Public

SITE = "clinic-1"
GRAIN = 4096


@dataclass
class Held:
    """What a hub's disks hold; a backup is a copy of it."""

    events: dict[tuple[str, int], Event] = field(default_factory=dict)
    down: list[Down] = field(default_factory=list)
    epoch: str = ""
    objects: dict[str, bytearray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    sticks: dict[str, dict[str, list[int]]] = field(default_factory=dict)


class Hub:
    """One hub with one site."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.keys = Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())
        self.box: Public | None = None
        self.revoked = False
        self.full = False
        self.held = Held(epoch=draw.randbytes(8).hex())
        self.models: dict[str, bytes] = {}
        """What can be ordered, by its hash."""
        self.received: dict[str, int] = {}
        """Bytes of each object that came, also those that came again."""

    def enrolled(self) -> Enrolled:
        """What a box is told."""
        return Enrolled(
            site=SITE,
            programme="test",
            signing=self.keys.public.signing,
            sealing=self.keys.public.sealing,
            epoch=self.held.epoch,
        )

    def backup(self) -> Held:
        """A copy of everything."""
        return copy.deepcopy(self.held)

    def known(self, fingerprint: str) -> Public | Fault:
        """The box, unless it was revoked."""
        if self.box is None or self.box.fingerprint != fingerprint:
            return Fault.UNKNOWN_SENDER
        return Fault.REVOKED if self.revoked else self.box

    def parcels(self, body: bytes) -> Reply:
        """`POST /sync/parcels`."""
        if self.full:
            return Reply(507, {}, b"The hub's disk is full.")
        opened = Opened(io.BytesIO(body), self.keys, self.known)
        messages = list(opened)
        if opened.fault is not None:
            return Reply(403 if opened.fault is Fault.REVOKED else 400, {}, opened.fault.encode())
        assert opened.header is not None and self.box is not None
        answer = self._take(messages, (opened.header.identifier,))
        made = parcel.seal([answer], 1, self.keys, self.box, self.draw.randbytes(16))
        return Reply(200, {}, b"".join(made))

    def _take(self, messages: list, identifiers: tuple[str, ...]) -> ToBox:
        differs: dict[str, list[int]] = {}
        objects = {}
        said = ToHub()
        for said in messages:
            assert isinstance(said, ToHub)
            for waited in said.events:
                event = waited.event
                assert event.site == SITE
                kept = self.held.events.setdefault((event.epoch, event.seq), event)
                if canonical(kept) != canonical(event):
                    differs.setdefault(event.epoch, []).append(event.seq)
                elif isinstance(event.body, Image):
                    picture = event.body.picture
                    self.held.sizes[picture.sha256] = picture.size
                    objects[picture.sha256] = len(self.held.objects.get(picture.sha256, b""))
            for sha256 in said.objects:
                objects[sha256] = len(self.held.objects.get(sha256, b""))
        answers = self._answers(said)
        had = {epoch: self._had(epoch) for epoch, _ in self.held.events}
        return ToBox(
            epoch=self.held.epoch,
            answers_to=identifiers,
            had=had,
            differs={epoch: tuple(seqs) for epoch, seqs in differs.items()},
            objects=objects,
            answers=answers,
        )

    def _answers(self, said: ToHub) -> tuple[Answer, ...]:
        made, end = self.numbered()
        if said.hub_epoch == self.held.epoch and end.get(said.upto) != said.chain:
            self.held.epoch = self.draw.randbytes(8).hex()  # it was restored
            made, end = self.numbered()
        after = said.upto if said.hub_epoch == self.held.epoch else 0
        return tuple(made[after : after + 3])

    def numbered(self) -> tuple[list[Answer], dict[int, str]]:
        """All answers, and the chain after each."""
        made = [Answer(epoch=self.held.epoch, seq=seq, body=body) for seq, body in enumerate(self.held.down, 1)]
        end = {0: ""}
        for answer in made:
            end[answer.seq] = chain(end[answer.seq - 1], answer)
        return made, end

    def _had(self, epoch: str) -> Had:
        seqs = sorted(seq for known, seq in self.held.events if known == epoch)
        ranges: list[list[int]] = []
        for seq in seqs:
            if ranges and ranges[-1][1] == seq - 1:
                ranges[-1][1] = seq
            else:
                ranges.append([seq, seq])
        upto = ranges.pop(0)[1] if ranges and ranges[0][0] == 1 else 0
        return Had(upto=upto, beyond=tuple((first, last) for first, last in ranges))

    def bytes(self, sha256: str, offset: int, size: int, data: bytes, whole: bool = True) -> Reply:
        """`PATCH /sync/objects/…`; of a body that was cut off, whole grains stay."""
        held = self.held.objects.setdefault(sha256, bytearray())
        if self.held.sizes.get(sha256) != size:
            return Reply(404, {}, b"Nobody announced it.")
        if self.full:
            return Reply(507, {}, b"The hub's disk is full.")
        if offset != len(held):
            return Reply(409, {"upload-offset": str(len(held))}, b"")
        if not whole:
            data = data[: len(data) // GRAIN * GRAIN]
        held += data
        self.received[sha256] = self.received.get(sha256, 0) + len(data)
        if len(held) > size or (len(held) == size and hashlib.sha256(held).hexdigest() != sha256):
            held.clear()
            return Reply(460, {"upload-offset": "0"}, b"")
        return Reply(204, {"upload-offset": str(len(held))}, b"")

    def stick(self) -> bytes:
        """What the hub puts on a stick."""
        assert self.box is not None
        made, _ = self.numbered()
        differs: dict[str, list[int]] = {}
        for told in self.held.sticks.values():
            for epoch, seqs in told.items():
                differs.setdefault(epoch, []).extend(seqs)
        content = ToBox(
            epoch=self.held.epoch,
            answers_to=tuple(self.held.sticks),
            had={epoch: self._had(epoch) for epoch, _ in self.held.events},
            differs={epoch: tuple(seqs) for epoch, seqs in differs.items()},
            objects={sha256: len(data) for sha256, data in self.held.objects.items()},
            answers=tuple(made),
        )
        return b"".join(parcel.seal([content], 1, self.keys, self.box, self.draw.randbytes(16)))

    def take_stick(self, data: bytes) -> Fault | None:
        """A box's stick comes in."""
        opened = Opened(io.BytesIO(data), self.keys, self.known)
        for content in opened:
            assert opened.header is not None
            if isinstance(content, Piece):
                held = self.held.objects.setdefault(content.sha256, bytearray())
                if content.offset <= len(held) < content.offset + len(content.data):
                    held += content.data[len(held) - content.offset :]
            else:
                told = self._take([content], (opened.header.identifier,))
                seqs = self.held.sticks.setdefault(opened.header.identifier, {})
                for epoch, more in told.differs.items():
                    seqs.setdefault(epoch, []).extend(more)
        return opened.fault


class Cut:
    """A transport that loses what it carries, as often as `loss` says: before the hub, within a body, or on the way back."""

    def __init__(self, hub: Hub, draw: random.Random, loss: float = 0.0) -> None:
        self.hub, self.draw, self.loss = hub, draw, loss
        self.old: list[bytes] = []
        self.asked = 0

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """As `edge.link.Transport`."""
        assert path == "/sync/parcels"
        self._check(headers, parcel.request("POST", path, None, body))
        self.old.append(body)
        if self._lost():
            raise Lost(Trouble.UNREACHABLE)
        if self._lost():
            self.hub.parcels(self.draw.choice(self.old))  # an old one comes late, or this one twice
        reply = self.hub.parcels(body)
        if self._lost():
            raise Lost(Trouble.CLOSED)
        return reply

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """As `edge.link.Transport`: bytes of a model."""
        offset, length = int(headers["Outpost-Offset"]), int(headers["Outpost-Length"])
        self._check(headers, parcel.request("GET", path, offset))
        if self._lost():
            raise Lost(Trouble.UNREACHABLE)
        data = self.hub.models.get(path.removeprefix("/sync/bundles/"))
        if data is None:
            return Reply(404, {}, b"There is no such model.")
        if self._lost():
            raise Lost(Trouble.HANGS)
        return Reply(200, {}, data[offset : offset + length])

    def patch(self, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        """As `edge.link.Transport`."""
        sha256 = path.removeprefix("/sync/objects/")
        offset, size = int(headers["Upload-Offset"]), int(headers["Upload-Length"])
        self._check(headers, parcel.request("PATCH", path, offset))
        if self._lost():
            raise Lost(Trouble.UNREACHABLE)
        got = b""
        for part in parts:
            got += part
            if self._lost():
                self.hub.bytes(sha256, offset, size, got[: self.draw.randrange(len(got))], whole=False)
                raise Lost(Trouble.HANGS)
        reply = self.hub.bytes(sha256, offset, size, got)
        if self._lost():
            raise Lost(Trouble.CLOSED)
        return reply

    def _check(self, headers: Mapping[str, str], text: bytes) -> None:
        import base64

        assert self.hub.box is not None
        self.asked += 1
        assert headers["Outpost-Device"] == self.hub.box.fingerprint
        assert self.hub.box.signed(base64.b64decode(headers["Outpost-Signature"]), text)

    def _lost(self) -> bool:
        return self.draw.random() < self.loss
