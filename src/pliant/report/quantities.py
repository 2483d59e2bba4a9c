"""How does a number read: which digits, which unit, and which words where there is none?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pliant.objective import ACCURACY

NOT_MEASURED = "not measured"
TIMES = "\N{MULTIPLICATION SIGN}"
GAP = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, which stay on one line."""
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True, slots=True)
class MetricWords:
    """How people call a metric."""

    label: str
    """Within a sentence: the lowest latency."""
    unit: str
    does: str
    """What a network does with it, before the number and behind it: answers in ... ."""
    after: str = ""

    @property
    def title(self) -> str:
        """The label at the beginning of a line."""
        return self.label[:1].upper() + self.label[1:]


METRICS = {
    "latency_ms": MetricWords("latency", "ms", "answers in"),
    "energy_uj": MetricWords("energy", "µJ", "needs", "per image"),
    "peak_memory_bytes": MetricWords("peak memory", "bytes", "needs", "of memory"),
    "model_size_bytes": MetricWords("model size", "bytes", "needs", "of storage"),
    "parameters": MetricWords("parameters", "", "has", "parameters"),
    "macs": MetricWords("MACs", "", "takes", "MACs per image"),
    "area_mm2": MetricWords("area", "mm²", "needs", "of chip area"),
    ACCURACY: MetricWords("accuracy", "", "is right on", "of images"),
}


def words(metric: str) -> MetricWords:
    """What a metric is called; an unknown one keeps its name."""
    plain = metric.replace("_", " ")
    return METRICS.get(metric, MetricWords(plain, "", "has", f"of {plain}"))


def significant(value: float | str | None, digits: int = 3) -> str:
    """A number with so many significant digits: 0.312, 4,320, 2.1 × 10⁻⁶. Text stays as it is."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, str):
        return value
    # As a decimal, since a number of networks may be beyond the range of floats.
    exact = Decimal(value if isinstance(value, int) else float(value))
    if not exact.is_finite():
        return str(value)
    if value == 0:
        return "0"
    rounded, _, power = f"{exact:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if exponent < -4 or exponent >= 12:
        mantissa = rounded.rstrip("0").rstrip(".") if "." in rounded else rounded
        return f"{mantissa}{GAP}{TIMES}{GAP}10{str(exponent).translate(_SUPERSCRIPTS)}"
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share from 0 to 1 in percent."""
    return NOT_MEASURED if share is None else f"{100 * share:.{digits}f}{GAP}%"


def points(share: float | None) -> str:
    """A difference of two shares in percentage points."""
    return NOT_MEASURED if share is None else f"{significant(100 * share, 2)}{GAP}points"


def count(number: float | None) -> str:
    """How many: 950, 82.4 k, 3.21 M, 1.80 G."""
    if number is None:
        return NOT_MEASURED
    for least, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least <= number < 1e12:
            return f"{significant(float(number / divisor))}{GAP}{suffix}"
    return significant(number)


def size(number_of_bytes: float | None) -> str:
    """Memory in bytes, KiB or MiB."""
    if number_of_bytes is None:
        return NOT_MEASURED
    for divisor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number_of_bytes >= divisor:
            return f"{significant(float(number_of_bytes / divisor))}{GAP}{unit}"
    return f"{int(number_of_bytes)}{GAP}bytes"


def quantity(metric: str, value: float | None, spread: float | None = None) -> str:
    """A metric's value with its unit; the accuracy in percent.

    Args:
        metric: a field of `Cost`, or `accuracy`.
        value: in the unit of the metric's name; None where it is not known.
        spread: of the measurement, in the same unit.
    """
    if value is None:
        return NOT_MEASURED
    if metric == ACCURACY:
        return percent(value)
    if spread is not None:
        around = f"{significant(value)}{GAP}±{GAP}{significant(spread, 2)}"
        return with_unit(around, metric)
    if metric in ("peak_memory_bytes", "model_size_bytes"):
        return size(value)
    if metric in ("parameters", "macs"):
        return count(value)
    return with_unit(significant(value), metric)


def with_unit(number: str, metric: str) -> str:
    """A number that is text already, and the metric's unit."""
    unit = words(metric).unit
    return f"{number}{GAP}{unit}" if unit else number


def square(edge: int) -> str:
    """An area of so many rows and columns."""
    return f"{edge}{TIMES}{edge}"


def duration(seconds: float | None) -> str:
    """Time that a step took: 42 s, 6 min 52 s, 1 h 29 min."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 59.5:
        return f"{significant(float(seconds), 2)}{GAP}s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60}{GAP}min {round(seconds) % 60}{GAP}s"
    return f"{round(seconds / 60) // 60}{GAP}h {round(seconds / 60) % 60}{GAP}min"


def format_timestamp(iso: str) -> str:
    """A point in time to the minute; text that is no ISO date stays as it is."""
    try:
        when = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        return iso
    return f"{when:%d %B %Y, %H:%M} {when.tzname() or ''}".strip().lstrip("0")
