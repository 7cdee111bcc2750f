"""The model that is released beside the system: fetched, and put into use by the way of every other model, or refused in words.

It is proven on this box, is in shadow mode until the clinic accepts it, and the one before is kept. Only a newer version of the
model in use is taken: which model a clinic has, nobody but its people and its hub decide.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge import fleet, passport
from edge.config import Config
from edge.errors import Tampered, Transient
from edge.records import Carried, Update
from edge.state import updates
from edge.state.store import open_store
from models.bundle import Bundle

if TYPE_CHECKING:
    from firmware.releases import Progress, Releases

CAME = {
    Carried.DONE: Update.GOOD,
    Carried.NOT_A_BUNDLE: Update.FORGED,
    Carried.UNSIGNED: Update.UNSIGNED,
    Carried.OLDER: Update.OLDER,
    Carried.SELF_TEST: Update.SELF_TEST,
}
IN_USE = ""
"""In the place of the system on which a model was refused."""


def take(
    config: Config, found: Releases, system: str, bar: Callable[[str, int], AbstractContextManager[Progress]]
) -> tuple[Update | None, str]:
    """What comes of the model that is released, and its version; None where that is nothing new for this box.

    `system` is the version of the system that runs: what was refused on one is tried once more on the next, and what somebody went
    back from is not taken again. Raises `Transient` where it has not come whole: the same again goes on.
    """
    state = Path(config.state)
    with closing(open_store(state)) as store:
        try:
            used = passport.at_work(config, store)[0].manifest
        except (Tampered, OSError):  # which model is this box's? The page says that the AI is stopped, and what to do
            return None, ""
        offer = found.model(used.id)
        record = updates.read(state)
        if offer is None:
            return None, ""
        name = f"{used.id} {offer.version}"
        if offer.version == used.version:  # also where it came another way, or the power went before it was noted
            _note(state, record, None if record.model is None else Update.GOOD, offer.version, name, IN_USE)
            return None, offer.version
        if config.worker.bundle or record.models.get(name) in (IN_USE, system):
            return None, offer.version
        if fleet.numbers(offer.version) < fleet.numbers(used.version):
            return _note(state, record, Update.OLDER, offer.version)
        _note(state, record, Update.BEGUN, offer.version)
        folder = state / updates.FOLDER / "model"
        try:
            with bar("Fetching", offer.size) as progress:
                path = found.fetch(offer, progress)
            if isinstance(path, Update):
                return _note(state, record, path, offer.version)

            def is_offered(bundle: Bundle) -> Carried | None:
                mine = (bundle.manifest.id, bundle.manifest.version) == (used.id, offer.version)
                return None if mine else Carried.NOT_A_BUNDLE

            result = fleet.put(config, store, path, folder, is_offered)
            if result is Carried.NO_ROOM:
                raise Transient("the box's disk has no room for the model. Nothing was changed.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        path.unlink()
        return _note(state, record, CAME[result], offer.version, name, IN_USE if result is Carried.DONE else system)


def _note(
    state: Path, record: updates.Record, came: Update | None, version: str, name: str = "", where: str = ""
) -> tuple[Update | None, str]:
    models = {**record.models, name: where} if name else record.models
    noted = msgspec.structs.replace(record, model=came, model_version=version, models=models)
    if noted != record:
        updates.write(state, noted)
    return came, version
