"""Keeping freed memory between training steps, which saves the page faults of getting it again.

The activations of a batch are large. The C library hands such memory back to the system when it is freed, and getting it again
costs a page fault for every 4 KiB. Kept, it is fragmented by sub-networks of ever other sizes, so it is trimmed now and then.
Only programs that Pliant starts ask for this: a library does not change its host's allocator.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Names of glibc's mallopt(3)."""

_kept = False


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> None:
    """From now on, let the C library keep what this process frees; without effect where it is not glibc."""
    global _kept
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 64 << 20)
        _kept = True


def trim_freed_memory() -> None:
    """Hand back what is free now, so that fragments do not add up; nothing where memory is not kept."""
    library = _glibc()
    if _kept and library is not None:
        library.malloc_trim(0)
