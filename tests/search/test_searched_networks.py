"""The best network for a design: against all networks above the floor, with a mapper by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from pliant.accelerator.chip import load_chip
from pliant.errors import InfeasibleError
from pliant.metrics import Accuracy, Failed, Quality
from pliant.search.searched_networks import NETWORK, NetworkAccuracies, SearchedNetworks
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workload import Layer

EYERISS = load_chip("eyeriss")


class _BySize:
    """Accuracy grows with the MACs; the very smallest network cannot be estimated."""

    def __init__(self, space: Space) -> None:
        self.space, self.asked = space, []
        self.most = space.cost(space.largest()).metric("macs")

    def top1(self, one: Architecture) -> float:
        return 0.5 + 0.4 * self.space.cost(one).metric("macs") / self.most

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        self.asked += architectures
        return [
            Failed("broken") if one == self.space.smallest() else Accuracy(self.top1(one), 100)
            for one in architectures
        ]


def _mapper(layer: Layer, chip: object, limit: float = math.inf) -> SimpleNamespace:
    """Energy is MACs, and so are cycles: the best network has the fewest."""
    macs = float(max(1, layer.macs))
    cost = SimpleNamespace(energy=macs, cycles=macs)
    return SimpleNamespace(cost=cost, certificate=SimpleNamespace(proven=True))


def test_each_network_is_asked_once_and_failures_are_below_every_accuracy(
    toy_space: Space,
) -> None:
    estimator = _BySize(toy_space)
    accuracies = NetworkAccuracies(toy_space, estimator)
    ends = [toy_space.smallest(), toy_space.largest()]
    assert accuracies.of([*ends, *ends]) == [-1.0, 0.9, -1.0, 0.9]
    assert accuracies.of(ends[::-1]) == [0.9, -1.0]
    assert estimator.asked == ends
    assert accuracies.of([]) == []


@pytest.mark.parametrize("floor", [0.6, 0.8, 0.9])
def test_networks_above_a_floor_come_with_the_fewest_operations_first(
    toy_space: Space, floor: float
) -> None:
    estimator = _BySize(toy_space)
    found = NetworkAccuracies(toy_space, estimator).reaching(floor, seed=0)
    macs = [toy_space.cost(one).metric("macs") for one in found]
    assert macs == sorted(macs)
    assert all(estimator.top1(one) >= floor for one in found)
    assert toy_space.largest() in found


def test_a_floor_that_nothing_reaches_is_refused_with_the_range(toy_space: Space) -> None:
    accuracies = NetworkAccuracies(toy_space, _BySize(toy_space))
    with pytest.raises(InfeasibleError, match=r"'toy'.*at least 91.00%.*to 90.00%.*--min-accuracy"):
        accuracies.reaching(0.91, seed=0)


def test_the_design_has_the_best_of_all_networks_above_the_floor(toy_space: Space) -> None:
    estimator, floor = _BySize(toy_space), 0.65
    accuracies = NetworkAccuracies(toy_space, estimator)
    judge = SearchedNetworks(accuracies, floor, networks=24, seed=0, mapper=_mapper)
    design = judge.design(EYERISS, vector=[0.5])
    within = [one for one in accuracies.reaching(0.0, seed=1) if estimator.top1(one) >= floor]

    def edp(one: Architecture) -> float:
        return sum(max(1, layer.macs) for layer in toy_space.lower(one).layers) ** 2

    assert design.edp == pytest.approx(min(map(edp, within)))
    assert design.vector == (0.5,)
    assert design.network is not None
    chosen = toy_space.parse(design.network)
    assert design.edp == pytest.approx(edp(chosen)), "its own costs"
    assert design.accuracy == pytest.approx(estimator.top1(chosen))
    assert set(design.costs) == {NETWORK}
    ranked = judge.ranked(EYERISS)
    assert {toy_space.parse(one.network or "") for one in ranked} <= set(within)
    assert len({one.network for one in ranked}) == len(ranked)


def test_a_chip_that_can_run_none_of_them_says_why(toy_space: Space) -> None:
    def impossible(layer: Layer, chip: object, limit: float = math.inf) -> None:
        raise InfeasibleError(f"{layer.name} does not fit.")

    accuracies = NetworkAccuracies(toy_space, _BySize(toy_space))
    judge = SearchedNetworks(accuracies, 0.6, networks=20, seed=0, mapper=impossible)
    design = judge.design(EYERISS)
    assert design.failure is not None
    assert design.failure.endswith("does not fit.")
    assert design.edp == math.inf


def test_what_decides_the_result_decides_the_identity(toy_space: Space) -> None:
    accuracies = NetworkAccuracies(toy_space, _BySize(toy_space))

    def identity(floor: float = 0.6, networks: int = 5, seed: int = 0, context: str = "") -> str:
        return SearchedNetworks(
            accuracies, floor, networks=networks, seed=seed, context=context
        ).identity

    different = [
        identity(),
        identity(floor=0.7),
        identity(networks=6),
        identity(seed=1),
        identity(context="other weights"),
    ]
    assert len(set(different)) == len(different)
    start = SearchedNetworks(accuracies, 0.6, networks=5, seed=0)
    assert start.with_floor(0.7).identity == identity(floor=0.7)
    assert start.bound(EYERISS) == 0.0
