"""What every training strategy promises the loop. A new one is a line in `STRATEGIES`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pliant.data import Augmentation
from pliant.networks.supernet import build
from pliant.spaces.mobile import MobileFrame
from pliant.spaces.proxyless import ProxylessSpace, ProxylessStage
from pliant.targets import Arithmetic
from pliant.training.checkpoint import Checkpoints
from pliant.training.finetune import FineTune
from pliant.training.hypernetwork import HyperNetworkTraining
from pliant.training.loop import train
from pliant.training.progressive import ProgressiveShrinking
from pliant.training.proxyless import ArchitectureSettings, Proxyless
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch
from pliant.training.single_path import SinglePath


def mixed_space():
    """Two operations or none for each of two blocks."""
    stages = [ProxylessStage(8, 2, kernels=(3,), expansions=(1, 2))]
    frame = MobileFrame(stem=8, stem_stride=1, activation="relu6", expand=16, hidden=0)
    return ProxylessSpace("tiny", stages, frame, channels=1, image_size=8, classes=10)


def proxyless(gradient):
    def make(space):
        limits = {"macs": 0.8 * space.cost(space.largest()).macs}
        settings = ArchitectureSettings(gradient=gradient)
        return Proxyless(space, Arithmetic(space), limits, settings=settings)

    return make


STRATEGIES = {
    "sandwich": (Sandwich, True),
    "single-path": (SinglePath, True),
    "hypernetwork": (HyperNetworkTraining, True),
    "progressive": (ProgressiveShrinking, True),
    "finetune": (FineTune, True),
    "scratch": (lambda space: FromScratch(), False),
    "proxyless": (proxyless("two-path"), True),
    "proxyless, all paths": (proxyless("all-path"), True),
    "proxyless, reinforce": (proxyless("reinforce"), True),
}
"""From a space to the strategy, and whether it trains a supernet."""

RECIPE = TrainingRecipe(epochs=3, batch_size=40, learning_rate=0.1, seed=2)


class StoppedError(Exception):
    pass


@pytest.fixture(params=STRATEGIES)
def case(request, tiny_space, digits):
    make, shared = STRATEGIES[request.param]
    space = mixed_space() if "proxyless" in request.param else tiny_space

    def model():
        torch.manual_seed(0)
        statistics = {"mean": digits.mean, "std": digits.std}
        if shared:
            return make(space).make_supernet(space, **statistics)
        return build(space, space.largest(), **statistics)

    return lambda: make(space), model


def trained(case, digits, cpu, *, folder=None, stop=None):
    make_strategy, make_model = case
    model, logs = make_model(), []

    def on_step(log):
        logs.append(log)
        if log.step == stop:
            raise StoppedError

    train(
        model,
        {"train": digits.train.subset(np.arange(120)), "validation": digits.validation},
        Augmentation(),
        RECIPE,
        make_strategy(),
        accelerator=cpu,
        checkpoints=Checkpoints(folder, seconds=0) if folder else None,
        on_step=on_step,
        report_every=1,
    )
    return model, logs


@pytest.mark.parametrize("epochs", [1, 7, 100])
def test_phases_fill_the_epochs(case, epochs):
    phases = case[0]().phases(epochs)
    assert sum(phase.epochs for phase in phases) == pytest.approx(epochs)
    assert len({phase.name for phase in phases}) == len(phases)
    assert all(phase.rate > 0 for phase in phases)


def test_it_repeats_and_every_loss_is_finite(case, digits, cpu):
    (one, logs), (other, again) = (trained(case, digits, cpu) for _ in range(2))
    assert [log.losses for log in logs] == [log.losses for log in again]
    assert all(np.isfinite(log.losses).all() and log.losses for log in logs)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), other.state_dict()[name].nan_to_num(7)), name


def test_stopped_anywhere_it_ends_with_the_same_bits(case, digits, cpu, tmp_path):
    expected, logs = trained(case, digits, cpu)
    for stop in (1, 2, len(logs) - 1):
        with pytest.raises(StoppedError):
            trained(case, digits, cpu, folder=tmp_path, stop=stop)
    found, _ = trained(case, digits, cpu, folder=tmp_path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), found.state_dict()[name].nan_to_num(7)), name
