"""Every product of the factors of two axes, once; compiled, since a wide array has millions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.model.counts import Ints
from pliant.accelerator.model.kernels import allocating_kernel, kernel


@allocating_kernel
def combined_rows(table: Ints, factors: Ints, limits: Ints, good: NDArray[np.bool_]) -> Ints:
    """Distinct products of a row of each, in no order.

    A hash table with open addressing keeps the place of each row that was found.

    Args:
        table: PEs by loop, shape (rows, 8).
        factors: the same of one more axis, shape (ways, 8).
        limits: the largest product of each loop, shape (8,).
        good: by loop and product, whether it is kept; shape (8, longest + 1).
    """
    found, slots = 0, 1024
    rows, places = np.empty((512, 8), dtype=np.int64), np.full(slots, -1, dtype=np.int64)
    product = np.empty(8, dtype=np.int64)
    for a in range(len(table)):
        for b in range(len(factors)):
            kept = True
            for d in range(8):
                product[d] = table[a, d] * factors[b, d]
                kept = kept and product[d] <= limits[d] and good[d, product[d]]
            if not kept:
                continue
            if 2 * found == slots:
                slots *= 4
                rows = np.concatenate((rows, np.empty((slots // 2 - found, 8), dtype=np.int64)))
                places = np.full(slots, -1, dtype=np.int64)
                for row in range(found):
                    places[_slot(rows, places, rows[row])] = row
            slot = _slot(rows, places, product)
            if places[slot] < 0:
                places[slot], rows[found, :] = found, product
                found += 1
    return rows[:found]


@kernel
def _slot(rows: Ints, places: Ints, product: Ints) -> int:
    """Where the place of a row is, or would be."""
    mixed = 0
    for d in range(8):
        mixed = mixed * 1000003 + product[d]
    last = len(places) - 1
    slot = (mixed ^ mixed >> 29) & last
    while places[slot] >= 0:
        same = True
        for d in range(8):
            same = same and rows[places[slot], d] == product[d]
        if same:
            break
        slot = (slot + 1) & last
    return slot
