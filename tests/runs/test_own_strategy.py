"""A training strategy of one's own, named as file.py:NAME."""

from __future__ import annotations

import pytest

from pliant import Run
from pliant.errors import RecipeError, RunConflictError
from pliant.runs import train_supernet
from pliant.training import STRATEGIES, StrategyOptions, make_strategy
from pliant.training.registry import SEARCHING

MINE = """
from torch.nn import functional as F
from pliant.training import TrainingStrategy, Turn

class Ends(TrainingStrategy):
    def __init__(self, space, options):
        self.space, self.smoothing = space, options.label_smoothing
        assert len(options.validation)

    def turns(self, phase, step):
        return (Turn(), Turn(split="validation")) if step % 2 else (Turn(),)

    def losses(self, phase, model, images, labels, rng):
        for end in (self.space.largest(), self.space.smallest()):
            yield F.cross_entropy(model(images, end), labels, label_smoothing=self.smoothing)

def number(space, options):
    return 3
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE, "utf-8")
    return path


def test_it_trains_a_run_which_is_known_by_its_code(tmp_path, tiny, mine):
    make = {"folder": tmp_path / "run", "train__strategy": f"{mine}:Ends"}
    with Run.create(str(tiny), **make) as run:
        assert run.recipe.train.strategy == f"{mine}:Ends"
        first = train_supernet(run)
        assert {len(step.values["losses"]) for step in run.record.steps()} <= {2, 4}
    with Run.create(str(tiny), **make) as run:
        again = train_supernet(run)  # read from its file
        assert all(map(lambda *two: bool((two[0] == two[1]).all()), *map(_weights, (first, again))))
    mine.write_text(MINE + "# changed", "utf-8")
    with (
        Run.create(str(tiny), **make) as run,
        pytest.raises(RunConflictError, match="the strategy with which it began"),
    ):
        train_supernet(run)
    mine.unlink()
    with Run.create(str(tiny), **make) as run:
        train_supernet(run)


def _weights(supernet):
    return list(supernet.parameters())


def test_names_that_mean_no_strategy(tmp_path, tiny, mine, digits_space):
    options = StrategyOptions()
    for name in STRATEGIES:
        if name not in SEARCHING:
            assert make_strategy(name, digits_space, options).phases(3)
            continue
        with pytest.raises(RecipeError, match="no target is open"):
            make_strategy(name, digits_space, options)
    with pytest.raises(RecipeError, match=r"one of sandwich.*Did you mean 'sandwich'"):
        Run.create(str(tiny), folder=tmp_path / "run", train__strategy="sandwhich")
    with pytest.raises(RecipeError, match="Did you mean 'Ends'"):
        make_strategy(f"{mine}:Ennds", digits_space, options)
    with pytest.raises(RecipeError, match=r"derives from .*TrainingStrategy, .* returned a int"):
        make_strategy(f"{mine}:number", digits_space, options)
    with pytest.raises(RecipeError, match=r"mine\.py:Ends ended in an error at .*in __init__"):
        make_strategy(f"{mine}:Ends", digits_space, options)
    for key in ("train__strategy", "train__start", "search__searcher"):
        with pytest.raises(RecipeError, match="Did you mean 'Ends'"):
            Run.create(str(tiny), folder=tmp_path / "run", **{key: f"{mine}:Ennds"})
    with pytest.raises(RecipeError, match=r"none\.py, which cannot be read"):
        Run.create(str(tiny), folder=tmp_path / "run", train__strategy="none.py:Ends")
    assert not (tmp_path / "run").exists()
