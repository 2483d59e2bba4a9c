"""The units in which costs and durations are written, and how a number gets one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal

_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
UNITS: Mapping[str, Mapping[str, float]] = {
    "latency_ms": {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "energy_uj": {"nJ": 1e-3, "uJ": 1.0, "µJ": 1.0, "mJ": 1e3, "J": 1e6},
    "peak_memory_bytes": _BYTES,
    "model_size_bytes": _BYTES,
    "parameters": _COUNTS,
    "macs": _COUNTS,
    "area_mm2": {"um2": 1e-6, "µm2": 1e-6, "mm2": 1.0, "cm2": 1e2},
}
"""For each cost metric its units, and how much each is in the unit of the metric's name."""
QUANTITIES = {
    "latency": "latency_ms",
    "energy": "energy_uj",
    "peak_memory": "peak_memory_bytes",
    "model_size": "model_size_bytes",
    "area": "area_mm2",
}
"""Names without a unit, which is then part of the value."""


def metric_and_factor(name: str) -> tuple[str, float] | None:
    """The metric that a name with a unit means, and its unit in that of the metric.

    `energy_mj` is a thousand `energy_uj`; the case of the unit does not matter. None where the
    name is not of this form.
    """
    if name in UNITS:
        return name, 1.0
    quantity, _, unit = name.rpartition("_")
    metric = QUANTITIES.get(quantity)
    if metric is None:
        return None
    # "mJ" before "MJ": the first unit of this spelling wins, and no metric has both.
    factors = (factor for known, factor in UNITS[metric].items() if known.lower() == unit.lower())
    factor = next(factors, None)
    return None if factor is None else (metric, factor)


def format_cost(metric: str, value: float) -> str:
    """A positive cost with its unit, rounded up to four digits: a limit of it admits the cost."""
    units = {unit: factor for unit, factor in UNITS[metric].items() if "i" not in unit}
    smallest = min(units, key=lambda unit: units[unit])
    fitting = [unit for unit in units if units[unit] <= value]
    unit = max(fitting, key=lambda unit: units[unit], default=smallest)
    rounded_up = Context(prec=4, rounding=ROUND_CEILING)
    digits = rounded_up.plus(Decimal(str(value)) / Decimal(str(units[unit])))
    return f"{digits.normalize():f}{unit}"


DURATIONS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
"""Seconds in each unit of a duration."""


def parse_duration(text: str) -> float | None:
    """Seconds of a duration such as `90s`, `30min` or `1.5h`; None where it reads otherwise."""
    text = text.strip()
    for unit, seconds in DURATIONS_S.items():
        number = text.removesuffix(unit).strip()
        if number != text and re.fullmatch(r"\d+(\.\d+)?", number) and float(number) > 0:
            return float(number) * seconds
    return None


def format_duration(seconds: float) -> str:
    """A duration in its largest unit, rounded up to two digits: `75s`, `12min`, `1.5h`."""
    unit = "s" if seconds < 100 else "min" if seconds < 6000 else "h"
    rounded_up = Context(prec=2, rounding=ROUND_CEILING)
    digits = rounded_up.plus(Decimal(str(seconds)) / Decimal(str(DURATIONS_S[unit])))
    return f"{digits.normalize():f}{unit}"
