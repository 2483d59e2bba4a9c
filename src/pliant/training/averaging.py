"""Copies of a supernet that training steps do not change: frozen teachers and averaged weights.

Polyak, B. T. and Juditsky, A. B., Acceleration of stochastic approximation by averaging, 1992.
Tarvainen, A. and Valpola, H., Mean teachers are better role models, 2017, arXiv:1703.01780.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pliant.networks.supernet import Supernet


def frozen_copy(model: Supernet) -> Supernet:
    """The network as it is now, without gradients; it shares the space, which never changes."""
    return copy.deepcopy(model, {id(model.space): model.space}).requires_grad_(False)


class WeightAverage:
    """An exponential moving average of a supernet's weights, which begins as a plain mean.

    Args:
        model: whose weights are averaged from now on.
    """

    def __init__(self, model: Supernet) -> None:
        self.network = frozen_copy(model)

    @torch.no_grad()
    def update(self, model: Supernet, weight: float) -> None:
        """Move the average towards the model's weights by a share from 0 to 1."""
        for ours, theirs in zip(self.network.parameters(), model.parameters(), strict=True):
            ours.lerp_(theirs, weight)

    @torch.no_grad()
    def copy_to(self, model: Supernet) -> None:
        """Give the model the averaged weights."""
        for theirs, ours in zip(model.parameters(), self.network.parameters(), strict=True):
            theirs.copy_(ours)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged network's tensors."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resume from a checkpoint."""
        self.network.load_state_dict(state)
