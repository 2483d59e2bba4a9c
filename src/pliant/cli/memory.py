"""How much memory this process may still take, where it has a limit; Linux alone tells.

PyTorch is half a gigabyte of libraries. Where they get less, some of them end the process from C++
without an exception, so the room is looked at before they are loaded.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

NEAR_LIMIT = 0.75
"""Share of the memory that a process may have from which on an odd error is put down to it."""
PYTORCH_BYTES = 560 * 2**20
"""Address space for loading PyTorch: 488 MB for version 2.13, and some for what it then starts."""


def limit_bytes() -> float:
    """The most address space that this process may have; infinity without a limit."""
    if sys.platform != "linux":
        return math.inf
    # psutil would tell as well, and takes a tenth of the time of `pliant --help`.
    lines = Path("/proc/self/limits").read_text("utf-8").splitlines()
    [soft] = [line.split()[3] for line in lines if line.startswith("Max address space")]
    return math.inf if soft == "unlimited" else float(soft)


def is_near_limit() -> bool:
    """Whether this process came near its limit; libraries then fail in words of theirs."""
    limit = limit_bytes()
    return limit < math.inf and _status_bytes("VmPeak") > NEAR_LIMIT * limit


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    [found] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found) * 1024


class _RoomForPyTorch(MetaPathFinder):
    """Finds nothing, and refuses to load PyTorch where it would not get the memory."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        left = limit_bytes() - _status_bytes("VmSize")
        if fullname == "torch" and left < PYTORCH_BYTES:
            raise MemoryError(
                f"PyTorch takes {PYTORCH_BYTES // 2**20} MB of address space, {left // 2**20:.0f} "
                "MB are left"
            )
        return None


def guard_pytorch() -> None:
    """From now on PyTorch is loaded only where the limit leaves room for it."""
    if limit_bytes() < math.inf:
        sys.meta_path.insert(0, _RoomForPyTorch())
