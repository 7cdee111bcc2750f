"""Codecs, imported when a film first needs one.

pydicom imports every codec it finds as soon as it is imported itself: in each process of the box, of which one decodes, and
that one needs them for some films only. It would be a quarter of an idle box's memory.
"""

from __future__ import annotations

import importlib
import sys

_PLUGINS = {"gdcm": "gdcm", "pylibjpeg": "pylibjpeg", "jpeg_ls": "pyjpegls"}
"""Packages, and what pydicom calls its plugin for each."""


_deferred: set[str] = set()


def defer(pictures: bool) -> None:
    """Let pydicom do without its codecs until `load`, and without numpy in a process that has nothing to do with pictures.

    Call this before anything imports pydicom.
    """
    for package in (*_PLUGINS, *(() if pictures else ("numpy",))):
        if package not in sys.modules:
            sys.modules[package] = None  # type: ignore[assignment]  # how Python hides a module
            _deferred.add(package)


def load(package: str, transfer_syntax: str) -> None:
    """Give pydicom a codec that was deferred, for one transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder

    plugin = _PLUGINS[package]
    module = f"pydicom.pixels.decoders.{plugin}"
    if package in _deferred:
        _deferred.remove(package)
        del sys.modules[package]
        importlib.reload(sys.modules[module])
    decoder = get_decoder(transfer_syntax)
    if plugin not in decoder.available_plugins:
        decoder.remove_plugin(plugin)
        decoder.add_plugin(plugin, (module, "_decode_frame"))
