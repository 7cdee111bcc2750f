"""The hub's command line and settings, on SQLite and files."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.cli import main
from edge.errors import Misconfigured, Tampered
from web.hub import config as settings
from web.hub import keys
from web.hub.config import Config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hub.toml"
    path.write_text(f'state = "{tmp_path / "hub"}"\n')
    return path


def outpost(file: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--config", str(file), "hub", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_site_is_enrolled_by_a_code_with_the_pin_of_the_hubs_own_certificate(file: Path, tmp_path: Path) -> None:
    outpost(file, "programme", "lakes")
    said = outpost(file, "enrol", "north", "--title", "North clinic", "--language", "sw")
    assert re.fullmatch(rf"[0-9A-Z]{{5}}-[0-9A-Z]{{5}}\.{keys.pin(tmp_path / 'hub/tls.pem')}\n", said)
    assert "North clinic" in outpost(file, "sites") and "never" in outpost(file, "sites")


def test_a_programme_has_to_be_named_where_there_are_several(file: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(file), "hub", "enrol", "north"])
    assert result.exit_code == 2 and "outpost hub programme" in result.output
    outpost(file, "programme", "lakes")
    outpost(file, "programme", "hills")
    result = CliRunner().invoke(main, ["--config", str(file), "hub", "enrol", "north"])
    assert result.exit_code == 2 and "hills, lakes" in result.output


def test_an_unknown_setting_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text("[web]\nprot = 1\n")
    with pytest.raises(Misconfigured, match=r"prot.*\$\.web"):
        settings.load(path)
    assert settings.load(None) == Config()


def test_the_hubs_keys_are_made_once_and_belong_to_nobody_else(tmp_path: Path) -> None:
    first, pin = keys.keys(tmp_path), keys.pin(keys.certificate(tmp_path, ["a.example"]))
    assert keys.keys(tmp_path).public == first.public
    assert keys.pin(keys.certificate(tmp_path, ["a.example", "b.example"])) == pin
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (keys.FILE, keys.TLS)} == {0o600}
    (tmp_path / keys.FILE).write_bytes(b"")
    with pytest.raises(Tampered, match="Put it back"):
        keys.keys(tmp_path)
