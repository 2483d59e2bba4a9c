"""Rows of mappings over threads, for kernels that hold no interpreter lock.

Numba's own parallel loops are not used: they share OpenMP with PyTorch, and set the number of its
threads for the whole process, after which a training rounds its sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba

LEAST_ROWS = 4096
"""Of a thread; fewer are done sooner than it begins."""


def over_threads(rows: int, kernel: Callable[[slice], int]) -> int:
    """Run a kernel on all rows, in as many threads as `NUMBA_NUM_THREADS` says.

    Args:
        rows: how many there are.
        kernel: takes the rows of a slice, and returns the number of a wrong one in it, or -1.

    Returns:
        The number of the last wrong row that a thread met, or -1.
    """
    most = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    threads = max(1, min(most, rows // LEAST_ROWS))
    each = -(-rows // threads) or 1
    parts = [slice(start, min(rows, start + each)) for start in range(0, rows, each)]
    if len(parts) < 2:
        found = [kernel(part) for part in parts]
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            found = list(pool.map(kernel, parts))
    wrong = [part.start + row for part, row in zip(parts, found, strict=True) if row >= 0]
    return max(wrong, default=-1)
