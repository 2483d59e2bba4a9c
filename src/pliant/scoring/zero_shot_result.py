"""What a search without training returns, and how it is written for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pliant.metrics import Cost, Failed
from pliant.objective import Candidate
from pliant.search.evolution import depth
from pliant.search.feasible import FeasibleRange
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

BEST = 5
"""Networks of the evolution in a result."""


@dataclass(frozen=True, slots=True)
class RankedNetwork:
    """A network, its score and its cost."""

    by: str
    """What found it: `evolution`, `random search` or `parameter count`."""
    architecture: Architecture
    score: float | None
    cost: Cost
    depth: int
    failure: str | None = None


@dataclass(frozen=True)
class ZeroShotSearchResult:
    """What a search without training found."""

    best: tuple[RankedNetwork, ...]
    """Of the evolution, highest score first; at most `BEST`."""
    front: tuple[RankedNetwork, ...]
    """Of the evolution: what no other network beats in score and cost, cheapest first."""
    random: RankedNetwork | None
    """The highest score of as many random networks within the limits."""
    largest: RankedNetwork
    """The most parameters within the limits, found by as many steps of evolution."""
    feasible: FeasibleRange
    scored: int
    """Networks that the evolution scored."""
    random_scored: int
    failed: int
    """Of both."""
    failure: str | None
    """The first reason."""

    @property
    def chosen(self) -> RankedNetwork | None:
        """The highest score of all, whatever found it; None where every network failed."""
        best, highest = None, -math.inf
        for network in (*self.best, self.random, self.largest):
            if network is None or network.score is None:
                continue
            if best is None or network.score > highest:
                best, highest = network, network.score
        return best


def rank_networks(
    by: str, space: Space, candidates: Sequence[Candidate]
) -> tuple[RankedNetwork, ...]:
    """The candidates with their scores and depths, in their order.

    Args:
        by: what found them.
        space: of the candidates.
        candidates: whose costs are known.
    """
    networks = []
    for one in candidates:
        score = None if isinstance(one.quality, Failed) else one.quality.value
        layers = depth(space.lower(one.architecture))
        networks.append(
            RankedNetwork(by, one.architecture, score, one.known_cost, layers, one.failure)
        )
    return tuple(networks)


def result_json(result: ZeroShotSearchResult) -> dict[str, object]:
    """The result for programs: networks by the text of the architecture, no infinity."""
    return {
        "scored": result.scored,
        "random_scored": result.random_scored,
        "failed": result.failed,
        "share_within_limits": result.feasible.share,
        "chosen": _as_json(result.chosen),
        "best": [_as_json(network) for network in result.best],
        "front": [_as_json(network) for network in result.front],
        "random": _as_json(result.random),
        "largest": _as_json(result.largest),
    }


def _as_json(network: RankedNetwork | None) -> dict[str, object] | None:
    if network is None:
        return None
    finite = network.score is not None and math.isfinite(network.score)  # JSON has no infinity
    return asdict(network) | {
        "architecture": str(network.architecture),
        "score": network.score if finite else None,
    }
