"""Parameter count and MACs: the baselines that every other score must beat."""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import ScoringInput, ZeroShotScore
from pliant.networks.parametrization import is_parametrized
from pliant.networks.trace import module_workload


def parameters(inputs: ScoringInput) -> ZeroShotScore:
    """Number of parameters; shared ones count once, and computed weights as what they are."""
    network = inputs.network
    if is_parametrized(network):
        network = copy_shared_weights(network)
    return ZeroShotScore(float(sum(one.numel() for one in network.parameters())))


@torch.no_grad()
def macs(inputs: ScoringInput) -> ZeroShotScore:
    """Multiply-accumulates of one image in convolutions and matrix products, fused ones too.

    Counted as the cost of a network is, by the rules of `pliant.workload.operators`; an operator
    that they do not know is refused by name.
    """
    # Two images, since a BatchNorm without positions refuses one.
    images = inputs.images[:1].expand(2, *inputs.images.shape[1:])
    workload = module_workload(copy_shared_weights(inputs.network), images, way="watch")
    return ZeroShotScore(float(workload.macs // 2))
