"""What boxes ask of a hub over HTTP, from enrolment to the last byte of a picture, and what is refused, each in one sentence."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flask import Flask

from edge import cards
from edge.cli import main
from edge.errors import Misconfigured
from edge.stages.parcel import Keys, Public
from tests.box import until
from tests.hub import DATA, EPOCH, PROGRAMME, SHA, SITE, Courier, Served, code, image, over, replaced, result, settings
from web.hub import answers, sites, sqlite
from web.hub import app as application
from web.hub.here import NAME, Hub
from web.hub.store import Store, now, open_store


def within(app: Flask) -> Any:
    """Ask without a network."""
    client = app.test_client()

    def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        answer = client.open(path, method=method, headers=headers, data=body)
        return answer.status_code, answer.headers, answer.data

    return ask


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    made = application.create(settings(tmp_path / "hub"))
    yield made
    made.extensions[NAME].store.close()


@pytest.fixture
def hub(app: Flask) -> Hub:
    held = app.extensions[NAME]
    assert isinstance(held, Hub)
    return held


@pytest.fixture
def box(app: Flask, hub: Hub) -> Courier:
    made = Courier(within(app))
    assert made.enrol(code(hub.store))[0] == 200
    return made


def test_a_box_is_enrolled_once_by_a_code(app: Flask, hub: Hub) -> None:
    made, other = code(hub.store), Courier(within(app))
    assert other.enrol("QQQQQ-QQQQQ")[0] == 404
    for _ in range(sites.TRIES - 1):
        assert other.enrol(made[:6] + "QQQQQ")[0] == 404
    box = Courier(within(app))
    status, said = box.enrol(made.lower())
    enrolled = msgspec.json.decode(said, type=cards.Enrolled)
    assert (status, enrolled.site, enrolled.programme) == (200, SITE.name, PROGRAMME)
    assert Public(enrolled.signing, enrolled.sealing) == hub.keys.public
    assert other.enrol(made)[0] == 409
    assert other.enrol(code(hub.store, now() - sites.CODE_SECONDS - 1))[0] == 410
    tried = code(hub.store)
    for _ in range(sites.TRIES):
        other.enrol(tried[:6] + "QQQQQ")
    assert other.enrol(tried)[0] == 429
    with hub.store.transaction(PROGRAMME) as db:
        sites.add(db, msgspec.structs.replace(SITE, name="lake"))
    with hub.store.transaction() as db:
        elsewhere = sites.invite(db, PROGRAMME, "lake", now())
    status, said = box.enrol(elsewhere)
    assert status == 409 and b"another site" in said
    assert box.tell(result(1)).had[EPOCH].upto == 1


def test_an_enrolment_is_signed_with_the_key_that_it_brings(app: Flask, hub: Hub) -> None:
    box, thief = Courier(within(app)), Courier(within(app))
    box.headers = thief.headers  # type: ignore[method-assign]
    assert box.enrol(code(hub.store))[0] == 401
    assert within(app)("POST", "/sync/enrol", {}, b"{}")[0] == 400
    assert within(app)("POST", "/sync/enrol", {}, b"x" * 5000)[0] == 413


def test_a_parcel_is_committed_and_answered_with_what_the_hub_has(box: Courier, hub: Hub) -> None:
    said = box.tell(result(1), image(1, DATA, SHA), objects=("f" * 64,))
    assert said.had == {EPOCH: cards.Had(upto=2)} and said.objects == {SHA: 0, "f" * 64: 0}
    assert said.answers_to == (f"{1:032x}",) and said.answers == () and said.differs == {}
    assert box.tell(result(2), first=4).had == {EPOCH: cards.Had(upto=2, beyond=((4, 4),))}
    assert box.tell(result(9), first=2).differs == {EPOCH: (2,)}


def test_a_parcel_that_arrives_twice_changes_nothing(box: Courier) -> None:
    body = box.sealed(
        cards.ToHub(
            events=(cards.Waited(event=cards.Event(site=SITE.name, epoch=EPOCH, seq=1, body=result(1)), seconds=None),)
        )
    )
    first, again = (box.opened(box.post(body)[1]) for _ in range(2))
    assert first == again and first.had == {EPOCH: cards.Had(upto=1)}


def test_a_stranger_a_thief_and_a_revoked_box_are_refused_in_words(app: Flask, box: Courier, hub: Hub) -> None:
    stranger = Courier(within(app))
    stranger.hub = box.hub
    status, said = stranger.post(stranger.sealed(cards.ToHub()))
    assert status == 401 and b"outpost hub enrol" in said
    thief = Courier(within(app))
    thief.hub = box.hub
    body = box.sealed(cards.ToHub())
    headers = thief.headers("POST", "/sync/parcels", None, body)
    headers["Outpost-Device"] = box.keys.public.fingerprint
    assert box.ask("POST", "/sync/parcels", headers, body)[0] == 401
    assert box.ask("POST", "/sync/parcels", headers | {"Outpost-Signature": "?"}, body)[0] == 401
    other = thief.sealed(cards.ToHub())  # another's parcel in this box's envelope
    assert box.post(other)[0] == 422
    for signed in (box.headers("POST", "/sync/enrol", None, body), box.headers("POST", "/sync/parcels", None, b"x")):
        assert box.ask("POST", "/sync/parcels", signed, body)[0] == 401
    with hub.store.transaction() as db:
        sites.revoke(db, PROGRAMME, SITE.name, now())
    status, said = box.post(body)
    assert status == 403 and b"revoked" in said
    assert box.have()[0] == 403 and box.patch(b"", 0)[0] == 403


def test_a_parcel_that_is_damaged_cut_or_for_another_is_refused_in_words(box: Courier) -> None:
    body = box.sealed(cards.ToHub())
    elsewhere = Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate()).public
    for wrong, word in (
        (body[:-1], b"too early"),
        (body[:-1] + bytes([body[-1] ^ 1]), b"damaged"),
        (b"PK\3\4" + body, b"no parcel"),
        (box.sealed(cards.ToHub(), to=elsewhere), b"another hub"),
    ):
        status, said = box.post(wrong)
        assert status == 422 and word in said, said
    assert box.post(b"x" * (9 << 20))[0] == 413


def test_nobody_speaks_for_another_site(box: Courier, hub: Hub) -> None:
    event = cards.Event(site="elsewhere", epoch=EPOCH, seq=1, body=result(1))
    status, said = box.post(box.sealed(cards.ToHub(events=(cards.Waited(event=event, seconds=0),))))
    assert status == 403 and b"another site" in said
    assert box.tell().had == {}


def test_an_object_is_sent_in_parts_and_only_after_it_was_announced(box: Courier, hub: Hub) -> None:
    assert box.have() == (404, -1) and box.patch(DATA, 0)[0] == 404
    box.tell(result(1), image(1, DATA, SHA))
    assert box.have() == (204, 0)
    assert box.patch(DATA[:5000], 0, len(DATA)) == (204, 5000)
    assert box.patch(DATA, 0) == (409, 5000) and box.patch(DATA, 6000) == (409, 5000)
    assert box.patch(DATA[5000:], 5000, len(DATA) - 1) == (409, 5000)
    path = f"/sync/objects/{SHA}"
    forged = box.headers("PATCH", path, 5000) | {"Upload-Offset": "6000"}
    assert box.ask("PATCH", path, forged, b"x")[0] == 401
    for nonsense in ("", "-1", "1e3", "٣", "9" * 40):
        headers = box.headers("PATCH", path, 5000) | {"Upload-Offset": nonsense}
        assert box.ask("PATCH", path, headers, b"x")[0] == 400
    assert box.patch(b"\0" * (len(DATA) - 5000), 5000) == (460, 0)
    assert box.have() == (204, 0)
    assert box.patch(DATA + b"behind the end", 0) == (204, len(DATA))
    assert box.have() == (204, len(DATA)) and hub.blobs.read(f"{PROGRAMME}/{SHA}", 0, 10**6) == DATA
    assert box.tell(objects=(SHA,)).objects == {SHA: len(DATA)}


def test_a_full_disk_is_said_and_nothing_that_was_acknowledged_is_lost(
    box: Courier, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.tell(result(1), image(1, DATA, SHA))
    assert box.patch(DATA[:4096], 0) == (204, 4096)
    write = os.pwrite

    def full(handle: int, data: bytes, offset: int) -> int:
        if offset >= 8192:
            raise OSError(28, "No space left on device")
        return write(handle, data[: 8192 - offset], offset)

    monkeypatch.setattr(os, "pwrite", full)
    path = f"/sync/objects/{SHA}"
    headers = box.headers("PATCH", path, 4096) | {"Upload-Offset": "4096"}
    status, _, said = box.ask("PATCH", path, headers, DATA[4096:])
    assert status == 507 and b"No space left" in said
    status, have = box.have()
    assert (status, have) == (204, 4096)
    assert hub.blobs.read(f"{PROGRAMME}/{SHA}", 0, have) == DATA[:have]
    monkeypatch.undo()
    assert box.patch(DATA[have:], have) == (204, len(DATA))


def test_what_a_browser_asks_is_protected(app: Flask) -> None:
    status, headers, _ = within(app)("GET", "/sync/nothing", {}, b"")
    assert status == 404
    for name, value in application.HEADERS.items():
        assert headers[name] == value
    assert within(app)("POST", "/", {"Sec-Fetch-Site": "cross-site"}, b"")[0] in (403, 405)


def test_a_stick_carries_a_day_both_ways_and_twice_changes_nothing(tmp_path: Path) -> None:
    config, file, there, back = settings(tmp_path / "hub"), tmp_path / "hub.toml", tmp_path / "there", tmp_path / "back"
    file.write_text(f'state = "{config.state}"\n')

    def outpost(*arguments: str, status: int = 0) -> str:
        ran = CliRunner().invoke(main, ["--config", str(file), "hub", *arguments], catch_exceptions=False)
        assert ran.exit_code == status, ran.output
        return ran.output

    made = application.create(config)
    box = Courier(within(made))
    with closing(made.extensions[NAME].store) as store:
        box.enrol(code(store))
        events = tuple(
            cards.Waited(event=cards.Event(site=SITE.name, epoch=EPOCH, seq=seq, body=body), seconds=60)
            for seq, body in enumerate((result(1), image(1, DATA, SHA), result(2)), 1)
        )
        pieces = [
            cards.Piece(sha256=SHA, size=len(DATA), offset=at, data=DATA[at : at + 30_000])
            for at in range(0, 90_000, 30_000)
        ]
        whole = box.sealed(cards.ToHub(events=events[:2]), cards.ToHub(events=events[2:]), *pieces)
        there.write_bytes(whole[: len(whole) // 2])
        assert "too early" in outpost("import", str(there), status=65)  # half a stick
        there.write_bytes(whole)
        assert "3 events and 3 pieces" in outpost("import", str(there))
        assert "0 bytes are new" in outpost("import", str(there))
        give(store, "a" * 64)
        assert "1 answers for north" in outpost("export", SITE.name, str(back))
        said = box.opened(back.read_bytes())
        assert said.answers_to == (f"{1:032x}",) and said.objects == {SHA: 90_000}
        assert said.had == {EPOCH: cards.Had(upto=3)} and [one.body for one in said.answers] == [wanted("a" * 64)]
        there.write_bytes(
            box.sealed(
                cards.ToHub(events=(events[1],)),
                cards.ToHub(
                    events=(
                        msgspec.structs.replace(
                            events[0], event=msgspec.structs.replace(events[0].event, body=result(9))
                        ),
                    ),
                    hub_epoch=said.epoch,
                    upto=1,
                    chain=cards.chain("", said.answers[0]),
                ),
            )
        )
        outpost("import", str(there))
        assert "0 answers" in outpost("export", SITE.name, str(back))
        said = box.opened(back.read_bytes())
        assert said.answers == () and said.differs == {EPOCH: (1,)} and len(said.answers_to) == 2
        there.write_bytes(b"PK" + whole)
        assert "no parcel" in outpost("import", str(there), status=78)
        outpost("revoke", SITE.name)
        there.write_bytes(whole)
        assert "revoked" in outpost("import", str(there), status=78)
        assert "No box is enrolled" in outpost("export", SITE.name, str(back), status=78)


def test_a_hub_of_last_weeks_backup_heals_with_its_boxes(tmp_path: Path) -> None:
    """What it lacks is sent again, and what it says has another epoch; pictures that went with the disk begin where they end."""
    file, backup = tmp_path / "hub.toml", tmp_path / "backup"
    config = settings(tmp_path / "hub")
    file.write_text(f'state = "{config.state}"\n')

    def outpost(*arguments: str) -> str:
        ran = CliRunner().invoke(main, ["--config", str(file), "hub", *arguments], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.output

    made = application.create(config)
    box = Courier(within(made))
    with closing(made.extensions[NAME].store) as store:
        box.enrol(code(store))
        box.tell(result(1), image(1, DATA, SHA))
        assert box.patch(DATA[:40_000], 0) == (204, 40_000)
        outpost("backup", str(backup))
        give(store, "a" * 64)
        box.patch(DATA[40_000:], 40_000)
        said = box.tell(result(2), result(3), first=3)
        assert said.had[EPOCH].upto == 4 and [one.seq for one in said.answers] == [1]
    chain = cards.chain("", said.answers[0])
    shutil.rmtree(Path(config.state) / "objects")
    assert "1 pictures were put right" in outpost("restore", str(backup))
    made = application.create(config)
    box.ask = within(made)
    with closing(made.extensions[NAME].store) as store:
        give(store, "b" * 64)
        again = box.tell(hub_epoch=said.epoch, upto=1, chain=chain, objects=(SHA,))
        assert again.had == {EPOCH: cards.Had(upto=2)} and again.objects == {SHA: 0}
        assert again.epoch != said.epoch and [one.body for one in again.answers] == [wanted("b" * 64)]
        assert box.tell(result(2), result(3), first=3).had[EPOCH].upto == 4
        assert box.patch(DATA, 0) == (204, len(DATA))


def wanted(sha256: str) -> cards.Want:
    return cards.Want(sha256=sha256, upto=1)


def give(store: Store, sha256: str) -> None:
    """Have the hub tell the box something."""
    with store.transaction(PROGRAMME) as db:
        answers.give(db, SITE.name, wanted(sha256), now())


def test_what_is_no_backup_is_not_put_in_place_of_the_database(tmp_path: Path) -> None:
    config, file = settings(tmp_path / "hub"), tmp_path / "nonsense"
    open_store(config).close()
    before = (tmp_path / "hub/hub.db").read_bytes()
    file.write_bytes(b"SQLite format 3\0" + b"x" * 4000)
    with pytest.raises(Misconfigured, match="no backup"):
        sqlite.restore(Path(config.state), file)
    with pytest.raises(Misconfigured, match="there already"), closing(open_store(config)) as store:
        store.backup(file)
    assert (tmp_path / "hub/hub.db").read_bytes() == before


@pytest.mark.parametrize("command", [("programme", "lakes"), ("enrol", "north"), ("check",), ("serve",)])
def test_a_folder_that_cannot_be_used_is_said_by_every_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "hub.toml").write_text(f'state = "{tmp_path / "file" / "hub"}"\n')
    ran = CliRunner().invoke(main, ["--config", str(tmp_path / "hub.toml"), "hub", *command], catch_exceptions=False)
    assert ran.exit_code == Misconfigured.exit_status and "Check the folder's owner and disk" in ran.output


def test_a_setting_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("[web]\nprot = 1\n")
    ran = CliRunner().invoke(main, ["--config", str(file), "hub", "sites"], catch_exceptions=False)
    assert ran.exit_code == Misconfigured.exit_status
    assert "`prot`" in ran.output and "$.web" in ran.output and "`outpost hub sites` tries again" in ran.output


# --- over TLS, in a process of its own


def test_one_connection_carries_a_day_and_a_cut_keeps_what_came(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        connection = served.connect()
        local = connection.sock.getsockname()
        box = Courier(over(connection))
        assert box.enrol(served.code())[0] == 200
        box.tell(result(1), image(1, DATA, SHA))
        assert box.patch(DATA, 5) == (409, 0)  # refused while its body is on the way
        assert box.have() == (204, 0) and connection.sock.getsockname() == local, "the connection was not kept"
        assert box.patch(iter([DATA]), 7) == (409, 0)  # so is one that comes in chunks
        small = b"small"
        name = hashlib.sha256(small).hexdigest()
        box.tell(image(2, small, name), first=3)
        assert box.patch(iter([small[:2]]), 0, sha256=name) == (204, 2)
        assert box.patch(iter([small[2:], b"too", b" much"]), 2, sha256=name) == (204, 5)
        assert box.have(name) == (204, 5) and connection.sock.getsockname() == local
        path = f"/sync/objects/{SHA}"
        headers = box.headers("PATCH", path, 0) | {"Upload-Offset": "0", "Content-Length": str(len(DATA))}
        connection.putrequest("PATCH", path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(DATA[:10_000])
        until(lambda: replaced(box, served).have()[1] >= 8192, "two pieces are durable while the body is on the way")
        connection.close()
        box = replaced(box, served)
        until(lambda: box.have()[1] > 8192, "the rest of what came is kept")
        have = box.have()[1]
        path, chunk = f"/sync/objects/{SHA}", DATA[have : have + 4096]
        cut = served.connect()
        cut.putrequest("PATCH", path)
        for header in (
            box.headers("PATCH", path, have) | {"Upload-Offset": str(have), "Transfer-Encoding": "chunked"}
        ).items():
            cut.putheader(*header)
        cut.endheaders(b"1000\r\n" + chunk + b"\r\n1000\r\nhalf a chunk")
        cut.close()
        until(lambda: box.have()[1] == have + 4096, "the whole chunk is kept")
        have = box.have()[1]
        assert box.patch(DATA[have:], have) == (204, len(DATA))
