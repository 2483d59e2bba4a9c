"""The network that is delivered from a front is within its limits however it is measured."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pliant import Run
from pliant.accuracy.evaluation import Answers
from pliant.devices.interval import Interval
from pliant.errors import InfeasibleError
from pliant.metrics import Cost, Measured
from pliant.runs.evidence import choice_claims, confidence_claims
from pliant.runs.session import Session
from pliant.runs.shortlist import Shortlist, selected_errors


class Pretend:
    """The target of a run, where every network measures as predicted and apart as told."""

    def __init__(self, target, predicted, apart):
        self._target, self._predicted, self._apart = target, predicted, iter(apart)
        self.identity = f"another {id(self)}"
        self.can_measure = True

    def __getattr__(self, name):
        return getattr(self._target, name)

    def measure(self, models):
        return {name: _milliseconds(self._predicted[name]) for name in models}

    def measure_file(self, path):
        assert path.is_file()
        return _milliseconds(next(self._apart))


def _milliseconds(value: float) -> Measured:
    return Measured(Cost(latency_ms=value), spread=Cost(latency_ms=0.0))


@pytest.fixture
def shortlist(copied, finished):
    """Of the finished run, under other limits and measurements."""
    predicted = {
        str(one.architecture): one.known_cost.latency_ms for one in finished.result.found.history
    }
    with Run.reopen(copied) as run:

        def make(limits, apart=()):
            session = Session(run, limits=limits)
            session.target = Pretend(session.target, predicted, apart)
            return Shortlist(session)

        yield make


def test_network_that_exceeds_its_limit_apart_is_passed_over(shortlist, finished):
    history = finished.result.found.history
    _, first = shortlist(["parameters=20k"]).choose(history, 3)
    slow = 2 * max(one.cost.latency_ms for one in finished.result.found.shortlist)
    limited = shortlist([f"latency_ms={slow!r}", "parameters=20k"], [2 * slow, slow / 2])
    tried, chosen = limited.choose(history, 3)
    assert chosen.architecture != first.architecture
    assert chosen.architecture in {one.architecture for one in tried}
    assert chosen.measured_apart.cost.latency_ms == slow / 2
    assert chosen.validated.top1 <= first.validated.top1
    # What was measured is in the record: the answers are used up.
    assert limited.choose(history, 3)[1] == chosen


def test_nothing_is_within_the_limits_as_measured(shortlist, finished):
    limited = shortlist(["latency_ms=5"], [9.0] * 99)
    with pytest.raises(InfeasibleError, match=r"the nearest has latency_ms=9ms. Relax the limits"):
        limited.choose(finished.result.found.history, 3)


def test_without_a_measured_limit_nothing_is_measured_apart(shortlist, finished):
    _, chosen = shortlist(["parameters=20k"]).choose(finished.result.found.history, 3)
    assert chosen.measured_apart is None


def test_where_accuracy_cannot_decide_the_largest_is_chosen(shortlist, finished, monkeypatch):
    """Two networks, each right where the other is wrong: the larger is chosen, and it is said."""
    history, one = finished.result.found.history, shortlist([])
    session, labels = one.session, np.zeros(100, dtype=np.int64)
    macs = {candidate.architecture: candidate.known_cost.macs for candidate in history}
    largest = max(macs, key=macs.get)

    def told(apart: int):
        """Others are wrong on some images; the largest on as many others, and on one more."""

        def answers(architecture):
            wrong = np.arange(apart) if architecture != largest else np.arange(50, 51 + apart)
            found = labels.copy()
            found[wrong] = 1
            return Answers(labels, found, np.ones(100, dtype=np.float32))

        return answers

    for apart, expected in ((0, False), (3, True)):
        monkeypatch.setattr(session, "answers", told(apart))
        tried = [
            dataclasses.replace(network, validated=session.answers(network.architecture).accuracy)
            for network in one.evaluate(one.promising(history, session.objective, 3))
        ]
        assert largest in {network.architecture for network in tried}
        chosen = one._best_first(tried)[0]
        assert (chosen.architecture == largest) is expected
        claims = list(choice_claims(session, chosen, tried))
        assert [claim.value for claim in claims] == ["96.00% against 97.00%"] * expected


def test_floor_of_the_accuracy_and_least_cost(shortlist, finished):
    """With an objective that minimises a cost, the cheapest network above the floor is chosen."""
    history = finished.result.found.history
    validated = [one.validated.top1 for one in finished.result.found.shortlist]
    floor = sorted(validated)[-1] - 1e-9
    free, floored = shortlist([]), shortlist([f"accuracy={floor!r}"])
    for one in (free, floored):
        one.session.objective = dataclasses.replace(one.session.objective, minimise="latency_ms")
    fastest, accurate = (one.choose(history, 8)[1] for one in (free, floored))
    assert accurate.validated.top1 >= floor
    assert fastest.cost.latency_ms <= accurate.cost.latency_ms


def test_measurement_apart_is_what_was_delivered(finished):
    chosen = finished.result.found.chosen
    assert chosen.measured_apart == finished.result.delivered.measured_apart
    assert dataclasses.replace(chosen, measured_apart=None) in finished.result.found.shortlist


def test_at_a_confidence_the_search_keeps_a_distance_and_recalibrates(shortlist, finished):
    history = finished.result.found.history
    costs = sorted(one.known_cost.latency_ms for one in history)
    bound = 1.19 * costs[len(costs) // 2]  # half of the networks keep a distance of 1.18
    cautious = shortlist([f"latency_ms={bound!r}"], [bound / 2] * 9)
    session = cautious.session
    session.target.interval = lambda metric: Interval(
        tuple(math.log(1 + n / 100) for n in range(20))
    )
    session.run.recipe = session.run.recipe.model_copy(update={"confidence": 0.9})
    [lowered] = session.search_objective.limits
    assert lowered.bound == pytest.approx(bound / 1.18)  # rank ceil(21 * 0.9) = 19 of 20
    tried, chosen = cautious.choose(history, 8)
    assert max(one.predicted.latency_ms for one in tried) <= lowered.bound
    [claim] = confidence_claims(session.objective, session.target, 0.9, selected_errors(tried))
    assert claim.value == f"{len(tried)} of {len(tried)} networks of the shortlist"
    assert "1.180 times the prediction, from errors on 20 networks" in claim.how
    assert chosen in [
        dataclasses.replace(one, measured_apart=chosen.measured_apart) for one in tried
    ]
