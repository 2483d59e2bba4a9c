"""The loop ends with the same bits whatever stops it; its numbers are those of the recipe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pliant.accuracy.supernet import SupernetEstimator
from pliant.data import Augmentation
from pliant.errors import DivergedError
from pliant.networks.supernet import build
from pliant.training.checkpoint import Checkpoints
from pliant.training.loop import train
from pliant.training.progressive import ProgressiveShrinking
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import Phase, Timetable, TrainingRecipe
from pliant.training.scratch import FromScratch
from pliant.training.strategy import decay_groups


class StoppedError(Exception):
    pass


def stop_after(step):
    def on_step(log):
        if log.step == step:
            raise StoppedError

    return on_step


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for (a, x), (b, y) in pairs)


STRATEGIES = {"sandwich": Sandwich, "progressive": ProgressiveShrinking}


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("sandwich", (4,)),
        ("sandwich", (1, 2, 11)),
        # With 12 steps the phases are full 1 to 4, kernel to 6, depth1 to 7, depth2 to 9, width1 to
        # 10, width2 to 12.
        ("progressive", (4,)),
        ("progressive", (5, 8)),
        ("progressive", (6, 10, 11)),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    name, stops, tiny_space, digits, fresh, cpu, tmp_path
):
    recipe = TrainingRecipe(epochs=4, batch_size=64, learning_rate=0.3, seed=3)
    split, augmentation = digits.train.subset(np.arange(200)), Augmentation(pad=1, cutout=2)

    def run(checkpoints, on_step=lambda log: None):
        model = fresh(tiny_space)
        strategy = STRATEGIES[name](tiny_space)
        train(
            model,
            split,
            augmentation,
            recipe,
            strategy,
            accelerator=cpu,
            checkpoints=checkpoints,
            on_step=on_step,
            report_every=1,
        )
        return model

    expected = run(None)
    logs = []
    assert same(run(None, logs.append), expected), "the loop repeats"
    assert [log.step for log in logs] == list(range(1, 13))
    for stop in stops:
        with pytest.raises(StoppedError):
            run(Checkpoints(tmp_path, seconds=0), stop_after(stop))
        torch.manual_seed(stop)  # nothing may depend on what else draws random numbers
        assert [int(path.stem.split("-")[1]) for path in Checkpoints(tmp_path).files()] == [
            s for s in (stop - 2, stop - 1) if s > 0
        ]
    assert same(run(Checkpoints(tmp_path, seconds=0)), expected)
    assert same(run(Checkpoints(tmp_path, seconds=0)), expected), (
        "a run that is done stays as it is"
    )


def test_training_leaves_the_random_numbers_of_the_program_alone(tiny_space, digits, fresh, cpu):
    before = torch.get_rng_state()
    model = fresh(tiny_space)
    split = digits.train.subset(np.arange(64))
    train(
        model,
        split,
        Augmentation(),
        TrainingRecipe(epochs=1, batch_size=32),
        Sandwich(tiny_space),
        accelerator=cpu,
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_alone_is_resumed_too(tiny_space, digits, cpu, tmp_path):
    recipe = TrainingRecipe(epochs=2, batch_size=50)
    split = digits.train.subset(np.arange(200))

    def run(checkpoints, on_step=lambda log: None):
        torch.manual_seed(1)
        network = build(tiny_space, tiny_space.smallest(), mean=digits.mean, std=digits.std)
        given = {
            "accelerator": cpu,
            "checkpoints": checkpoints,
            "on_step": on_step,
            "report_every": 1,
        }
        train(network, split, Augmentation(), recipe, FromScratch(), **given)
        return network

    expected = run(None)
    with pytest.raises(StoppedError):
        run(Checkpoints(tmp_path, seconds=0), stop_after(6))
    assert same(run(Checkpoints(tmp_path, seconds=0)), expected)


def test_the_learning_rate_by_hand():
    """10 steps per epoch, peak 0.1 x 512 / 256 = 0.2, a fifth of warm-up.

    The learning rate of a step is that of its middle.
    """
    recipe = TrainingRecipe(epochs=2, batch_size=512, learning_rate=0.1, warmup=0.2)
    timetable = Timetable(
        (Phase("a", 1), Phase("b", 0.5, rate=0.5), Phase("c", 0.5)), steps_per_epoch=10
    )
    assert timetable.phase_boundaries == (0, 10, 15, 20)
    assert [timetable.phase_index(step) for step in (0, 9, 10, 14, 15, 19)] == [0, 0, 1, 1, 2, 2]
    rates = [timetable.learning_rate(step, recipe) for step in range(20)]
    assert rates[0] == pytest.approx(0.2 * 0.05 / 0.2)
    assert rates[1] == pytest.approx(0.2 * 0.15 / 0.2)
    assert rates[5] == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi * 0.35 / 0.8)))
    assert rates[9] == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi * 0.75 / 0.8)))
    assert rates[10] == pytest.approx(0.1 * 0.1 / 0.2), (
        "the second phase has half the peak, and warms up again"
    )
    assert rates[14] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 0.7 / 0.8)))
    assert max(rates) <= 0.2


def test_phases_shorter_than_a_step_are_passed_over():
    timetable = Timetable((Phase("a", 1), Phase("b", 0.01), Phase("c", 1)), steps_per_epoch=10)
    assert timetable.phase_boundaries == (0, 10, 10, 20)
    assert timetable.phase_index(10) == 2


def test_only_weights_of_convolutions_and_linear_layers_decay(tiny_space, fresh):
    supernet = fresh(tiny_space)
    decayed, others, biases = decay_groups(
        supernet, TrainingRecipe(epochs=1, weight_decay=0.01, bias_rate=4.0)
    )
    names = {id(parameter): name for name, parameter in supernet.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"], biases["weight_decay"]) == (
        0.01,
        0.0,
        0.0,
    )
    assert (decayed["rate"], others["rate"], biases["rate"]) == (1.0, 1.0, 4.0)
    assert all(
        names[id(parameter)].endswith("bias") and "norm" in names[id(parameter)]
        for parameter in biases["params"]
    )
    others["params"] += biases["params"]
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    for parameter in decayed["params"]:
        assert parameter.ndim in (2, 4), names[id(parameter)]
        assert "kernel_matrices" not in names[id(parameter)]
    kept = {names[id(parameter)] for parameter in others["params"]}
    assert {
        name
        for name in names.values()
        if "norm" in name or name.endswith("bias") or "kernel_matrices" in name
    } == kept
    assert any("kernel_matrices" in name for name in kept)


class Bare(nn.Module):
    """Six weights, and nothing else."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6))

    def forward(self, images):
        return self.weight


class TwoLosses(FromScratch):
    """Losses whose gradients are known: 3 and 1 for each weight."""

    def losses(self, phase, model, images, labels, rng):
        yield 3 * model(images).sum()
        yield model(images).sum()


@pytest.mark.parametrize(("clip", "gradient"), [(0.0, 4.0), (2.0, 2 / math.sqrt(6))])
def test_a_step_by_hand(clip, gradient, digits, cpu):
    """Losses add up to a gradient of 4 in each of 6 weights, which is clipped at the norm.

    Nesterov's first step is 1.85 gradients long.
    """
    model = Bare()
    start = model.weight.detach().clone()
    recipe = TrainingRecipe(epochs=1, batch_size=64, learning_rate=0.4, warmup=0.0, clip_norm=clip)
    train(
        model,
        digits.train.subset(np.arange(64)),
        Augmentation(),
        recipe,
        TwoLosses(),
        accelerator=cpu,
    )
    rate = 0.4 * 64 / 256 * 0.5  # the middle of the only step of a half cosine
    torch.testing.assert_close(model.weight.detach(), start - rate * 1.85 * gradient)


class TwoPhases(TwoLosses):
    def phases(self, epochs):
        return (Phase("one", epochs / 2), Phase("two", epochs / 2))


def test_momentum_does_not_cross_into_the_next_phase(digits, cpu):
    """One step per phase: both are first steps, 1.85 gradients long.

    With the momentum of the phase before, the second one would be 2.57 gradients long.
    """
    model = Bare()
    start = model.weight.detach().clone()
    recipe = TrainingRecipe(epochs=2, batch_size=64, learning_rate=0.4, warmup=0.0, clip_norm=0.0)
    train(
        model,
        digits.train.subset(np.arange(64)),
        Augmentation(),
        recipe,
        TwoPhases(),
        accelerator=cpu,
    )
    torch.testing.assert_close(model.weight.detach(), start - 2 * 0.4 * 64 / 256 * 0.5 * 1.85 * 4)


def test_what_a_step_reports(tiny_space, digits, fresh, cpu):
    logs = []
    recipe = TrainingRecipe(epochs=2, batch_size=100, learning_rate=0.1)
    split = digits.train.subset(np.arange(250))
    given = {"accelerator": cpu, "on_step": logs.append, "report_every": 3}
    train(
        fresh(tiny_space),
        split,
        Augmentation(),
        recipe,
        Sandwich(tiny_space, num_random_subnets=2),
        **given,
    )
    assert [(log.step, log.steps, log.epoch, log.phase) for log in logs] == [
        (3, 4, 1.5, "train"),
        (4, 4, 2.0, "train"),
    ]
    assert all(len(log.losses) == 4 and all(map(math.isfinite, log.losses)) for log in logs)
    assert all(log.images_per_second > 0 and 0 <= log.overhead <= 1 for log in logs)


def test_a_supernet_learns_to_read(plain_space, digits, fresh, cpu):
    """Both ends of the space read most digits of the validation split after seconds of training."""
    supernet = fresh(plain_space)
    recipe = TrainingRecipe(epochs=10, batch_size=64, learning_rate=0.3)
    train(
        supernet, digits.train, Augmentation(pad=1), recipe, Sandwich(plain_space), accelerator=cpu
    )
    estimate = SupernetEstimator(supernet, digits.train, digits.validation)
    largest, smallest = estimate.estimate([plain_space.largest(), plain_space.smallest()])
    assert largest.top1 > 0.9
    assert smallest.top1 > 0.8
    assert largest.images == len(digits.validation)
    rough = SupernetEstimator(supernet, digits.train, digits.validation, precision="bf16")
    for found, precise in zip(
        rough.estimate([plain_space.largest(), plain_space.smallest()]),
        (largest, smallest),
        strict=True,
    ):
        assert found.top1 == pytest.approx(precise.top1, abs=0.02)
    assert rough.validate(plain_space.largest()) == estimate.validate(plain_space.largest()), (
        "what counts is computed in fp32"
    )


class Breaks(Sandwich):
    """The weights are no longer numbers from the fourth step on."""

    def on_step_start(self, phase, model, step, steps):
        if step == 3:
            next(iter(model.parameters())).data.fill_(torch.inf)


def test_divergence_is_noticed_before_a_checkpoint_is_written(
    tiny_space, digits, fresh, cpu, tmp_path
):
    checkpoints = Checkpoints(tmp_path, seconds=0.0)
    with pytest.raises(DivergedError, match=r"after step 4 .*learning rate .*losses are nan"):
        train(
            fresh(tiny_space),
            digits.train.subset(np.arange(200)),
            Augmentation(),
            TrainingRecipe(epochs=4, batch_size=64),
            Breaks(tiny_space),
            accelerator=cpu,
            checkpoints=checkpoints,
        )
    assert checkpoints.files()[-1].name == "checkpoint-000000003.safetensors"


class BreaksAndStops(Breaks):
    """And says that its phase, the last one, is complete."""

    def on_step_start(self, phase, model, step, steps):
        super().on_step_start(phase, model, step, steps)
        self.stopped = step == 3

    def phase_complete(self, phase):
        return self.stopped


def test_divergence_is_noticed_where_the_last_phase_is_stopped(tiny_space, digits, fresh, cpu):
    with pytest.raises(DivergedError, match="after step 4 "):
        train(
            fresh(tiny_space),
            digits.train.subset(np.arange(200)),
            Augmentation(),
            TrainingRecipe(epochs=4, batch_size=64),
            BreaksAndStops(tiny_space),
            accelerator=cpu,
        )
