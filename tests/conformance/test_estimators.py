"""What every accuracy estimator promises, whatever is behind it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pliant.accuracy.active_predictor import Predictor
from pliant.accuracy.estimator import Estimator, evaluate
from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.hypernetwork import HyperNetwork
from pliant.accuracy.inherit import InheritWeights
from pliant.accuracy.predictor import AccuracyPredictor
from pliant.accuracy.scratch import TrainFromScratch
from pliant.accuracy.shared_weights import SharedWeights, train_shared_weights
from pliant.accuracy.supernet import SupernetEstimator
from pliant.accuracy.zero_shot import score
from pliant.data import DataSet
from pliant.metrics import Accuracy, Failed, Score
from pliant.networks.supernet import Supernet
from pliant.objective import AccuracyEstimator, Objective
from pliant.record import Record
from pliant.scoring.images import Shape, noise_batch
from pliant.scoring.networks import SpaceNetworks
from pliant.scoring.process_pool import ScoreEstimator, ScorePool, Worker
from pliant.search.ask_tell import combined, memoized, run_search
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.cell import CellSpace
from pliant.spaces.space import Space

Make = Callable[[Space, DataSet], AbstractContextManager[AccuracyEstimator]]
PAGE = Path(__file__).parents[2] / "docs" / "estimators.md"


@contextmanager
def supernet(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = Supernet(space, mean=data.mean, std=data.std)
    yield SupernetEstimator(weights, data.train, data.validation, images=50)


@contextmanager
def predictor(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    yield AccuracyPredictor(space, *_evaluated(space))


@contextmanager
def from_scratch(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    few = fewer_images(data, 0.2)
    yield TrainFromScratch(space, few, epochs=1, images=50)


@contextmanager
def inherited_weights(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    few = fewer_images(data, 0.2)
    yield InheritWeights(space, few, epochs=1, root_epochs=1, images=50)


@contextmanager
def shared_weights(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    few = fewer_images(data, 0.2)
    yield SharedWeights(train_shared_weights(space, few, strategy="single-path", epochs=1))


@contextmanager
def hypernetwork(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    yield HyperNetwork(space, fewer_images(data, 0.2), epochs=1)


@contextmanager
def active_predictor(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    yield Predictor(space, AccuracyPredictor(space, *_evaluated(space)), evaluations=12)


@contextmanager
def zero_shot(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    batch = noise_batch(Shape(space.channels, space.image_size, space.classes), 4, 0)
    with ScorePool(Worker(SpaceNetworks(lambda: space), batch, score), 1) as pool:
        yield ScoreEstimator(pool, "zen")


@contextmanager
def worked_example(space: Space, data: DataSet) -> Iterator[AccuracyEstimator]:
    """The class of the page about adding an estimator."""
    names: dict[str, Any] = {}
    exec(_code_of_the_page()[1], names)  # the Protocol is the first, the search the third
    yield names["NearestNeighbours"](space, *_evaluated(space))


# A new estimator is a line here.
ESTIMATORS: tuple[Make, ...] = (
    supernet,
    predictor,
    from_scratch,
    inherited_weights,
    shared_weights,
    hypernetwork,
    active_predictor,
    zero_shot,
    worked_example,
)


def _evaluated(space: Space) -> tuple[list[Architecture], list[float]]:
    rng = np.random.default_rng(5)
    architectures = [space.sample_choices(rng) for _ in range(30)]
    return architectures, [0.5 + (space.cost(one).macs or 0) / 1e9 for one in architectures]


def _code_of_the_page() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture(params=["blocks", "cells"])
def space(request: pytest.FixtureRequest, digits_space: Space) -> Space:
    """Stages of blocks, and cells as those of NAS-Bench-201."""
    if request.param == "blocks":
        return digits_space
    return CellSpace("cells", width=8, depth=1, channels=1, image_size=8, classes=10)


@pytest.fixture(params=ESTIMATORS, ids=lambda make: make.__name__)
def estimator(
    request: pytest.FixtureRequest, space: Space, digits: DataSet
) -> Iterator[AccuracyEstimator]:
    with request.param(space, digits) as made:
        yield made


@pytest.fixture
def architectures(space: Space) -> list[Architecture]:
    rng = np.random.default_rng(0)
    drawn = [space.sample_choices(rng) for _ in range(3)]
    return [space.smallest(), *drawn, space.largest()]


def test_constructors_share_one_order(estimator: AccuracyEstimator) -> None:
    first, *others = inspect.signature(type(estimator)).parameters.values()
    assert first.name in ("space", "supernet", "pool")
    optional = [one for one in others if one.default is not one.empty]
    assert all(one.kind is one.KEYWORD_ONLY for one in optional)
    assert all(one.kind is not one.KEYWORD_ONLY for one in others if one not in optional)


def test_one_result_per_architecture_in_order_however_it_is_batched(
    estimator: AccuracyEstimator, architectures: list[Architecture]
) -> None:
    assert list(estimator.estimate([])) == []
    together = estimator.estimate(architectures)
    assert len(together) == len(architectures)
    assert all(isinstance(one, Accuracy | Score | Failed) for one in together)
    assert not all(isinstance(one, Failed) for one in together)
    apart = [estimator.estimate([one])[0] for one in architectures[::-1]][::-1]
    for one, again in zip(together, apart, strict=True):
        assert type(one) is type(again)
        assert isinstance(one, Failed) or one.value == pytest.approx(again.value, rel=1e-9)


def test_its_cost_in_seconds_is_reported(
    estimator: AccuracyEstimator, architectures: list[Architecture]
) -> None:
    found = evaluate(estimator, architectures)
    assert all(one.seconds >= 0 for one in found)
    assert sum(one.seconds for one in found) > 0
    if isinstance(estimator, Estimator):
        assert estimator.setup_seconds >= 0
        assert len(estimator.identity) == 16
        assert estimator.name


def test_made_again_it_says_the_same(
    estimator: AccuracyEstimator,
    request: pytest.FixtureRequest,
    space: Space,
    digits: DataSet,
    architectures: list[Architecture],
) -> None:
    with request.node.callspec.params["estimator"](space, digits) as again:
        assert list(again.estimate(architectures[:2])) == list(
            estimator.estimate(architectures[:2])
        )
        if isinstance(estimator, Estimator) and isinstance(again, Estimator):
            assert again.identity == estimator.identity


def test_it_leaves_the_random_state_of_its_caller_alone(
    estimator: AccuracyEstimator, architectures: list[Architecture]
) -> None:
    ours, numpys = torch.random.get_rng_state(), np.random.get_state()[1]
    estimator.estimate(architectures[:2])
    assert torch.equal(torch.random.get_rng_state(), ours)
    assert (np.random.get_state()[1] == numpys).all()


def test_a_search_with_it_is_recorded_as_it_is(
    estimator: AccuracyEstimator, space: Space, tmp_path: Path
) -> None:
    objective = Objective(("macs",))
    evaluate = combined(estimator, lambda found: [space.cost(one) for one in found])
    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        searcher = RandomSearch(space, objective, batch=4)
        history = run_search(searcher, memoized(evaluate, record, stage="estimate"), 8)
        rows = record.evaluations("estimate")
    assert [row.quality for row in rows] == [one.quality for one in history]
    assert objective.front(history)


def test_the_page_about_adding_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, example, search = _code_of_the_page()
    names: dict[str, Any] = {}
    exec(example, names)
    exec(search, names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    macs = [float(line.split()[-1]) for line in lines]
    assert macs == sorted(macs)
    assert macs[-1] <= 6e6
