"""Gradient norm: how large is the gradient of a batch?

M. S. Abdelfattah, A. Mehrotra, L. Dudziak, N. D. Lane, "Zero-Cost Proxies for Lightweight NAS",
ICLR 2021, arXiv:2101.08134.

    grad-norm = sum over layers of || dL/dW ||_2

over convolutions and products with weights W. L is the mean cross entropy of the images; BatchNorms
take the statistics of the batch.
"""

from __future__ import annotations

from pliant.accuracy.zero_shot.batch_gradients import batch_gradients
from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import ScoringInput, ZeroShotScore


def grad_norm(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: no labels, or no layer with weights.
    """
    network, labels = copy_shared_weights(inputs.network), inputs.require_labels()
    pairs = batch_gradients(network, inputs.images, labels)
    return ZeroShotScore(sum(float(gradient.norm()) for _, gradient in pairs))
