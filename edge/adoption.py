"""Import: the films and the network that a user names, for `models/training/adopt.py` to make a bundle of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge import evaluation
from edge.errors import Misconfigured, Unreadable
from edge.records import Refusal
from edge.stages import decode
from models.prepare import prepare

if TYPE_CHECKING:
    from models.training.adopt import About, Adopted, Read

TRAINING = ("onnx", "sklearn", "models.training")


def adopt(
    file: Path, about_file: Path, data: Path, out: Path, sha256: str, key_file: Path | None, tell: Callable[[str], None]
) -> Adopted:
    """Make a bundle from a network's file. Raises `Unreadable` with everything that is wrong with film table or network."""
    if missing := [name for name in TRAINING if find_spec(name) is None]:
        raise Misconfigured(
            f"import needs a checkout of the project and its packages for training (missing: {', '.join(missing)}): "
            "pip install -e '.[train]'"
        )
    from models.training import adopt as making

    if out.exists() and any(out.iterdir()):
        raise Misconfigured(f"{out} is not empty. Name a new folder.")
    try:
        key = None if key_file is None else load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(f"{key_file}: {error}. An Ed25519 private key (PEM) is needed.") from error
    if key is not None and not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"{key_file} is no Ed25519 private key.")
    try:
        about = msgspec.toml.decode(about_file.read_bytes(), type=making.About)
        model = _network(file, sha256)
        films = _films(data, about)
        with tempfile.TemporaryDirectory(prefix="outpost-import-") as work:
            found = making.adopt(model, about, films, out, Path(work), tell)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise Unreadable(f"no bundle was made: {error}") from error
    if key is not None:
        (out / "manifest.sig").write_bytes(key.sign((out / "manifest.toml").read_bytes()))
    return found


def _network(file: Path, sha256: str) -> object:
    """An ONNX file as it is, or a checkpoint of torchxrayvision's DenseNet-121."""
    import hashlib

    import onnx

    from models.training import checkpoint, densenet

    if file.suffix == ".onnx":
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 and found != sha256.lower():
            raise ValueError(f"{file.name}: its SHA-256 is {found}, not {sha256}")
        try:
            return onnx.load(str(file))
        except Exception as error:  # protobuf's errors are not ours to name
            raise ValueError(f"{file.name}: no ONNX file ({error})") from error
    return densenet.network(checkpoint.tensors(file, sha256))


def _films(data: Path, about: About) -> Sequence[Read]:
    """The films of a folder with their table, prepared as on the box. Raises ValueError with a list of what is wrong."""
    from models.training.adopt import Read
    from models.training.films import SIZE

    cases, _, wrong = evaluation.parse(evaluation.table_of(data), [finding.key for finding in about.findings])
    films = []
    for case in cases if not wrong else []:
        try:
            dataset, said = evaluation.dataset(data / case.file, case)
            film = decode.decode(dataset)
        except (OSError, ValueError) as error:
            wrong.append(f"line {case.line}: {case.file}: {error}")
            continue
        if isinstance(film, Refusal):
            wrong.append(f"line {case.line}: {case.file}: {film.detail}")
            continue
        age = said.age_years if case.age is None else case.age
        picture = np.rint(prepare(film.gray, SIZE)[0, 0] * 255).astype(np.uint8)
        films.append(
            Read(picture, case.labels, case.patient or said.PatientID or case.file, age, case.view or said.ViewPosition)
        )
    if wrong:
        raise ValueError("\n  ".join(["", *wrong[:50]]))
    return films
