"""Jacobian covariance: do the images pull the output in different directions?

J. Mellor, J. Turner, A. Storkey, E. J. Crowley, "Neural Architecture Search without Training",
first version, 2020, arXiv:2006.04647v1.

    jacob-cov = - sum over eigenvalues v of log(v + 1e-5) + 1 / (v + 1e-5)

The eigenvalues are those of the correlation matrix of the rows of J; row i is the gradient of the
sum of the logits with respect to image i. The score is highest where no two gradients are alike:
then all v are 1, and the score is minus the number of images.
"""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import (
    RefusedError,
    ScoringInput,
    ZeroShotScore,
    compute_logits,
)

_FLOOR = 1e-5


def jacob_cov(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: the output does not depend on an image.
    """
    network = copy_shared_weights(inputs.network)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    images = inputs.images.detach().clone().requires_grad_()
    total = compute_logits(network, images).sum()
    if not total.requires_grad:
        raise RefusedError(
            "this score looks at how the output changes with the images, and it does not."
        )
    jacobian = torch.autograd.grad(total, images)[0].flatten(1).double()  # (N, pixels)
    if bool((jacobian.std(1) == 0).any()):
        raise RefusedError(
            "this score looks at how the output changes with the images; for one of them it "
            "does not."
        )
    values = torch.linalg.eigvalsh(torch.corrcoef(jacobian)) + _FLOOR
    return ZeroShotScore(float(-(values.log() + 1 / values).sum()))
