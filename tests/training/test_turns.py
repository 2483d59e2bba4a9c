"""A strategy with two optimizers over two splits: what ProxylessNAS needs of the loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pliant.data import Augmentation
from pliant.errors import RecipeError
from pliant.training.checkpoint import Checkpoints
from pliant.training.loop import train
from pliant.training.schedule import Phase, TrainingRecipe
from pliant.training.strategy import TrainingStrategy, Turn, sgd

RECIPE = TrainingRecipe(epochs=2, batch_size=40, learning_rate=0.2, seed=5)
ADAM_RATE = 0.01


class Mixed(nn.Module):
    """Two paths, mixed by an architecture parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 10), nn.Linear(64, 10)
        self.alpha = nn.Parameter(torch.zeros(2))

    def forward(self, images):
        flat = images.flatten(1)
        weights = self.alpha.softmax(0)
        return weights[0] * self.first(flat) + weights[1] * self.second(flat)


class Alternating(TrainingStrategy):
    """Weights on the training split every step; the mixture on the validation split every other."""

    def __init__(self):
        self.seen = []

    def optimizers(self, model, recipe):
        weights = [*model.first.parameters(), *model.second.parameters()]
        groups = [{"params": weights, "weight_decay": recipe.weight_decay, "rate": 1.0}]
        adam = torch.optim.Adam([{"params": [model.alpha], "lr": ADAM_RATE}])
        return {"weights": sgd(groups, recipe), "alpha": adam}

    def turns(self, phase, step):
        alpha = (Turn("alpha", split="validation"),) if step % 2 else ()
        return (Turn("weights"), *alpha)

    def turn_losses(self, turn, phase, model, images, labels, rng):
        self.seen.append((turn, labels.tolist(), rng.integers(1000)))
        yield F.cross_entropy(model(images), labels)

    def state(self):
        return {"count": torch.tensor(len(self.seen))}

    def load_state(self, model, state):
        self.seen = [None] * int(state["count"])


class StoppedError(Exception):
    pass


@pytest.fixture
def run(digits, cpu):
    def make(folder=None, stop=None, strategy=None):
        torch.manual_seed(0)
        model, strategy = Mixed(), strategy or Alternating()
        splits = {"train": digits.train.subset(np.arange(200)), "validation": digits.validation}

        def on_step(log):
            if log.step == stop:
                raise StoppedError

        train(
            model,
            splits,
            Augmentation(),
            RECIPE,
            strategy,
            accelerator=cpu,
            checkpoints=Checkpoints(folder, seconds=0) if folder else None,
            on_step=on_step,
            report_every=1,
        )
        return model, strategy

    return make


def test_each_optimizer_steps_on_its_own_split(run, digits):
    model, strategy = run()
    assert [turn.optimizer for turn, *_ in strategy.seen] == ["weights", "weights", "alpha"] * 5
    labels = {name: set() for name in ("train", "validation")}
    for turn, found, _ in strategy.seen:
        labels[turn.split].add(tuple(found))
    assert len(labels["train"]) == 10
    assert len(labels["validation"]) == 5
    draws = [drawn for *_, drawn in strategy.seen]
    assert len(set(draws)) > 10, "every turn draws for itself"
    assert not torch.equal(model.alpha, torch.zeros(2))


def test_a_turn_changes_nothing_but_its_own_parameters(run):
    """Adam moves by its rate at most per step, whatever the other optimizer's gradients are."""
    model, _ = run()
    moved = model.alpha.detach().abs()
    assert float(moved.max()) <= 5 * ADAM_RATE * 1.01, "five turns"
    assert float(moved.min()) > 0


def test_stopped_and_resumed_it_ends_with_the_same_bits(run, tmp_path):
    expected, strategy = run()
    for stop in (1, 4, 5):
        with pytest.raises(StoppedError):
            run(tmp_path, stop=stop)
    found, resumed = run(tmp_path)
    assert len(resumed.seen) == len(strategy.seen)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (Turn("alhpa"), r"step 7 of phase 'train' names 'alhpa', and there are weights, alpha\."),
        (Turn(split="valid"), r"names 'valid', and there are train, validation\. Pass it to train"),
    ],
)
def test_a_turn_that_names_nothing_is_refused_before_the_first_step(
    run, monkeypatch, turn, message
):
    monkeypatch.setattr(
        Alternating, "turns", lambda self, phase, step: (turn if step == 7 else Turn(),)
    )
    monkeypatch.setattr(Alternating, "turn_losses", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(RecipeError, match=message):
        run()


class TwoPhases(Alternating):
    """Two equal phases, of which the second begins with the momentum of the first if it is kept."""

    kept = False

    def phases(self, epochs):
        return Phase("one", epochs / 2), Phase("two", epochs / 2)

    def clears_optimizer_state(self, phase):
        assert phase in ("one", "two")
        return not self.kept

    def optimizers(self, model, recipe):
        self.made = super().optimizers(model, recipe)
        return self.made

    def turn_losses(self, turn, phase, model, images, labels, rng):
        self.seen.append((phase, len(self.made["weights"].state)))
        yield F.cross_entropy(model(images), labels)


@pytest.mark.parametrize("kept", [False, True])
def test_a_strategy_may_keep_the_state_of_its_optimizers(run, monkeypatch, kept):
    monkeypatch.setattr(TwoPhases, "kept", kept)
    _, strategy = run(strategy=TwoPhases())
    first = next(known for phase, known in strategy.seen if phase == "two")
    assert first == (4 if kept else 0), "parameters with momentum"


def test_a_strategy_without_losses_is_named():
    class Forgetful(TrainingStrategy):
        """Writes nothing."""

    with pytest.raises(RecipeError, match="Forgetful has neither"):
        Forgetful().losses("train", None, None, None, None)


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([], "Alternating yielded none"),
        (["loss"], "Alternating yielded 'loss', of type str"),
        ([torch.ones(2, requires_grad=True)], "yielded 2 numbers with gradients"),
        ([torch.ones(())], "yielded 1 numbers without gradients"),
    ],
)
def test_losses_that_are_none_are_refused(run, monkeypatch, losses, says):
    monkeypatch.setattr(Alternating, "turn_losses", lambda *_: iter(losses))
    with pytest.raises(RecipeError, match=says):
        run()
