"""SNIP: how much would the loss change if weights were removed?

N. Lee, T. Ajanthan, P. H. S. Torr, "SNIP: Single-shot Network Pruning based on Connection
Sensitivity", ICLR 2019, arXiv:1810.02340; summed over a network by Abdelfattah et al., "Zero-Cost
Proxies for Lightweight NAS", ICLR 2021, arXiv:2101.08134.

    snip = sum over weights w of | w dL/dw |

over the weights of convolutions and products. L is the mean cross entropy of the images;
BatchNorms take the statistics of the batch. As in the original, the score does not change when a
layer before a BatchNorm is scaled.
"""

from __future__ import annotations

import torch

from pliant.accuracy.zero_shot.batch_gradients import batch_gradients
from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.scoring_input import ScoringInput, ZeroShotScore


def snip(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: no labels, or no layer with weights.
    """
    network, labels = copy_shared_weights(inputs.network), inputs.require_labels()
    total = 0.0
    for weight, gradient in batch_gradients(network, inputs.images, labels):
        total += float((weight * gradient).abs().sum(dtype=torch.float64))
    return ZeroShotScore(total)
