"""The lists that the mapper searches: nothing that could be best is missing, nothing is twice."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.random_nests import random_nest
from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapper.axis_products import combined_rows
from pliant.accelerator.mapper.tile_sizes import (
    ACTIVE,
    LEAST_ACTIVE,
    LEAST_STEPS,
    STEPS,
    TILE,
    TILES,
    _register_sizes,
    buffer_counts,
)
from pliant.accelerator.mapping import RELEVANT, layer_sizes
from pliant.accelerator.model.halo import halo_credit, sliding_loop
from pliant.accelerator.model.tiles import tile_words

SIZES = st.integers(1, 40)


def _work(size: int, pes: int, tile: int) -> tuple[int, int, int]:
    """Array tiles, steps of the first PE and PEs with work, by handing out every iteration."""
    tiles = steps = active = 0
    left = size
    while left > 0:
        tiles += 1
        first = min(tile, left)
        steps += first
        for _ in range(pes):
            active += left > 0
            left -= tile
    return tiles, steps, active


def _listed(size: int, pes: int, largest: int, *, curved: bool, ragged: bool) -> np.ndarray:
    rounds = math.ceil(size / pes)
    out = np.zeros((6, largest), dtype=np.int64)
    found = _register_sizes.py_func(size, pes, rounds, largest, int(curved), ragged, out)
    return out[:, :found]


@given(SIZES, st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_register_tiles_that_are_left_out_are_no_better_than_a_smaller_one(
    size: int, pes: int, largest: int, ragged: bool
) -> None:
    rounds = math.ceil(size / pes)
    pes = math.ceil(size / rounds)  # the mapper spreads a loop over no more than it needs
    largest = min(largest, rounds)
    table = _listed(size, pes, largest, curved=False, ragged=ragged)
    listed = dict(zip(table[TILE].tolist(), table[[TILES, STEPS, ACTIVE]].T.tolist(), strict=True))
    for tile, row in listed.items():
        assert tuple(row) == _work(size, pes, tile)
        assert ragged or rounds % tile == 0
    for tile in range(1, largest + 1):
        if tile in listed or (not ragged and rounds % tile):
            continue
        tiles, steps, active = _work(size, pes, tile)
        rows = [listed[one] for one in listed if one < tile]
        equal = [row for row in rows if row[0] == tiles]
        assert min(row[1] for row in equal) <= steps
        assert min(row[2] for row in equal) <= active
    for least, of in ((LEAST_STEPS, STEPS), (LEAST_ACTIVE, ACTIVE)):
        assert table[least].tolist() == np.minimum.accumulate(table[of]).tolist()


@given(SIZES, st.integers(1, 9))
def test_where_tile_sizes_decide_the_input_rows_all_stay(size: int, pes: int) -> None:
    rounds = math.ceil(size / pes)
    table = _listed(size, pes, rounds, curved=True, ragged=True)
    assert table[TILE].tolist() == list(range(1, rounds + 1))


@given(st.integers(1, 300), st.booleans())
def test_numbers_of_buffer_tiles_are_all_that_there_are(rounds: int, ragged: bool) -> None:
    out = np.zeros(2 * math.isqrt(rounds) + 2, dtype=np.int64)
    found = out[: buffer_counts.py_func(rounds, ragged, out)].tolist()
    blocks = range(1, rounds + 1)
    expected = {math.ceil(rounds / one) for one in blocks if ragged or rounds % one == 0}
    assert found == sorted(expected)


@pytest.mark.parametrize("rows", [3, 40])
def test_products_of_two_axes_are_each_listed_once(rows: int) -> None:
    rng = np.random.default_rng(rows)
    table, factors = (rng.integers(1, 5, size=(rows, 8)) for _ in range(2))
    limits = np.full(8, 12)
    good = rng.random((8, 13)) < 0.97
    expected = set()
    for one, other in product(table, factors):
        both = one * other
        if (both <= limits).all() and all(good[d, both[d]] for d in range(8)):
            expected.add(tuple(both.tolist()))
    found = [tuple(row) for row in combined_rows(table, factors, limits, good).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_words_of_tiles_are_those_that_their_iterations_touch() -> None:
    """Every combination of one tile a loop is walked, and its distinct words are counted."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        layer, mapping = random_nest(rng)
        if layer.kind == "elementwise":
            continue
        extents, ranges = [], []
        for size, tile in zip(layer_sizes(layer), mapping.register, strict=True):
            parts = [range(start, min(start + tile, size)) for start in range(0, size, tile)]
            ranges.append(parts)
            extents.append([len(part) for part in parts])
        for tensor in "WIO":
            expected = 0
            if tensor != "W" or layer.weighted:
                for tiles in product(*ranges):
                    of = dict(zip(DIMS, tiles, strict=True))
                    expected += _words(layer, tensor, of)
            assert tile_words(layer, tensor, extents) == expected, (tensor, layer, mapping)


def _words(layer, tensor: str, of: dict[str, range]) -> int:
    if tensor != "I":
        return math.prod(len(of[dim]) for dim in RELEVANT[tensor])
    total = math.prod(len(of[dim]) for dim in "GNC")
    for axis, (out, kernel) in enumerate((("P", "R"), ("Q", "S"))):
        stride, dilation = layer.strides[axis], layer.dilations[axis]
        total *= len({p * stride + r * dilation for p in of[out] for r in of[kernel]})
    return total


def test_overlap_is_credited_only_where_the_innermost_loop_slides_the_window() -> None:
    rng = np.random.default_rng(6)
    seen = set()
    for _ in range(200):
        layer, mapping = random_nest(rng)
        credit = halo_credit(layer, mapping)
        inner, outer = (sliding_loop(mapping, inside_buffer=inside) for inside in (True, False))
        seen |= {inner, outer}
        assert min(credit.values()) >= 0
        assert outer is not None or credit["buffer"] == 0
        assert inner is not None or credit["array"] == credit["pes"] == 0
        if max(layer.R, layer.S) == 1:  # windows of one pixel do not overlap
            assert not any(credit.values())
    assert seen == {None, "P", "Q", "R", "S"}
