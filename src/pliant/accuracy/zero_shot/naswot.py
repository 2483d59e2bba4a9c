"""NASWOT (Mellor et al. 2021): does the network tell the images apart before it is trained?

    naswot = log | det K |,  K_ij = number of rectified units that are on for both images i and j, or off for both

A unit is on where what enters its ReLU is positive; activations of the same kind (hard swish, SiLU, GELU and so on) count too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pliant.accuracy.zero_shot.subject import RefusedError, Score, Subject, borrow
from pliant.accuracy.zero_shot.watch import watch_rectifiers


@torch.no_grad()
def naswot(subject: Subject) -> Score:
    """The score.

    Raises:
        RefusedError: no such activation, or two images that are not told apart.
    """
    count = len(subject.images)
    kernel = torch.zeros(count, count, dtype=torch.float64, device=subject.images.device)

    def add(x: Tensor) -> None:
        if len(x) == count:
            # Both on or both off: with codes of +1 and -1 the product is the units alike minus the units unlike.
            codes = (x.flatten(1) > 0).float().mul_(2).sub_(1)
            kernel.add_((codes @ codes.T + codes.shape[1]) / 2)

    watch_rectifiers(borrow(subject.network), subject.images, add)
    if not bool(kernel.any()):
        raise RefusedError(
            "NASWOT looks at ReLUs and activations of their kind, the network has none."
        )
    sign, value = torch.linalg.slogdet(kernel)
    if sign == 0:
        raise RefusedError(
            "NASWOT is the logarithm of a determinant that is zero: the network does not tell two of the images apart."
        )
    return Score(float(value))
