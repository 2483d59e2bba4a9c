"""Which shipped space and resolution would meet limits that the networks of a run cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pliant.errors import EncodingError
from pliant.metrics import ARITHMETIC_METRICS, Cost
from pliant.objective import Limit
from pliant.spaces.presets import preset
from pliant.spaces.space import Space

SPACES = ("photos", "mobile-32", "plain-32", "digits")
"""Those that are made for few MACs, the most accurate first."""
SIZES = (8, 16, 24, 32, 48, 64, 96, 128)
"""Of images, in pixels."""


@dataclass(frozen=True)
class KnownCost:
    """The smallest network of the run's space, with what its target reports."""

    macs: int
    cost: Cost


def fitting_space(space: Space, limits: Sequence[Limit], known: KnownCost | None) -> str | None:
    """In words, the first shipped space and its largest resolution with a network in the limits.

    Args:
        space: of the run.
        limits: of the run; one on the accuracy is not asked here.
        known: scales costs that only a target reports by MACs; those limits are not asked where
            None.

    Returns:
        A sentence, or None where no shipped space fits.
    """
    fitting: tuple[str, int] | None = None
    for name in SPACES:
        for size in SIZES:
            try:
                other = preset(
                    name, channels=space.channels, image_size=size, classes=space.classes
                )
            except EncodingError:
                continue  # smaller than the space can handle
            cost = other.with_bits(space.bits).cost(other.smallest())
            if all(_within(limit, cost, known) for limit in limits):
                fitting = (name, size)
        if fitting is not None:
            break
    if fitting is None or fitting == (space.name, space.image_size):
        return None
    name, size = fitting
    scaled = any(limit.metric not in ARITHMETIC_METRICS for limit in limits)
    how = "should meet it, by MACs: " if scaled else "meets it: "
    return (
        f"Space {name!r} with images of {size} pixels {how}--space {name} --image-size {size} "
        "--run-dir NEW_DIRECTORY"
    )


def _within(limit: Limit, cost: Cost, known: KnownCost | None) -> bool:
    if limit.metric in cost.metrics:
        return limit.excess(cost.metric(limit.metric)) == 0
    if known is None or limit.metric not in known.cost.metrics:
        return True
    scaled = known.cost.metric(limit.metric) * cost.metric("macs") / known.macs
    return limit.excess(scaled) == 0
