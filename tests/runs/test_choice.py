"""Of the networks of a front, the one that is delivered holds its limits however it is measured."""

from __future__ import annotations

import dataclasses

import pytest

from pliant import Run
from pliant.devices.profile import load_profile
from pliant.errors import InfeasibleError
from pliant.objective import Limit
from pliant.runs import search
from pliant.runs.train import train_supernet


@pytest.fixture
def finals(copied, digits_profile):
    """The finished run's, where every network measures as predicted."""
    with Run.reopen(copied) as run:
        found = search.finals(
            run, search.make_estimator(run, train_supernet(run)), load_profile(digits_profile)
        )
        found._measure = lambda candidates: {
            str(one.architecture): (one.cost, 0.0) for one in candidates
        }
        yield found


def test_network_that_misses_its_limit_in_a_fresh_process_is_passed_over(
    finals, finished, monkeypatch
):
    history = finished.result.found.history
    _, first = finals.choose(history, [Limit("parameters", 20e3)], 3)
    slow = 2 * max(one.cost.latency_ms for one in finished.result.found.finalists)
    answers = iter([2 * slow, slow / 2])
    monkeypatch.setattr(search, "measure_in_fresh_process", lambda path, settings: next(answers))
    finals.context += "another profile"
    tried, chosen = finals.choose(
        history, [Limit("latency_ms", slow), Limit("parameters", 20e3)], 3
    )
    assert chosen.architecture != first.architecture
    assert chosen.architecture in {one.architecture for one in tried}
    assert chosen.fresh_ms == slow / 2
    assert chosen.validated.top1 <= first.validated.top1
    # What was measured is remembered: the answers are used up.
    assert (
        finals.choose(history, [Limit("latency_ms", slow), Limit("parameters", 20e3)], 3)[1]
        == chosen
    )


def test_nothing_holds_as_measured(finals, finished, monkeypatch):
    monkeypatch.setattr(search, "measure_in_fresh_process", lambda path, settings: 9.0)
    finals.context += "another profile"
    with pytest.raises(
        InfeasibleError, match=r"the fastest took 9 ms\. Raise the limit to at least that"
    ):
        finals.choose(finished.result.found.history, [Limit("latency_ms", 5.0)], 3)


def test_without_a_latency_limit_nothing_is_measured_twice(finals, finished, monkeypatch):
    monkeypatch.setattr(
        search,
        "measure_in_fresh_process",
        lambda path, settings: pytest.fail("no limit asks for it"),
    )
    _, chosen = finals.choose(finished.result.found.history, [Limit("parameters", 20e3)], 3)
    assert chosen.fresh_ms is None


def test_fresh_measurement_is_what_the_summary_shows(finished):
    chosen = finished.result.found.chosen
    assert chosen.fresh_ms == finished.result.delivered.fresh_latency_ms
    assert dataclasses.replace(chosen, fresh_ms=None) in finished.result.found.finalists
