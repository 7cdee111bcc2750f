"""Memory: an idle process of the box gives back what it does not need."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give freed memory back to the system, which glibc does not do by itself (malloc_trim(3))."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
