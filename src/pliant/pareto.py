"""Which points does no other one beat, and how much do they dominate?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats, every column being better when smaller.

    A row is beaten by one that is nowhere larger and somewhere smaller, so equal rows stay together.

    Args:
        values: shape (points, objectives).

    Returns:
        Mask of shape (points,).
    """
    keep = np.zeros(len(values), dtype=bool)
    front = np.empty_like(values, dtype=float)
    count = 0
    # In lexicographic order nothing that comes later can beat what came before, so one pass against the front is enough.
    for row in np.lexsort(values.T[::-1]):
        point = values[row]
        no_larger = (front[:count] <= point).all(axis=1)
        if not (no_larger & (front[:count] < point).any(axis=1)).any():
            front[count] = point
            count += 1
            keep[row] = True
    return keep


def hypervolume_2d(values: np.ndarray, reference: Sequence[float]) -> float:
    """Area that points dominate up to a reference, both columns being better when smaller (Zitzler & Thiele 1999).

    Args:
        values: shape (points, 2); points beyond the reference add nothing.
        reference: the worst corner.
    """
    values = np.asarray(values, dtype=float).reshape(-1, 2)
    inside = values[(values < np.asarray(reference)).all(axis=1)]
    area, ceiling = 0.0, float(reference[1])
    for first, second in inside[np.lexsort((inside[:, 1], inside[:, 0]))]:
        if second < ceiling:
            area += (reference[0] - first) * (ceiling - second)
            ceiling = float(second)
    return float(area)
