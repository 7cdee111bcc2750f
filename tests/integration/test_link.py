"""A box and a hub over TLS: films go in at the clinic and their cards and pictures arrive without names, a read comes back."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset

from edge import config as settings
from edge import fleet, outside, samples, stick
from edge.box import Service
from edge.cards import PREFIX, Read, Result, What
from edge.cli import main
from edge.config import Config, Hub, Intake, Policy
from edge.errors import Misconfigured, Transient
from edge.intake import Intake as Door
from edge.link import Link, Lost
from edge.records import Carried, Fault, Outcome, ReadKind, Sha256, Trouble
from edge.stages.parcel import Keys
from edge.state import device, ordered, reads, results, sync
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from edge.wire import Wire
from edge.worker import Worker
from models import bundle as bundles
from models import phantom
from tests import bundles as signed
from tests import hub as hubs
from tests import returned, seeds
from tests.box import PATIENCE, until
from web.hub import answers, app, films, keys, ledger, rollouts, serve, sites, tasks
from web.hub import config as hub_config
from web.hub import stick as hub_stick
from web.hub.here import NAME, open_hub
from web.hub.records import Finding, Reader


class Peer:
    """A hub that listens."""

    def __init__(self, folder: Path) -> None:
        self.config = hubs.settings(folder, web=hub_config.Web(port=0))
        self.service = Service(serve.run, self.config)
        self.service.start()
        self.url = f"https://127.0.0.1:{self.service.port}"
        self.hub = open_hub(self.config)
        self.app = app.create(self.config)
        with self.hub.store.transaction() as db:
            sites.add_programme(db, hubs.PROGRAMME, "Lakes")
        with self.hub.store.transaction(hubs.PROGRAMME) as db:
            sites.add(db, hubs.SITE)
        self.archive = hubs.Archive(self.app)

    def code(self) -> str:
        with self.hub.store.transaction() as db:
            code = sites.invite(db, hubs.PROGRAMME, hubs.SITE.name, now().timestamp())
        return f"{code}.{keys.pin(serve.certificate(self.config))}"

    def close(self) -> None:
        self.app.extensions[NAME].store.close()
        self.hub.store.close()
        self.service.stop()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with closing(Peer(tmp_path_factory.mktemp("hub"))) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Peer]:
    """A hub of this test alone: an archive that asks for whole films changes what boxes are told."""
    with closing(Peer(tmp_path / "hub")) as made:
        yield made


def box(folder: Path, url: str) -> Config:
    folder.mkdir(exist_ok=True)
    return Config(state=str(folder), hub=Hub(url=url, seconds=30), intake=Intake(disk_floor_mib=0))


def enrol(config: Config, code: str) -> Any:
    file = Path(config.state) / "outpost.toml"
    settings.save(config, file)
    return CliRunner().invoke(main, ["--config", str(file), "enrol", code])


@contextmanager
def linked(config: Config) -> Iterator[tuple[Any, Link]]:
    with closing(open_store(Path(config.state))) as store:

        def pin() -> str:
            known = device.hub(store)
            return known.pin if known else ""

        with closing(Wire(config.hub, pin)) as wire:
            yield store, Link(config, store, wire)


def talk(store: Any, link: Link) -> None:
    """Until there is nothing more to say."""
    for _ in range(200):
        if link.step().total_seconds() > 0:
            return
        stood = sync.standing(store)
        assert stood.trouble is None, (stood.trouble, stood.detail)
    raise AssertionError("it does not come to an end")


def test_a_day_at_the_clinic_arrives_at_the_hub_without_a_name(tmp_path: Path, fresh: Peer) -> None:
    config = box(tmp_path / "box", fresh.url)
    told = enrol(config, fresh.code())
    assert told.exit_code == 0, told.output
    assert "north of lakes" in told.output
    draw, people = __import__("random").Random(5), []
    with closing(open_store(tmp_path / "box")) as store:
        door = Door(config)
        for number in range(4):
            who = seeds.person(draw, "Latin")
            picture, _ = seeds.written(phantom.chest(number + 1, (700, 640)), who.family, 16, 150, 190, ink=0.0)
            ds = seeds.film(who, picture if number == 3 else phantom.chest(number + 1, (700, 640)), draw)
            people.append(who)
            path = tmp_path / f"{number}.dcm"
            ds.save_as(path, enforce_file_format=True)
            door.accept_copy(path, "test")
        worker = Worker(config, store)
        while worker.step():
            pass
        at = now()
        with transaction(store):
            said, _ = reads.add(
                store, 1, 1, ReadKind.REFER, "Amina", at - reads.UNDO, "k" * 20, outcome=None, reason=""
            )
            outside.tell_read(store, config, said)
            outside.tell_status(store, config, at)
        bodies = [row["body"] for row in store.execute("SELECT body FROM sync_event ORDER BY id")]
    kinds = [re.search('"kind":"(\\w+)"', body)[1] for body in bodies]  # type: ignore[index]
    assert kinds.count("result") == 4
    assert kinds.count("image") == 3
    assert kinds.count("stays_home") == 1, "its name is written over the chest"
    for who in [*people, seeds.Person("Amina", "Amina", "Amina", "Amina", "Amina", people[0].born, people[0].taken)]:
        assert seeds.hunt("\n".join(bodies).encode(), who) == set()
    with linked(config) as (store, link):
        talk(store, link)
        assert sync.unsent(store) == {}
        assert sync.waiting(store) == 0
        names = {row["arrival_id"]: row["name"] for row in store.execute("SELECT * FROM sync_case")}
        codestreams = sync.objects(store)
    with fresh.hub.store.reading(hubs.PROGRAMME) as db:
        known = {case.result.case: case.result for case in films.cases(db, range(1, 50)).values()}
    assert known.keys() == set(names.values())
    assert any(one.findings for one in known.values()) and all(one.model for one in known.values())
    assert all(bool(one.saliency) == bool(one.findings) for one in known.values())
    for sha256 in codestreams:
        with fresh.hub.store.reading(hubs.PROGRAMME) as db:
            size, have = films.size(db, hubs.SITE.name, sha256) or (0, 0)
        assert have == min(size, PREFIX)
    (study, *_) = fresh.archive.get("/dicom-web/studies").json
    film = Dataset.from_json(fresh.archive.get(f"/dicom-web/studies/{study['0020000D']['Value'][0]}/metadata").json[0])
    for make in returned.TAKEN:  # what comes from next door may name them again
        assert fresh.archive.stow(returned.file(make(film, people[0]))).status_code == 202
    everything = b"".join(
        file.read_bytes() for file in Path(fresh.config.state).rglob("*") if file.is_file() and file.suffix != ".pem"
    )
    for who in people:
        assert seeds.hunt(everything, who) == set(), "the hub's whole store"
    given = b"".join(answer.data for answer in fresh.archive.everything())
    assert given.count(b"From an archive next door") > 6, "what came is in it"
    for who in people:
        assert seeds.hunt(given, who) == set(), "whatever an archive may ask"
    read = Read(
        case=names[1],
        read="ab" * 32,
        reader="Dr Grace",
        outcome=Outcome.IMMEDIATE,
        codes=("pneumothorax",),
        advice=("act_now",),
        final=True,
        at="2026-11-25T10:00:00Z",
    )
    with fresh.hub.store.transaction(hubs.PROGRAMME) as db:
        answers.give(db, hubs.SITE.name, read, now().timestamp())
    with linked(config) as (store, link):
        store.execute("UPDATE sync SET next_at = NULL")
        talk(store, link)
        (back,) = sync.returned(store, 1)
        assert back.read == read
        with transaction(store):
            assert outside.tell_seen(store, config, back, "Amina", now())
        with transaction(store):
            assert not outside.tell_seen(store, config, back, "Amina", now())
        talk(store, link)
        assert sync.waiting(store) == 0


def test_a_picture_goes_once_and_its_last_byte_makes_it_whole_and_goes_again_where_it_was_dropped(
    tmp_path: Path, fresh: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imagecodecs import htj2k_decode

    config = box(tmp_path / "box", fresh.url)
    assert enrol(config, fresh.code()).exit_code == 0
    config = msgspec.structs.replace(config, hub=msgspec.structs.replace(config.hub, whole_films=True))
    with closing(open_store(tmp_path / "box")) as store:
        ds = samples.film(phantom.chest(2, (700, 640)), "Ndiaye^Awa", "058Y", "F")
        ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
        Door(config).accept_copy(tmp_path / "film.dcm", "test")
        worker = Worker(config, store)
        while worker.step():
            pass
        rendition = results.film(store, 1).rendition
        assert rendition is not None
        shown = Objects(tmp_path / "box").path(rendition)
        (sha256,) = sync.objects(store)
    with linked(config) as (store, link):
        talk(store, link)
    found = Path(fresh.config.state)
    (whole,) = [
        file for file in found.rglob("*") if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    ]
    from PIL import Image as Picture

    with Picture.open(shown) as kept:
        assert np.array_equal(htj2k_decode(whole.read_bytes()), np.asarray(kept))
        plain = np.asarray(kept).astype("<u2").tobytes()
    assert any(plain in answer.data for answer in fresh.archive.everything()), "an archive has it to the last gray"
    assert whole.read_bytes()[:4] == b"\xff\x4f\xff\x51"  # SOC, SIZ (T.800 A.4)
    cod = whole.read_bytes().index(b"\xff\x52")
    assert whole.read_bytes()[cod + 5] == 2, "RPCL (T.800 Table A.16)"
    with fresh.hub.store.transaction(
        hubs.PROGRAMME
    ) as db:  # it is read, its clinic learns of it, and all that is long ago
        at, reader = now().timestamp(), Reader(programme=hubs.PROGRAMME, name="Dr Ba")
        task = tasks.claim(db, reader, 60, at)
        assert task is not None
        seen = Finding(outcome=Outcome.ROUTINE, codes=("normal",))
        assert tasks.finish(db, reader, "Dr Ba", task.id, seen, "k" * 16, fresh.hub.rules, at)
    file = tmp_path / "hub.toml"
    file.write_text(f'state = "{fresh.config.state}"\n')

    def drop(*more: str) -> str:
        monkeypatch.setattr(serve, "now", lambda: now().timestamp() + 2 * 86400)
        told = CliRunner().invoke(main, ["--config", str(file), "hub", "drop", "--days", "1", *more])
        assert told.exit_code == 0, told.output
        return told.stdout

    assert drop().startswith("0 pictures"), "the clinic does not know of the read yet"
    with linked(config) as (store, link):
        for _ in range(2):
            store.execute("UPDATE sync SET next_at = NULL")
            talk(store, link)
        assert drop().startswith("1 pictures") and whole.exists(), "nothing goes unless somebody says so"
        assert drop("--yes").startswith("1 pictures are their first 32 KiB now")
        assert not whole.exists() and whole.with_suffix(".part").stat().st_size == PREFIX
        with fresh.hub.store.reading(hubs.PROGRAMME) as db:
            assert [one.act for one in ledger.acts(db, 9)] == ["drop"]
        store.execute("UPDATE sync SET next_at = NULL")
        store.execute("UPDATE sync_object SET offset = NULL")  # as after a restore: the box asks what the hub has
        talk(store, link)
        assert whole.with_suffix(".part").stat().st_size == PREFIX, "and sends nothing by itself"
        list(fresh.archive.everything())  # somebody asks for it
        for _ in range(2):
            store.execute("UPDATE sync SET next_at = NULL")
            talk(store, link)
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == sha256


def test_a_hub_with_another_key_is_not_spoken_to(tmp_path: Path, peer: Peer) -> None:
    config = box(tmp_path / "box", peer.url)
    code = peer.code()
    told = enrol(config, code.partition(".")[0] + "." + "a" * 20)
    assert told.exit_code == Transient.exit_status
    assert "same hub" in told.output
    told = enrol(config, "ABCD-EFGH-JKLM-NPQR" + code[code.index(".") :])
    assert told.exit_code == Misconfigured.exit_status
    assert "outpost hub enrol" in told.output
    assert enrol(config, "???").exit_code == 2
    assert enrol(config, code).exit_code == 0, "a wrong guess spoils no code"
    told = enrol(config, code)
    assert told.exit_code == Misconfigured.exit_status
    assert "used already" in told.output
    with closing(Wire(config.hub, lambda: "b" * 20)) as wire, pytest.raises(Lost) as caught:
        wire.post("/sync/parcels", {}, b"")
    assert caught.value.trouble is Trouble.TLS


def test_a_connection_that_is_cut_costs_a_line_and_no_traceback(
    tmp_path: Path, peer: Peer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = box(tmp_path / "box", peer.url)
    assert enrol(config, peer.code()).exit_code == 0
    signer = Link.__new__(Link)
    signer.keys = Keys(*device.keys(tmp_path / "box"))
    asked = (
        b"PATCH /sync/objects/%s HTTP/1.1\r\nHost: hub\r\nUpload-Offset: 0\r\nContent-Length: 9\r\n" % (b"0" * 64),
        b"POST /sync/parcels HTTP/1.1\r\nHost: hub\r\nContent-Length: 900\r\n",
        b"GET /sync/",
        b"",
    )
    for begun in asked:
        with socket.create_connection(("127.0.0.1", peer.service.port), PATIENCE) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            secure = context.wrap_socket(plain)
            if begun.endswith(b"\r\n"):
                method, path = begun.decode().split(" ")[:2]
                signed = signer._signed(method, path, 0 if method == "PATCH" else None)
                begun += "".join(f"{key}: {value}\r\n" for key, value in signed.items()).encode()
                secure.sendall(begun + b"Expect: 100-continue\r\n\r\n")
                # the hub reads the body from here on: a cut before that is one of the handshake, of which nothing is said
                assert b"100 Continue" in secure.recv(100)
            else:
                secure.sendall(begun)
            secure.close()
    with linked(config) as (store, link):
        talk(store, link)
    until(lambda: "a connection was cut" in caplog.text, "it is said")
    told = caplog.text + capfd.readouterr().err
    assert "Traceback" not in told, told
    assert told.count("a connection was cut") <= len(asked), told


def test_a_box_that_was_revoked_says_so_and_keeps_everything(tmp_path: Path, peer: Peer) -> None:
    config = box(tmp_path / "box", peer.url)
    assert enrol(config, peer.code()).exit_code == 0
    with peer.hub.store.transaction() as db:
        sites.revoke(db, hubs.PROGRAMME, hubs.SITE.name, now().timestamp())
    with linked(config) as (store, link):
        link.step()
        stood = sync.standing(store)
        assert stood.trouble is Trouble.KEPT_OUT
        assert "revoked" in stood.detail
    assert enrol(config, peer.code()).exit_code == 0
    with linked(config) as (store, link):
        talk(store, link)


def test_without_a_hub_nothing_is_told_and_once_there_is_one_it_learns_of_what_waits(
    tmp_path: Path, peer: Peer
) -> None:
    state = tmp_path / "box"
    alone = Config(state=str(state), intake=Intake(disk_floor_mib=0), policy=Policy(triage_only=True))
    state.mkdir()

    def work(config: Config) -> None:
        with closing(open_store(state)) as store:
            worker = Worker(config, store)
            while worker.step():
                pass

    def said(store: Any) -> list[tuple[int, str]]:
        rows = store.execute("SELECT arrival_id, body ->> '$.kind' AS kind FROM sync_event ORDER BY id")
        return [(row["arrival_id"], row["kind"]) for row in rows]

    for number in range(3):
        ds = samples.film(phantom.chest(number + 1, (700, 640)), f"Ndiaye^Awa{number}", "058Y", "F")
        ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
        Door(alone).accept_copy(tmp_path / "film.dcm", "test")
    work(alone)
    waits, decided, old = 1, 2, 3
    assert not (state / device.FILE).exists()
    with closing(open_store(state)) as store, transaction(store):
        assert said(store) == [] and sync.objects(store) == set()
        reads.add(store, decided, 1, ReadKind.OVERRIDE, "Amina", now(), "k" * 20, outcome=Outcome.ROUTINE, reason="x")
        for row, days in ((old, 8), (waits, 6)):
            then = (now() - timedelta(days=days)).isoformat()
            store.execute("UPDATE arrival SET received_at = ? WHERE id = ?", (then, row))
            store.execute("UPDATE result SET decided_at = ? WHERE arrival_id = ?", (then, row))
    config = msgspec.structs.replace(box(state, peer.url), policy=alone.policy)
    told = enrol(config, peer.code())
    assert told.exit_code == 0 and "go there too: 1." in told.output
    work(config)
    with linked(config) as (store, link):
        assert said(store) == [(waits, "result"), (waits, "image")]
        card = sync.events(store, now(), 2**20)[0].body
        assert isinstance(card, Result) and card.findings and card.model and card.device_uid and card.operating_point
        assert card.saliency is None, "the site shows no map"
        (sha256,) = sync.objects(store)
        link.step()
        Objects(state).path(Sha256(sha256)).unlink()  # it is damaged before it could leave
        for _ in range(5):
            link.step()
    work(config)
    with linked(config) as (store, link):
        talk(store, link)
    with peer.hub.store.reading(hubs.PROGRAMME) as db:
        size, have = films.size(db, hubs.SITE.name, sha256) or (0, 0)
        rows = db.rows("SELECT since FROM film WHERE programme = :programme ORDER BY id DESC LIMIT 1")
    assert have == min(size, PREFIX)
    assert 5.9 < (now().timestamp() - rows[0]["since"]) / 86400 < 6.1, "it has waited since then"
    assert "go there too" not in enrol(config, peer.code()).output, "nothing is told twice"
    with closing(open_store(state)) as store, transaction(store):
        asked, _ = reads.add(store, old, 1, ReadKind.REFER, "Amina", now(), "l" * 20)
        outside.tell_read(store, config, asked)
    work(config)
    with linked(config) as (store, link):
        assert said(store)[2:] == [(old, "result"), (old, "read"), (old, "image")]
        talk(store, link)
        assert sync.unsent(store).keys() <= {old}


def test_orders_and_their_models_come_by_stick_half_a_stick_counts_and_twice_changes_nothing(
    tmp_path: Path, peer: Peer
) -> None:
    config = box(tmp_path / "box", peer.url)
    assert enrol(config, peer.code()).exit_code == 0
    folder = signed.replaced(signed.copied(tmp_path / "bundle"), "model.onnx", b"never run")
    data, site = bundles.packed(folder), hubs.SITE.name
    name = f"{hubs.PROGRAMME}/{hashlib.sha256(data).hexdigest()}"
    peer.hub.blobs.write(name, 0, data)
    assert peer.hub.blobs.finish(name, len(data))
    with peer.hub.store.transaction(hubs.PROGRAMME) as db:
        model = rollouts.add_model(db, data, rollouts.signed(folder), now().timestamp())
        plan = {"sha256": model.sha256, "good_seconds": 0.0, "silent_seconds": 1e6}
        assert rollouts.start(db, "one", What.MODEL, [site], site, "Lena", now().timestamp(), **plan)
    down, up = tmp_path / "down.outpost", tmp_path / "up.outpost"
    hub_stick.give(peer.hub, hubs.PROGRAMME, site, down)
    half = tmp_path / "half.outpost"
    half.write_bytes(down.read_bytes()[: down.stat().st_size * 2 // 3])
    with closing(open_store(tmp_path / "box")) as store:
        assert stick.take(config, half, now()).fault == Fault.CUT
        wanted = ordered.wanted(store)
        assert wanted is not None and 0 < wanted.have < len(data)
        for _ in range(2):
            assert stick.take(config, down, now()).fault is None
        assert ordered.wanted(store) is None and fleet.step(config, store)
        held = ordered.latest(store)
        assert held is not None and held.result is Carried.UNSIGNED, "nobody this box believes has signed it"
        stick.take(config, down, now())
        assert not fleet.step(config, store)
    stick.export(config, up, now())
    with peer.hub.store.reading(hubs.PROGRAMME) as db:
        before = rollouts.get(db, "one")
    assert before is not None and before.state == "going"
    for _ in range(2):
        hub_stick.take(peer.hub, up)
        with peer.hub.store.reading(hubs.PROGRAMME) as db:
            halted, acts = rollouts.get(db, "one"), ledger.acts(db, 9)
        assert halted is not None and (halted.state, halted.why) == ("halted", Carried.UNSIGNED)
        assert [one.act for one in acts] == ["halted", "start"]
    with peer.hub.store.reading(hubs.PROGRAMME) as db:
        assert rollouts.wanted(db, site) is None, "the next stick need not carry it"
