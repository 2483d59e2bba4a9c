"""AZ-NAS: blocks of any module, each view by hand, ranks joined."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot import (
    COMPONENTS,
    RefusedError,
    ScoringInput,
    ZeroShotScore,
    aggregate_ranks,
    az_nas,
)
from pliant.accuracy.zero_shot.block_ends import block_ends, layer_calls
from pliant.errors import DataError
from pliant.metrics import Failed


def names(network: nn.Module, images: Tensor) -> list[str]:
    by_module = {id(module): name for name, module in network.named_modules()}
    calls = layer_calls(network.eval(), images[:2])
    found = [calls[end].what for end in block_ends(network, images)]
    return [by_module.get(id(one)) or one.__name__ for one in found]


def test_blocks_of_a_network_with_parts(
    make_network: Callable[[], nn.Module], images: Tensor
) -> None:
    # The stem ends at its ReLU, the residual block at itself, the strided stage at the function
    # that is called on it; then single layers and a part.
    assert names(make_network(), images) == [
        *("stem.2", "block", "hardswish", "norm", "squeeze", "last")
    ]


def test_blocks_of_a_chain_and_of_a_wrapped_network(
    make_network: Callable[[], nn.Module], images: Tensor
) -> None:
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 2),
    )
    assert names(chain, images) == ["2", "4"]

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    wrapped = nn.Sequential(Backbone(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    assert names(wrapped, images) == ["0.body.1", "0.body.3"]
    with pytest.raises(RefusedError, match="has 0"):
        block_ends(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), images)


def test_entropy_of_a_spectrum() -> None:
    """Independent channels of equal variance use all of themselves; copies use one."""
    independent = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).reshape(
        4, 2, 1, 1
    )
    assert az_nas._entropy(independent) == pytest.approx(math.log(2), abs=1e-5)
    assert az_nas._entropy(independent[:, :1].expand(4, 2, 1, 1)) == pytest.approx(0, abs=1e-5)


def test_expressivity_and_progressivity_are_sum_and_least_step(
    make_network: Callable[[], nn.Module], images: Tensor
) -> None:
    inputs = ScoringInput(make_network(), images, None, 0)
    entropies = az_nas._entropies(inputs)
    assert len(entropies) == 6
    assert az_nas.expressivity(inputs).value == pytest.approx(sum(entropies))
    assert az_nas.progressivity(inputs).value == pytest.approx(min(np.diff(entropies)))


def test_trainability_of_known_jacobians() -> None:
    """A block that scales gradients by s scores 2 - s - 1 / s: 0 where it keeps their size."""
    g_out = torch.empty(4096, 3, 1, 1).bernoulli_(0.5).mul_(2).sub_(1)
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    for size in (0.5, 1.0, 3.0):
        g_in = torch.einsum("ij,njhw->nihw", size * turn, g_out)
        assert az_nas._stability(g_in, g_out) == pytest.approx(2 - size - 1 / size, abs=0.15)
    with pytest.raises(RefusedError, match="unchanged"):
        az_nas._stability(g_out, g_out)


def test_positions_of_a_smaller_map_are_laid_side_by_side() -> None:
    g_in, g_out = torch.randn(2, 3, 7, 7), torch.randn(2, 5, 4, 4)
    assert az_nas._stack_positions(g_in, g_out).shape == (2, 12, 4, 4)


def test_trainability_is_a_pass_through_every_block(
    make_network: Callable[[], nn.Module], images: Tensor
) -> None:
    value = az_nas.trainability(ScoringInput(make_network(), images, None, 0)).value
    assert value <= 0


def test_ranks_are_joined_and_failures_rank_last() -> None:
    rows = [
        {"az-expressivity": 1.0, "az-complexity": ZeroShotScore(5.0)},
        {"az-expressivity": 2.0, "az-complexity": ZeroShotScore(6.0)},
        {"az-expressivity": Failed("cut"), "az-complexity": ZeroShotScore(7.0)},
    ]
    found = aggregate_ranks(rows, ["az-expressivity", "az-complexity"])
    expected = [math.log(2 / 3) + math.log(1 / 3), math.log(2 / 3), math.log(1 / 3)]
    assert found == pytest.approx(expected)
    assert aggregate_ranks([], ["az-expressivity"]) == []
    with pytest.raises(DataError, match="az-trainability"):
        aggregate_ranks(rows, ["az-trainability"])


def test_any_increasing_change_of_a_view_leaves_the_ranks() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {view: float(value) for view, value in zip(COMPONENTS, rng.normal(size=4), strict=True)}
        for _ in range(20)
    ]
    changed = [{view: math.exp(3 * value) for view, value in row.items()} for row in rows]
    assert aggregate_ranks(rows) == aggregate_ranks(changed)
