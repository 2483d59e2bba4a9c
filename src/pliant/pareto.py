"""Which points does no other one beat, and how much do they dominate? Computed by moocore.

Fonseca, C. M. et al., An improved dimension-sweep algorithm for the hypervolume indicator, 2006,
DOI 10.1109/CEC.2006.1688440. Zitzler, E. and Thiele, L., Multiobjective evolutionary algorithms: a
comparative case study and the strength Pareto approach, 1999, DOI 10.1109/4235.797969.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats, every column being better when smaller.

    A row is beaten by one that is nowhere larger and somewhere smaller, so equal rows stay
    together.

    Args:
        values: shape (points, objectives), without NaN.

    Returns:
        Mask of shape (points,).
    """
    mask: np.ndarray = moocore.is_nondominated(values, keep_weakly=True)
    return mask


def hypervolume(values: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that points dominate up to a reference, all columns being better when smaller.

    Args:
        values: shape (points, objectives); points beyond the reference add nothing.
        reference: the worst corner, shape (objectives,).
    """
    rows = np.asarray(values, dtype=float).reshape(-1, len(reference))
    return float(moocore.hypervolume(rows, ref=reference))
