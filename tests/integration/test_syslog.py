"""The ledger arrives at Debian's rsyslog by syslog over TLS: every record, in order, intact, whatever happens in between."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree as ET

import msgspec
import pytest
import trustme
from click.testing import CliRunner

from edge import config as settings
from edge import syslog
from edge.cli import main
from edge.config import Audit, Config
from edge.records import Trouble
from edge.state import audit, forwarding
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction
from tests.box import PATIENCE, Box, free_port, until
from tests.conftest import peer

pytestmark = pytest.mark.peer

NAMES = ("Amina Diallo", "أمينة ديالو", "Амина Диалло", "अमीना डियालो", "李 阿米娜", 'a "<&>\n\t\x07 b')
"""Latin, Arabic, Cyrillic, Devanagari and Han; and what neither XML nor syslog takes as it is."""


class Rsyslog:
    """An rsyslogd that takes syslog over TLS on loopback and writes down each message as it came."""

    def __init__(self, folder: Path, ca: trustme.CA) -> None:
        self.folder, self.port, self.ca = folder, free_port(), folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        own = ca.issue_cert("localhost")
        own.private_key_pem.write_to_path(str(folder / "key.pem"))
        own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        self.file = folder / "messages"
        self.conf = folder / "rsyslog.conf"
        self.conf.write_text(f"""
            global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
                defaultNetstreamDriverCAFile="{self.ca}" defaultNetstreamDriverCertFile="{folder}/cert.pem"
                defaultNetstreamDriverKeyFile="{folder}/key.pem")
            module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
            template(name="raw" type="string" string="%rawmsg%\\n")
            ruleset(name="kept") {{ action(type="omfile" file="{self.file}" template="raw") }}
            input(type="imtcp" address="127.0.0.1" port="{self.port}" ruleset="kept")
        """)
        mine = ca.issue_cert("box")
        mine.private_key_and_cert_chain_pem.write_to_path(str(folder / "box.pem"))

    @property
    def settings(self) -> Audit:
        return Audit("localhost", self.port, str(self.ca), str(self.folder / "box.pem"), seconds=PATIENCE)

    def __enter__(self) -> Rsyslog:
        program = peer("rsyslogd", "rsyslog")
        self.process = subprocess.Popen([program, "-n", "-f", self.conf, "-i", self.folder / "pid"])
        until(self.answers, "rsyslogd listens")
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, "rsyslogd ended; is rsyslog-gnutls installed?"
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def messages(self) -> list[bytes]:
        return self.file.read_bytes().splitlines() if self.file.exists() else []


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    folder = tmp_path / "rsyslog"
    folder.mkdir()
    with Rsyslog(folder, trustme.CA()) as running:
        yield running


def box(tmp_path: Path, to: Audit) -> Config:
    return Config(state=str(tmp_path / "state"), audit=to)


def write(config: Config, count: int) -> None:
    with closing(open_store(Path(config.state))) as store, transaction(store):
        for number in range(count):
            name = NAMES[number % len(NAMES)]
            audit.append(store, Event.SIGNED_IN, name, now(), said=name, count=number)


def send(config: Config) -> None:
    with closing(open_store(Path(config.state))) as store:
        while syslog.step(config, store):
            pass


def told(message: bytes) -> dict[str, str]:
    """The ledger's record in a message, from its participant object."""
    root = ET.fromstring(message[message.index(b"<AuditMessage") :].decode())
    return {
        detail.attrib["type"]: base64.b64decode(detail.attrib["value"]).decode("utf-8", "surrogatepass")
        for detail in root.iter("ParticipantObjectDetail")
    }


def whole(messages: list[bytes]) -> int:
    """How many records the messages hold; they are chained to each other without the box's help."""
    before = "0" * 64
    for number, message in enumerate(messages, 1):
        said = told(message)
        film = int(said["film"]) if "film" in said else None
        record = [before, number, said["at"], said["event"], said["actor"], film, said["detail"]]
        before = hashlib.sha256(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
        assert said["hash"] == before, number
    return len(messages)


def test_every_record_arrives_once_in_order_and_intact(tmp_path: Path, rsyslog: Rsyslog) -> None:
    config = box(tmp_path, rsyslog.settings)
    write(config, 450)
    send(config)
    until(lambda: len(rsyslog.messages()) >= 450, "everything is written down")
    assert whole(rsyslog.messages()) == 450
    message = rsyslog.messages()[1]
    assert message.startswith(b"<85>1 20")
    assert b' outpost - DICOM+RFC3881 [meta sequenceId="2"]' in message and b"] \xef\xbb\xbf<AuditMessage" in message
    assert "أمينة ديالو".encode() in message
    with closing(open_store(Path(config.state))) as store:
        assert forwarding.standing(store, syslog.repository(config.audit)).id == 450
        assert not syslog.step(config, store)


def test_a_repository_that_is_away_for_a_while_gets_everything(tmp_path: Path, rsyslog: Rsyslog) -> None:
    config = box(tmp_path, rsyslog.settings)
    write(config, 30)
    send(config)
    until(lambda: len(rsyslog.messages()) >= 30, "the first records are written down")
    rsyslog.__exit__(None, None, None)
    write(config, 30)
    with closing(open_store(Path(config.state))) as store:
        name = syslog.repository(config.audit)
        assert not syslog.step(config, store)
        stood = forwarding.standing(store, name)
        assert (stood.trouble, stood.failures) == (Trouble.UNREACHABLE, 1)
        assert stood.due_at is not None and stood.due_at > now()
        assert not syslog.step(config, store) and forwarding.standing(store, name).failures == 1, "it waits"
    rsyslog.__enter__()
    stop = threading.Event()
    running = threading.Thread(target=syslog.run, args=(config, stop))
    running.start()
    try:
        until(lambda: b'sequenceId="60"' in b"".join(rsyslog.messages()), "the rest arrives by itself")
    finally:
        stop.set()
        running.join()
    numbers = [int(told(message)["number"]) for message in rsyslog.messages()]
    assert numbers[:30] == list(range(1, 31))
    assert numbers[30:] in (list(range(31, 61)), list(range(1, 61))), "the last batch comes again where it was in doubt"
    once = {told(message)["number"]: message for message in rsyslog.messages()}
    assert whole(list(once.values())) == 60


def test_a_repository_that_is_killed_in_the_middle_gets_everything(tmp_path: Path, rsyslog: Rsyslog) -> None:
    config = box(tmp_path, rsyslog.settings)
    write(config, 1500)
    sending = threading.Thread(target=send, args=(config,))
    sending.start()
    until(lambda: len(rsyslog.messages()) >= 100, "some of it is written down")
    rsyslog.process.kill()
    rsyslog.process.wait()
    sending.join()
    # what a killed process has written of a line is no message
    rsyslog.file.write_bytes(rsyslog.file.read_bytes().rpartition(b"\n")[0] + b"\n")
    rsyslog.__enter__()
    with closing(open_store(Path(config.state))) as store:
        until(
            lambda: (
                not syslog.step(config, store)
                and forwarding.standing(store, syslog.repository(config.audit)).id == 1500
            ),
            "all is sent",
        )
    until(lambda: any(b'sequenceId="1500"' in message for message in rsyslog.messages()), "all is written down")
    once = {int(told(message)["number"]): message for message in rsyslog.messages()}
    assert whole([once[number] for number in sorted(once)]) == 1500


def test_a_running_box_sends_its_ledger_by_itself(tmp_path: Path, rsyslog: Rsyslog) -> None:
    running = Box(tmp_path)
    running.config = msgspec.structs.replace(running.config, audit=rsyslog.settings)
    settings.save(running.config, running.file)
    with running:
        until(lambda: any(told(message)["event"] == Event.STARTED for message in rsyslog.messages()), "it is told")
    assert told(rsyslog.messages()[0])["event"] == Event.CONFIGURED
    assert whole(rsyslog.messages()) >= 2


def test_a_certificate_that_nobody_vouches_for_is_told_in_words(tmp_path: Path, rsyslog: Rsyslog) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    config = box(tmp_path, msgspec.structs.replace(rsyslog.settings, ca=str(other)))
    assert syslog.probe(config).trouble is Trouble.TLS
    assert syslog.probe(box(tmp_path, rsyslog.settings)).trouble is None
    assert (
        syslog.probe(box(tmp_path, msgspec.structs.replace(rsyslog.settings, host="127.0.0.1"))).trouble is Trouble.TLS
    )
    missing = msgspec.structs.replace(rsyslog.settings, ca=str(tmp_path / "none"))
    assert syslog.probe(box(tmp_path, missing)).trouble is Trouble.NOT_CONFIGURED
    write(config, 3)
    send(config)
    with closing(open_store(Path(config.state))) as store:
        stood = forwarding.standing(store, syslog.repository(config.audit))
    assert stood.id == 0 and stood.trouble is Trouble.TLS
    file = tmp_path / "outpost.toml"
    settings.save(config, file)
    shown = CliRunner().invoke(main, ["--config", str(file), "check"]).output
    assert "✘ audit" in shown and "certificates" in shown


def test_a_box_whose_own_certificate_is_not_accepted_loses_nothing(tmp_path: Path, rsyslog: Rsyslog) -> None:
    config = box(tmp_path, msgspec.structs.replace(rsyslog.settings, certificate=""))
    write(config, 3)
    send(config)
    with closing(open_store(Path(config.state))) as store:
        stood = forwarding.standing(store, syslog.repository(config.audit))
    assert stood.id == 0 and stood.trouble in {Trouble.TLS, Trouble.CLOSED}
    assert rsyslog.messages() == []
