"""SNIP (Lee et al. 2019; Abdelfattah et al. 2021): how much would the loss change if weights were taken out?

    snip = sum over the weights w of convolutions and linear layers of | w dL/dw |

L is the mean cross entropy of the images, BatchNorms take the statistics of the batch. Like the original, the score does not
change when a layer before a BatchNorm is scaled.
"""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.gradients import batch_gradients
from pliant.accuracy.zero_shot.subject import Score, Subject, borrow, labels_of


def snip(subject: Subject) -> Score:
    """The score."""
    found = batch_gradients(borrow(subject.network), subject.images, labels_of(subject))
    return Score(
        sum(float((weight * gradient).abs().sum(dtype=torch.float64)) for weight, gradient in found)
    )
