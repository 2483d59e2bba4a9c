"""Gradient norm (Abdelfattah et al. 2021): how large is the gradient of a batch?

    grad-norm = sum over convolutions and linear layers of || dL/dW ||_2

L is the mean cross entropy of the images, BatchNorms take the statistics of the batch.
"""

from __future__ import annotations

from pliant.accuracy.zero_shot.gradients import batch_gradients
from pliant.accuracy.zero_shot.subject import Score, Subject, borrow, labels_of


def grad_norm(subject: Subject) -> Score:
    """The score."""
    found = batch_gradients(borrow(subject.network), subject.images, labels_of(subject))
    return Score(sum(float(gradient.norm()) for _, gradient in found))
