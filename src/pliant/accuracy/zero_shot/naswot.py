"""NASWOT: does the network tell the images apart before it is trained?

J. Mellor, J. Turner, A. Storkey, E. J. Crowley, "Neural Architecture Search without Training",
ICML 2021, arXiv:2006.04647.

    naswot = log | det K |

K_ij is the number of rectified units that are on for both images i and j, or off for both. A unit
is on where the input of its ReLU is positive; similar activations (hard swish, SiLU, GELU and so
on) count as well. A ReLU is one however it is written (`clamp(min=0)`, `maximum`, `where`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pliant.accuracy.zero_shot.activations import observe_activations
from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import RefusedError, ScoringInput, ZeroShotScore


@torch.no_grad()
def naswot(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: no such activation, or two images with the same codes.
    """
    images = len(inputs.images)
    kernel = torch.zeros(images, images, dtype=torch.float64, device=inputs.images.device)

    def add(x: Tensor) -> None:
        if len(x) == images:
            # With codes of +1 and -1 the product is the units that agree minus those that differ.
            codes = (x.flatten(1) > 0).float().mul_(2).sub_(1)
            kernel.add_((codes @ codes.T + codes.shape[1]) / 2)

    unseen = observe_activations(copy_shared_weights(inputs.network), inputs.images, add)
    if not bool(kernel.any()):
        others = f" It has {', '.join(unseen)}." if unseen else ""
        raise RefusedError(
            f"NASWOT looks at ReLUs and similar activations, the network has none.{others}"
        )
    sign, value = torch.linalg.slogdet(kernel)
    if sign == 0:
        raise RefusedError(
            "NASWOT is the logarithm of a determinant, which is 0: the network does not tell two "
            "of the images apart."
        )
    notes = (f"not seen as activations: {', '.join(unseen)}",) if unseen else ()
    return ZeroShotScore(float(value), notes=notes)
