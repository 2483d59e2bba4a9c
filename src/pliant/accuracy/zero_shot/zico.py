"""ZiCo (Li et al. 2023): do the gradients of several batches agree?

    zico = sum over convolutions and linear layers of log( sum over weights of mean_b |g_b| / std_b g_b )

g_b is the gradient of the mean cross entropy of batch b; the images are cut into two batches. Weights whose gradient is the same
in both are left out, and layers of such weights only.
"""

from __future__ import annotations

import math

import torch

from pliant.accuracy.zero_shot.gradients import batch_gradients
from pliant.accuracy.zero_shot.subject import RefusedError, Score, Subject, borrow, labels_of

BATCHES = 2


def zico(subject: Subject) -> Score:
    """The score.

    Raises:
        RefusedError: fewer than two images a batch, or no layer whose gradients differ.
    """
    if len(subject.images) < 2 * BATCHES:
        raise RefusedError(
            f"ZiCo compares {BATCHES} batches of two images or more, received {len(subject.images)} images. Give more."
        )
    network, size = borrow(subject.network), len(subject.images) // BATCHES
    labels = labels_of(subject)
    batches = [
        [gradient for _, gradient in batch_gradients(network, images, answers)]
        for images, answers in zip(
            subject.images.split(size)[:BATCHES], labels.split(size)[:BATCHES], strict=True
        )
    ]
    found = []
    for layer in zip(*batches, strict=True):
        gradients = torch.stack(layer)
        deviation = gradients.std(0, correction=0)
        moved = deviation > 0
        total = float((gradients.abs().mean(0)[moved] / deviation[moved]).sum(dtype=torch.float64))
        if total > 0:
            found.append(math.log(total))
    if not found:
        raise RefusedError(
            "ZiCo needs a layer whose gradients differ from batch to batch, there is none."
        )
    return Score(sum(found))
