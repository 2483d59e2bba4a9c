"""Which networks does a page show, and what is known of each one's costs?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Accuracy, Measured
from pliant.objective import ACCURACY
from pliant.report.summary import FoundBy, NetworkResult, Summary

How = Literal["measured", "predicted", "computed", "unknown"]
"""How a cost is known. Parameters, MACs and peak memory are computed from the layers."""


@dataclass(frozen=True, slots=True)
class KnownCost:
    """The best that is known of one cost of a network."""

    metric: str
    value: float | None
    how: How
    spread: float | None = None
    """Of the measurement."""


@dataclass(frozen=True, slots=True)
class ShownNetwork:
    """One network that a page reports everything about."""

    key: str
    """Names the network within the page."""
    by: FoundBy
    chosen: bool
    result: NetworkResult

    @property
    def accuracies(self) -> tuple[tuple[str, Accuracy | None], ...]:
        """By what they were taken on."""
        of = self.result
        return ("estimated", of.estimate), ("validation", of.validated), ("test", of.test)

    def predicted(self, metric: str) -> float | None:
        """The cost that the search saw; None where the target does not report it."""
        return getattr(self.result.predicted, metric)

    def measured(self, metric: str) -> float | None:
        """The cost on the target; None where it was not measured."""
        return None if self._measured is None else getattr(self._measured.cost, metric)

    def spread(self, metric: str) -> float | None:
        """Of the measured cost."""
        return None if self._measured is None else getattr(self._measured.spread, metric)

    def cost(self, metric: str) -> KnownCost:
        """Measured where it was, else as predicted."""
        if metric in ARITHMETIC_METRICS:
            value = self.predicted(metric)
            return KnownCost(metric, value, "unknown" if value is None else "computed")
        if (value := self.measured(metric)) is not None:
            return KnownCost(metric, value, "measured", self.spread(metric))
        value = self.predicted(metric)
        return KnownCost(metric, value, "unknown" if value is None else "predicted")

    @property
    def _measured(self) -> Measured | None:
        # Side by side with the front where it was, so that the page compares like with like.
        return self.result.measured or self.result.measured_apart


def shown_networks(summary: Summary) -> tuple[ShownNetwork, ...]:
    """The chosen network where the front lacks it, the front, the front of random search."""
    chosen, front = summary.chosen, list(summary.front)
    if chosen.architecture not in [one.architecture for one in front]:
        front.insert(0, chosen)
    networks = []
    for number, one in enumerate(front):
        is_chosen = one.architecture == chosen.architecture
        result = chosen if is_chosen else one
        networks.append(ShownNetwork(f"front-{number}", "search", is_chosen, result))
    for number, one in enumerate(summary.random_front):
        networks.append(ShownNetwork(f"random-{number}", "random", False, one))
    return tuple(networks)


def axis(summary: Summary) -> str:
    """The cost metric of the chart."""
    return summary.objective.costs[0]


def decided_metrics(summary: Summary) -> tuple[str, ...]:
    """The cost metrics that the objective is about: those of the front, then the limited ones."""
    objective = summary.objective
    limited = [limit.metric for limit in objective.limits if limit.metric != ACCURACY]
    return tuple(dict.fromkeys((*objective.costs, *limited)))


def reported_metrics(network: ShownNetwork) -> tuple[str, ...]:
    """All cost metrics that are known of a network; those that need a target come first."""
    known = [name for name in COST_METRICS if network.cost(name).how != "unknown"]
    return tuple(sorted(known, key=lambda name: name in ARITHMETIC_METRICS))
