"""Checkpoint: the tensors of a PyTorch file, without PyTorch and without running anything that is in it.

Such a file is a pickle, which may name any function to call. Here the only ones that are called are those that put tensors and
dictionaries together; every other class becomes an empty shell with its attributes, so that whole saved modules can be read, as
torchxrayvision's are. Both layouts are known: the archive of 2020 and later, and the one before.
"""

from __future__ import annotations

import hashlib
import pickle  # noqa: TID251  read by `_Tensors`, which calls nothing that the file names
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KINDS = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
LEGACY = 0x1950A86A20F9469CFC6C
"""What the older layout begins with."""


def tensors(path: Path, sha256: str = "") -> dict[str, Array]:
    """The named tensors of a checkpoint, a state dictionary or a whole module.

    Raises ValueError where the file's hash is another, or it holds no tensors.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256.lower():
        raise ValueError(f"{path.name}: its SHA-256 is {found}, not {sha256}")
    try:
        with path.open("rb") as file:
            held = _archive(file) if zipfile.is_zipfile(path) else _legacy(file)
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name}: no checkpoint that can be read ({error})") from error
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    named = dict(_named(held, ""))
    if not named:
        raise ValueError(f"{path.name}: it holds no tensors")
    return named


def _named(held: Any, prefix: str) -> list[tuple[str, Array]]:
    """The tensors of a state dictionary, or of a module and the modules in it, under PyTorch's names."""
    if isinstance(held, _Shell):
        state = held.state
        own = [(key, one) for part in ("_parameters", "_buffers") for key, one in (state.get(part) or {}).items()]
        inner = [pair for key, one in (state.get("_modules") or {}).items() for pair in _named(one, f"{prefix}{key}.")]
        return [(prefix + key, one) for key, one in own if isinstance(one, np.ndarray)] + inner
    if isinstance(held, dict):
        return [(str(key), one) for key, one in held.items() if isinstance(one, np.ndarray)]
    return []


class _Shell:
    """In the place of an object of any class: what was stored of it, and nothing that it could do."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _rebuilt(storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: Any) -> Array:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if all(size) else offset
    if offset < 0 or min(stride, default=0) < 0 or last >= max(len(storage), 1):
        raise pickle.UnpicklingError("a tensor reaches beyond what is stored of it")
    step = tuple(storage.itemsize * one for one in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, step).copy()


def _parameter(data: Array, *_rest: Any) -> Array:
    return data


CALLED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuilt,
    ("collections", "OrderedDict"): OrderedDict,
}
"""All that a checkpoint can have called."""


class _Tensors(pickle.Unpickler):
    def __init__(self, file: IO[bytes], storage: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CALLED:
            return CALLED[module, name]
        if module == "torch" and name in KINDS:
            return name
        return type(name, (_Shell,), {})

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)


def _archive(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")

        def storage(pid: Any) -> Array:
            _, kind, key, _, count = pid
            return np.frombuffer(archive.read(f"{folder}data/{key}"), KINDS[kind], count)

        with archive.open(index) as inside:
            return _Tensors(inside, storage).load()


def _legacy(file: IO[bytes]) -> Any:
    """Magic number, version and system, then the object, then the keys of the storages and their bytes."""
    held: dict[str, Array] = {}

    def storage(pid: Any) -> Any:
        if pid[0] == "module":  # with its source, which nobody runs
            return pid[1]
        _, kind, key, _, count, *view = pid
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a view of a storage")
        return held.setdefault(key, np.zeros(count, KINDS[kind]))

    if _Tensors(file, storage).load() != LEGACY:
        raise pickle.UnpicklingError("not PyTorch's")
    _Tensors(file, storage).load()
    _Tensors(file, storage).load()
    pending: list[tuple[Any, ...]] = []

    def later(storage: Array, *rest: Any) -> Any:
        pending.append((storage, *rest))
        return _Later(storage, *rest)

    unpickler = _Deferred(file, storage, later)
    found = unpickler.load()
    for key in _Tensors(file, storage).load():
        (count,) = np.frombuffer(file.read(8), "<i8")
        array = held[key]
        if count != len(array):
            raise pickle.UnpicklingError("a storage of another length")
        array[:] = np.frombuffer(file.read(array.nbytes), array.dtype)
    return _settled(found)


class _Later:
    """A tensor whose bytes come after the object that holds it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class _Deferred(_Tensors):
    def __init__(self, file: IO[bytes], storage: Callable[[Any], Any], later: Callable[..., Any]) -> None:
        super().__init__(file, storage)
        self._later = later

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return self._later if found is _rebuilt else found


def _settled(held: Any) -> Any:
    if isinstance(held, _Later):
        return _rebuilt(*held.arguments)
    if isinstance(held, _Shell):
        held.state = {key: _settled(one) for key, one in held.state.items()}
    elif isinstance(held, dict):
        for key, one in list(held.items()):
            held[key] = _settled(one)
    return held
