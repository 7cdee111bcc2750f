"""The site file: signed, checked, carried out once and again, and refused when anything about it is not right."""

from __future__ import annotations

import re
import subprocess
import tomllib
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from edge import config as settings
from edge import enrol
from edge import site as sites
from edge.cli import main
from edge.errors import Misconfigured, Tampered, Unreadable
from firmware.provision import link, radio
from tests.conftest import peer

TEXT = """
site = "kalene"

[clinic]
name = "Hôpital de Kalene"
timezone = "Africa/Lusaka"
language = "fr"

[network]
address = "192.168.7.20/24"
gateway = "192.168.7.1"
dns = ["192.168.7.1"]
time = ["192.168.7.1"]

[dicom]
ae_title = "KALENE"
only_known = true

[[dicom.modalities]]
ae_title = "XRAY 1"
host = "192.168.7.30"
port = 104

[[dicom.pacs]]
name = "archive"
ae_title = "PACS"
host = "192.168.7.40"

[hub]
url = "https://hub.example:8443"
code = "7KQ2M-RW4TX.abcdefghijklmnop2345"

[policy]
triage_only = true
"""
WIFI = """
[network.wifi]
ssid = "Clinic"
passphrase = "correct horse \\"battery\\""
country = "ZM"
"""
PASSPHRASE = 'correct horse "battery"'
ON_AIR = TEXT.replace("\n[dicom]", f"{WIFI}\n[dicom]", 1)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["provision", *map(str, arguments)])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "kalene.toml"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "programme.pem"
    file.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


@pytest.fixture
def site(tmp_path: Path, text: Path, key: Path) -> Path:
    file = tmp_path / "kalene.site"
    result = run("sign", text, "--key", key, "--out", file)
    assert result.exit_code == 0, result.output
    return file


def test_what_is_told_is_what_the_box_is_set_to(site: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    result = run("apply", site, "--to", box)
    assert result.exit_code == 0, result.output
    assert "KALENE on port 11112" in result.output
    config = settings.load(box / "outpost.toml")
    assert (config.site.name, config.site.timezone, config.site.language) == (
        "Hôpital de Kalene",
        "Africa/Lusaka",
        "fr",
    )
    assert (config.intake.ae_title, config.intake.calling_ae_titles) == ("KALENE", ("XRAY 1",))
    assert config.policy.triage_only
    assert config.policy.impression_first  # not named: the default
    (sink,) = config.sinks
    assert isinstance(sink, settings.DicomSink)
    assert (sink.name, sink.host, sink.ae_title, sink.calling_ae_title) == ("archive", "192.168.7.40", "PACS", "KALENE")
    assert Path(config.state) == box / "state"
    assert config.hub.url == "https://hub.example:8443"
    assert "7KQ2M" not in result.output + (box / "outpost.toml").read_text()  # the code is for the hub alone
    assert enrol.parts((box / "enrol").read_text()) == ("7KQ2M-RW4TX", "abcdefghijklmnop2345")
    assert not [file for file in box.iterdir() if file.stat().st_mode & 0o007]


def test_the_cable_is_set_as_systemd_networkd_reads_it(site: Path) -> None:
    told, _ = sites.read(site.read_bytes(), None)
    assert link(told).splitlines() == [
        "[Match]", "Type=ether", "", "[Network]", "MulticastDNS=yes", "LLMNR=no", "DHCP=no",
        "Address=192.168.7.20/24", "Gateway=192.168.7.1", "DNS=192.168.7.1", "NTP=192.168.7.1",
    ]  # fmt: skip
    assert "DHCP=yes" in link(sites.Site(site="a"))


def test_the_radio_is_set_as_iwd_reads_it_with_the_address_of_the_site(text: Path, key: Path, tmp_path: Path) -> None:
    box, site = tmp_path / "box", tmp_path / "kalene.site"
    text.write_text(ON_AIR, encoding="utf-8")
    signed = run("sign", text, "--key", key, "--out", site)
    assert "192.168.7.20/24, by Wi-Fi: Clinic (ZM)" in signed.output
    applied, shown = run("apply", site, "--to", box), run("show", site)
    assert (
        "Type=wlan" in (box / "site.network").read_text()
        and "Address=192.168.7.20/24" in (box / "site.network").read_text()
    )
    assert (box / "wifi/main.conf").read_text() == "[General]\nCountry=ZM\n"
    assert (box / "wifi/Clinic.psk").read_text() == '[Security]\nPassphrase=correct\\shorse\\s"battery"\n'
    assert {file.stat().st_mode & 0o7777 for file in (box / "wifi").iterdir()} == {0o600}
    assert (box / "wifi").stat().st_mode & 0o7777 == 0o700
    elsewhere = b"".join(file.read_bytes() for file in box.iterdir() if file.is_file())
    assert b"horse" not in elsewhere + (signed.output + applied.output + shown.output).encode()


def test_a_passphrase_that_root_has_taken_comes_again_with_the_card_and_alone(
    text: Path, key: Path, tmp_path: Path
) -> None:
    box, site = tmp_path / "box", tmp_path / "kalene.site"
    text.write_text(ON_AIR, encoding="utf-8")
    run("sign", text, "--key", key, "--out", site)
    run("apply", site, "--to", box)
    (box / "wifi").rename(tmp_path / "iwd")
    (box / "enrol").unlink()  # the hub has taken the code
    text.write_text(ON_AIR.replace("horse", "donkey").replace('"Clinic"', '"Clinic 2"'), encoding="utf-8")
    run("sign", text, "--key", key, "--out", site)
    assert "known already" not in run("apply", site, "--to", box).output
    text.write_text(ON_AIR.replace("horse", "mule").replace('"Clinic"', '"Clinic 2"'), encoding="utf-8")
    run("sign", text, "--key", key, "--out", site)
    (box / "enrol").unlink()
    assert "known already" in run("apply", site, "--to", box).output
    assert [file.name for file in sorted((box / "wifi").iterdir())] == ["Clinic 2.psk", "main.conf"]
    assert "mule" in (box / "wifi/Clinic 2.psk").read_text()
    assert not (box / "enrol").exists()
    text.write_text(TEXT, encoding="utf-8")
    run("sign", text, "--key", key, "--out", site)
    run("apply", site, "--to", box)
    assert "Type=ether" in (box / "site.network").read_text() and not (box / "wifi").exists()


SIGNS = st.characters(min_codepoint=32, max_codepoint=126)


@given(ssid=st.text(min_size=1, max_size=40), passphrase=st.text(SIGNS, min_size=8, max_size=63))
def test_what_iwd_reads_is_what_was_written(ssid: str, passphrase: str) -> None:
    """As iwd.network(5) has it: what may stand in a name, which characters are escaped, and where a value begins."""
    try:
        wifi = sites.Wifi(ssid, passphrase, "ZM")
    except ValueError:
        assert len(ssid.encode()) > 32 or any(unicodedata.category(one) == "Cc" for one in ssid)
        return
    (name,) = radio(wifi).keys() - {"main.conf"}
    stem = name.removesuffix(".psk")
    assert (bytes.fromhex(stem[1:]).decode() if stem.startswith("=") else stem) == ssid
    assert "/" not in name and name.isascii() and len(name) <= 255
    group, line = radio(wifi)[name].splitlines()
    assert (group, line[:11]) == ("[Security]", "Passphrase=")
    value = line[11:]
    assert value == value.strip()
    escaped = {r"\s": " ", r"\\": "\\"}
    assert re.sub(r"\\.", lambda found: escaped[found[0]], value) == passphrase


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"Clinic"', '""', "1 to 32 bytes, this has 0"),
        ('"Clinic"', f'"{"é" * 17}"', "1 to 32 bytes, this has 34"),
        ('"Clinic"', r'"Clinic\u0007"', "control character"),
        ('"Clinic"', r'"Clinic\n[Settings]"', "control character"),
        (PASSPHRASE.replace('"', r"\""), "seven77", "8 to 63 characters, this has 7"),
        (PASSPHRASE.replace('"', r"\""), "x" * 64, "8 to 63 characters, this has 64"),
        ("correct", "corréct", "of ASCII only"),
        ("correct", r"corr\tect", "of ASCII only"),
        ('"ZM"', '"zm"', "'zm' is no country"),
        ('"ZM"', '"ZMB"', "'ZMB' is no country"),
        ('"ZM"', r'"ZM\n"', "is no country"),
        ('country = "ZM"', "", "country"),
        ("ssid", "SSID", "SSID"),
    ],
)
def test_what_no_access_point_can_have_is_named_and_the_passphrase_is_not(
    text: Path, key: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in ON_AIR
    text.write_text(ON_AIR.replace(old, new, 1), encoding="utf-8")
    result = run("sign", text, "--key", key, "--out", tmp_path / "site")
    assert result.exit_code == Misconfigured.exit_status
    assert told in result.output
    assert not {"horse", "seven77", "xxxx"} & set(re.findall(r"\w+", result.output))
    assert not (tmp_path / "site").exists()


def test_carried_out_again_changes_nothing(site: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    run("apply", site, "--to", box)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in box.iterdir()}
    result = run("apply", site, "--to", box)
    assert "known already" in result.output
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in box.iterdir()} == before


@pytest.mark.parametrize("lost", ["outpost.toml", "site", "site.signer", "site.network", "enrol"])
def test_a_power_cut_on_the_way_is_made_good(site: Path, tmp_path: Path, lost: str) -> None:
    box, whole = tmp_path / "box", tmp_path / "whole"
    run("apply", site, "--to", box)
    run("apply", site, "--to", whole)
    order = ["site.signer", "site.network", "enrol", "outpost.toml", "site"]
    for name in order[order.index(lost) :]:
        (box / name).unlink()
    assert run("apply", site, "--to", box).exit_code == 0
    assert {file.name for file in box.iterdir()} == {file.name for file in whole.iterdir()}


def test_a_new_file_of_the_same_signer_is_carried_out(site: Path, text: Path, key: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    run("apply", site, "--to", box)
    text.write_text(TEXT.replace('"KALENE"', '"KALENE2"'), encoding="utf-8")
    run("sign", text, "--key", key, "--out", site)
    assert run("apply", site, "--to", box).exit_code == 0
    assert settings.load(box / "outpost.toml").intake.ae_title == "KALENE2"


def test_a_file_of_somebody_else_is_not(site: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    run("apply", site, "--to", box)
    site.write_bytes(sites.sign(TEXT, OTHER))
    result = run("apply", site, "--to", box)
    assert result.exit_code == Tampered.exit_status
    assert "reset the box first" in result.output
    assert settings.load(box / "outpost.toml").intake.ae_title == "KALENE"


def test_a_card_without_a_site_file_leaves_the_box_as_it_is(tmp_path: Path) -> None:
    empty = tmp_path / "site"
    empty.write_bytes(b"# outpost site".ljust(16384, b"\n"))
    result = run("apply", empty, "--to", tmp_path / "box")
    assert result.exit_code == 0
    assert "no site file" in result.output
    config = settings.load(tmp_path / "box/outpost.toml")
    assert (config.intake.host, config.web.port) == ("0.0.0.0", 443)  # it can be reached, and is told later
    assert [file.name for file in (tmp_path / "box").iterdir()] == ["outpost.toml"]
    (tmp_path / "box/outpost.toml").write_text("# kept")
    run("apply", empty, "--to", tmp_path / "box")
    assert (tmp_path / "box/outpost.toml").read_text() == "# kept"


def test_who_signed_can_be_asked_for(site: Path) -> None:
    signer = KEY.public_key().public_bytes_raw().hex()
    result = run("show", site, "--signer", signer)
    assert result.exit_code == 0
    assert signer[:8] in result.output
    assert "7KQ2M" not in result.output
    assert run("show", site, "--signer", "00" * 32).exit_code == Tampered.exit_status
    assert run("show", site, "--signer", "who").exit_code == Unreadable.exit_status


def test_a_qr_code_carries_the_same_bytes(text: Path, key: Path, site: Path, tmp_path: Path) -> None:
    picture = tmp_path / "kalene.png"
    assert run("sign", text, "--key", key, "--out", site, "--qr", picture).exit_code == 0
    command = [peer("zbarimg", "zbar-tools"), "--quiet", "--raw", "--oneshot", "-Sbinary", picture]
    assert subprocess.run(command, capture_output=True, check=True).stdout == site.read_bytes()


def test_what_is_too_long_for_a_qr_code_says_so(text: Path, key: Path, tmp_path: Path) -> None:
    many = "".join(f'[[dicom.modalities]]\nae_title = "XRAY{number}"\n' for number in range(80))
    text.write_text(f'site = "kalene"\n{many}')
    result = run("sign", text, "--key", key, "--out", tmp_path / "site", "--qr", tmp_path / "site.png")
    assert result.exit_code == 78
    assert "do not fit into one QR code" in result.output
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('site = "kalene"', "", "site"),
        ('site = "kalene"', 'site = "Kalene!"', "$.site"),
        ("only_known", "only_kown", "only_kown"),
        ("192.168.7.20/24", "192.168.7.20", "/24, for example"),
        ("192.168.7.20/24", "192.168.7.300/24", "$.network"),
        ('gateway = "192.168.7.1"', 'gateway = "10.0.0.1"', "not in the network"),
        ('address = "192.168.7.20/24"', "", "a gateway needs an address"),
        ('"XRAY 1"', '"XRAY\\\\1"', "ae_title"),
        ('"XRAY 1"', '" XRAY"', "ae_title"),
        ('"XRAY 1"', '"AN AE TITLE TOO LONG"', "ae_title"),
        ("Africa/Lusaka", "Africa/Nowhere", "Nowhere"),
        ('language = "fr"', 'language = "xx"', "language"),
        ("https://", "http://", "$.hub.url"),
        (".abcdefghijklmnop2345", ".abc", "$.hub.code"),
        ("port = 104", "port = 70000", "port"),
        ("[hub]", "[hub", "line"),
    ],
)
def test_what_breaks_the_schema_is_named(text: Path, key: Path, tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in TEXT
    text.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    result = run("sign", text, "--key", key, "--out", tmp_path / "site")
    assert result.exit_code == Misconfigured.exit_status
    assert told in result.output
    assert not (tmp_path / "site").exists()


def test_a_key_that_is_none_is_refused(text: Path, tmp_path: Path) -> None:
    result = run("sign", text, "--key", text, "--out", tmp_path / "site")
    assert result.exit_code == 78
    assert "no Ed25519 key" in result.output


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found(at: int, bit: int) -> None:
    content = bytearray(sites.sign(TEXT, KEY))
    content[at % (len(content) - 1)] ^= 1 << bit
    with pytest.raises((Tampered, Unreadable)):
        sites.read(bytes(content), KEY.public_key().public_bytes_raw())


@given(st.binary(max_size=400))
def test_no_bytes_are_taken_for_a_site_file(content: bytes) -> None:
    for one in (content, sites.FIRST.encode() + b"\n" + content):
        with pytest.raises(Unreadable):
            sites.read(one, None)


def test_half_a_file_is_refused() -> None:
    content = sites.sign(TEXT, KEY)
    for end in range(0, len(content) - 2, 37):
        with pytest.raises(Unreadable):
            sites.read(content[:end], None)


def test_a_site_file_is_toml_that_anybody_can_read() -> None:
    assert tomllib.loads(sites.sign(TEXT, KEY).decode())["dicom"]["ae_title"] == "KALENE"
