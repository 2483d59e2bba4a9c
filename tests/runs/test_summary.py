"""What a summary computes, by hand."""

from __future__ import annotations

import json

import pytest

from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import Candidate, Limit, Objective
from pliant.runs.evidence import hypervolumes
from pliant.runs.search import SearchResult


def _found(space, ours, random):
    architectures = [space.smallest(), space.largest()]

    def candidates(points):
        return tuple(
            Candidate(architectures[index % 2], Accuracy(top1, 100), Cost(latency_ms=latency_ms))
            for index, (top1, latency_ms) in enumerate(points)
        )

    broken = Candidate(architectures[0], Failed("not finite"), Cost(latency_ms=0.1))
    return SearchResult((), None, (), (*candidates(ours), broken), candidates(random), 1.0)


def test_hypervolumes_by_hand(toy_space):
    # Accuracy runs from 0.5 at the worst to 1, latency from 0 to the slowest, 4 ms.
    found = _found(toy_space, [(0.75, 1.0), (1.0, 2.0)], [(0.5, 4.0), (0.75, 2.0)])
    # Ours: from 1/4 to 1 at half the height, and from 1/2 to 1 at the upper half.
    assert hypervolumes(found, Objective()) == pytest.approx((0.75 * 0.5 + 0.5 * 0.5, 0.5 * 0.5))


def test_hypervolumes_end_at_the_latency_limit(toy_space):
    found = _found(toy_space, [(0.75, 1.0), (1.0, 2.0)], [(0.5, 4.0), (0.75, 2.0)])
    assert hypervolumes(
        found, Objective(limits=(Limit("latency_ms", 2.0), Limit("macs", 1e9)))
    ) == pytest.approx((0.5 * 0.5, 0.0))


def test_equal_searches_have_equal_volumes(toy_space):
    points = [(0.6, 1.0), (0.8, 2.0), (0.9, 3.0)]
    ours, random = hypervolumes(_found(toy_space, points, points), Objective())
    assert ours == random > 0


def test_the_predictor_is_judged_on_random_networks_that_the_search_did_not_evaluate(finished):
    summary = json.loads((finished.folder / "summary.json").read_text())
    points = {
        by: {point["architecture"] for point in summary["search"]["points"] if point["by"] == by}
        for by in ("search", "random")
    }
    rows = {row["name"]: row for row in summary["fidelity"]}
    assert set(rows) == {"predictor", "parameters", "macs"}
    assert {row["networks"] for row in rows.values()} == {len(points["random"] - points["search"])}
    [claim] = [row for row in summary["evidence"] if row["claim"].startswith("Accuracy predictor")]
    bar = max(rows[name]["kendall"]["value"] for name in ("parameters", "macs"))
    assert claim["holds"] == (rows["predictor"]["kendall"]["value"] >= bar)
