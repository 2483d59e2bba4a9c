"""Nine loop orders against all of them; limits, constraints and bad input of the mapper."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracles.random_nests import random_nest
from pliant.accelerator.chip import DIMS, Axis, Chip, Memory, load_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.explain import proof
from pliant.accelerator.mapper import optimal
from pliant.accelerator.mapper.mapspace import divisors, spatial_splits, tilings
from pliant.accelerator.mapper.optimal import (
    DataflowConstraint,
    least_cost,
    mapping_below,
    optimal_mapping,
)
from pliant.accelerator.mapping import Mapping, stationary_order
from pliant.accelerator.model.cost import evaluate
from pliant.accelerator.network_mapping import map_layer
from pliant.errors import InfeasibleError, RecipeError
from pliant.workload import Layer

LAYERS = (
    Layer("strided", "conv", ("image",), K=4, C=3, P=5, Q=4, R=3, S=2, strides=(2, 2)),
    Layer("dilated", "conv", ("image",), N=2, K=3, C=4, P=6, R=3, dilations=(2, 2)),
    Layer("depthwise", "conv", ("image",), G=6, P=6, Q=5, R=3, S=3),
    Layer("dense", "matmul", ("image",), N=2, K=24, C=18),
    Layer("pool", "pool", ("image",), G=8, P=4, Q=4, R=2, S=2, strides=(2, 2)),
    Layer("add", "elementwise", ("image", "image"), G=12, P=7, Q=3),
)


def small_chip(seed: int, *, shared: bool = True) -> Chip:
    """A chip on which everything is scarce."""
    draw = np.random.default_rng(seed)
    axes = (Axis("rows", 3, "KCRG"), Axis("columns", 4, "PKQN", max_loops=1))
    bandwidth = [float(value) for value in draw.uniform(0.3, 8.0, size=3)]
    sizes = [float(value) for value in draw.integers(8, 40, size=3)]
    registers = Memory(
        shared_bytes=float(draw.integers(12, 60)), bandwidth_bytes_per_cycle=8 * bandwidth[0]
    )
    buffer = Memory(
        shared_bytes=float(draw.integers(60, 250)),
        double_buffered=bool(draw.integers(2)),
        bandwidth_bytes_per_cycle=bandwidth[1],
    )
    if not shared:
        registers = Memory(weight_bytes=sizes[0], input_bytes=sizes[1], output_bytes=4 * sizes[2])
    return Chip(
        "small",
        axes,
        registers,
        buffer,
        TABLES["eyeriss"],
        100.0,
        bandwidth[2],
        multicast=bool(draw.integers(4)),
    )


def test_nine_orders_dominate_all_pairs_of_orders() -> None:
    generator = np.random.default_rng(3)
    chip = Chip(
        "wide", (Axis("a", 10**6, max_loops=8),), Memory(1e9), Memory(1e9), TABLES["eyeriss"], 1.0
    )
    moved = (
        "dram_weight_reads",
        "dram_input_reads",
        "dram_output_writes",
        "array_weight_reads",
        "array_input_reads",
        "array_output_writes",
    )
    moved += ("delivered_weights", "delivered_inputs", "delivered_sums")
    compared = 0
    while compared < 12:
        layer, mapping = random_nest(generator)
        loops = [
            [dim for dim in DIMS if factors[DIMS.index(dim)] > 1]
            for factors in (mapping.buffer, mapping.dram)
        ]
        # A last buffer tile of one array tile may leave other tensors in place than the rest: there
        # the nine orders are what is searched, and dominate no more.
        array = np.array(mapping.register) * mapping.pes
        last = layer_array(layer) - (np.array(mapping.dram) - 1) * array * mapping.buffer
        single = (np.array(mapping.buffer) > 1) & (np.array(mapping.dram) > 1) & (last <= array)
        pairs = math.factorial(len(loops[0])) * math.factorial(len(loops[1]))
        if not 24 <= pairs <= 600 or single.any():
            continue
        compared += 1

        def traffic(
            inner: str, outer: str, layer: Layer = layer, mapping: Mapping = mapping
        ) -> np.ndarray:
            nest = Mapping(
                mapping.register, mapping.spatial, mapping.buffer, mapping.dram, inner, outer
            )
            counts = evaluate(layer, chip, nest).counts
            return np.array([counts[name] for name in moved])

        nine = [traffic(stationary_order(a), stationary_order(b)) for a in "WIO" for b in "WIO"]
        for inner in itertools.permutations(loops[0]):
            for outer in itertools.permutations(loops[1]):
                full = [
                    "".join([dim for dim in DIMS if dim not in order] + list(order))
                    for order in (inner, outer)
                ]
                cost = traffic(*full)
                assert any((best <= cost).all() for best in nine), (layer, mapping, full)


def layer_array(layer: Layer) -> np.ndarray:
    """Loop bounds as an array."""
    return np.array([getattr(layer, dim) for dim in DIMS])


def test_the_space_is_counted_right() -> None:
    assert divisors(12) == (1, 2, 3, 4, 6, 12)
    for number in (1, 7, 12, 64, 360):
        assert tilings(number) == sum(math.ceil(number / tile) for tile in range(1, number + 1))
    splits = spatial_splits(
        Layer("dense", "matmul", ("image",), K=64),
        Chip("c", (Axis("a", 12, "K"),), Memory(64.0), Memory(64.0), TABLES["eyeriss"], 1.0),
    )
    assert sorted(splits.pes[:, 2]) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]


def test_a_time_limit_leaves_an_honest_gap() -> None:
    layer = Layer("conv", "conv", ("image",), K=64, C=64, P=56, Q=56, R=3, S=3)
    chip = load_chip("eyeriss")
    hurried, patient = (
        optimal_mapping(layer, chip, "energy", time_limit_s=0.0),
        optimal_mapping(layer, chip, "energy"),
    )
    assert patient.certificate.proven
    assert not hurried.certificate.proven
    assert hurried.value * (1 - hurried.certificate.gap) <= patient.value <= hurried.value


def test_ties_that_the_time_left_open_are_told_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    original = optimal.MappingSearch.second_criterion

    def late(search: optimal.MappingSearch) -> object:
        now[0] = 100.0
        return original(search)

    layer = Layer("conv", "conv", ("image",), K=16, C=16, P=14, Q=14, R=3, S=3)
    chip = load_chip("nvdla-1024")
    settled = optimal_mapping(layer, chip, "latency")
    monkeypatch.setattr(optimal.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(optimal.MappingSearch, "second_criterion", late)
    best = map_layer(layer, chip, "latency", time_limit_s=10.0, cache=tmp_path)
    assert best.certificate.proven
    assert not best.certificate.ties_settled
    assert best.value == settled.value
    assert best.cost.energy >= settled.cost.energy
    assert "before the cheapest of equals was known" in proof(best)
    assert list(tmp_path.iterdir()) == []


def test_restrictions_bypass_and_bad_input() -> None:
    layer, chip = LAYERS[0], small_chip(0)
    free = optimal_mapping(layer, chip)
    held = optimal_mapping(layer, chip, constraint=DataflowConstraint("W", "W", bypass=False))
    assert held.value >= free.value
    assert held.mapping.bypass == ""
    # Another tensor may rest under the order of W, which the bounds do not know.
    assert not held.certificate.proven
    assert "not proven: the bounds do not hold" in proof(held)
    assert optimal_mapping(
        layer, chip, constraint=DataflowConstraint(bypass=False)
    ).certificate.proven
    with pytest.raises(RecipeError, match="Did you mean 'energy'"):
        optimal_mapping(layer, chip, "enery")
    with pytest.raises(RecipeError, match="not both 0"):
        optimal_mapping(layer, chip, (0.0, 0.0))
    wide = Layer("wide kernel", "conv", ("image",), K=2, S=4, Q=3)
    tight = Chip(
        "tight",
        (Axis("a", 1),),
        Memory(weight_bytes=1, input_bytes=1, output_bytes=4),
        Memory(6.0),
        TABLES["eyeriss"],
        1.0,
    )
    assert optimal_mapping(wide, tight).certificate.proven
    # An addition reads its inputs one after the other, so room for one word is enough.
    added = optimal_mapping(LAYERS[5], tight)
    assert added.certificate.proven
    assert added.mapping.register == (1,) * 8
    assert added.cost.counts["delivered_inputs"] == 2 * LAYERS[5].output_elements
    # In the buffer all its inputs are there at once.
    six = replace(LAYERS[5], inputs=("image",) * 6)
    with pytest.raises(InfeasibleError, match=r"buffer hold 6 bytes, where .* tensor is 7"):
        optimal_mapping(six, tight, constraint=DataflowConstraint(bypass=False))


def test_a_weighted_product_is_written_as_text_or_as_powers() -> None:
    layer, chip = LAYERS[3], small_chip(1)
    named, plain = (
        optimal_mapping(layer, chip, "energy^2*latency"),
        optimal_mapping(layer, chip, (2.0, 1.0)),
    )
    assert named.value == plain.value == pytest.approx(plain.cost.energy**2 * plain.cost.cycles)
    assert (
        optimal_mapping(layer, chip, "latency*energy").value
        == optimal_mapping(layer, chip, "edp").value
    )
    for text in ("energy*energy", "energy^0", "energy^-1", "energy*area", ""):
        with pytest.raises(RecipeError, match="a product such as energy"):
            optimal_mapping(layer, chip, text)


def test_a_limit_and_the_mappings_of_other_chips_change_the_time_alone() -> None:
    chips = [small_chip(seed) for seed in range(6)]
    for layer in LAYERS:
        known = [optimal_mapping(layer, chip).mapping.encode() for chip in chips[1:]]
        best = optimal_mapping(layer, chips[0])
        for rows in (np.stack(known), np.stack([*known, best.mapping.encode()])):
            again = mapping_below(math.inf, layer, chips[0], known=rows)
            assert again is not None
            assert again.mapping == best.mapping
            assert again.certificate.proven
            just = mapping_below(best.value * (1 + 1e-6), layer, chips[0], known=rows)
            assert just is not None
            assert just.mapping == best.mapping
            assert mapping_below(best.value, layer, chips[0], known=rows) is None
        least = least_cost(layer, chips[0])
        assert least.energy * least.cycles <= least.edp <= best.value


def test_buffer_tiles_that_are_listed_first_prune_nothing_that_is_best(monkeypatch) -> None:
    chips = [small_chip(seed, shared=bool(seed % 2)) for seed in range(8)]
    late = [[optimal_mapping(layer, chip) for layer in LAYERS] for chip in chips]
    monkeypatch.setattr(optimal, "MANY_TILES", 0)
    for chip, found in zip(chips, late, strict=True):
        for best in found:
            # Without a first value from tiles that divide, nothing that is pruned is known before.
            once = optimal.MappingSearch(
                best.layer, chip, (1.0, 1.0), DataflowConstraint(), spatial_splits(best.layer, chip)
            )
            once.start(once.problem.goal, ragged=True)
            while once.bound < once.best * once.problem.below:
                once.advance(64)
            assert once.best == pytest.approx(best.value, rel=1e-12)
            assert optimal_mapping(best.layer, chip).value == pytest.approx(best.value, rel=1e-12)
