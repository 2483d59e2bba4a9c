"""Limits that are to hold with a stated probability: P(cost <= limit) >= confidence.

A target's interval says by which factor a cost may exceed its prediction at most, with a
confidence. The factor is the same for all networks, so a search within a limit at a confidence is
one within the limit divided by the factor. What a search selects is predicted too low more often
than random networks are, so networks of its shortlist that were measured recalibrate the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from pliant.devices.interval import Interval, require_confidence
from pliant.errors import MeasurementError, RecipeError
from pliant.metrics import ARITHMETIC_METRICS
from pliant.objective import ACCURACY, Limit, Objective, Target

LogErrors = Mapping[str, Sequence[float]]
"""By metric the logarithm of measured over predicted, of networks that a search selected."""


@runtime_checkable
class HasIntervals(Protocol):
    """A target that says how far its predictions may be off."""

    def interval(self, metric: str) -> Interval | None:
        """Errors of the predictions of a metric on held-out networks; None where unknown."""
        ...


def known_interval(target: Target, metric: str) -> Interval | None:
    """The interval of a target's predictions of a metric; None where it has none."""
    return target.interval(metric) if isinstance(target, HasIntervals) else None


def predicted_limits(objective: Objective) -> list[Limit]:
    """The limits on metrics that a target predicts; the others are known exactly or measured."""
    exact = (ACCURACY, *ARITHMETIC_METRICS)
    return [limit for limit in objective.limits if limit.metric not in exact]


def confident_objective(
    objective: Objective,
    target: Target,
    confidence: float | None,
    selected: LogErrors | None = None,
) -> Objective:
    """The objective of a search whose networks are within their limits with a confidence.

    Args:
        objective: what is looked for.
        target: that predicts the limited metrics.
        confidence: of each limit, 0 to 1; None changes nothing.
        selected: errors of networks that were selected and measured; they recalibrate intervals.

    Returns:
        The objective with lower bounds, never with higher ones.

    Raises:
        RecipeError: the confidence is not between 0 and 1, no limit is on a predicted metric, or
            the target has no interval for one of them.
        MeasurementError: too few networks were measured for this confidence.
    """
    if confidence is None:
        return objective
    require_confidence(confidence)
    predicted = predicted_limits(objective)
    if not predicted:
        raise RecipeError(
            "a confidence is of limits on metrics that a target predicts, such as latency_ms; "
            f"received confidence {confidence:g} and limits "
            f"{', '.join(map(str, objective.limits)) or 'none'}. Add such a limit, or leave the "
            "confidence out."
        )
    limits = []
    for limit in objective.limits:
        if limit in predicted:
            factor = max(1.0, upper_factor(target, limit.metric, confidence, selected))
            text = f"{limit} at confidence {confidence:g}"
            limit = Limit(limit.metric, limit.bound / factor, text, factor)
        limits.append(limit)
    return replace(objective, limits=tuple(limits))


def upper_factor(
    target: Target, metric: str, confidence: float, selected: LogErrors | None = None
) -> float:
    """By which factor a cost exceeds its prediction at most; arguments as above.

    Raises:
        RecipeError: the target has no interval for the metric.
        MeasurementError: too few networks were measured for this confidence.
    """
    interval = known_interval(target, metric)
    if interval is None:
        raise RecipeError(
            f"a limit at a confidence takes a prediction with an interval; {target.name} predicts "
            f"{metric} without one, received confidence {confidence:g}. Measure a device "
            "for one, or leave the confidence out."
        )
    try:
        return interval.recalibrated((selected or {}).get(metric, ())).upper_factor(confidence)
    except MeasurementError as error:
        raise MeasurementError(f"{metric} of {target.name}: {error}") from None
