"""The box's certificates: who believes them, for what they are good, and what clocks do to them."""

from __future__ import annotations

import stat
import subprocess
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from edge import check, health
from edge.config import Config, Web
from edge.errors import Misconfigured
from edge.health import Level
from edge.state import trust
from edge.state.store import BUILT, now
from tests.conftest import peer

NAMES = ("outpost.local", "xray.clinic.example")
HERE = ip_address("192.168.4.1")
TODAY = BUILT + timedelta(days=200)
YEAR = timedelta(days=365)


def verifies(held: trust.Trust, at: datetime, name: str = "outpost.local") -> bool:
    """What a tablet whose clock shows `at` says of it."""
    subject = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    verifier = PolicyBuilder().store(Store([held.authority])).time(at).build_server_verifier(subject)
    try:
        verifier.verify(held.certificate, [])
    except VerificationError:
        return False
    return True


def test_a_tablet_that_knows_the_authority_is_sure_of_the_box(state: Path) -> None:
    held = trust.ensure(state, NAMES, HERE, TODAY)
    for name in (*NAMES, "localhost", "192.168.4.1"):
        assert verifies(held, TODAY, name)
    assert not verifies(held, TODAY, "bank.example") and not verifies(held, TODAY, "192.168.4.2")
    assert held.certificate.not_valid_after_utc - held.certificate.not_valid_before_utc <= timedelta(days=397)
    assert held.authority.not_valid_after_utc - TODAY == trust.AUTHORITY
    assert held.authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert isinstance(held.authority.public_key(), ec.EllipticCurvePublicKey)


@pytest.mark.peer
def test_openssl_agrees(state: Path) -> None:
    openssl = peer("openssl", "openssl")
    held = trust.ensure(state, NAMES, HERE, now())
    verify = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", state / "trust/ca.crt"]
    for option, value in (("-verify_hostname", NAMES[1]), ("-verify_ip", str(HERE))):
        subprocess.run([*verify, option, value, held.file], check=True, capture_output=True)
        refused = subprocess.run(
            [*verify, option, value.replace("1", "2").replace("x", "y"), held.file], capture_output=True
        )
        assert refused.returncode != 0


def test_a_stolen_authority_opens_nothing_elsewhere(state: Path) -> None:
    """Signed with the box's own key for a name or an address outside, a certificate is refused."""
    held = trust.ensure(state, NAMES, HERE, TODAY)
    authority, key = trust._load(state / "trust/ca.pem") or pytest.fail("no authority")
    for names, addresses in ((["bank.example"], []), (["local"], []), ([], [ip_address("8.8.8.8")])):
        forged = trust._issue(authority, key, names, addresses, TODAY - YEAR / 2, TODAY + YEAR / 2)
        certificate = x509.load_pem_x509_certificate(forged)
        assert not verifies(trust.Trust(held.authority, certificate, held.file), TODAY, (names or ["8.8.8.8"])[0])


def test_keys_are_for_the_box_alone(state: Path) -> None:
    trust.ensure(state, NAMES, None, TODAY)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (state / "trust").iterdir()}
    assert modes == {"ca.pem": 0o600, "box.pem": 0o600, "ca.crt": 0o644}
    assert stat.S_IMODE((state / "trust").stat().st_mode) == 0o700
    assert b"PRIVATE" not in (state / "trust/ca.crt").read_bytes()


def test_nothing_is_made_anew_without_a_reason(state: Path) -> None:
    first = trust.ensure(state, NAMES, HERE, TODAY)
    assert trust.ensure(state, NAMES, HERE, TODAY + timedelta(days=100)) == first
    assert trust.ensure(state, NAMES, None, TODAY) == first
    assert trust.ensure(state, NAMES, ip_address("8.8.8.8"), TODAY) == first  # nothing it may speak for


def test_it_is_renewed_long_before_its_end_by_the_same_authority(state: Path) -> None:
    first = trust.ensure(state, NAMES, HERE, TODAY)
    later = first.certificate.not_valid_after_utc - trust.RENEWED
    second = trust.ensure(state, NAMES, None, later)
    assert second.authority == first.authority and second.addresses == [HERE]
    assert second.certificate.not_valid_after_utc > later + timedelta(days=360)
    assert verifies(second, later)
    assert not first.due(later - timedelta(seconds=1)) and first.due(later)


def test_a_new_address_is_learnt_and_the_oldest_forgotten(state: Path) -> None:
    for last in range(20):
        held = trust.ensure(state, NAMES, ip_address(f"10.0.0.{last}"), TODAY)
    assert held.addresses == [ip_address(f"10.0.0.{last}") for last in range(4, 20)]


@pytest.mark.parametrize("given", ["::ffff:192.168.4.1", "192.168.4.1"])
def test_an_address_is_the_same_however_it_is_written(given: str) -> None:
    assert trust.address_of(given) == HERE
    assert trust.address_of("[fe80::1%eth0]") == ip_address("fe80::1")
    assert trust.address_of("outpost.local") is None


def test_a_box_that_begins_in_1970_is_believed_and_heals(state: Path) -> None:
    born = datetime.fromisoformat("1970-01-01T00:00:07+00:00")
    first = trust.ensure(state, NAMES, HERE, born)
    assert verifies(first, TODAY)  # the tablet's clock is right
    assert trust.ensure(state, NAMES, HERE, born + timedelta(days=1)) == first
    right = BUILT + 3 * YEAR
    assert not verifies(first, right)
    healed = trust.ensure(state, NAMES, HERE, right)
    assert verifies(healed, right) and healed.authority == first.authority


def test_a_clock_that_falls_back_to_1970_spoils_nothing(state: Path) -> None:
    year = BUILT + 2 * YEAR
    first = trust.ensure(state, NAMES, HERE, year)
    fallen = datetime.fromisoformat("1970-01-01T00:00:07+00:00")
    assert trust.ensure(state, NAMES, HERE, fallen) == first
    moved = trust.ensure(state, NAMES, ip_address("192.168.4.9"), fallen)  # a new address, while nobody knows the time
    assert verifies(moved, year, "192.168.4.9")


def test_a_clock_that_was_ahead_heals(state: Path) -> None:
    first = trust.ensure(state, NAMES, HERE, BUILT + 50 * YEAR)
    assert not verifies(first, TODAY)
    assert first.due(TODAY)
    assert verifies(trust.ensure(state, NAMES, HERE, TODAY), TODAY)


def test_near_the_authoritys_end_the_certificate_is_not_made_again_and_again(state: Path) -> None:
    first = trust.ensure(state, NAMES, HERE, TODAY)
    late = first.authority.not_valid_after_utc - timedelta(days=20)
    second = trust.ensure(state, NAMES, HERE, late)
    assert second.certificate.not_valid_after_utc == first.authority.not_valid_after_utc
    assert trust.ensure(state, NAMES, HERE, late + timedelta(days=1)) == second
    beyond = first.authority.not_valid_after_utc + timedelta(days=1)
    assert trust.ensure(state, NAMES, HERE, beyond) == second


def test_a_name_that_came_later_is_left_out_and_check_says_so(tmp_path: Path) -> None:
    held = trust.ensure(tmp_path, ("outpost.local",), None, now())
    later = trust.ensure(tmp_path, NAMES, None, now())
    assert later == held and "xray.clinic.example" not in later.names
    with pytest.raises(Misconfigured, match=r"xray\.clinic\.example.*joins again"):
        check.certificate(Config(state=str(tmp_path), web=Web(names=NAMES)))
    assert held.fingerprint in check.certificate(Config(state=str(tmp_path)))


def test_a_damaged_certificate_is_replaced_and_a_damaged_authority_is_kept_aside(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = trust.ensure(state, NAMES, HERE, TODAY)
    first.file.write_bytes(b"")
    second = trust.ensure(state, NAMES, HERE, TODAY)
    assert second.authority == first.authority and verifies(second, TODAY)
    (state / "trust/ca.pem").write_bytes(b"half a f")
    third = trust.ensure(state, NAMES, HERE, TODAY)
    assert third.authority != first.authority and verifies(third, TODAY)
    assert (state / "trust/ca.damaged").read_bytes() == b"half a f" and "join again" in caplog.text
    given = x509.load_pem_x509_certificate((state / "trust/ca.crt").read_bytes())
    assert given.fingerprint(hashes.SHA256()) == third.authority.fingerprint(hashes.SHA256())


def test_the_box_says_how_its_certificate_is(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.certificate(state, TODAY).state == "none"
    held = trust.ensure(state, NAMES, HERE, TODAY)
    good = health.certificate(state, TODAY)
    assert (good.state, good.values["until"]) == ("good", held.certificate.not_valid_after_utc)
    assert health.certificate(state, BUILT - YEAR).level is Level.ACT
    assert health.certificate(state, held.authority.not_valid_after_utc - YEAR).state == "ending"
    for at, said in ((BUILT - YEAR, "Set the clock"), (held.authority.not_valid_after_utc - YEAR, "joins again")):
        monkeypatch.setattr(check, "now", lambda at=at: at)
        with pytest.raises(Misconfigured, match=said):
            check.certificate(Config(state=str(state), web=Web(names=NAMES)))
