"""Jacobian covariance (Mellor et al. 2020): do the images pull the output in different directions?

    jacob-cov = - sum over eigenvalues v of log(v + 1e-5) + 1 / (v + 1e-5)

The eigenvalues are those of the correlations between the rows of J; row i is the gradient of the sum of the logits to image i.
The score is highest where no two images' gradients are alike: all v are 1, and the score is minus the number of images.
"""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.subject import RefusedError, Score, Subject, borrow, logits_of

_FLOOR = 1e-5


def jacob_cov(subject: Subject) -> Score:
    """The score.

    Raises:
        RefusedError: the output does not depend on an image.
    """
    network = borrow(subject.network)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    images = subject.images.detach().clone().requires_grad_()
    total = logits_of(network, images).sum()
    if not total.requires_grad:
        raise RefusedError(
            "this score looks at how the output changes with the image, and it does not."
        )
    rows = torch.autograd.grad(total, images)[0].flatten(1).double()
    if bool((rows.std(1) == 0).any()):
        raise RefusedError(
            "this score looks at how the output changes with the image; for some image it does not."
        )
    values = torch.linalg.eigvalsh(torch.corrcoef(rows)) + _FLOOR
    return Score(float(-(values.log() + 1 / values).sum()))
