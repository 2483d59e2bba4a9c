"""Chips and mappings as text: what ships loads, what prints parses, what is wrong is named."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.random_nests import random_nest
from pliant.accelerator.chip import load_chip, parse_chip, shipped_chips
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
        ("shared_bytes = 64\n", "shared_kb = 64\n", "unknown key 'shared_kb'"),
        ("clock_mhz = 500", "", "clock_mhz.*missing"),
        ("clock_mhz = 500", "clock_mhz = 0", "above 0"),
        ('loops = "KC"', 'loops = "KX"', "loops are out of"),
        (
            "shared_bytes = 64\n",
            "shared_bytes = 2\n",
            r"at least one element of each tensor; registers.shared_bytes is 2",
        ),
        ("shared_bytes = 65536", "weight_bytes = 1024", "buffer states shared_bytes, or"),
        ('table = "eyeriss"', 'table = "eyeris"', "Did you mean 'eyeriss'"),
        ('table = "eyeriss"', 'unit = "picojoule"', "is missing"),
        (
            'table = "eyeriss"',
            'table = "eyeriss"\nunit = "calorie"',
            "unit is one of picojoule, mac_energies",
        ),
        ('table = "eyeriss"', 'table = "eyeriss"\ndram = -1', "dram is a number from 0 up"),
    ],
)
def test_bad_chips_are_named(old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_chip(OWN.replace(old, new, 1))


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
