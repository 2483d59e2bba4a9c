"""What must hold of every layer and chip: more never hurts, nothing moves less than once."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.random_nests import random_nest
from pliant.accelerator.chip import DIMS, Axis, Chip, Memory, load_chip, parse_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.explain import reasons, tiles
from pliant.accelerator.mapper.optimal import BestMapping, DataflowConstraint, optimal_mapping
from pliant.accelerator.mapper.orders import evaluate_orders
from pliant.accelerator.mapping import Mapping, trivial_mapping
from pliant.accelerator.model.cost import evaluate
from pliant.errors import InfeasibleError, RecipeError
from pliant.workload import Layer

GUIDE = Path(__file__).parents[2] / "docs" / "accelerator.md"
SEEDS = st.integers(0, 10**6)
BANDWIDTHS = ("dram", "buffer", "registers")
FEW = settings(max_examples=25, deadline=None)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    sizes = {dim: draw(st.integers(1, 8)) for dim in "KCPQ"}
    window = draw(st.integers(1, 3))
    return Layer(
        "drawn",
        "conv",
        ("image",),
        R=window,
        S=window,
        strides=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        **sizes,
    )


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    axes = (
        Axis("rows", draw(st.integers(1, 4)), "KCR"),
        Axis("columns", draw(st.integers(1, 4)), "PQK"),
    )
    speed = [draw(st.floats(0.25, 16)) for _ in BANDWIDTHS]
    registers = Memory(
        float(draw(st.integers(6, 40))),
        double_buffered=False,
        bandwidth_bytes_per_cycle=8 * speed[2],
    )
    buffer = Memory(
        float(draw(st.integers(40, 400))),
        double_buffered=draw(st.booleans()),
        bandwidth_bytes_per_cycle=speed[1],
    )
    return Chip(
        "drawn",
        axes,
        registers,
        buffer,
        TABLES[draw(st.sampled_from(sorted(TABLES)))],
        100.0,
        speed[0],
    )


def faster(chip: Chip, link: str, times: float) -> Chip:
    if link == "dram":
        return replace(
            chip, dram_bandwidth_bytes_per_cycle=chip.dram_bandwidth_bytes_per_cycle * times
        )
    memory = getattr(chip, link)
    return replace(
        chip,
        **{
            link: replace(
                memory, bandwidth_bytes_per_cycle=memory.bandwidth_bytes_per_cycle * times
            )
        },
    )


@FEW
@given(SEEDS, chips(), st.sampled_from(BANDWIDTHS), st.sampled_from(["roofline", "stall_exact"]))
def test_more_bandwidth_never_makes_a_mapping_slower(
    seed: int, chip: Chip, link: str, mode: str
) -> None:
    layer, mapping = random_nest(np.random.default_rng(seed), most_steps=60)
    chip = replace(
        chip,
        axes=(Axis("a", 10**6, max_loops=8),),
        registers=replace(chip.registers, shared_bytes=1e9),
    )
    chip = replace(chip, buffer=replace(chip.buffer, shared_bytes=1e9))
    slow, fast = (
        evaluate(layer, c, mapping, latency=mode).cycles for c in (chip, faster(chip, link, 2.0))
    )  # type: ignore[arg-type]
    assert fast <= slow * (1 + 1e-12)


@FEW
@given(
    layers(),
    chips(),
    st.sampled_from(["energy", "latency", "edp"]),
    st.sampled_from(["registers", "buffer"]),
)
def test_larger_memories_and_wider_links_never_make_the_optimum_worse(
    layer: Layer, chip: Chip, goal: str, level: str
) -> None:
    # Where a table's energy per access grows with a memory, a larger one may cost more: that is the
    # point of the table.
    flat = replace(chip.energy, buffer_per_kib=0.0, register_growth=1.0, buffer_growth=1.0)
    chip = replace(chip, energy=flat)
    memory = getattr(chip, level)
    larger = replace(chip, **{level: replace(memory, shared_bytes=2 * memory.shared_bytes)})
    value = optimal_mapping(layer, chip, goal).value  # type: ignore[arg-type]
    for better in (larger, faster(chip, "dram", 2.0)):
        assert optimal_mapping(layer, better, goal).value <= value * (1 + 1e-9)


@FEW
@given(SEEDS)
def test_nothing_moves_less_than_once_and_loops_that_run_once_may_stand_anywhere(seed: int) -> None:
    generator = np.random.default_rng(seed)
    layer, mapping = random_nest(generator, most_steps=100)
    chip = Chip(
        "wide", (Axis("a", 10**6, max_loops=8),), Memory(1e9), Memory(1e9), TABLES["eyeriss"], 1.0
    )
    cost = evaluate(layer, chip, mapping)
    whole = {t.tensor: t.words for t in tiles(best_of(layer, mapping, chip)) if t.level == "dram"}
    assert cost.counts["operations"] == math.prod(getattr(layer, dim) for dim in DIMS)
    assert cost.counts["dram_input_reads"] >= (whole["I"] or 0)
    assert (
        cost.counts["dram_output_writes"] - cost.counts["dram_sum_reads"] == layer.output_elements
    )
    assert not layer.weighted or cost.counts["dram_weight_reads"] >= (whole["W"] or 0)
    once = [dim for dim in DIMS if mapping.dram[DIMS.index(dim)] == 1]
    order = "".join([dim for dim in mapping.dram_order if dim not in once] + once)
    moved = Mapping(
        mapping.register,
        mapping.spatial,
        mapping.buffer,
        mapping.dram,
        mapping.buffer_order,
        order,
        mapping.bypass,
    )
    assert moved == mapping


def best_of(layer: Layer, mapping: Mapping, chip: Chip) -> BestMapping:
    """A mapping as the result of a search."""
    found = optimal_mapping(Layer("small", "matmul", ("image",), K=2), chip)
    return replace(found, layer=layer, mapping=mapping, cost=evaluate(layer, chip, mapping))


@pytest.mark.parametrize("level", ["registers", "buffer"])
@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (Memory(5.0), "shared_bytes is 5, and 6 are needed"),
        (Memory(11.0, double_buffered=True), "shared_bytes is 11, and 12 are needed"),
        (
            Memory(weight_bytes=0.5, input_bytes=1, output_bytes=4),
            r"weight_bytes is 0\.5, and 1 are needed",
        ),
        (
            Memory(weight_bytes=1, input_bytes=0, output_bytes=4),
            "input_bytes is 0, and 1 are needed",
        ),
        (
            Memory(weight_bytes=1, input_bytes=1, output_bytes=3),
            "output_bytes is 3, and 4 are needed",
        ),
    ],
)
def test_a_memory_that_cannot_hold_one_of_each_is_named_with_its_size(
    level: str, memory: Memory, said: str
) -> None:
    memories = {"registers": Memory(64.0), "buffer": Memory(64.0), level: memory}
    with pytest.raises(RecipeError, match=rf"{level}\.{said}"):
        Chip("small", (Axis("a", 1),), energy=TABLES["eyeriss"], clock_mhz=1.0, **memories)


@pytest.mark.parametrize(
    "missing", ["unit", "word_bits", "mac", "register", "noc", "buffer", "dram"]
)
def test_an_energy_table_with_a_hole_names_the_entry(missing: str) -> None:
    entries = {
        "unit": '"picojoule"',
        "word_bits": "8",
        "mac": "1",
        "register": "1",
        "noc": "1",
        "buffer": "2",
        "dram": "100",
    }
    lines = "\n".join(f"{key} = {value}" for key, value in entries.items() if key != missing)
    text = (
        '\nclock_mhz = 1\naxes = [{ name = "a", size = 2 }]\nregisters = { shared_bytes = 64 }\n'
        "buffer = { shared_bytes = 640 }\n[energy]\n"
    )
    with pytest.raises(RecipeError, match=f"'{missing}' is missing"):
        parse_chip(text + lines)


def test_counts_are_exact_to_the_last_number_before_2_to_the_53() -> None:
    chip = load_chip("nvdla-256")
    # 9,007,199,254,740,991 = 6361 * 69431 * 20394401, the largest exact number; one more column is
    # refused everywhere.
    largest = Layer("largest", "matmul", ("image",), N=6361, K=69431, C=20394401)
    counts = evaluate(
        largest, chip, replace(trivial_mapping(largest, chip), dram_order="GPQRSNKC")
    ).counts
    assert counts["operations"] == 2**53 - 1
    too_large = replace(largest, N=6362)
    with pytest.raises(InfeasibleError, match=r"2\^53"):
        evaluate(too_large, chip, trivial_mapping(too_large, chip))
    with pytest.raises(InfeasibleError, match=r"2\^53"):
        evaluate_orders(too_large, chip, trivial_mapping(too_large, chip).encode()[None])
    with pytest.raises(InfeasibleError, match=r"2\^53"):
        optimal_mapping(Layer("huge", "matmul", ("image",), N=2**18, K=2**18, C=2**18), chip)


def test_the_ten_lines_of_the_guide_describe_a_chip_and_say_why_a_layer_is_slow() -> None:
    described = re.findall(
        r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL
    )[0]
    assert len(described.strip().splitlines()) <= 10
    chip = parse_chip(described)
    dense, depthwise = (
        Layer("dense", "matmul", ("image",), K=1000, C=1280),
        Layer("dw", "conv", ("image",), G=96, P=56, Q=56, R=3, S=3),
    )
    said = " ".join(reasons(optimal_mapping(dense, chip), chip))
    # Each weight is used once, so DRAM is the limit: 1,280,000 weights of a byte at 8 bytes a
    # cycle.
    assert re.search(r"DRAM is the bottleneck \(160,\d{3} cycles\)", said)
    assert "the bandwidth (8 B per cycle) would move the bound" in said
    said = " ".join(reasons(optimal_mapping(depthwise, chip, "latency"), chip))
    assert re.search(r"of 256 PEs have work \(rows unused", said)


def test_the_maestro_table_is_that_of_its_constants_and_leaves_dram_free() -> None:
    chip = replace(load_chip("nvdla-256"), energy=TABLES["maestro"])
    layer = Layer("c", "conv", ("image",), K=16, C=16, P=8, Q=8, R=3, S=3)
    # Where DRAM is free, bypassing the buffer is too: a comparison with MAESTRO holds everything in
    # the buffer.
    assert optimal_mapping(layer, chip, "energy").cost.energy_parts["buffer"] == 0.0
    cost = optimal_mapping(layer, chip, "energy", constraint=DataflowConstraint(bypass=False)).cost
    counts, parts = cost.counts, cost.energy_parts
    assert cost.energy_unit == "mac_energies"
    assert parts["dram"] == parts["noc"] == 0.0
    assert parts["mac"] == counts["operations"]
    words = sum(
        counts[f"{level}_{tensor}_reads"]
        for level in ("array", "dram")
        for tensor in ("weight", "input")
    )
    sums = [counts[f"{level}_sum_reads"] for level in ("array", "dram")]
    # Finished outputs are a word of 8 bits on both sides of the buffer, partial sums four, written
    # and read.
    assert parts["buffer"] == pytest.approx(
        18.61 * (words + 2 * layer.output_elements + 2 * 4 * sum(sums))
    )
