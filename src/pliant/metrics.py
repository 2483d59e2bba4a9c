"""What came out of an evaluation: accuracy and cost, with units in the names.

A value that a target cannot tell is `None`, never 0; an evaluation that broke is `Failed`, never a number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a network is right on one split."""

    top1: float
    """Share of images whose highest logit is their label, 0 to 1."""
    images: int
    """Number of images behind `top1`; its standard error is at most 0.5 / sqrt(images)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one inference costs on one target."""

    latency_ms: float | None = None
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None
    """Parameters plus the largest sum of activations that are alive at once."""
    parameters: int | None = None
    macs: int | None = None
    area_mm2: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An evaluation that gave no result, and why."""

    reason: str


COST_METRICS = tuple(Cost.__dataclass_fields__)
