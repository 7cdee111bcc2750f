"""What boxes ask of the hub: to be enrolled, to hand over a parcel and get one, to send an object's bytes.

Every request is signed by the box's key; what is answered has been committed. An answer that is no parcel is one plain sentence for
the technician.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import secrets
from collections.abc import Iterable

import flask
import msgspec
from flask import Blueprint, Response, abort, request

from edge import cards, pins
from edge.cards import Enrol, Enrolled, Piece, ToBox, ToHub
from edge.stages import parcel
from edge.stages.parcel import Fault, Opened, Public
from web.hub import answers, drafts, films, here, inbox, objects, openapi, rollouts, sites
from web.hub.here import Hub
from web.hub.objects import Took
from web.hub.records import Device
from web.hub.store import now

log = logging.getLogger(__name__)

pages = Blueprint("sync", __name__, url_prefix="/sync")

PARCEL_BYTES = 8 << 20
"""No parcel over the network is longer; a box sends the rest with the next."""
BUNDLE_BYTES = 1 << 20
"""So much of a model goes with one answer at most."""
ENROL_BYTES = 4096

SENTENCES = {
    Fault.NOT_A_PARCEL: "This is no parcel of Outpost. Update the box, then the hub.",
    Fault.NOT_FOR_US: "The parcel is sealed to another hub. Enrol the box here.",
    Fault.UNKNOWN_SENDER: "The hub does not know this box. Enrol it: outpost hub enrol SITE gives a code.",
    Fault.REVOKED: "This box was revoked. Enrol it again if that was a mistake: outpost hub enrol SITE gives a code.",
    Fault.DAMAGED: "The parcel was damaged on the way. It is sent again.",
    Fault.CUT: "The parcel ended too early. It is sent again.",
    Fault.UNREADABLE: "The hub does not understand what this box sends. Update the hub; nothing is lost.",
}


@pages.post("/enrol")
@openapi.operation(
    "box",
    {200: openapi.json(Enrolled)} | dict.fromkeys((400, 401, 404, 409, 410, 413, 429), openapi.TEXT),
    takes=openapi.json(Enrol),
)
def enrol() -> flask.typing.ResponseReturnValue:
    """Make a box known that has a one-time code; the request is signed with the key that it brings."""
    hub, body, at = here.hub(), _body(ENROL_BYTES), now()
    try:
        asked = msgspec.json.decode(body, type=Enrol)
        public = Public(asked.signing, asked.sealing)
    except (msgspec.DecodeError, ValueError):
        return _said(400, "The hub does not understand this box. Update the older of the two.")
    if not public.signed(_signature(), parcel.request("POST", request.path, None, body)):
        return _said(401, "The request is not signed with the key that it brings.")
    with hub.store.transaction() as db:
        state, found = sites.try_code(db, asked.code, at)
    if found is None:
        return _said(*CODES[state])
    secret, programme, site = found
    if not pins.fits(pins.plain(asked.code).upper().partition("-")[2], secret):
        return _said(404, "There is no such code. Look at it again; after five wrong tries it is void.")
    with hub.store.transaction() as db:
        state = sites.enrol(db, asked.code, programme, site, public, at)
    if state is not sites.CodeState.GOOD:
        return _said(*CODES[state])
    with hub.store.transaction(programme) as db:
        sites.told(db, site, "", 0)  # what the box before had, this one lacks: a stick has to bring it too
        epoch = sites.epoch(db, site)
    own = hub.keys.public
    return _json(Enrolled(site=site, programme=programme, signing=own.signing, sealing=own.sealing, epoch=epoch))


CODES = {
    sites.CodeState.UNKNOWN: (404, "There is no such code. Ask for a new one: outpost hub enrol SITE."),
    sites.CodeState.USED: (409, "This code was used already. Ask for a new one: outpost hub enrol SITE."),
    sites.CodeState.ELSEWHERE: (
        409,
        "This box is another site's. Enrol it there, or remove device.key from its state and use this code again.",
    ),
    sites.CodeState.EXPIRED: (410, "This code has ended. Ask for a new one: outpost hub enrol SITE."),
    sites.CodeState.TRIED: (429, "This code was tried too often. Ask for a new one: outpost hub enrol SITE."),
}


@pages.post("/parcels")
@openapi.operation(
    "box",
    {200: openapi.binary("A parcel of one ToBox, sealed to the box.", ToBox)}
    | dict.fromkeys((401, 403, 413, 422), openapi.TEXT),
    takes=openapi.binary("A parcel of ToHub, sealed to the hub; what a box sends again changes nothing.", ToHub),
)
def parcels() -> flask.typing.ResponseReturnValue:
    """Take a parcel and answer with one: what the hub has, and what it has to say."""
    hub, body = here.hub(), _body(PARCEL_BYTES)
    device = _device(parcel.request("POST", request.path, None, body))
    opened = Opened(io.BytesIO(body), hub.keys, lambda fingerprint: _known(device, fingerprint))
    messages = list(opened)
    if opened.fault is not None and not messages:
        return _said(422, SENTENCES[opened.fault])
    if any(isinstance(one, Piece | ToBox) for one in messages):
        return _said(422, SENTENCES[Fault.UNREADABLE])
    said = [one for one in messages if isinstance(one, ToHub)]
    if any(one.event.site != device.site for message in said for one in message.events):
        return _said(403, "The parcel speaks for another site than its box belongs to.")
    assert opened.header is not None
    answer = take(hub, device, said, opened.header.identifier)
    sealed = parcel.seal([answer], 1, hub.keys, device.public, secrets.token_bytes(parcel.IDENTIFIER))
    return Response(b"".join(sealed), content_type="application/octet-stream")


def take(hub: Hub, device: Device, messages: Iterable[ToHub], identifier: str) -> ToBox:
    """Commit what a box says in the parcel of that identifier; gives what it is to be told."""
    at = now()
    differs: dict[str, tuple[int, ...]] = {}
    hub_epoch, upto, chain, asked = "", 0, "", set[str]()
    with hub.store.transaction(device.programme) as db:
        site = sites.get(db, device.site)
        assert site is not None, device.site
        drafts.flush(db, hub.rules, at)
        said = list(messages)
        for message in said:
            for epoch, numbers in inbox.receive(db, site, message.events, hub.rules, at).items():
                differs[epoch] = tuple(sorted({*differs.get(epoch, ()), *numbers}))
            hub_epoch, upto, chain = message.hub_epoch, message.upto, message.chain
            asked |= {*message.objects}
            asked |= {
                one.event.body.picture.sha256 for one in message.events if isinstance(one.event.body, cards.Image)
            }
        sites.heard(db, site.name, at)
        sites.told(db, site.name, hub_epoch, upto)
        bodies = (one.event.body for message in said for one in message.events)
        rollouts.advance(db, at, now=any(isinstance(body, cards.Applied | cards.Status) for body in bodies))
        current, told = answers.after(db, site.name, hub_epoch, upto, chain)
        return ToBox(
            epoch=current,
            answers_to=(identifier,),
            had=inbox.had(db, site.name),
            differs=differs,
            kept=sites.kept(db, site.name),
            objects={sha256: (films.size(db, site.name, sha256) or (0, 0))[1] for sha256 in sorted(asked)},
            answers=told,
        )


@pages.get("/bundles/<sha256>")
@openapi.operation(
    "box",
    {200: openapi.binary("The model's bytes from Outpost-Offset on; at most Outpost-Length, and perhaps fewer.")}
    | dict.fromkeys((400, 401, 403, 404, 416), openapi.TEXT),
    headers={"Outpost-Offset": True, "Outpost-Length": True},
)
def bundle(sha256: str) -> flask.typing.ResponseReturnValue:
    """Bytes of a model that was ordered; a box that was cut off asks for what follows on those that it has."""
    first, length = _number("Outpost-Offset"), _number("Outpost-Length")
    assert first is not None and length is not None
    device = _device(parcel.request("GET", request.path, first))
    with here.store().reading(device.programme) as db:
        found = rollouts.model(db, sha256)
    if found is None:
        return _said(404, "There is no such model here.")
    if first >= found.size or not length:
        return _said(416, "The model has no such bytes.")
    stop = min(first + min(length, BUNDLE_BYTES), found.size)
    data = here.blobs().read(f"{device.programme}/{sha256}", first, stop)
    return Response(data, content_type="application/octet-stream") if data else _said(404, "The model is gone.")


@pages.get("/objects/<sha256>")
@openapi.operation(
    "box",
    {204: openapi.NOTHING} | dict.fromkeys((401, 403, 404), openapi.TEXT),
    gives={"Upload-Offset": openapi.COUNT, "Upload-Length": openapi.COUNT},
)
def offset(sha256: str) -> flask.typing.ResponseReturnValue:
    """How many bytes of an object are here durably."""
    device = _device(parcel.request(request.method, request.path))
    with here.store().reading(device.programme) as db:
        found = films.size(db, device.site, sha256)
    if found is None:
        return _said(404, "No event of this site has announced that object.")
    return Response(status=204, headers={"Upload-Offset": str(found[1]), "Upload-Length": str(found[0])})


@pages.route("/objects/<sha256>", methods=["PATCH"])
@openapi.operation(
    "box",
    {204: openapi.NOTHING} | dict.fromkeys((400, 401, 403, 404, 408, 409, 460), openapi.TEXT),
    takes=openapi.binary("The object's bytes from Upload-Offset on."),
    headers={"Upload-Offset": True, "Upload-Length": False},
    gives={"Upload-Offset": openapi.COUNT, "Outpost-Kept": {"type": "string", "pattern": "^[0-9]+ [0-9]+$"}},
)
def append(sha256: str) -> flask.typing.ResponseReturnValue:
    """Take bytes of an object as they come; a cut keeps what came."""
    hub, at, size = here.hub(), _number("Upload-Offset"), _number("Upload-Length", needed=False)
    assert at is not None
    device = _device(parcel.request("PATCH", request.path, at))
    with hub.store.reading(device.programme) as db:
        before = sites.kept(db, device.site)
    try:
        took, have = objects.append(hub, device, sha256, at, size, request.environ["wsgi.input"].read)
    except (
        OSError,
        ValueError,
    ):  # the link was cut, within a chunk or not, or silent for too long; hardly anybody hears this
        return _said(408, "The link was silent for too long; what came is kept.")
    status, sentence = {
        Took.KEPT: (204, ""),
        Took.UNKNOWN: (404, "No event of this site has announced that object."),
        Took.ELSEWHERE: (409, "The hub has another number of bytes, see Upload-Offset."),
        Took.WRONG: (460, "The bytes are not what their name says; the object begins anew."),
    }[took]
    answer = _said(status, sentence)
    with hub.store.reading(device.programme) as db:
        answer.headers["Outpost-Kept"] = f"{before} {sites.kept(db, device.site)}"
    answer.headers["Upload-Offset"] = str(have)
    return answer


def _known(device: Device, fingerprint: str) -> Public | Fault:
    return device.public if fingerprint == device.fingerprint else Fault.UNKNOWN_SENDER


def _device(text: bytes) -> Device:
    """The box that asks, once its signature over this text holds."""
    with here.store().reading() as db:
        device = sites.device(db, request.headers.get("Outpost-Device", ""))
    if device is None:
        abort(_said(401, SENTENCES[Fault.UNKNOWN_SENDER]))
    if not device.public.signed(_signature(), text):
        abort(_said(401, "The request is not signed with this box's key."))
    if device.revoked_at is not None:
        abort(_said(403, SENTENCES[Fault.REVOKED]))
    return device


def _signature() -> bytes:
    try:
        return base64.b64decode(request.headers.get("Outpost-Signature", ""), validate=True)
    except binascii.Error:
        return b""


def _body(most: int) -> bytes:
    request.max_content_length = most
    return request.get_data(cache=False)


def _number(header: str, needed: bool = True) -> int | None:
    text = request.headers.get(header, "")
    if not text and not needed:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 17):
        abort(_said(400, f"{header} has to be a number of bytes."))
    return int(text)


def _json(value: cards.Card) -> Response:
    return Response(cards.canonical(value), content_type="application/json")


def _said(status: int, sentence: str) -> Response:
    return Response(sentence and sentence + "\n", status, content_type="text/plain; charset=utf-8")
