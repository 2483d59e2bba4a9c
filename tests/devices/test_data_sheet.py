"""Data sheets: what they state, what is refused, and the target that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pliant.devices.data_sheet import (
    Cache,
    DataSheet,
    PeakGops,
    is_sheet,
    load_sheet,
    parse_sheet,
    save_sheet,
    shipped_sheets,
    workload_bits,
)
from pliant.devices.data_sheet_target import DataSheetTarget
from pliant.errors import RecipeError
from pliant.spaces.presets import preset
from pliant.spaces.space import Space
from pliant.targets import open_target
from pliant.workload import least_seconds

SHEET = """
name = "board"
source = "its data sheet"
bandwidth_gb_per_s = 2.0
power_w = 3.0
[peak_gops]
fp32 = 8.0
int8 = 32.0
"""


@pytest.mark.parametrize(
    ("line", "wrong", "said"),
    [
        ("fp32 = 8.0", "fp32 = true", "'peak_gops.fp32': input should be a valid number"),
        ("fp32 = 8.0", "fp32 = 8e9", r"'peak_gops.fp32': .* less than or equal .* 8000000000"),
        ("= 2.0", "= 2e9", "'bandwidth_gb_per_s': input should be less than or equal to 1000000"),
        ("= 3.0", "= true", "'power_w': input should be a valid number"),
        ("= 3.0", "= nan", "'power_w': input should be"),
        ("= 3.0", "= inf", "'power_w': input should be less"),
    ],
)
def test_what_is_no_number_of_its_unit_is_refused(line: str, wrong: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_sheet(SHEET.replace(line, wrong))


@pytest.mark.parametrize("name", shipped_sheets())
def test_sheets_that_ship_are_complete(name: str) -> None:
    sheet = load_sheet(name)
    assert is_sheet(name)
    assert sheet.source
    widths = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}
    for precision in sheet.peak_gops.stated:
        assert sheet.roofline(widths[precision]).ridge_macs_per_byte > 0


def test_a_sheet_survives_its_file(tmp_path: Path) -> None:
    caches = (Cache("L1", 48, 300.0), Cache("L2", 1024, 150.0))
    sheet = DataSheet("this", "measured", 20.0, PeakGops(fp32=200.0, bf16=400.0), caches)
    path = tmp_path / "this.toml"
    save_sheet(sheet, path)
    assert load_sheet(path) == sheet
    assert is_sheet(str(path))
    assert not is_sheet("eyeriss")
    roofline = sheet.roofline(16)
    assert roofline.peak_macs_per_s == 200e9
    assert [level.name for level in roofline.levels] == ["L1", "L2", "memory"]
    assert roofline.level(40_000).name == "L1"
    assert roofline.level(2**20).name == "L2"
    assert roofline.level(2**20 + 1).name == "memory"


def test_the_roof_is_the_highest_that_was_seen() -> None:
    sheet = parse_sheet(SHEET)
    higher = sheet.with_convolutions(8.5)
    assert higher.peak_gops == PeakGops(fp32=8.5, int8=32.0)
    assert higher.source == "its data sheet; fp32 by the convolutions of its profile"
    assert sheet.with_convolutions(7.5) == sheet.with_convolutions(None) == sheet
    int8 = parse_sheet(SHEET.replace("fp32 = 8.0", ""))
    assert int8.with_convolutions(8.5) == int8


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("fp32 = 8.0\nint8 = 32.0", ""), "at least one of fp32"),
        (("fp32 = 8.0", "fp32 = -8.0"), "peak_gops.fp32"),
        (("fp32 = 8.0", "fp33 = 8.0"), "fp32"),
        (("source", "sauce"), "source"),
        (("bandwidth_gb_per_s = 2.0", "bandwidth_gb_per_s = nan"), "bandwidth_gb_per_s"),
        (("[peak_gops]", "[peak_gops"), "TOML"),
    ],
)
def test_wrong_sheets_are_refused(change: tuple[str, str], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        parse_sheet(SHEET.replace(*change))


def test_caches_grow_and_precisions_are_known(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="smallest first"):
        DataSheet("x", "y", 1.0, PeakGops(fp32=1.0), (Cache("L2", 8, 2.0), Cache("L1", 4, 3.0)))
    with pytest.raises(RecipeError, match="known for fp32, int8"):
        parse_sheet(SHEET).roofline(16)
    with pytest.raises(RecipeError, match="no data sheet is called 'raspberry'"):
        load_sheet("raspberry")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_sheet(tmp_path / "none.toml")


def test_the_target_predicts_the_bound_of_the_whole_network(digits_space: Space) -> None:
    sheet = parse_sheet(SHEET)
    for space in (digits_space, digits_space.with_bits(8)):
        target = DataSheetTarget(sheet, space)
        rng = np.random.default_rng(0)
        networks = [space.sample_choices(rng) for _ in range(5)]
        for one, cost in zip(networks, target.predict(networks), strict=True):
            workload = space.lower(one)
            bits = workload_bits(workload)
            expected = 1e3 * least_seconds(workload, sheet.roofline(bits))
            assert cost.latency_ms == pytest.approx(expected)
            assert cost.energy_uj == pytest.approx(expected * 3.0 * 1e3)
    claims = [claim.claim for claim in target.evidence()]
    assert claims == [
        "Latency is a lower bound, not a measurement",
        "Energy is a model: latency times power",
    ]


def test_a_name_opens_it(digits_space: Space, tmp_path: Path) -> None:
    assert "roofline bound" in open_target("raspberry-pi-4", digits_space).name
    path = tmp_path / "board.toml"
    path.write_text(SHEET, encoding="utf-8")
    assert open_target(str(path), digits_space).metrics[:2] == ("latency_ms", "energy_uj")


def test_a_network_of_ours_takes_its_precision() -> None:
    space = preset("digits", channels=1, image_size=8, classes=10)
    assert workload_bits(space.lower(space.smallest())) == 32
    assert workload_bits(space.with_bits(8).lower(space.smallest())) == 8


def test_a_file_that_is_neither_sheet_nor_chip_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(RecipeError, match=r"a chip or a data sheet .*: No such file"):
        is_sheet(str(path))
    for content, said in ((b"\xff", "cannot be read"), (b"a", "cannot be read"), (b"", "is empty")):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=said):
            is_sheet(str(path))
    path.write_text("bandwidth_gb_per_s = 3.0")
    assert is_sheet(str(path))
