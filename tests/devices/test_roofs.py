"""Measured roofs: the shape of what is measured, not how fast this machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pliant.devices.data_sheet import load_sheet, save_sheet
from pliant.devices.roofs import _arrays, _not_slower, _streams, cache_sizes, measure_roofs
from pliant.errors import MeasurementError


def test_the_roofs_of_this_machine_are_a_data_sheet(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    sheet = measure_roofs(rounds=1, progress=lambda *about: told.append(about))
    assert told == [("peak arithmetic", 1, 1), ("bandwidth", 1, 1)]
    assert set(sheet.peak_gops.stated) == {"fp32", "bf16", "int8"}
    rates = [cache.bandwidth_gb_per_s for cache in sheet.caches] + [sheet.bandwidth_gb_per_s]
    assert rates == sorted(rates, reverse=True)
    assert "1 thread" in sheet.name
    assert sheet.source.startswith("measured on ")
    save_sheet(sheet, tmp_path / "this.toml")
    assert load_sheet(tmp_path / "this.toml") == sheet


def test_more_threads_than_processors_are_refused() -> None:
    with pytest.raises(MeasurementError, match="one processor per thread"):
        measure_roofs(100_000)


def test_caches_come_from_the_system(tmp_path: Path) -> None:
    rows = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "16M")]
    for index, texts in enumerate(rows):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (folder / name).write_text(f"{text}\n")
    (tmp_path / "index9").mkdir()
    assert cache_sizes(tmp_path) == [(1, 48), (3, 16384)]
    assert cache_sizes(tmp_path / "none") == []


def test_a_level_is_never_slower_than_the_next() -> None:
    rates = [((1, 48), 90.0), ((2, 512), 100.0), ((0, 0), 20.0)]
    assert _not_slower(rates) == [((1, 48), 100.0), ((2, 512), 100.0), ((0, 0), 20.0)]


def test_streams_move_what_they_say() -> None:
    arrays = _arrays(4096)
    for one in arrays:
        assert one.ctypes.data % 64 == 0
        one[:] = 2
    assert len({one.ctypes.data % 4096 for one in arrays}) == 3
    for name, (kernel, moved) in _streams(3 * 4 * 1024, whole=False).items():
        kernel()
        assert moved % (3 * 4 * 1024) == 0, name
