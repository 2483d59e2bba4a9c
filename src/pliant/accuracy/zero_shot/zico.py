"""ZiCo: do the gradients of several batches agree?

G. Li, Y. Yang, K. Bhardwaj, R. Marculescu, "ZiCo: Zero-shot NAS via Inverse Coefficient of
Variation on Gradients", ICLR 2023, arXiv:2301.11300.

    zico = sum over layers of log( sum over weights of mean_b |g_b| / std_b g_b )

over convolutions and products; g_b is the gradient of the mean cross entropy of batch b. The images
are split into two batches. A weight with the same gradient in both is left out, and so is a
layer of such weights only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pliant.accuracy.zero_shot.batch_gradients import batch_gradients
from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import RefusedError, ScoringInput, ZeroShotScore

BATCHES = 2


def zico(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: no labels, fewer than two images per batch, or equal gradients in both.
    """
    if len(inputs.images) < 2 * BATCHES:
        raise RefusedError(
            f"ZiCo compares {BATCHES} batches of two images or more, received "
            f"{len(inputs.images)} images. Pass more."
        )
    network, labels = copy_shared_weights(inputs.network), inputs.require_labels()
    size = len(inputs.images) // BATCHES
    batches: list[list[Tensor]] = []
    for start in range(0, size * BATCHES, size):
        rows = slice(start, start + size)
        pairs = batch_gradients(network, inputs.images[rows], labels[rows])
        batches.append([gradient for _, gradient in pairs])
    logs = []
    for layer in zip(*batches, strict=True):
        gradients = torch.stack(layer)  # (batches, *weight shape)
        deviation = gradients.std(0, correction=0)
        varies = deviation > 0
        ratios = gradients.abs().mean(0)[varies] / deviation[varies]
        total = float(ratios.sum(dtype=torch.float64))
        if total > 0:
            logs.append(math.log(total))
    if not logs:
        raise RefusedError(
            "ZiCo needs a layer whose gradients differ from batch to batch, received none."
        )
    return ZeroShotScore(sum(logs))
