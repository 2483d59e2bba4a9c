"""What came out of an evaluation: accuracy or score, cost, failure, with units in the names.

A metric that a target does not report is `None`, never 0; an evaluation that broke is `Failed`,
never a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pliant.errors import MeasurementError, RecipeError


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a network is right on one split.

    Raises:
        ValueError: `top1` is not between 0 and 1.
    """

    top1: float
    """Share of images whose highest logit is their label, 0 to 1."""
    images: int
    """Number of images behind `top1`; its standard error is at most 0.5 / sqrt(images).
    0 for a prediction, which looks at none."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.top1 <= 1.0:
            raise ValueError(f"an accuracy is 0 to 1, received {self.top1}")

    @property
    def value(self) -> float:
        """What a search maximises."""
        return self.top1

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share, 0 to 1; all of it where no image was looked at.

        E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        Journal of the American Statistical Association 22 (1927), doi:10.2307/2276774.
        """
        if not self.images:
            return 0.0, 1.0
        z2 = 1.959964**2 / self.images
        middle = (self.top1 + z2 / 2) / (1 + z2)
        half = math.sqrt(self.top1 * (1 - self.top1) * z2 + z2**2 / 4) / (1 + z2)
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Score:
    """How good a network promises to become, as a number without a scale; higher is better.

    Raises:
        ValueError: NaN, which has no rank; infinite scores have one.
    """

    value: float

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError("a score is a number, received NaN; use Failed with the reason")


@dataclass(frozen=True, slots=True)
class Failed:
    """An evaluation that gave no result, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped(Failed):
    """A training that was stopped early, with what it had reached.

    Its accuracy is never compared with that of a whole training: to all that ask for a result it is
    `Failed`.
    """

    reached: Accuracy
    epochs: float
    """Of its training."""


InferencePrecision = Literal["fp32", "int8"]
"""Of the numbers that a delivered network computes with."""


def as_precision(name: str | None) -> InferencePrecision | None:
    """A precision by its name.

    Raises:
        RecipeError: there is none of that name.
    """
    if name is None:
        return None
    for known in get_args(InferencePrecision):
        if name == known:
            found: InferencePrecision = known
            return found
    raise RecipeError(f"a precision is fp32 or int8, received {name!r}. Choose one of them.")


Quality = Accuracy | Score | Failed
"""What an estimator says of one architecture."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The quality of one architecture with what it took to find it."""

    quality: Quality
    seconds: float
    """CPU time of this architecture alone, without what all of them share."""
    curve: tuple[tuple[float, float], ...] = ()
    """(epoch, loss) of its training where it was trained, also of one that failed; infinite where
    the loss was no number."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one inference costs on one target."""

    latency_ms: float | None = None
    energy_uj: float | None = None
    peak_memory_bytes: int | None = None
    """Largest sum of activations that are alive at once: what a network needs of RAM."""
    model_size_bytes: int | None = None
    """Size of the stored numbers in their precision: what a network needs of flash or disk."""
    parameters: int | None = None
    macs: int | None = None
    area_mm2: float | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are known."""
        return tuple(name for name in COST_METRICS if getattr(self, name) is not None)

    def metric(self, name: str) -> float:
        """One metric as a number.

        Raises:
            RecipeError: it is not known, or there is no such metric.
            MeasurementError: it is NaN.
        """
        value = getattr(self, name) if name in COST_METRICS else None
        if value is None:
            raise RecipeError(
                f"a limited or minimised metric must be one that the target reports; it reports no "
                f"{name}, only {', '.join(self.metrics) or 'nothing'}. Choose one of these, or a "
                "target that reports it."
            )
        if math.isnan(value):
            raise MeasurementError(
                f"a cost is a number, or None where it is not known; {name} is NaN. Return None, "
                "or Failed with the reason."
            )
        return float(value)


COST_METRICS = tuple(Cost.__dataclass_fields__)

ARITHMETIC_METRICS = ("peak_memory_bytes", "model_size_bytes", "parameters", "macs")
"""Metrics that follow from a network's layers alone, without any target."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a target measured of one network."""

    cost: Cost
    """The measured metrics, and those that follow by arithmetic."""
    spread: Cost
    """Half the range between the quartiles of each measured metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredFile:
    """The delivered network in one precision."""

    name: str
    precision: InferencePrecision
    size_bytes: int
    validated: Accuracy
    """On all validation images."""
    test: Accuracy
    measured: Measured | None
    """In a process of its own; None where the target does not measure, or was too busy."""
    how: str
    """How the file was made from the trained network."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One reason to believe a result: the claim, its value and bound, and how it was found."""

    claim: str
    value: str
    how: str
    bound: str | None = None
    holds: bool | None = None
    """None where there is nothing to hold, or where it is undecided."""
    undecided: bool = False
    """Whether it cannot be told from this much data: the 95 % interval holds both answers."""
    advice: str = ""
    """What to do where it does not hold or is undecided."""
