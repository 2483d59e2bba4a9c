"""Which optimizer trains a network, and with which rate: of its space, unless a recipe says it."""

from __future__ import annotations

import pytest
import torch

from pliant.accuracy.fitting import short_recipe
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import TrainingRecipe, usual_recipe


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [("vit-32", torch.optim.AdamW, 3e-3), ("digits", torch.optim.SGD, 0.375)],
)
def test_a_space_says_what_trains_it(name, kind, rate):
    space = preset(name, channels=1, image_size=24, classes=3)
    supernet = Supernet(space, mean=[0.5], std=[0.2])
    recipe = short_recipe(space, 2, images=1000)
    assert recipe.learning_rate == rate
    [optimizer] = Sandwich(space).optimizers(supernet, recipe).values()
    assert type(optimizer) is kind
    decayed, plain = (
        {id(one) for group in optimizer.param_groups if bool(group["weight_decay"]) is has
         for one in group["params"]}
        for has in (True, False)
    )  # fmt: skip
    assert len(decayed | plain) == len(list(supernet.parameters()))
    for key, parameter in supernet.named_parameters():
        weight = key.endswith("weight") and parameter.ndim > 1
        assert (id(parameter) in decayed) == weight, key


def test_the_rate_of_adamw_grows_with_the_root_of_the_batch():
    assert [usual_recipe("adamw", 1, batch).peak_rate for batch in (64, 256, 1024)] == [
        pytest.approx(rate) for rate in (0.0015, 0.003, 0.006)
    ]
    assert usual_recipe("sgd", 1, 1024).peak_rate == 4 * 0.375


def test_the_usual_recipe_of_sgd_is_the_default():
    assert usual_recipe("sgd", 7) == TrainingRecipe(7)
