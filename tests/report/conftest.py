"""A summary to report on, and the same for a target that is not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pliant.metrics import Cost
from pliant.objective import Limit, Objective
from pliant.report.summary import NetworkResult, Summary, TargetFacts, read_summary_file


@pytest.fixture(scope="session")
def summary() -> Summary:
    """The synthetic summary."""
    return read_summary_file(Path(__file__).with_name("summary.json"))


@pytest.fixture(scope="session")
def on_paper(summary: Summary) -> Summary:
    """The same networks on a chip on paper: least energy above a floor of the accuracy."""

    def predicted(one: NetworkResult) -> NetworkResult:
        cost = replace(one.predicted, energy_uj=_energy_uj(one.predicted), area_mm2=3.5)
        return replace(one, predicted=cost, measured=None, measured_apart=None)

    blocks = [replace(one, cost=replace(one.cost, energy_uj=1.5)) for one in summary.blocks]
    points = [
        replace(one, cost=Cost(energy_uj=_energy_uj(one.cost))) for one in summary.search.points
    ]
    limits = (Limit.parse("accuracy=88%"), Limit.parse("latency_ms=0.3"))
    return replace(
        summary,
        target=TargetFacts("a chip", "0", ("latency_ms", "energy_uj", "area_mm2"), measured=False),
        objective=Objective(("energy_uj",), limits, minimise="energy_uj"),
        chosen=predicted(summary.chosen),
        front=tuple(map(predicted, summary.front)),
        random_front=tuple(map(predicted, summary.random_front)),
        blocks=tuple(blocks),
        search=replace(summary.search, points=tuple(points)),
    )


def _energy_uj(cost: Cost) -> float:
    assert cost.latency_ms is not None
    return 100 * cost.latency_ms
