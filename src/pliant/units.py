"""The units in which costs are written, and how a number gets one."""

from __future__ import annotations

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
    "energy_mj": {"nJ": 1e-6, "uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3},
    "peak_memory_bytes": _BYTES,
    "parameters": _COUNTS,
    "macs": _COUNTS,
    "area_mm2": {"um2": 1e-6, "µm2": 1e-6, "mm2": 1.0, "cm2": 1e2},
}
SHORT_NAMES = {
    "latency": "latency_ms",
    "energy": "energy_mj",
    "peak_memory": "peak_memory_bytes",
    "area": "area_mm2",
}
"""Names without a unit, which then stands in the value."""


def spelled(metric: str, value: float) -> str:
    """A positive cost with its unit, rounded up to four digits: what to write as a limit that this cost holds."""
    units = {unit: factor for unit, factor in UNITS[metric].items() if "i" not in unit}
    unit = max(
        (unit for unit in units if units[unit] <= value),
        key=lambda unit: units[unit],
        default=min(units, key=lambda unit: units[unit]),
    )
    digits = Context(prec=4, rounding=ROUND_CEILING).plus(
        Decimal(str(value)) / Decimal(str(units[unit]))
    )
    return f"{digits.normalize():f}{unit}"
