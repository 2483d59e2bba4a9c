"""Numbers read well at every size, and a missing one is said."""

from __future__ import annotations

import math

import pytest

from pliant.metrics import COST_METRICS
from pliant.objective import ACCURACY
from pliant.report.figure import wrapped
from pliant.report.quantities import (
    METRICS,
    count,
    duration,
    format_timestamp,
    percent,
    quantity,
    significant,
    size,
)
from pliant.report.slots import slot_name, stage_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.31, "0.310"),
        (99.96, "100"),
        (4321.7, "4,322"),
        (2.1e-6, "2.1 \N{MULTIPLICATION SIGN} 10⁻⁶"),
        (2.2e19, "2.2 \N{MULTIPLICATION SIGN} 10¹⁹"),
        (7371**5, "2.18 \N{MULTIPLICATION SIGN} 10¹⁹"),
        (181_105_470, "181,105,470"),
        (0, "0"),
        (-0.5, "-0.500"),
        (None, "not measured"),
        (math.inf, "inf"),
    ],
)
def test_significant_digits(value: object, text: str) -> None:
    assert significant(value).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.8957), "89.57 %"),
        (percent(None), "not measured"),
        (count(950), "950"),
        (count(337_000), "337 k"),
        (count(2_780_000), "2.78 M"),
        (count(4.1e9), "4.10 G"),
        (size(1000), "1000 bytes"),
        (size(1536), "1.50 KiB"),
        (quantity("latency_ms", 0.2849), "0.285 ms"),
        (quantity("energy_uj", None), "not measured"),
        (quantity("energy_uj", 41.26), "41.3 µJ"),
        (quantity("accuracy", 0.9), "90.00 %"),
        (quantity("latency_ms", 0.2849, 0.0055), "0.285 ± 0.0055 ms"),
        (quantity("own_metric", 2), "2"),
        (duration(59), "59 s"),
        (duration(412), "6 min 52 s"),
        (duration(5400), "1 h 30 min"),
        (format_timestamp("2026-01-05T10:20:30Z"), "5 January 2026, 10:20 UTC"),
        (format_timestamp("yesterday"), "yesterday"),
        (slot_name("stage2_block1"), "stage 2, block 1"),
        (slot_name("stem1"), "stem 1"),
        (stage_of("stage2_pool"), "Stage 2"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_every_metric_has_words() -> None:
    for metric in (*COST_METRICS, ACCURACY):
        assert metric in METRICS
    units = {metric: metric.rpartition("_")[2] for metric in COST_METRICS if "_" in metric}
    for metric, unit in units.items():
        # The unit of the name, as people write it.
        plain = METRICS[metric].unit.replace("µ", "u").replace("²", "2")
        assert plain.lower() == unit


def test_long_names_are_broken_behind_underscores() -> None:
    line = "_".join(["1.1k3e4"] * 20)
    rows = wrapped(line)
    assert "".join(rows) == line
    assert all(len(row) <= 44 and row.endswith(("_", "e4")) for row in rows)
    assert wrapped("short") == ["short"]
