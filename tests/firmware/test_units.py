"""The units of the box as systemd judges them, and the firewall as nftables does: nothing is started here."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge import config as settings
from edge import words
from edge.config import Config
from edge.state import notices
from edge.state.store import open_store
from firmware import data, provision
from firmware.image import HERE
from firmware.image import ROOT as TOP
from tests.conftest import peer

ROOT = HERE / "root"
UNITS = ROOT / "usr/lib/systemd/system"
PARTS = sorted(path.name for path in UNITS.glob("outpost-*.service"))
MOST = 2.5


def test_every_process_of_the_design_has_a_unit() -> None:
    assert [
        f"outpost-{name}.service"
        for name in ("courier", "enrol", "good", "intake", "restore", "site", "stick", "update", "web", "worker")
    ] == PARTS


@pytest.mark.parametrize("unit", [*PARTS, "iwd.service"])
def test_a_part_is_locked_in(unit: str, tmp_path: Path) -> None:
    program = peer("systemd-analyze", "systemd")
    command = [program, "security", "--offline=true", f"--root={ROOT}", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for (\S+): ([0-9.]+)", done.stdout + done.stderr)
    assert found is not None, done.stdout + done.stderr
    assert (found[1], float(found[2]) <= MOST) == (unit, True), done.stdout


def test_the_worker_has_no_network() -> None:
    program = peer("systemd-analyze", "systemd")
    command = [
        program, "security", "--offline=true", f"--root={ROOT}", "--no-pager", "--json=short", "outpost-worker.service",
    ]  # fmt: skip
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    missing = {row["json_field"] for row in told if row["set"] is False}
    assert not missing & {
        "PrivateNetwork",
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_PACKET",
    }
    assert {row["json_field"] for row in told if row["set"]} >= {"PrivateNetwork", "PrivateDevices", "NoNewPrivileges"}


def test_the_firewall_is_closed_but_for_what_is_declared() -> None:
    file = ROOT / "etc/nftables.conf"
    checked = subprocess.run(
        [peer("nft", "nftables"), "--check", "--file", file], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in checked.stderr or "not supported" in checked.stderr:
        pytest.skip(f"this kernel has no nftables: {checked.stderr.splitlines()[0]}")
    assert checked.returncode == 0, checked.stderr
    text = file.read_text(encoding="utf-8")
    assert text.count("policy drop;") == 2
    assert re.findall(r"tcp dport (.*) accept", text) == ["{ 80, 443, 11112 }"]


def test_what_changes_is_on_the_encrypted_partition_and_nowhere_else() -> None:
    mounts = dict(line.split()[1::-1] for line in (ROOT / "etc/fstab").read_text().splitlines() if line[0] != "#")
    assert mounts["/var"] == f"/dev/mapper/{data.NAME}"
    assert {what for where, what in mounts.items() if where != "/var"} == {
        "PARTLABEL=outpost-site", "PARTLABEL=outpost-esp", "LABEL=OUTPOST-USB", "tmpfs",
    }  # fmt: skip
    unit = (UNITS / "data.service").read_text(encoding="utf-8")
    assert "x-systemd.requires=data.service" in (ROOT / "etc/fstab").read_text()
    assert "\nBefore=systemd-fsck@dev-mapper-" + data.NAME.replace("-", r"\x2d") in unit
    assert f"-m {data.__name__}" in unit and data.DEVICE.name.replace("-", r"\x2d") in unit


def test_what_the_card_says_of_the_wifi_only_root_reads() -> None:
    (card,) = [line.split() for line in (ROOT / "etc/fstab").read_text().splitlines() if "/run/outpost-site " in line]
    assert "umask=077" in card[3].split(",") and "id=" not in card[3]
    site, radio = ((UNITS / name).read_text(encoding="utf-8") for name in ("outpost-site.service", "iwd.service"))
    assert "\nLoadCredential=site.txt:/run/outpost-site/site.txt\n" in site
    assert "chown -hR 0:0 /var/lib/iwd" in site and "mv wifi /var/lib/iwd" in site
    assert provision.RADIO == "wifi" and provision.LINK == "site.network"
    assert "After=network-pre.target outpost-site.service" in radio
    assert "\nConditionPathExistsGlob=/var/lib/iwd/*.psk\n" in radio and "\nUser=" not in radio


def test_nobody_can_sign_in() -> None:
    recipe = (HERE / "debian/customize").read_text(encoding="utf-8")
    for unit in ("getty@", "serial-getty@", "autovt@", "console-getty", "emergency", "rescue"):
        assert f"{unit}.service" in recipe
    assert "root:!*:" in recipe
    assert not re.search(r"openssh|sshd|dropbear|telnet|chpasswd", recipe)


@pytest.mark.parametrize("board", sorted(path.stem for path in (HERE / "boards").glob("*.toml")))
def test_a_board_is_ten_lines(board: str) -> None:
    lines = (HERE / "boards" / f"{board}.toml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 10


def worker(config: Config, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """`outpost worker` as its unit starts it."""
    settings.save(config, folder / "outpost.toml")
    command = [sys.executable, "-m", "edge", "--config", str(folder / "outpost.toml"), "worker"]
    return subprocess.Popen(command, cwd=TOP, env=os.environ | variables, stderr=subprocess.DEVNULL)


def test_the_worker_tells_systemd_that_it_is_ready_and_alive(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(120)
        process = worker(Config(state=str(tmp_path / "state")), tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            assert [told.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        finally:
            process.kill()
            process.wait()


def test_a_worker_that_stands_alone_says_on_the_screen_that_the_ai_is_stopped(tmp_path: Path) -> None:
    config = Config(state=str(tmp_path / "state"), worker=settings.Worker(bundle=str(tmp_path / "no bundle")))
    assert worker(config, tmp_path).wait(120) in (76, 78)
    with closing(open_store(Path(config.state))) as store:
        assert notices.current(store) == [words.AI_STOPPED]
