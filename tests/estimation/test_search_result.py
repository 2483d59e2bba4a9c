"""What is told of a search by an estimator: gaps, advice, lineages and budgets, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from pliant.errors import RecipeError
from pliant.estimation.budget import Budget, Spending, Told, parse_budget
from pliant.estimation.estimators import EstimatorSettings
from pliant.estimation.lineage import Lineage, Lineages, untrained
from pliant.estimation.search_result import (
    EVOLUTION,
    LARGEST,
    RANDOM,
    EstimatorSearchResult,
    Finalist,
    result_json,
)
from pliant.metrics import Accuracy, Cost, Estimate, Failed, Quality, Score
from pliant.objective import Candidate
from pliant.search.feasible import FeasibleRange
from pliant.spaces.space import Space

SETTINGS = EstimatorSettings("digits", "digits", epochs=8)


@pytest.fixture
def networks(toy_space: Space) -> list:
    return [toy_space.smallest(), toy_space.largest(), toy_space.architecture(
        {**toy_space.largest().mapping, "r": 4}
    )]  # fmt: skip


def _result(*finalists: Finalist) -> EstimatorSearchResult:
    found = FeasibleRange({"macs": (1.0, 2.0)}, 0.25, finalists[0].architecture)
    return EstimatorSearchResult(
        "scratch", finalists, 9, 8, 72.0, 64.0, "epochs", 3.5, ("diverged",), found, None, ("macs",)
    )


def _finalist(by: str, network, estimated: Quality, retrained: Quality | None) -> Finalist:
    return Finalist(by, network, estimated, Cost(macs=5), retrained)


def top1(value: float, images: int = 1000) -> Accuracy:
    return Accuracy(value, images)


def test_gaps_are_points_and_missing_ones_are_not_zero(networks) -> None:
    one, two, three = networks
    result = _result(
        _finalist(EVOLUTION, one, top1(0.90), top1(0.85)),
        _finalist(EVOLUTION, two, top1(0.80), top1(0.83)),
        _finalist(EVOLUTION, three, top1(0.99), Failed("diverged")),
        _finalist(RANDOM, three, top1(0.99), top1(0.50)),
    )
    gaps = [one.gap_points for one in result.finalists]
    assert gaps == [pytest.approx(5), pytest.approx(-3), None, pytest.approx(49)]
    assert result.gap_points == pytest.approx(1.0), "the mean of evolution's own"
    assert result.chosen is result.finalists[0]
    scored = _finalist(EVOLUTION, one, Score(3.0), top1(0.85))
    assert scored.gap_points is None, "a score has no scale"
    lost = _result(_finalist(EVOLUTION, one, top1(0.9), None))
    assert (lost.chosen, lost.gap_points) == (None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (top1(0.95), top1(0.85), "Evolution found a better network than random search: 95.00%"),
        (top1(0.85), top1(0.95), "Random search found a better network than evolution: 95.00%"),
        (top1(0.95, 100), top1(0.93, 100), "No evidence of a gain over random search: 95.00%"),
        (top1(0.95), Failed("x"), "The first network of one of the searches was not trained"),
        (top1(0.95), None, "The first network of one of the searches was not trained"),
    ],
)
def test_advice_compares_the_first_of_each_search(networks, ours, theirs, says) -> None:
    first, second, third = networks
    result = _result(
        _finalist(LARGEST, third, top1(0.1), top1(1.0)),
        _finalist(EVOLUTION, first, top1(0.9), ours),
        _finalist(EVOLUTION, third, top1(0.9), top1(0.999)),
        _finalist(RANDOM, second, top1(0.9), theirs),
    )
    assert result.advice.startswith(says)


def test_the_result_for_programs_has_the_values_of_the_typed_one(networks) -> None:
    one, two, _ = networks
    finalists = (
        replace(_finalist(EVOLUTION, one, top1(0.9), Failed("diverged")), lineage_epochs=11),
        Finalist.of(RANDOM, Candidate(two, top1(0.7), Cost(macs=7, latency_ms=0.5))),
    )
    told = json.loads(json.dumps(result_json(_result(*finalists))))
    assert told["chosen"] is None
    assert (told["spent"], told["random_spent"], told["unit"]) == (72.0, 64.0, "epochs")
    assert (told["failed"], told["share_within_limits"]) == (1, 0.25)
    first, second = told["finalists"]
    assert (first["architecture"], first["retrained"]) == (str(one), "diverged")
    assert (first["estimated"], first["lineage_epochs"]) == (0.9, 11)
    assert (second["retrained"], second["gap_points"]) == (None, None)
    assert second["cost"]["latency_ms"] == 0.5
    assert second["cost"]["energy_uj"] is None


def test_the_epochs_of_a_lineage_are_those_of_all_ancestors(networks) -> None:
    grandparent, parent, child = networks
    lineages = Lineages(SETTINGS, {parent: grandparent, child: parent})
    own = SETTINGS.child_epochs
    assert lineages.of(grandparent) == Lineage((), 8, 8)
    assert lineages.of(parent) == Lineage((str(grandparent),), own, 8 + own)
    found = lineages.of(child)
    assert found.ancestors == (str(parent), str(grandparent))
    assert found.lineage_epochs == 8 + 2 * own
    assert found.measures["ancestors"] == list(found.ancestors)
    assert untrained(child).measures == {}


def test_results_of_other_ancestors_are_other_results(networks) -> None:
    one, two, _ = map(str, networks)
    contexts = [Lineage(line).context("same") for line in ((), (one,), (two,), (one, two))]
    assert contexts[0] == "same"
    assert len(set(contexts)) == 4


def test_spending_is_counted_in_the_unit_of_the_budget() -> None:
    estimate, lineage = Estimate(top1(0.5), seconds=2.5), Lineage((), 8, 20)
    assert Spending(SETTINGS, in_epochs=True).of(estimate, lineage) == 8.0
    assert Spending(SETTINGS, in_epochs=True).of(estimate, Lineage()) == 0.0
    assert Spending(SETTINGS, in_epochs=False).of(estimate, lineage) == 2.5


@pytest.mark.parametrize(
    ("in_epochs", "evaluated", "spent", "left", "most"),
    [
        (True, 0, 0.0, 33.0, 4),  # nothing is known: eight epochs each
        (True, 4, 8.0, 33.0, 16),  # two epochs each until now
        (True, 4, 8.0, 1.0, 1),  # never less than one
        (False, 2, 5.0, 11.0, 4),
        (False, 0, 0.0, 11.0, 10**9),  # nothing is known of the time
    ],
)
def test_what_is_left_affords(networks, in_epochs, evaluated, spent, left, most) -> None:
    told = Told()
    told.history = [Candidate(networks[0], top1(0.5), Cost(macs=1))] * evaluated
    told.spent = spent
    assert Spending(SETTINGS, in_epochs=in_epochs).affordable(left, told) == most


@pytest.mark.parametrize("text", ["2h", "90min", "75s", "200 epochs"])
def test_a_budget_reads_its_own_text(text: str) -> None:
    budget = parse_budget(text, "scratch")
    assert parse_budget(str(budget), "scratch") == budget


def test_a_budget_of_epochs_is_refused_where_nothing_is_trained() -> None:
    assert parse_budget("1epoch", "inherit") == Budget(epochs=1)
    with pytest.raises(RecipeError, match=r"supernet does not, received 200epochs.*such as 2h"):
        parse_budget("200epochs", "supernet")
    for text in ("0epochs", "-1h", "many", "2.5epochs", ""):
        with pytest.raises(RecipeError, match=rf"received '{text}'"):
            parse_budget(text, "scratch")
    assert parse_budget("0.5h", "supernet").seconds == pytest.approx(1800)
    assert math.isfinite(parse_budget("2h", "supernet").seconds or math.inf)
