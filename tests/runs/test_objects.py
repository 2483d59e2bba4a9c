"""Parts of a run as Python objects: what `file.py:NAME` names, or what that returns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pliant import Run, run_all
from pliant.data import load
from pliant.data.own_data import own_data
from pliant.errors import DataError, MeasurementError, RecipeError, RunConflictError
from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import Objective
from pliant.runs.recipe import load_recipe
from pliant.runs.search import search_front
from pliant.runs.session import Session
from pliant.search.ask_tell import combined
from pliant.search.random import RandomSearch
from pliant.spaces.presets import preset
from pliant.targets import Arithmetic, FunctionTarget, open_target

RNG = np.random.default_rng(0)
LABELS = np.arange(400) % 4
IMAGES = (60 * LABELS[:, None, None] + RNG.integers(0, 40, (400, 8, 8))).astype(np.uint8)
ARRAYS = {"x": IMAGES, "y": LABELS}


def latency(architectures):
    return [Cost(latency_ms=len(str(one)) / 10) for one in architectures]


def board(space):
    return FunctionTarget(space, function=latency, name="board")


def at_random(space, objective, costs, options):
    return RandomSearch(space, objective, costs, seed=options.seed)


def digits_for(channels, image_size, classes):
    return preset("digits", channels=channels, image_size=image_size, classes=classes)


def changes():
    return {
        "space": digits_for,
        "data__source": lambda: ARRAYS,
        "target__name": board,
        "search__searcher": at_random,
        "limits": ["latency_ms=6"],
        "train__epochs": 1,
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("objects") / "run"
    with Run.create(str(tiny), folder=folder, **changes()) as run:
        result = run_all(run)
        names = set(run.evaluations()["searcher"].drop_null().to_pylist())
    return folder, result, names


def test_a_run_takes_objects_for_all_parts(done):
    folder, result, searchers = done
    assert result.summary.target.name == "board"
    assert result.summary.chosen.predicted.latency_ms <= 6
    assert result.summary.space.classes == ("0", "1", "2", "3")
    assert result.summary.chosen.predicted.macs > 0, "what the function leaves out"
    assert searchers == {"object:at_random", "random"}
    recipe = load_recipe(str(folder / "recipe.toml"))
    assert (recipe.space, recipe.target.name) == ("object:digits_for", "object:board")


def test_another_start_is_given_them_again(done):
    folder, result, _ = done
    with Run.reopen(folder) as run:
        with pytest.raises(RecipeError, match=r"a target was given as a Python object, board"):
            Session(run)
        with pytest.raises(RecipeError, match=r"a data set was given as a Python object"):
            _ = run.data
    with Run.reopen(folder, **changes()) as run:
        evaluations = run.evaluations().num_rows
        again = run_all(run, deliver=False)
        assert run.evaluations().num_rows == evaluations, "all of them are in the record"
    assert again.found.chosen.architecture == result.found.chosen.architecture
    other = changes() | {"data__source": lambda: {"x": IMAGES[::-1], "y": LABELS}}
    with Run.reopen(folder, **other) as run, pytest.raises(RunConflictError, match="images of"):
        _ = run.data


def test_a_session_takes_another_target_and_searcher(done):
    folder, _, _ = done
    with Run.reopen(folder, **changes()) as run:
        twice = FunctionTarget(
            run.space,
            function=lambda many: [Cost(latency_ms=2 * one.latency_ms) for one in latency(many)],
        )
        session = Session(run, target=twice, searcher="random", limits=["latency_ms=12"])
        assert session.target is twice
        assert session.feasible.example
        assert twice.identity != board(run.space).identity


def test_data_sets_of_ones_own(tmp_path, digits):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\n"
        "def images():\n    x = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8)\n"
        "    y = np.arange(40) % 2\n"
        "    return {'x_train': x, 'y_train': y, 'x_test': x, 'y_test': y}\n\n\n"
        "def nothing():\n    return 3\n"
    )
    found = load(f"{tmp_path}/mine.py:images", seed=0)
    assert (found.name, found.channels, found.image_size) == ("mine.py:images", 1, 8)
    assert (len(found.train), len(found.validation), len(found.test)) == (36, 4, 40)
    by_hand = own_data({"x": IMAGES, "y": LABELS.tolist()})
    assert len(by_hand.parts["train"].labels) == 400
    assert load(digits, seed=5) is digits
    with pytest.raises(DataError, match="nothing is int"):
        load(f"{tmp_path}/mine.py:nothing", seed=0)
    with pytest.raises(DataError, match="has only one of x and y"):
        load({"x": IMAGES}, seed=0)
    with pytest.raises(DataError, match="has its size, 8; received image_size 16"):
        load(digits, seed=0, image_size=16)


class Certain:
    def estimate(self, architectures):
        return [Accuracy(1.0, 1) for _ in architectures]


def wrong(architectures):
    return [Cost(latency_ms=math.nan, macs=1) for _ in architectures]


def test_a_cost_that_is_nan_names_its_function(digits_space, tiny, tmp_path):
    says = pytest.raises(
        MeasurementError, match=r"wrong \(test_objects.py, line \d+\) returned NaN as latency_ms of"
    )
    one = digits_space.smallest()
    with says:
        combined(Certain(), wrong)([one])
    with says:
        RandomSearch(digits_space, Objective(), wrong, seed=0).ask(2)
    with says:
        FunctionTarget(digits_space, function=wrong)
    made = board(digits_space)
    with (
        says,
        Run.create(
            str(tiny),
            folder=tmp_path / "run",
            limits=["latency_ms=1"],
            target__name=lambda space: _Nan(space),
        ) as run,
    ):
        run_all(run)
    assert made.predict([one])[0].latency_ms == len(str(one)) / 10


class _Nan(FunctionTarget):
    def __init__(self, space):
        super().__init__(space, function=latency)

    predict = staticmethod(wrong)


def test_what_is_no_part_is_refused(digits_space, tiny, tmp_path):
    with pytest.raises(RecipeError, match="received int"):
        open_target(3, digits_space)
    with pytest.raises(RecipeError, match="which has no predict"):
        open_target(lambda space: latency, digits_space)
    with pytest.raises(RecipeError, match="fails: too deep"):
        FunctionTarget(digits_space, function=lambda many: [Failed("too deep") for _ in many])
    with pytest.raises(RecipeError, match=r"must return a pliant\.spaces"):
        Run.create(str(tiny), folder=tmp_path / "run", space=lambda **sizes: None)


class _Odd(Arithmetic):
    """A target of the user's own with an identity, metrics and latencies of its own."""

    def __init__(self, space, identity="odd", metrics=("latency_ms",), latencies=(1.0,)):
        super().__init__(space, metrics=metrics)
        object.__setattr__(self, "latencies", itertools.cycle(latencies))
        object.__setattr__(self, "named", identity)

    @property
    def identity(self):
        return self.named

    def predict(self, architectures):
        return [Cost(latency_ms=next(self.latencies)) for _ in architectures]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"identity": 5}, "that of _Odd is 5"),
        ({"metrics": ("latency",)}, "_Odd names 'latency'. Did you mean 'latency_ms'"),
        ({"metrics": ("latency_ms", "macs")}, "_Odd names macs and predicts None for"),
        ({"latencies": (None,)}, "_Odd names latency_ms and predicts None for"),
        ({"latencies": (1.0, 2.0)}, "predicted latency_ms=1.0 for .*, then latency_ms=2.0"),
    ],
)
def test_a_target_does_what_it_says(digits_space, odd, said):
    assert open_target(_Odd, digits_space).identity == "odd"
    with pytest.raises(RecipeError, match=said):
        open_target(lambda space: _Odd(space, **odd), digits_space)


def test_a_searcher_asks_for_architectures_of_the_run_alone(done):
    def outside(space, objective, costs, options):
        larger = preset("digits", channels=1, image_size=12, classes=10)
        return RandomSearch(larger, objective, seed=0)

    folder, _, _ = done
    with Run.reopen(folder, **changes()) as run:
        known = list(run.record.evaluations("estimate"))
        with pytest.raises(RecipeError, match=r"of its space, digits; .*outside asked for r"):
            search_front(Session(run, searcher=outside))
        assert list(run.record.evaluations("estimate")) == known
