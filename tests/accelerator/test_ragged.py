"""The certified optimum over ragged tiles against brute force over every mapping of the space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from oracles.random_nests import random_layer
from pliant.accelerator.chip import DIMS, Axis, Chip, Memory, load_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapper.mapspace import spatial_splits, tilings
from pliant.accelerator.mapper.optimal import (
    DataflowConstraint,
    MappingSearch,
    optimal_mapping,
)
from pliant.accelerator.mapper.orders import evaluate_orders
from pliant.accelerator.mapping import ENCODED_LENGTH, Mapping
from pliant.accelerator.model.cost import evaluate
from pliant.accelerator.network_mapping import map_workload
from pliant.errors import InfeasibleError
from pliant.workload import Layer
from pliant.workload.networks import network

OBJECTIVES = ("energy", "latency", "edp", "energy*latency^2")
POWERS = {"energy": (1, 0), "latency": (0, 1), "edp": (1, 1), "energy*latency^2": (1, 2)}


def every_tiling(layer: Layer, chip: Chip) -> Iterator[np.ndarray]:
    """Codes of all tiles of the stated space, one array per spatial split."""
    splits = spatial_splits(layer, chip)
    for pes, rounds in zip(splits.pes, splits.rounds, strict=True):
        ways = []
        for m in map(int, rounds):
            triples = []
            for tile in range(1, m + 1):
                tiles = math.ceil(m / tile)
                triples += [(tile, b, math.ceil(tiles / b)) for b in range(1, tiles + 1)]
            assert len(triples) == tilings(m)
            ways.append(triples)
        tiles = np.array(list(itertools.product(*ways)), dtype=np.int64).transpose(0, 2, 1)
        codes = np.ones((len(tiles), ENCODED_LENGTH), dtype=np.int64)
        codes[:, :8], codes[:, 8:16] = tiles[:, 0], pes
        codes[:, 32:40], codes[:, 40:48] = tiles[:, 1], tiles[:, 2]
        codes[:, 64] = 0
        yield codes


def random_chip(generator: np.random.Generator) -> Chip:
    """One to three short axes, and memories in which everything is scarce."""
    axes = []
    for index in range(int(generator.integers(1, 4))):
        loops = "".join(generator.permutation(list(DIMS))[: generator.integers(1, 5)])
        axes.append(Axis(f"axis{index}", int(generator.integers(1, 5)), loops, max_loops=2))
    speed = [float(2.0**power) for power in generator.uniform(-2, 4, size=3)]
    names = sorted(name for name in TABLES if name != "maestro")
    registers = Memory(float(generator.integers(6, 40)), bandwidth_bytes_per_cycle=8 * speed[0])
    if generator.random() < 0.3:
        held = [float(size) for size in generator.integers(4, 16, size=3)]
        registers = Memory(weight_bytes=held[0], input_bytes=held[1], output_bytes=4 * held[2])
    buffer = Memory(
        float(generator.integers(16, 160)),
        double_buffered=bool(generator.integers(2)),
        bandwidth_bytes_per_cycle=speed[1],
    )
    table = TABLES[names[generator.integers(len(names))]]
    many = bool(generator.integers(4))
    return Chip("small", tuple(axes), registers, buffer, table, 100.0, speed[2], multicast=many)


def small_case(generator: np.random.Generator, most: int) -> tuple[Layer, Chip]:
    """A layer and a chip whose space has at most so many tilings."""
    while True:
        layer, chip = random_layer(generator), random_chip(generator)
        if generator.random() < 0.5:  # long loops, of which few tiles divide
            sizes = dict.fromkeys(DIMS, 1)
            for dim in generator.permutation(list("GNKC"))[:2]:
                sizes[dim] = int(generator.integers(3, 14))
            layer = replace(layer, kind="matmul", inputs=("image",), **sizes)
            layer = replace(layer, strides=(1, 1), dilations=(1, 1))
        splits = spatial_splits(layer, chip)
        space = sum(math.prod(tilings(int(m)) for m in row) for row in splits.rounds)
        if 200 <= space <= most:
            return layer, chip


def least_of_all(layer: Layer, chip: Chip) -> dict[str, tuple[float, float]]:
    """Per objective its least value, and the least of the other measure among the equals."""
    energy, cycles = [], []
    for codes in every_tiling(layer, chip):
        costs = evaluate_orders(layer, chip, codes)
        energy.append(costs.energy[costs.fits])
        cycles.append(costs.cycles[costs.fits])
    every_energy, every_cycles = np.concatenate(energy), np.concatenate(cycles)
    if not len(every_energy):
        return {}
    least = {}
    for name, (a, b) in POWERS.items():
        values = every_energy**a * every_cycles**b
        equals = values <= values.min() * (1 + 1e-9)
        second = every_cycles if name == "energy" else every_energy
        least[name] = float(values.min()), float(second[equals].min())
    return least


@pytest.mark.parametrize("seed", range(10))
def test_the_certified_optimum_is_the_least_of_every_ragged_mapping(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for case in range(20):
        layer, chip = small_case(generator, most=6000)
        least = least_of_all(layer, chip)
        objective = OBJECTIVES[case % 4]
        if not least:
            with pytest.raises(InfeasibleError):
                optimal_mapping(layer, chip, objective)
            continue
        best = optimal_mapping(layer, chip, objective)
        proof = best.certificate
        assert proof.proven
        assert best.value == pytest.approx(least[objective][0], rel=1e-9), (layer, chip, objective)
        # Among equals the cheaper one wins.
        if objective in ("energy", "latency"):
            second = best.cost.cycles if objective == "energy" else best.cost.energy
            assert second == pytest.approx(least[objective][1], rel=1e-9), (layer, chip, objective)
        assert proof.mappings == 72 * sum(len(codes) for codes in every_tiling(layer, chip))
        pruned = proof.pruned_by_spatial_bound, proof.pruned_by_tiles
        assert min(pruned) >= 0
        assert proof.ties_settled


def test_a_prime_number_of_tokens_takes_ragged_tiles() -> None:
    # 197 tokens of a ViT-B/16: no tile but 1 and 197 divides, and the best that does has 9.7406e15.
    layer = Layer("fc1", "matmul", ("image",), N=197, K=3072, C=768)
    chip = load_chip("nvdla-256")
    known = Mapping.parse(
        "dram for N in 0..2, K in 0..64 # bypass O\nbuffer for N in 0..13, K in 0..3, C in 0..24\n"
        "array atomic_c C*32, atomic_k K*8\nregister for N in 0..8, K in 0..2",
        chip,
    )
    best = optimal_mapping(layer, chip)
    assert best.certificate.proven
    assert best.value <= evaluate(layer, chip, known).edp <= 6.7859e15
    assert optimal_mapping(layer, load_chip("nvdla-1024")).value < 0.8704 * 2.69434132e15


@pytest.mark.parametrize(
    ("tokens", "K", "C", "name", "dividing", "ratio"),
    [
        (577, 3072, 768, "nvdla-256", 1.0830034e17, 0.520),
        (577, 3072, 768, "nvdla-1024", 2.2502927e16, 0.8425),
        (1009, 1024, 1024, "nvdla-256", 1.2829543e17, 0.280),
        (1009, 1024, 1024, "nvdla-1024", 1.8344296e16, 0.6221),
    ],
)
def test_ragged_tiles_beat_the_best_that_divide(
    tokens: int, K: int, C: int, name: str, dividing: float, ratio: float
) -> None:
    """Energy-delay products: the best of the tiles that divide, and what a ragged one has of it."""
    best = optimal_mapping(Layer("fc", "matmul", ("image",), N=tokens, K=K, C=C), load_chip(name))
    assert best.certificate.proven
    assert best.value <= ratio * dividing


# Kind, groups, outputs and inputs of a group, output pixels, kernel and stride of AlexNet's layers.
ALEXNET = [
    *(("conv", 1, 96, 3, 55, 11, 4), ("pool", 96, 1, 1, 27, 3, 2), ("conv", 2, 128, 48, 27, 5, 1)),
    *(("pool", 256, 1, 1, 13, 3, 2), ("conv", 1, 384, 256, 13, 3, 1)),
    *(
        ("conv", 2, 192, 192, 13, 3, 1),
        ("conv", 2, 128, 192, 13, 3, 1),
        ("pool", 256, 1, 1, 6, 3, 2),
    ),
    *(("matmul", 1, 4096, 9216, 1, 1, 1), ("matmul", 1, 4096, 4096, 1, 1, 1)),
    ("matmul", 1, 1000, 4096, 1, 1, 1),
]


def test_alexnet_gains_by_ragged_tiles() -> None:
    """Energy times latency of the whole network, over that of the best tiles that divide."""
    chip = load_chip("nvdla-1024")
    ragged, dividing = [], []
    for kind, groups, outputs, inputs, pixels, kernel, stride in ALEXNET:
        sizes = {"G": groups, "K": outputs, "C": inputs, "R": kernel, "S": kernel}
        strides = (stride, stride)
        layer = Layer(kind, kind, ("image",), P=pixels, Q=pixels, strides=strides, **sizes)
        ragged.append(optimal_mapping(layer, chip).cost)
        splits = spatial_splits(layer, chip)
        search = MappingSearch(layer, chip, POWERS["edp"], DataflowConstraint(), splits)
        search.advance(len(splits.pes))
        dividing.append(evaluate(layer, chip, search.mapping()))
    products = [
        sum(cost.energy for cost in costs) * sum(cost.cycles for cost in costs)
        for costs in (ragged, dividing)
    ]
    assert products[0] <= 0.944 * products[1]


def test_mobilenet_v2_is_as_cheap_under_latency_as_under_the_product() -> None:
    fast, product = (
        map_workload(network("mobilenet-v2"), load_chip("nvdla-1024"), objective)
        for objective in ("latency", "edp")
    )
    assert fast.latency_ms == product.latency_ms == pytest.approx(2.931, abs=5e-4)
    for found in (fast, product):
        assert found.energy <= 5.424e9  # picojoule; 9.717 mJ where equals were not compared


def test_a_residual_network_maps_where_an_input_register_holds_one_byte() -> None:
    axes = Axis("rows", 32, "C"), Axis("columns", 32, "K")
    registers = Memory(weight_bytes=1, input_bytes=1, output_bytes=4)
    chip = Chip("stationary", axes, registers, Memory(65536.0), TABLES["eyeriss"], 500.0)
    assert map_workload(network("mobilenet-v2"), chip).proven


def test_equal_latency_takes_the_least_energy() -> None:
    # The fastest mapping of this layer is fast in many ways; the product finds a cheap one.
    layer = Layer("expand", "conv", ("image",), K=96, C=16, P=112, Q=112)
    chip = load_chip("nvdla-1024")
    fast, product = (optimal_mapping(layer, chip, goal) for goal in ("latency", "edp"))
    assert fast.cost.cycles <= product.cost.cycles
    assert fast.cost.cycles < product.cost.cycles or fast.cost.energy <= product.cost.energy
