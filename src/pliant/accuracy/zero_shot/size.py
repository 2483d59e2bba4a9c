"""How large is the network? The bars that every other score must beat."""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.subject import Score, Subject, borrow
from pliant.networks.trace import module_workload


def parameters(subject: Subject) -> Score:
    """All parameters; shared ones once."""
    return Score(float(sum(one.numel() for one in subject.network.parameters())))


@torch.no_grad()
def macs(subject: Subject) -> Score:
    """Multiply-accumulates of one image in convolutions and matrix products, fused ones too.

    Counted as the cost of a network is, by the rules of `pliant.workload.operators`; an operator
    that they do not know is refused by name.
    """
    # Two images: BatchNorm without positions refuses one.
    images = subject.images[:1].expand(2, *subject.images.shape[1:])
    workload = module_workload(borrow(subject.network), images, way="watch")
    return Score(float(workload.macs // 2))
