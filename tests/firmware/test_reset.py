"""A box forgets its clinic: keys first, confirmed by its name, to the end even where the power goes on the way."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge import config as settings
from edge.cli import main
from edge.config import Config
from edge.records import Outcome
from edge.state import device, pseudonyms, trust
from edge.state.store import DATABASE, now, open_store
from firmware import reset
from firmware.provision import SETTINGS, SIGNER
from tests import clinic

NAME = "Banda^Ruth"


@pytest.fixture
def box(tmp_path: Path) -> Config:
    """A box with a film, as an image lays it out."""
    config = Config(state=str(tmp_path / "outpost/state"), site=settings.Site(name="Kalene"))
    state = Path(config.state)
    with closing(open_store(state)) as store:
        clinic.film(config, store, Outcome.SOON, NAME)
        pseudonyms.key(state), device.keys(state), trust.ensure(state, ("outpost.local",), None, now())
    settings.save(config, state.parent / SETTINGS)
    (state.parent / SIGNER).write_bytes(b"\7" * 32)
    return config


def typed(config: Config, name: str) -> Result:
    file = Path(config.state).parents[1] / "settings.toml"
    settings.save(config, file)
    return CliRunner().invoke(main, ["--config", str(file), "reset"], f"{name}\n")


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_nothing_of_a_patient_is_left_and_the_next_start_is_a_new_boxs(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Path(box.state)
    assert NAME.encode() in everything(state.parent)
    held = [path.open("rb") for path in state.rglob("*") if path.is_file() and path.name != f"{DATABASE}-shm"]
    order: list[str] = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, *more: (order.append(path.name), unlink(path, *more))[1])
    result = typed(box, "kalene ")
    assert result.exit_code == 0, result.output
    assert (
        "1 films" in result.output and "No back-up was ever made" in result.output and "break the card" in result.output
    )
    assert list(state.parent.iterdir()) == []
    assert order.index("device.key") < order.index("pseudonym.key") < order.index(DATABASE)
    assert not any(any(file.read()) for file in held), "what was in the files was written over, not only unlinked"
    for file in held:
        file.close()
    with closing(open_store(state)) as store:
        assert store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0] == 0


def test_another_name_and_a_box_at_work_erase_nothing(box: Config) -> None:
    before = everything(Path(box.state) / "objects")
    assert "not this site's name" in typed(box, "Mwandi").output
    with closing(open_store(Path(box.state))) as store:
        store.execute("SELECT * FROM arrival")
        assert "the box is running" in typed(box, "Kalene").output
    assert everything(Path(box.state) / "objects") == before
    assert (Path(box.state) / device.FILE).exists()


def test_a_power_cut_on_the_way_is_made_good_by_the_next_start(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    state, left = Path(box.state), [3]

    def cut(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as power:
        power.setattr(os, "fsync", cut)
        with pytest.raises(KeyboardInterrupt):
            reset.erase(state)
    assert not state.exists(), "whatever starts now is a new box"
    card = state.parents[1] / "site.txt"
    card.write_text("\n")
    started = CliRunner().invoke(main, ["provision", "apply", str(card), "--to", str(state.parent)])
    assert started.exit_code == 0, started.output
    assert NAME.encode() not in everything(state.parent)
    assert [path.name for path in state.parent.iterdir()] == [SETTINGS]


def test_a_box_whose_database_is_damaged_can_still_be_erased(box: Config) -> None:
    (Path(box.state) / DATABASE).write_bytes(b"rubbish" * 1000)
    result = typed(box, "Kalene")
    assert result.exit_code == 0 and "cannot be read" in result.output
    assert everything(Path(box.state).parent) == b""
