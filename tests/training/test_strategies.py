"""Which sub-networks a step trains, on which losses, and what each phase makes elastic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pliant.data import Augmentation
from pliant.spaces.presets import PRESETS, preset
from pliant.training.loop import train
from pliant.training.progressive import LR_FACTORS, SHARES, SUBNETS_PER_STEP, ProgressiveShrinking
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch

ORDER = list(SHARES)
IMAGES = torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


class Recording(torch.nn.Module):
    """Answers with fixed logits for each network and remembers who was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, images, architecture, *, dropout=False):
        self.asked.append((architecture, dropout))
        return self.answer(architecture)

    @staticmethod
    def answer(architecture):
        seed = sum(map(ord, str(architecture)))
        return torch.randn((6, 10), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_sandwich_by_hand(share, digits_space):
    model, rng = Recording(), np.random.default_rng(5)
    found = list(
        Sandwich(digits_space, num_random_subnets=2, label_share=share, label_smoothing=0.2).losses(
            "sandwich", model, IMAGES, LABELS, rng
        )
    )
    rng = np.random.default_rng(5)
    middle = [digits_space.sample_choices(rng), digits_space.sample_choices(rng)]
    networks = [digits_space.largest(), *middle, digits_space.smallest()]
    assert model.asked == [(networks[0], True), *((network, False) for network in networks[1:])]
    target = Recording.answer(networks[0]).softmax(1)
    expected = [F.cross_entropy(Recording.answer(networks[0]), LABELS, label_smoothing=0.2)]
    for network in networks[1:]:
        logits = Recording.answer(network)
        distilled = -(target * logits.log_softmax(1)).sum(1).mean()
        expected.append(
            share * F.cross_entropy(logits, LABELS, label_smoothing=0.2) + (1 - share) * distilled
        )
    torch.testing.assert_close(found, expected)


def test_the_teacher_of_the_sandwich_gets_no_gradient_from_its_pupils(digits_space, fresh):
    model = fresh(digits_space).train()
    losses = Sandwich(digits_space, label_share=0.0).losses(
        "sandwich", model, IMAGES, LABELS, np.random.default_rng(0)
    )
    next(losses).backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    *_, smallest = losses  # the smallest network's
    model.zero_grad()
    smallest.backward()
    deep = model.get_parameter("blocks.stage2_block3.project_norm.weight")
    assert "blocks.stage2_block3.project_norm.weight" in used, "the largest has it"
    assert deep.grad is None or not deep.grad.any()


def test_alone_is_cross_entropy():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    [loss] = FromScratch(label_smoothing=0.3).losses(
        "alone", model, IMAGES, LABELS, np.random.default_rng(0)
    )
    torch.testing.assert_close(loss, F.cross_entropy(model(IMAGES), LABELS, label_smoothing=0.3))
    assert [(phase.name, phase.epochs) for phase in FromScratch().phases(7)] == [("train", 7)]


# Progressive shrinking.


def test_phases_keep_the_papers_shares_and_rates(digits_space):
    phases = ProgressiveShrinking(digits_space).phases(605)
    assert [phase.name for phase in phases] == ORDER
    assert [phase.epochs for phase in phases] == [180, 125, 25, 125, 25, 125]
    assert [phase.rate for phase in phases] == pytest.approx(
        [1, 0.96 / 2.6, 0.08 / 2.6, 0.24 / 2.6, 0.08 / 2.6, 0.24 / 2.6], rel=0.01
    )
    assert sum(
        phase.epochs for phase in ProgressiveShrinking(digits_space).phases(20)
    ) == pytest.approx(20)


def test_a_phase_that_the_space_has_no_choice_for_is_left_out(plain_space):
    phases = ProgressiveShrinking(plain_space, lr_factors={"depth1": 0.5}).phases(48)
    assert [phase.name for phase in phases] == ["full", "depth1", "depth2", "width1", "width2"]
    assert [phase.epochs for phase in phases] == pytest.approx([18, 2.5, 12.5, 2.5, 12.5])
    assert phases[1].rate == 0.5
    assert phases[2].rate == LR_FACTORS["depth2"]


@pytest.mark.parametrize("name", PRESETS)
def test_each_phase_frees_more_from_the_largest_down(name):
    space = preset(name, channels=3, image_size=max(8, PRESETS[name].smallest_image), classes=10)
    strategy = ProgressiveShrinking(space)
    elastic = {c.name: c for c in space.choices if c.dimension in ("kernel", "depth", "width")}
    phases = [phase.name for phase in strategy.phases(100)]
    for before, phase in zip([None, *phases], phases, strict=False):
        options = strategy.options(phase)
        assert set(options) == set(elastic), "resolution is free in all phases"
        for key, found in options.items():
            assert tuple(found) == elastic[key].options[-len(found) :]
            if before and len(elastic[key].options) > 1:
                earlier = strategy.options(before)[key]
                assert set(earlier) <= set(found)
                assert elastic[key].dimension == phase.rstrip("12") or len(earlier) == len(found)
    assert all(len(found) == 1 for found in strategy.options("full").values())
    assert all(
        tuple(found) == elastic[key].options for key, found in strategy.options("width2").items()
    )


def test_once_for_all_frees_what_its_paper_says():
    strategy = ProgressiveShrinking(
        preset("ofa-mobilenetv3", channels=3, image_size=128, classes=10)
    )
    rows = {
        phase: tuple(tuple(strategy.options(phase)[name]) for name in ("1.1k", "1d", "1.1e"))
        for phase in ORDER
    }
    assert rows == {
        "full": ((7,), (4,), (6,)),
        "kernel": ((3, 5, 7), (4,), (6,)),
        "depth1": ((3, 5, 7), (3, 4), (6,)),
        "depth2": ((3, 5, 7), (2, 3, 4), (6,)),
        "width1": ((3, 5, 7), (2, 3, 4), (4, 6)),
        "width2": ((3, 5, 7), (2, 3, 4), (3, 4, 6)),
    }


@pytest.mark.parametrize("phase", ORDER)
def test_a_step_draws_inside_its_phase(phase, digits_space):
    strategy, model = ProgressiveShrinking(digits_space), Recording()
    losses = list(strategy.losses(phase, model, IMAGES, LABELS, np.random.default_rng(0)))
    assert len(losses) == len(model.asked) == SUBNETS_PER_STEP[phase]
    allowed = strategy.options(phase)
    for architecture, dropout in model.asked:
        assert dropout == (phase == "full")
        assert all(option in allowed.get(name, (option,)) for name, option in architecture.options)


def test_the_full_network_teaches_and_stays_as_it_was(digits_space, fresh):
    strategy, model = ProgressiveShrinking(digits_space), fresh(digits_space).train()
    assert strategy.state() == {}
    strategy.on_phase_start("kernel", model)
    frozen = {name: tensor.clone() for name, tensor in strategy.state().items()}
    with torch.no_grad():
        expected = model(IMAGES, digits_space.largest()).softmax(1)
        for parameter in model.parameters():
            parameter.add_(0.1)
    strategy.on_phase_start("depth1", model)
    strategy.on_phase_start("width1", model)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in strategy.state().items())
    rng = np.random.default_rng(0)
    [found] = strategy.losses("kernel", model, IMAGES, LABELS, rng)
    architecture = digits_space.sample_choices(np.random.default_rng(0), strategy.options("kernel"))
    logits = model(IMAGES, architecture)
    distilled = -(expected * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(
        found, F.cross_entropy(logits, LABELS, label_smoothing=0.1) + distilled
    )


def test_the_teacher_is_the_network_at_the_end_of_the_first_phase(tiny_space, digits, fresh, cpu):
    split, recipe = digits.train.subset(np.arange(128)), TrainingRecipe(epochs=6, batch_size=64)
    strategy, model, seen = ProgressiveShrinking(tiny_space), fresh(tiny_space), {}

    def on_step(log):
        if log.phase == "full":
            seen.update({name: tensor.clone() for name, tensor in model.state_dict().items()})

    train(
        model,
        split,
        Augmentation(),
        recipe,
        strategy,
        accelerator=cpu,
        on_step=on_step,
        report_every=1,
    )
    assert all(torch.equal(tensor, seen[name]) for name, tensor in strategy.state().items())
    assert any(not torch.equal(tensor, seen[name]) for name, tensor in model.state_dict().items())
