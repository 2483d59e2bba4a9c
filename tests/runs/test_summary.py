"""What a summary computes, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pliant import Run
from pliant.metrics import Accuracy, Cost, Failed, Measured
from pliant.objective import Candidate, Limit, Objective
from pliant.report.summary import NetworkResult, TargetFacts, read_summary_file
from pliant.runs.evidence import hypervolumes, limit_claims
from pliant.runs.session import Session
from pliant.runs.workflow import run_steps


def _candidates(space, points):
    architectures = [space.smallest(), space.largest()]
    return [
        Candidate(architectures[index % 2], Accuracy(top1, 100), Cost(latency_ms=ms, macs=7))
        for index, (top1, ms) in enumerate(points)
    ]


OURS, RANDOM = [(0.75, 1.0), (1.0, 2.0)], [(0.5, 4.0), (0.75, 2.0)]


def test_hypervolumes_by_hand(toy_space):
    # Accuracy runs from 0.5 at the worst to 1, latency from 0 to the highest, 4 ms.
    ours, random = _candidates(toy_space, OURS), _candidates(toy_space, RANDOM)
    broken = Candidate(toy_space.smallest(), Failed("not finite"), Cost(latency_ms=0.1))
    # Ours: from 1/4 to 1 at half the height, and from 1/2 to 1 at the upper half.
    expected = pytest.approx((0.75 * 0.5 + 0.5 * 0.5, 0.5 * 0.5))
    assert hypervolumes([*ours, broken], random, Objective()) == expected


def test_hypervolumes_end_at_the_limit_on_the_first_cost(toy_space):
    ours, random = _candidates(toy_space, OURS), _candidates(toy_space, RANDOM)
    objective = Objective(limits=(Limit("latency_ms", 2.0), Limit("macs", 1e9)))
    assert hypervolumes(ours, random, objective) == pytest.approx((0.5 * 0.5, 0.0))


def test_hypervolumes_of_another_cost(toy_space):
    ours = [
        replace(one, cost=Cost(energy_uj=one.cost.latency_ms))
        for one in _candidates(toy_space, OURS)
    ]
    random = [
        replace(one, cost=Cost(energy_uj=one.cost.latency_ms))
        for one in _candidates(toy_space, RANDOM)
    ]
    assert hypervolumes(ours, random, Objective(("energy_uj",))) == pytest.approx((0.625, 0.25))


def test_equal_searches_have_equal_volumes(toy_space):
    points = _candidates(toy_space, [(0.6, 1.0), (0.8, 2.0), (0.9, 3.0)])
    ours, random = hypervolumes(points, points, Objective())
    assert ours == random > 0


def test_limits_are_claimed_by_the_best_known_value():
    chosen = NetworkResult(
        architecture="a",
        estimate=Accuracy(0.9, 10),
        validated=Accuracy(0.8, 100),
        test=None,
        predicted=Cost(latency_ms=1.0, energy_uj=5.0, macs=7),
        measured=Measured(Cost(latency_ms=2.0), Cost(latency_ms=0.1)),
        measured_apart=Measured(Cost(latency_ms=3.0), Cost()),
        command="",
    )
    limits = ("latency_ms=2.5", "energy_uj=5", "macs=6", "accuracy=80%")
    objective = Objective(limits=tuple(map(Limit.parse, limits)))
    target = TargetFacts("a board", "0", ("latency_ms",), measured=True)
    claims = list(limit_claims(objective, chosen, target))
    assert [(one.value, one.holds, one.how) for one in claims] == [
        ("3", False, "measured in a subprocess"),
        ("5", True, "predicted by a board"),
        ("7", False, "computed from the layers"),
        ("0.8", True, "100 validation images"),
    ]
    paper = replace(chosen, measured=None, measured_apart=None)
    first = next(limit_claims(objective, paper, replace(target, measured=False)))
    assert first.value == "1"
    assert first.how == "predicted by a board; this target is not measured"


def test_the_predictor_is_ranked_on_random_networks_that_the_search_did_not_evaluate(finished):
    summary = read_summary_file(finished.folder / "summary.json")
    points = {"search": set(), "random": set()}
    for point in summary.search.points:
        points[point.by].add(point.architecture)
    rows = {row.name: row for row in summary.ranking}
    assert set(rows) == {"predictor", "parameters", "macs"}
    assert {row.networks for row in rows.values()} == {len(points["random"] - points["search"])}
    [claim] = [one for one in summary.evidence if one.claim.startswith("Accuracy predictor")]
    predictor = rows["predictor"]
    taus = [rows[name].kendall.value for name in ("parameters", "macs")]
    baseline = max(*taus, *(-tau for tau in taus))
    assert predictor.over_strongest.value == pytest.approx(predictor.kendall.value - baseline)
    assert claim.undecided == (claim.holds is None)
    assert claim.holds or claim.advice


def test_a_chip_takes_the_same_way_and_is_never_called_measured(copied):
    with Run.reopen(copied) as run:
        session = Session(run, target="nvdla-256", limits=["energy_uj=20", "accuracy=10%"])
        written = run_steps(session).summary
    summary = read_summary_file(copied / "summary.json")
    assert summary == written
    assert not summary.target.measured
    assert summary.objective.costs == ("energy_uj",)
    assert all(one.measured is None for one in (*summary.front, *summary.random_front))
    claims = {one.claim: one for one in summary.evidence}
    limit = claims["Limit energy_uj=20"]
    assert limit.how == "predicted by nvdla-256; this target is not measured"
    assert float(limit.value) == pytest.approx(summary.chosen.predicted.energy_uj, rel=1e-3)
    assert claims["Limit accuracy=10%"].holds
    for file in (copied / "best" / "card.md", copied / "report.html"):
        assert "predicted by nvdla-256; this target is not measured" in file.read_text("utf-8")
