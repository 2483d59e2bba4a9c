"""The closed form against the walk and against NumPy, on random nests of the whole class."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from oracles.random_nests import random_mapping, random_nest
from oracles.reference import reference_counts
from oracles.walk import walk, walk_stall
from pliant.accelerator.chip import Axis, Chip, Memory
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapper.orders import evaluate_orders
from pliant.accelerator.mapping import Mapping, stationary_order, trivial_mapping
from pliant.accelerator.model.cost import evaluate, evaluate_many
from pliant.errors import InfeasibleError, RecipeError
from pliant.workload import Layer


def wide_chip(generator: np.random.Generator | None = None, *, multicast: bool = True) -> Chip:
    """One axis without limits and large memories; bandwidths and double buffering are drawn."""
    draw = generator or np.random.default_rng(0)
    axis = Axis("axis0", 10**6, max_loops=8)
    bandwidth = [float(value) for value in draw.integers(1, 30, size=3)]
    registers = Memory(
        shared_bytes=1e9,
        double_buffered=bool(draw.integers(2)),
        bandwidth_bytes_per_cycle=bandwidth[0],
    )
    buffer = Memory(
        shared_bytes=1e9,
        double_buffered=bool(draw.integers(2)),
        bandwidth_bytes_per_cycle=bandwidth[1],
    )
    return Chip(
        "wide",
        (axis,),
        registers,
        buffer,
        TABLES["eyeriss"],
        100.0,
        bandwidth[2],
        multicast=multicast,
    )


def test_every_count_equals_the_walk_and_the_slow_version() -> None:
    generator = np.random.default_rng(0)
    for index in range(250):
        layer, mapping = random_nest(generator)
        multicast = index % 4 > 0
        walked = walk(layer, mapping, multicast=multicast)
        counts = evaluate(layer, wide_chip(multicast=multicast), mapping).counts
        assert counts == walked, f"{layer}\n{mapping}"
        assert reference_counts(layer, mapping, multicast=multicast) == walked


def test_the_halo_option_equals_the_walk() -> None:
    generator = np.random.default_rng(4)
    credited = 0
    for _ in range(150):
        layer, mapping = random_nest(generator, most_steps=120)
        counts = evaluate(layer, wide_chip(), mapping, halo=True).counts
        assert counts == walk(layer, mapping, halo=True), f"{layer}\n{mapping}"
        credited += (
            counts["array_input_reads"]
            < evaluate(layer, wide_chip(), mapping).counts["array_input_reads"]
        )
    assert credited > 5


def test_stall_exact_latency_equals_the_walk_and_is_never_below_the_roofline() -> None:
    generator = np.random.default_rng(1)
    for _ in range(250):
        layer, mapping = random_nest(generator)
        chip = wide_chip(generator)
        stalled = evaluate(layer, chip, mapping, latency="stall_exact").cycles
        assert math.isclose(stalled, walk_stall(layer, chip, mapping), rel_tol=1e-12), (
            f"{layer}\n{mapping}"
        )
        assert stalled >= evaluate(layer, chip, mapping).cycles * (1 - 1e-12)


def test_arrays_of_mappings_cost_what_each_costs_alone() -> None:
    generator = np.random.default_rng(2)
    for number in range(40):
        layer, _ = random_nest(generator)
        chip = wide_chip(generator, multicast=number % 3 > 0)
        mappings = [random_mapping(layer, generator) for _ in range(19 + number % 16)]
        codes = np.stack([mapping.encode() for mapping in mappings]).astype(np.int16)
        costs = evaluate(layer, chip, codes)
        for index, mapping in enumerate(mappings):
            alone = evaluate(layer, chip, mapping)
            assert costs.energy[index] == pytest.approx(alone.energy, rel=1e-12)
            assert costs.cycles[index] == pytest.approx(alone.cycles, rel=1e-12)
            assert costs.fits[index]
    with pytest.raises(RecipeError, match="Leave the options out"):
        evaluate(layer, chip, codes, halo=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("level", ["registers", "buffer"])
@pytest.mark.parametrize("shared", [True, False])
def test_arrays_of_mappings_fit_where_each_fits_alone(level: str, shared: bool) -> None:
    generator = np.random.default_rng(6)
    fitting = 0
    for _ in range(20):
        layer, _ = random_nest(generator)
        sizes = [float(size) for size in generator.integers(4, 24, size=3)]
        tight = (
            Memory(sum(sizes))
            if shared
            else Memory(weight_bytes=sizes[0], input_bytes=sizes[1], output_bytes=sizes[2])
        )
        chip = replace(wide_chip(generator), **{level: tight})
        mappings = [random_mapping(layer, generator) for _ in range(20)]
        fits = evaluate_many(layer, chip, np.stack([mapping.encode() for mapping in mappings])).fits
        for mapping, fit in zip(mappings, fits, strict=True):
            if fit:
                evaluate(layer, chip, mapping)
            else:
                with pytest.raises(InfeasibleError, match=level):
                    evaluate(layer, chip, mapping)
        fitting += int(fits.sum())
    assert 40 < fitting < 390


def test_a_matrix_product_by_hand() -> None:
    # Four outputs, three inputs. Outputs outside, inputs inside: inputs are read four times, sums
    # stay in the register.
    layer, chip = Layer("dense", "matmul", ("image",), K=4, C=3), wide_chip()
    ones = (1,) * 8
    mapping = Mapping(ones, (ones,), ones, (1, 1, 4, 3, 1, 1, 1, 1), dram_order="NGPQRSKC")
    counts = evaluate(layer, chip, mapping).counts
    names = ("dram_weight_reads", "dram_input_reads", "dram_sum_reads", "dram_output_writes")
    assert [counts[name] for name in names] == [12, 12, 0, 4]
    turned = Mapping(ones, (ones,), ones, (1, 1, 4, 3, 1, 1, 1, 1), dram_order="NGPQRSCK")
    counts = evaluate(layer, chip, turned).counts
    assert [counts[name] for name in names] == [12, 3, 8, 12]


@pytest.mark.parametrize(
    ("place", "value"), [(0, 0), (33, -2), (48, 8), (57, -1), (49, 0), (64, 9)]
)
def test_rows_that_are_no_mapping_are_refused(place: int, value: int) -> None:
    layer, chip = Layer("dense", "matmul", ("image",), K=4, C=3), wide_chip()
    codes = np.stack([trivial_mapping(layer, chip).encode()] * 3)
    codes[1, place] = value
    with pytest.raises(InfeasibleError, match="mapping 1"):
        evaluate_many(layer, chip, codes)
    if place < 48:
        with pytest.raises(InfeasibleError, match="mapping 1"):
            evaluate_orders(layer, chip, codes)


def test_energy_adds_up_and_follows_the_table() -> None:
    layer, chip = Layer("dense", "matmul", ("image",), K=4, C=3), wide_chip()
    ones = (1,) * 8
    cost = evaluate(
        layer, chip, Mapping(ones, (ones,), ones, (1, 1, 4, 3, 1, 1, 1, 1), dram_order="NGPQRSKC")
    )
    # 8-bit words at half the energy of a 16-bit word: (12 weights + 12 inputs + 4 outputs) / 2 *
    # 200.
    assert cost.energy_parts["dram"] == pytest.approx(28 / 2 * 200)
    assert cost.energy_parts["mac"] == 12
    assert cost.energy == pytest.approx(sum(cost.energy_parts.values()))
    assert cost.edp == cost.energy * cost.cycles


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dram": (1, 1, 3, 3, 1, 1, 1, 1)}, "covers the layer"),
        ({"dram": (1, 1, 5, 3, 1, 1, 1, 1)}, "4 are enough"),
    ],
)
def test_mappings_that_do_not_cover_exactly_are_refused(
    change: dict[str, tuple[int, ...]], said: str
) -> None:
    layer, chip = Layer("dense", "matmul", ("image",), K=4, C=3), wide_chip()
    ones = (1,) * 8
    wrong = Mapping(ones, (ones,), ones, **change)  # type: ignore[arg-type]
    with pytest.raises(InfeasibleError, match=said):
        evaluate(layer, chip, wrong)
    with pytest.raises(InfeasibleError, match="mapping 0"):
        evaluate_many(layer, chip, wrong.encode()[None])


def test_over_capacity_names_level_and_excess() -> None:
    layer = Layer("dense", "matmul", ("image",), K=64, C=64)
    axis, registers = Axis("a", 1), Memory(shared_bytes=10)
    chip = Chip("small", (axis,), registers, Memory(shared_bytes=1000), TABLES["eyeriss"], 100.0)
    ones = (1,) * 8
    with pytest.raises(
        InfeasibleError,
        match=r"buffer of 'small' hold 1000 bytes, and the tiles exceed that by 3286 bytes",
    ):
        # 3968 weights, 62 inputs of a byte; the sum is spread over array tiles, so the 64 outputs
        # take 4 bytes each.
        evaluate(
            layer,
            chip,
            Mapping(ones, (ones,), (1, 1, 64, 62, 1, 1, 1, 1), (1, 1, 1, 2, 1, 1, 1, 1)),
        )
    with pytest.raises(InfeasibleError, match="registers"):
        evaluate(
            layer, chip, Mapping((1, 1, 8, 1, 1, 1, 1, 1), (ones,), ones, (1, 1, 8, 64, 1, 1, 1, 1))
        )


def test_counts_above_2_to_the_53_are_refused() -> None:
    layer = Layer("huge", "matmul", ("image",), N=10**6, K=10**6, C=10**6)
    chip = wide_chip()
    with pytest.raises(InfeasibleError, match=r"2\^53"):
        evaluate(layer, chip, trivial_mapping(layer, chip))
    with pytest.raises(InfeasibleError, match=r"2\^53"):
        evaluate_many(layer, chip, trivial_mapping(layer, chip).encode()[None])


def test_nine_orders_and_eight_bypasses_at_once_cost_what_each_costs_alone() -> None:
    generator = np.random.default_rng(5)
    for _ in range(6):
        layer, mapping = random_nest(generator)
        chip = wide_chip(generator, multicast=bool(generator.integers(2)))
        together = evaluate_orders(layer, chip, mapping.encode()[None])
        for inner, keep_inner in enumerate("WIO"):
            for outer, keep_outer in enumerate("WIO"):
                orders = (stationary_order(keep_inner), stationary_order(keep_outer))
                for bits in range(8):
                    bypass = "".join(tensor for bit, tensor in enumerate("WIO") if bits >> bit & 1)
                    alone = evaluate(
                        layer,
                        chip,
                        Mapping(
                            mapping.register,
                            mapping.spatial,
                            mapping.buffer,
                            mapping.dram,
                            *orders,
                            bypass,
                        ),
                    )
                    assert together.energy[0, inner, outer, bits] == pytest.approx(
                        alone.energy, rel=1e-12
                    )
                    assert together.cycles[0, inner, outer, bits] == pytest.approx(
                        alone.cycles, rel=1e-12
                    )
                    assert together.fits[0, inner, outer, bits]
