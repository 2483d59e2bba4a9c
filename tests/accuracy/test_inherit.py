"""Children that start from trained parents: what they begin with, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.inherit import InheritWeights, inheritance_gaps
from pliant.accuracy.scratch import TrainFromScratch
from pliant.metrics import Accuracy, Failed
from pliant.networks.morph.check import TOLERANCE
from pliant.objective import Objective
from pliant.record import Record
from pliant.search.ask_tell import combined, memoized, run_search
from pliant.search.evolution import EvolutionSearch


@pytest.fixture(scope="module")
def few(digits):
    return fewer_images(digits, 0.3)


@pytest.fixture(scope="module")
def line(digits_space):
    """A grandparent, its child and its grandchild, which only grow."""
    texts = ("r8_1d1_1.1k3e2_2d1_2.1k3e2", "r8_1d1_1.1k3e3_2d1_2.1k5e2")
    texts += ("r8_1d2_1.1k3e3_1.2k3e2_2d1_2.1k5e4",)
    return [digits_space.parse(text) for text in texts]


@pytest.fixture(scope="module")
def estimator(digits_space, few, line):
    parents = dict(zip(line[1:], line, strict=False))
    return InheritWeights(digits_space, few, epochs=1, root_epochs=4, parent_of=parents.get)


def test_the_epochs_of_a_lineage_are_summed(estimator, line):
    assert all(isinstance(one, Accuracy) for one in estimator.estimate(line[::-1]))
    lineages = [estimator.lineage(one) for one in line]
    assert [one.lineage_epochs for one in lineages] == [4, 5, 6]
    assert [one.parent for one in lineages] == [None, *line[:2]]
    assert estimator.measures(line[2]) == {"epochs": 1, "lineage_epochs": 6}


def test_a_child_begins_with_what_its_parent_computes(estimator, line):
    network = estimator.network(line[0])
    found = estimator.start(line[1], line[0], network)
    assert found.approximations == ()
    assert found.change.largest <= TOLERANCE


def test_a_child_is_better_than_after_as_many_epochs_from_scratch(
    estimator, line, digits_space, few
):
    alone = TrainFromScratch(digits_space, few, epochs=1)
    [inherited], [fresh] = estimator.estimate([line[1]]), alone.estimate([line[1]])
    assert inherited.top1 > fresh.top1
    [gap] = inheritance_gaps(estimator, alone, [line[1]])
    assert gap.points == pytest.approx(100 * (inherited.top1 - fresh.top1))
    assert gap.lineage_epochs == 5


def test_the_children_of_a_failed_parent_fail(digits_space, few, line, monkeypatch):
    made = InheritWeights(digits_space, few, epochs=1, root_epochs=1, learning_rate=1e9)
    smallest = digits_space.smallest()
    child = digits_space.parse("r6_1d1_1.1k3e3_2d1_2.1k3e2")
    [found] = made.estimate([child])
    assert isinstance(found, Failed)
    assert "diverged" in found.reason
    parents = {child: smallest, line[1]: child}
    orphans = InheritWeights(
        digits_space, few, epochs=1, root_epochs=1, learning_rate=1e9, parent_of=parents.get
    )
    [orphan] = orphans.estimate([line[1]])
    assert orphan.reason == f"its parent {child} failed"


def test_a_killed_estimator_resumes(digits_space, few, line, tmp_path):
    parents = {line[1]: line[0]}

    def make():
        options = {"epochs": 1, "root_epochs": 1, "parent_of": parents.get}
        return InheritWeights(digits_space, few, folder=tmp_path, **options)

    first = make().estimate(line[:2])
    again = make()
    assert again.estimate(line[:2]) == first
    assert sum(1 for _ in tmp_path.iterdir()) == 2


def test_an_evolution_starts_children_from_their_parents_and_records_it(
    digits_space, few, tmp_path
):
    def costs(found):
        return [digits_space.cost(one) for one in found]

    searcher = EvolutionSearch(digits_space, Objective(("macs",)), costs, population=4, batch=2)
    made = InheritWeights(
        digits_space, few, epochs=1, root_epochs=1, parent_of=searcher.parents.get
    )
    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        evaluate = memoized(combined(made, costs), record, stage="estimate", measures=made.measures)
        history = run_search(searcher, evaluate, 6)
        rows = record.evaluations("estimate")
    epochs = [row.measures["lineage_epochs"] for row in rows]
    assert epochs[:2] == [1, 1]
    assert max(epochs) >= 2
    for one, total in zip(history, epochs, strict=True):
        parent = searcher.parents.get(one.architecture)
        assert total == (1 if parent is None else made.lineage(parent).lineage_epochs + 1)
    assert np.isfinite([one.value for one in history]).all()
