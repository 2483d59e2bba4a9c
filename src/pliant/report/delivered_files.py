"""The table of the delivered files: the network in fp32 and in int8, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from pliant.metrics import DeliveredFile
from pliant.report.quantities import percent, quantity, size

HEADS = ("file", "test accuracy", "validation accuracy", "latency", "size", "made by")


def file_rows(files: Sequence[DeliveredFile]) -> list[tuple[str, ...]]:
    """One row per file; a latency only where it was measured."""
    rows: list[tuple[str, ...]] = []
    for one in files:
        latency_ms = None if one.measured is None else one.measured.cost.latency_ms
        rows.append(
            (
                one.name,
                percent(one.test.top1),
                percent(one.validated.top1),
                quantity("latency_ms", latency_ms),
                size(one.size_bytes),
                one.how,
            )
        )
    return rows
