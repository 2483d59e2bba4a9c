"""The certified optimum against brute force, and nine loop orders against all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from oracles.random_nests import random_nest
from pliant.accelerator.chip import DIMS, Axis, Chip, Memory, load_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapper.mapspace import divisors, factorisations, spatial_splits
from pliant.accelerator.mapper.optimal import DataflowConstraint, MappingObjective, optimal_mapping
from pliant.accelerator.mapping import Mapping, stationary_order
from pliant.accelerator.model.cost import evaluate, evaluate_many
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


def whole_space(layer: Layer, chip: Chip) -> Iterator[np.ndarray]:
    """Codes of every mapping of the stated space, one array a spatial split."""
    orders = [[DIMS.index(dim) for dim in stationary_order(tensor)] for tensor in "WIO"]
    tails = np.array(
        [[*inner, *outer, bypass] for inner in orders for outer in orders for bypass in range(8)]
    )
    splits = spatial_splits(layer, chip)
    for pes, rounds in zip(splits.pes, splits.rounds, strict=True):
        ways = [
            [(f, t, m // f // t) for f in divisors(m) for t in divisors(m // f)]
            for m in map(int, rounds)
        ]
        tiles = np.array(list(itertools.product(*ways))).transpose(0, 2, 1)
        ones = np.ones((len(tiles), 8), dtype=np.int64)
        heads = np.concatenate(
            [
                tiles[:, 0],
                np.broadcast_to(pes, ones.shape),
                ones,
                ones,
                tiles[:, 1],
                tiles[:, 2],
            ],
            axis=1,
        )
        yield np.concatenate(
            [np.repeat(heads, len(tails), axis=0), np.tile(tails, (len(heads), 1))], axis=1
        )


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_the_certified_optimum_is_the_least_of_the_whole_space(layer: Layer) -> None:
    for seed in range(2):
        chip = small_chip(seed, shared=seed % 2 == 0)
        energy, cycles, total = [], [], 0
        for codes in whole_space(layer, chip):
            costs = evaluate_many(layer, chip, codes)
            total += len(codes)
            energy.append(costs.energy[costs.fits])
            cycles.append(costs.cycles[costs.fits])
        all_energy, all_cycles = np.concatenate(energy), np.concatenate(cycles)
        goals: list[tuple[MappingObjective | tuple[float, float], np.ndarray]] = [
            ("energy", all_energy),
            ("latency", all_cycles),
            ("edp", all_energy * all_cycles),
            ((1.0, 2.0), all_energy * all_cycles**2),
        ]
        for goal, values in goals:
            best = optimal_mapping(layer, chip, goal)
            assert best.value == pytest.approx(values.min(), rel=1e-9), (seed, goal)
            proof = best.certificate
            assert proof.proven
            assert proof.mappings == total
            pruned = (
                proof.pruned_by_spatial_bound,
                proof.pruned_by_registers,
                proof.pruned_by_traffic_bound_or_buffer,
            )
            assert proof.evaluated + sum(pruned) == total
            assert min(pruned) >= 0


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
        # Ragged inner loops are outside the mapper's space: there the bound of a loop differs from
        # tile to tile.
        tile = np.array(mapping.register) * mapping.pes * mapping.buffer
        if (
            not 24 <= math.factorial(len(loops[0])) * math.factorial(len(loops[1])) <= 600
            or (tile * mapping.dram != layer_array(layer)).any()
        ):
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
        assert factorisations(number, 3) == sum(
            1 for a in divisors(number) for _ in divisors(number // a)
        )
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


def test_restrictions_bypass_and_bad_input() -> None:
    layer, chip = LAYERS[0], small_chip(0)
    free = optimal_mapping(layer, chip)
    held = optimal_mapping(layer, chip, constraint=DataflowConstraint("W", "W", bypass=False))
    assert held.value >= free.value
    assert held.mapping.bypass == ""
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
    with pytest.raises(InfeasibleError, match="no mapping"):
        # Two inputs at once never fit where one does.
        optimal_mapping(LAYERS[5], tight)


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
