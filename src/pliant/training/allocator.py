"""Keeps freed memory between training steps, which saves the page faults of allocating it again.

The activations of a batch are large. By default glibc returns such memory to the system when it is
freed, and allocating it again costs a page fault per 4 KiB. Memory that is kept becomes fragmented,
since the sizes of sub-networks differ, so it is trimmed from time to time. Only Pliant's commands
use this: a library does not change its host's allocator.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt(3)."""

_kept = False


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> None:
    """Make glibc keep the memory that this process frees; no effect with other C libraries."""
    global _kept
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 64 << 20)
        _kept = True


def trim_freed_memory() -> None:
    """Return free memory to the system, which bounds fragmentation; no effect if none is kept."""
    library = _glibc()
    if _kept and library is not None:
        library.malloc_trim(0)
