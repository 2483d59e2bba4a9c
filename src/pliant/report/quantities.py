"""How does a number read: which digits, which unit, and what is said where there is none?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard

NOT_MEASURED = "not measured"
TIMES = "\N{MULTIPLICATION SIGN}"
GAP = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, which stay on one line."""
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True, slots=True)
class MetricWords:
    """How people call a cost metric."""

    label: str
    unit: str

    @property
    def title(self) -> str:
        """The label at the beginning of a line."""
        return self.label[:1].upper() + self.label[1:]


METRICS = {
    "latency_ms": MetricWords("latency", "ms"),
    "energy_uj": MetricWords("energy", "µJ"),
    "peak_memory_bytes": MetricWords("peak memory", "bytes"),
    "parameters": MetricWords("parameters", ""),
    "macs": MetricWords("MACs", ""),
    "area_mm2": MetricWords("area", "mm²"),
}


def words(metric: str) -> MetricWords:
    """What a metric is called; an unknown one keeps its name."""
    return METRICS.get(metric, MetricWords(metric.replace("_", " "), ""))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def significant(value: object, digits: int = 3) -> str:
    """A number with so many digits that say something: 0.312, 4,320, 2.1 × 10⁻⁶. Text stays as it is."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not is_number(value):
        return str(value)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if exponent < -4 or exponent >= 12:
        mantissa = f"{float(value) / 10.0**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{mantissa}{GAP}{TIMES}{GAP}10{str(exponent).translate(_SUPERSCRIPTS)}"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def networks(size: object) -> str:
    """How many networks a space has; JSON carries a huge number as text."""
    return significant(int(size) if isinstance(size, str) and size.isdecimal() else size)


def percent(share: object, digits: int = 2) -> str:
    """A share from 0 to 1 in percent."""
    return f"{100 * share:.{digits}f}{GAP}%" if is_number(share) else NOT_MEASURED


def count(number: object) -> str:
    """How many: 950, 82.4 k, 3.21 M, 1.80 G; text, which a huge space sends, stays as it is."""
    if not is_number(number):
        return significant(number)
    for least, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least <= number < 1e12:
            return f"{significant(float(number / divisor))}{GAP}{suffix}"
    return significant(number)


def size(number_of_bytes: object) -> str:
    """Memory in bytes, KiB or MiB."""
    if not is_number(number_of_bytes):
        return NOT_MEASURED
    for divisor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number_of_bytes >= divisor:
            return f"{significant(float(number_of_bytes / divisor))}{GAP}{unit}"
    return f"{int(number_of_bytes)}{GAP}bytes"


def quantity(metric: str, value: object) -> str:
    """A cost with its unit."""
    if not is_number(value):
        return NOT_MEASURED
    if metric == "peak_memory_bytes":
        return size(value)
    if metric in ("parameters", "macs"):
        return count(value)
    return with_unit(significant(value), metric)


def with_unit(number: str, metric: str) -> str:
    """A number that is written already, and the metric's unit."""
    unit = words(metric).unit
    return f"{number}{GAP}{unit}" if unit else number


def square(edge: object) -> str:
    """An area of so many rows and columns."""
    return f"{edge}{TIMES}{edge}"


def duration(seconds: object) -> str:
    """Time that a step took: 42 s, 6 min 52 s, 1 h 29 min."""
    if not is_number(seconds):
        return NOT_MEASURED
    if seconds < 60:
        return f"{significant(float(seconds), 2)}{GAP}s"
    if seconds < 3600:
        return f"{round(seconds) // 60}{GAP}min {round(seconds) % 60}{GAP}s"
    return f"{round(seconds / 60) // 60}{GAP}h {round(seconds / 60) % 60}{GAP}min"


def moment(iso: object) -> str:
    """A point in time to the minute; text that is no ISO date stays as it is."""
    try:
        when = datetime.fromisoformat(str(iso).replace("Z", "+00:00"))
    except ValueError:
        return str(iso)
    return f"{when:%d %B %Y, %H:%M} {when.tzname() or ''}".strip().lstrip("0")
