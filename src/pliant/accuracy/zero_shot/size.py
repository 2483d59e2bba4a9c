"""How large is the network? The bars that every other score must beat."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from pliant.accuracy.zero_shot.subject import Score, Subject, borrow


def parameters(subject: Subject) -> Score:
    """All parameters; shared ones once."""
    return Score(float(sum(one.numel() for one in subject.network.parameters())))


@torch.no_grad()
def macs(subject: Subject) -> Score:
    """Multiply-accumulates of one image in convolutions and matrix products, wherever in the network they are."""
    counter = FlopCounterMode(display=False)
    network = borrow(subject.network)
    # Two images: BatchNorm without positions refuses one.
    with counter:
        network(subject.images[:1].expand(2, *subject.images.shape[1:]))
    return Score(float(counter.get_total_flops() // 4))
