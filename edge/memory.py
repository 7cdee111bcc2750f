"""Memory: an idle process of the box gives back what it does not need."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back to the system, which glibc does not do by itself (malloc_trim(3)).

    highdicom keeps the attributes of every IOD once it has looked one up, 60 MiB; it reads them again when it next needs them.
    """
    if (tables := sys.modules.get("highdicom._standard_utils")) is not None:
        tables.get_module_attribute_map.cache_clear()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
