"""Chips and mappings as text: what ships loads, what prints parses, what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracles.random_nests import random_nest
from pliant.accelerator.chip import (
    Area,
    Axis,
    Memory,
    WordWidths,
    load_chip,
    parse_chip,
    shipped_chips,
)
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapping import (
    Mapping,
    format_mapping,
    order_from_short,
    order_to_short,
    stationary_order,
)
from pliant.errors import EncodingError, RecipeError

OWN = """
clock_mhz = 500
axes = [{ name = "rows", size = 4, loops = "KC" }, { name = "columns", size = 4, loops = "PQ" }]
[registers]
shared_bytes = 64
[buffer]
shared_bytes = 65536
[energy]
table = "eyeriss"
"""


def test_every_shipped_chip_loads_and_names_its_source() -> None:
    assert {"eyeriss", "nvdla-256", "nvdla-1024", "edge-tpu-like", "shidiannao-like"} == set(
        shipped_chips()
    )
    for name in shipped_chips():
        chip = load_chip(name)
        assert chip.name == name
        assert chip.source
        assert chip.area_mm2 > 0


def test_ten_lines_describe_a_chip() -> None:
    chip = parse_chip(OWN)
    assert chip.pes == 16
    assert chip.registers.total_bytes == 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("clock_mhz", "clock_ghz", "unknown key 'clock_ghz'.*clock_mhz"),
        (
            "shared_bytes = 64\n",
            "shared_kb = 64\n",
            r"unknown key 'registers\.shared_kb'.*shared_bytes",
        ),
        ("clock_mhz = 500", "", "clock_mhz.*missing"),
        (
            "clock_mhz = 500",
            "clock_mhz = 0",
            "'clock_mhz': input should be greater than 0, received 0",
        ),
        ('loops = "KC"', 'loops = "KX"', r"'axes\.0\.loops': .*NGKCPQRS.*, received 'KX'"),
        (
            "shared_bytes = 64\n",
            "shared_bytes = 2\n",
            r"at least one word of each tensor; registers.shared_bytes is 2",
        ),
        ("shared_bytes = 65536", "weight_bytes = 1024", "buffer states shared_bytes, or"),
        ('table = "eyeriss"', 'table = "eyeris"', "Did you mean 'eyeriss'"),
        ('table = "eyeriss"', 'unit = "picojoule"', "is missing"),
        (
            'table = "eyeriss"',
            'table = "eyeriss"\nunit = "calorie"',
            "input should be 'picojoule' or 'mac_energies', received 'calorie'",
        ),
        (
            'table = "eyeriss"',
            'table = "eyeriss"\ndram = -1',
            "'dram': input should be greater than or equal to 0, received -1",
        ),
    ],
)
def test_bad_chips_are_named(old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_chip(OWN.replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": ()}, "1 to 3 axes, received 0"),
        ({"axes": (Axis("rows", 0),)}, "axis 'rows': key 'size': .* received 0"),
        ({"buffer": Memory(-1.0)}, r"buffer: key 'shared_bytes': .* received -1\.0"),
        ({"buffer": Memory(64.0, bandwidth_bytes_per_cycle=float("nan"))}, "received nan"),
        ({"energy": replace(TABLES["dosa"], dram=float("inf"))}, "energy: key 'dram': .* finite"),
        ({"word_widths": WordWidths(weight_bits=0)}, "key 'weight_bits': .* received 0"),
        ({"clock_mhz": float("nan")}, "clock_mhz is above 0, received nan"),
        ({"clock_mhz": float("inf")}, "clock_mhz is finite, received inf"),
        ({"area": Area(mac_um2=float("inf"))}, "area: key 'mac_um2': .*finite"),
        ({"axes": (Axis("rows", 4, ""),)}, "key 'loops': .* received ''"),
        ({"axes": (Axis("rows", 4, "KK"),)}, "axis 'rows' names a loop once, received 'KK'"),
        ({"axes": (Axis("a", 4), Axis("a", 4))}, "every axis has a name of its own"),
        ({"axes": (Axis("my rows", 4),)}, "key 'name': .* received 'my rows'"),
        ({"axes": (Axis("", 4),)}, "key 'name': .* received ''"),
        ({"axes": (Axis("axis1", 4),)}, "mean axes by their place, received 'axis1' for axis 0"),
        ({"axes": (Axis("rows", 10**9),)}, "key 'size': .* received 1000000000"),
        ({"axes": (Axis("a", 2**11), Axis("b", 2**11))}, "at most 1,048,576 PEs"),
        (
            {"buffer": Memory(4096.0, weight_bytes=64.0)},
            "buffer states shared_bytes and a size of one tensor",
        ),
        ({"energy": replace(TABLES["dosa"], word_bits=0)}, "key 'word_bits': .* received 0"),
    ],
)
def test_chips_built_in_python_are_checked_as_those_of_files(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        replace(parse_chip(OWN), **change)


def test_a_chip_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_bytes(b'name = "\xff\xfe"')
    with pytest.raises(RecipeError, match=r"a chip is a TOML file, .*chip\.toml cannot be read"):
        load_chip(tmp_path / "chip.toml")


def test_an_unknown_chip_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'eyeriss'"):
        load_chip("eyeris")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_chip("nowhere.toml")


def test_what_prints_parses_and_what_encodes_decodes() -> None:
    generator = np.random.default_rng(0)
    chip = parse_chip(OWN.replace(', { name = "columns", size = 4, loops = "PQ" }', ""))
    for _ in range(100):
        _, mapping = random_nest(generator)
        assert Mapping.parse(str(mapping), chip) == mapping
        assert Mapping.parse(format_mapping(mapping, ["rows"]), chip) == mapping
        assert Mapping.decode(mapping.encode(), axes=1) == mapping


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dram once\nbuffer once\narray rows", "'register' is missing"),
        ("dram for K in 0..x\nbuffer once\narray rows\nregister once", "loops are written as"),
        ("dram once\nbuffer once\narray depth K*2\nregister once", "has the axes rows, columns"),
        ("dram once\nbuffer once\narray rows K2\nregister once", "spread as loop"),
    ],
)
def test_texts_that_are_no_mapping(text: str, said: str) -> None:
    with pytest.raises(EncodingError, match=said):
        Mapping.parse(text, parse_chip(OWN))


def test_orders_in_the_short_form() -> None:
    assert order_from_short("CRXKYS") == "NGCRQKPS"
    assert order_to_short(order_from_short("CXYRSK")) == "CXYRSK"
    assert stationary_order("W") == "GKCRSNPQ"
    with pytest.raises(EncodingError, match="holds each of"):
        order_from_short("CRXKYY")


def test_energies_follow_the_sizes_of_memories_and_the_width_of_the_port() -> None:
    table = TABLES["interstellar"]
    # Yang et al., table 3: registers of 16 to 512 bytes, buffers of 32 to 512 KiB.
    registers = {16: 0.03, 32: 0.06, 64: 0.12, 128: 0.24, 256: 0.48, 512: 0.96}
    buffers = {32: 6.0, 64: 9.0, 128: 13.5, 256: 20.25, 512: 30.375}
    for size, energy in registers.items():
        assert table.register_access(size) == pytest.approx(energy)
    for kib, energy in buffers.items():
        assert table.buffer_access(1024 * kib) == pytest.approx(energy)
    flat = TABLES["eyeriss"]
    assert (flat.register_access(8), flat.buffer_access(1e9)) == (1.0, 6.0)
    # MAESTRO: 0.8/1000 * 14.662 milliwatts a byte and PE, where a MAC of 0.075 pJ draws 1.2223.
    assert table.idle(168, 26) == pytest.approx(168 * 26 * 0.075 * 0.8e-3 * 14.662 / 1.2223)
    assert table.idle(168, float("inf")) == 0.0
    chip = parse_chip(OWN)
    port = replace(chip, buffer=replace(chip.buffer, bandwidth_bytes_per_cycle=8.0))
    wide = replace(chip, buffer=replace(chip.buffer, bandwidth_bytes_per_cycle=16.0))
    per_byte = chip.area.bus_um2_per_byte + 16 * chip.area.bus_um2_per_byte_and_pe
    assert port.area_mm2 - chip.area_mm2 == pytest.approx(8e-6 * per_byte)
    assert wide.area_mm2 - port.area_mm2 == pytest.approx(8e-6 * per_byte)
    grown = OWN + "register_growth = 2.0\n"
    with pytest.raises(RecipeError, match=r"register_growth is 2, and no register_at_bytes"):
        parse_chip(grown)
    assert parse_chip(grown + "register_at_bytes = 512\n").energy.register_access(64) == 0.125
