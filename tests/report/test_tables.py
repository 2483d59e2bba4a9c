"""Numbers in the pages of rooflines, rankings and mappings are those of the typed values."""

from __future__ import annotations

from pathlib import Path

import pytest

from pliant.accelerator.chip import load_chip
from pliant.accelerator.network_mapping import map_workload
from pliant.accuracy.ranking import Correlation, RankCorrelations
from pliant.report.mapping_charts import (
    _dram_bytes,
    energy_chart,
    roofline_chart,
    time_chart,
    utilisation_chart,
)
from pliant.report.mapping_page import _tiles as mapping_tiles
from pliant.report.mapping_page import mapping_page
from pliant.report.ranking_page import MIN_SECONDS, _cells, explanation, ranking_chart, ranking_page
from pliant.report.roofline_chart import roofline_chart as device_chart
from pliant.report.roofline_chart import time_parts_chart
from pliant.report.roofline_page import _tiles as roofline_tiles
from pliant.report.roofline_page import layer_table, runtime_note, write_roofline_page
from pliant.workload import NETWORK_INPUT, Layer, Workload
from pliant.workload.roofline import LayerBound, MemoryLevel, NetworkRoofline, Roofline

ROOFS = Roofline(100e9, 10e9, (MemoryLevel("L1", 1000, 50e9),))
TIMED = NetworkRoofline(
    "one",
    (
        # 2 µs of arithmetic; 1 µs of memory
        LayerBound("conv", 200_000, 10_000, "memory", "compute", 2e-6, 1e-6),
        LayerBound("pool", 0, 500, "L1", "memory", 0.0, 10e-9),
        LayerBound("gate", 100, 20_000, "memory", "memory", 1e-9, 2e-6),
    ),
    (5e-6, None, 4e-6),
    (("Reorder", 1e-6), ("Quantize", 3e-6)),
)
UNTIMED = NetworkRoofline("two", TIMED.layers)


def _plain(texts: list[str]) -> list[str]:
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts]


def test_a_layer_under_the_roofs_is_told_by_its_own_numbers() -> None:
    conv, pool, gate = map(_plain, layer_table(TIMED).rows)
    assert conv == ["conv", "200 k", "9.77 KiB", "20", "arithmetic", "2 µs", "5 µs", "40 %"]
    assert pool[4:] == ["memory (L1)", "0.0100 µs", "fused", ""]
    assert gate[4:] == ["memory (memory)", "2 µs", "4 µs", "50 %"]
    assert all(row[6:] == ["not measured"] * 2 for row in layer_table(UNTIMED).rows)
    [note] = _plain([runtime_note(TIMED)])
    assert note == "Of no layer: Quantize 3 µs, Reorder 1 µs."
    assert runtime_note(UNTIMED) == ""


def test_the_tiles_and_charts_of_roofs_add_up(tmp_path: Path) -> None:
    peak, bandwidth, one, two = roofline_tiles([TIMED, UNTIMED], ROOFS)
    assert _plain([peak.value, bandwidth.value]) == ["100 G", "10 GB/s"]
    assert TIMED.seconds == pytest.approx(13e-6)
    assert _plain([one.value]) == ["0.0130 ms"]
    assert "2 of 3 layers wait for memory" in one.remark
    assert two.remark.startswith("at least")
    parts = {bar.name: sum(bar.x) for bar in time_parts_chart([TIMED]).data}
    assert parts == pytest.approx({"arithmetic": 0.002001, "memory": 0.002009, "beyond the roofs":
        0.00899}, rel=1e-3)  # fmt: skip
    assert sum(parts.values()) == pytest.approx(0.013)
    lines = {trace.name: trace for trace in device_chart([TIMED], ROOFS).data}
    attainable, achieved = lines["one, attainable"], lines["one, achieved"]
    assert list(attainable.x) == pytest.approx([20.0, 100 / 20_000]), "the pool has no place"
    assert list(attainable.y) == pytest.approx([100.0, 0.05])
    assert list(achieved.y) == pytest.approx([40.0, 0.025])
    assert max(lines["L1, 50 GB/s"].y) == pytest.approx(100.0)
    write_roofline_page([TIMED], ROOFS, tmp_path / "r.html", device="a board", source="a sheet")
    assert "a board" in (tmp_path / "r.html").read_text(encoding="utf-8")


def _row(name: str, tau: Correlation | None, **changes) -> RankCorrelations:
    values = {
        "networks": 50, "failed": 1, "spearman": tau, "equal_size": None, "equal_pairs": 0,
        "over_parameters": None, "top": 5, "top_overlap": 0.4, "regret": 1.25, "seconds": 0.5,
    } | changes  # fmt: skip
    return RankCorrelations(name=name, kendall=tau, **values)


def test_a_ranking_is_drawn_with_both_ends_of_its_intervals() -> None:
    rows = [
        _row("zen", Correlation(0.6, 0.5, 0.75)),
        _row("naswot", Correlation(0.4), seconds=None),
        _row("broken", None),
        _row("parameters", Correlation(0.55, 0.5, 0.6), seconds=0.0),
    ]
    scores, arithmetic = ranking_chart(rows).data
    assert list(scores.y) == [0.6, 0.4], "what is undefined is not drawn at 0"
    assert list(scores.x) == [0.5, MIN_SECONDS]
    assert list(scores.error_y.array) == pytest.approx([0.15, 0])
    assert list(scores.error_y.arrayminus) == pytest.approx([0.1, 0])
    assert list(arithmetic.y) == [0.55]
    assert _plain(list(_cells(rows[0]))) == [
        "zen", "+0.600 [0.50, 0.75]", "+0.600 [0.50, 0.75]", "undefined", "undefined", "40 %",
        "1.25", "0.50 s", "1",
    ]  # fmt: skip
    assert _cells(rows[1])[7] == "—"
    assert "undefined" in _cells(rows[2])[1]
    page = ranking_page(rows, truth="test accuracy")
    assert "+0.600 [0.50, 0.75]" in page
    assert "test accuracy" in page
    assert "Intervals are left out" not in explanation(50)
    assert "Intervals are left out: they take" in explanation(3)


@pytest.fixture(scope="module")
def mapped():
    layers = (
        Layer("a", "conv", (NETWORK_INPUT,), K=8, C=3, P=8, Q=8, R=3, S=3, bits=16),
        Layer("b", "matmul", ("a",), K=10, C=512, bits=16),
    )
    return map_workload(Workload(layers, 300), load_chip("eyeriss"))


def test_bars_of_a_mapping_add_up_to_its_energy_and_time(mapped) -> None:
    parts = [bar.y for bar in energy_chart(mapped).data]
    energy = [sum(heights) for heights in zip(*parts, strict=True)]
    assert energy == pytest.approx([best.cost.energy * 1e-6 for best in mapped.layers])
    parts = [bar.y for bar in time_chart(mapped).data]
    times = [max(heights) for heights in zip(*parts, strict=True)]
    assert sum(times) == pytest.approx(mapped.latency_ms)
    [bar] = utilisation_chart(mapped).data
    assert list(bar.y) == [best.cost.utilisation for best in mapped.layers]
    tiles = {tile.name: tile.value for tile in mapping_tiles(mapped)}
    assert tiles["Mappings proven best"] == "2 of 2"
    assert tiles["Energy"].endswith(" million"), "of MACs: the table has ratios only"
    assert float(tiles["Energy"].split()[0]) == pytest.approx(mapped.energy / 1e6, rel=5e-3)


def test_a_layer_stands_under_the_roof_of_the_traffic_that_its_time_is_of(mapped) -> None:
    bandwidth = mapped.chip.dram_bandwidth_bytes_per_cycle
    layers, roof = roofline_chart(mapped).data
    for best, x, y in zip(mapped.layers, layers.x, layers.y, strict=True):
        traffic = _dram_bytes(best, mapped.chip)
        assert traffic == pytest.approx(best.cost.time_cycles["dram"] * bandwidth)
        assert x == pytest.approx(best.cost.counts["operations"] / traffic)
        assert y <= min(max(roof.y), x * bandwidth) * (1 + 1e-9)
    assert max(roof.y) == pytest.approx(mapped.chip.pes * mapped.chip.macs_per_pe_per_cycle)
    page = mapping_page(mapped)
    assert "1. a (conv, " in page
    assert "2. b (matmul, " in page
