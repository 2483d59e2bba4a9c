"""Zen score: equal to the formula of the paper; zen-reference drifts; dead paths are named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot import ScoringInput, score
from pliant.accuracy.zero_shot.initial_weights import standard_normal
from pliant.accuracy.zero_shot.zen import MIXTURE, zen, zen_reference
from pliant.metrics import Failed


class Norms(nn.Module):
    """BatchNorms with and without affine and running statistics, before the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = (
            nn.Conv2d(6, 5, 3, bias=False),
            nn.BatchNorm2d(5, affine=False, track_running_stats=False),
        )
        self.head = nn.Linear(5, 4)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = self.conv1(x)
        z = self.conv2(torch.relu(self.norm1(y)))
        return torch.relu(self.norm2(z)), [y, z]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[0].mean((2, 3)))


def plainly(
    network: Norms, images: Tensor, generator: torch.Generator
) -> tuple[float, float, list[list[Tensor]]]:
    """L2 and L1 difference of one repeat, and the inputs of the BatchNorms in both passes."""
    standard_normal(network, generator)
    x, e = (torch.randn(images.shape, generator=generator) for _ in range(2))
    with torch.no_grad():
        (first, read), (second, read_again) = network.features(x), network.features(x + MIXTURE * e)
    moved = (first - second).flatten(1)
    return float(moved.norm(dim=1).mean()), float(moved.abs().sum(1).mean()), [read, read_again]


def test_is_the_papers_formula(images: Tensor) -> None:
    network = Norms()
    expected = []
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        l2, _, (read, _) = plainly(network, images, generator)
        variances = [float(one.var((0, 2, 3), correction=0).mean()) for one in read]
        expected.append(math.log(l2) + sum(math.log(math.sqrt(value)) for value in variances))
    found = zen(ScoringInput(network, images, None, 7), repeats=3)
    assert found.value == pytest.approx(sum(expected) / 3, abs=1e-3)
    assert found.repeats == 3
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_reference_is_the_public_codes_moving_variance(images: Tensor) -> None:
    """The running variance after one repeat: 0.81 + 0.09 v1 + 0.10 v2; the norm is L1."""
    network = Norms()
    _, l1, reads = plainly(network, images, torch.Generator().manual_seed(7))
    first, second = ([float(one.var((0, 2, 3)).mean()) for one in read] for read in reads)
    running = [0.81 + 0.09 * v1 + 0.10 * v2 for v1, v2 in zip(first, second, strict=True)]
    expected = math.log(l1) + sum(0.5 * math.log(value) for value in running)
    assert zen_reference(ScoringInput(network, images, None, 7), repeats=1).value == pytest.approx(
        expected, abs=1e-3
    )


def test_reference_drifts_with_repeats_and_the_papers_score_does_not(images: Tensor) -> None:
    inputs = ScoringInput(Norms(), images, None, 0)
    assert zen_reference(inputs, repeats=8).value > zen_reference(inputs, repeats=1).value + 0.5
    assert zen(inputs, repeats=8).value == pytest.approx(zen(inputs, repeats=1).value, abs=0.5)


def test_scaled_weights_before_a_batch_norm_change_nothing(
    images: Tensor, make_network: Callable[[], nn.Module]
) -> None:
    """Weights are drawn anew: those of the caller do not matter at all."""
    network = make_network()
    before = zen(ScoringInput(network, images, None, 3)).value
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(17)
    assert zen(ScoringInput(network, images, None, 3)).value == before


class Cut(nn.Module):
    """One path is cut: its BatchNorm sees only zeros."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.both = both
        self.conv, self.norm, self.cut, self.dead = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
        )

    def forward(self, x: Tensor) -> Tensor:
        zeros = self.dead(self.cut(x * 0))
        return (zeros if self.both else self.norm(self.conv(x)) + zeros).mean((2, 3))


def test_a_dead_batch_norm_is_left_out_and_named(images: Tensor) -> None:
    found = zen(ScoringInput(Cut(both=False), images, None, 0))
    assert math.isfinite(found.value)
    assert found.notes == ("BatchNorm without variance, left out: dead",)


def test_a_dead_network_fails(images: Tensor) -> None:
    found = score(Cut(both=True), ["zen"], images)["zen"]
    assert isinstance(found, Failed)
    assert "does not depend on the image" in found.reason


def test_without_any_norm_or_without_any_map(images: Tensor) -> None:
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    assert math.isfinite(zen(ScoringInput(bare, images, None, 0)).value)
    found = score(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), ["zen"], images)["zen"]
    assert isinstance(found, Failed)
