"""BatchNorm re-calibration: statistics of a plain network, computed from training images.

The statistics of a supernet belong to none of its networks, so an extracted network has none (they
are NaN) until it is re-calibrated; evaluation and export refuse it before.

Yu, J. and Huang, T., Universally slimmable networks and improved training techniques, 2019,
arXiv:1903.05134 (post-statistics of batch normalization). Cai, H. et al., Once-for-all: train one
network and specialize it for efficient deployment, 2020, arXiv:1908.09791.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pliant.errors import UncalibratedError
from pliant.networks.statistics import BATCH_NORMS

CALIBRATION_IMAGES = 2000
"""Training images behind the statistics; Once-for-All's number."""
SMALL_IMAGE = 48
"""Pixels along an edge; of larger images, which have many positions, fewer are enough."""
LARGE_IMAGES = (512, 1024)
"""Least and most of them."""
QUICK_IMAGES = 256
"""Of large images, behind an estimate."""


def calibration_images(image_size: int, *, quick: bool = False) -> int:
    """Training images behind the statistics of a network.

    Args:
        image_size: of the data, in pixels.
        quick: whether for an estimate, not for a network that is delivered.
    """
    if image_size <= SMALL_IMAGE:
        return CALIBRATION_IMAGES
    if quick:
        return QUICK_IMAGES
    least, most = LARGE_IMAGES
    return min(most, max(least, most * 128**2 // image_size**2))


def fitting_batch(image_size: int, most: int) -> int:
    """Images of one forward pass: fewer of those above 32 pixels, but 64, to bound the memory."""
    return max(64, min(most, most * 32**2 // image_size**2))


def _norms(network: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]:
    return [module for module in network.modules() if isinstance(module, BATCH_NORMS)]


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor, *, batch_size: int | None = None) -> nn.Module:
    """Set every BatchNorm's mean and variance to the average over batches of images.

    Leaves the network in eval mode.

    Args:
        network: with BatchNorm layers; changed in place.
        images: (N, channels, size, size) pixels from 0 to 1, not augmented. Batches are of equal
            size, as the average weighs them equally: images beyond a multiple of the batch size
            are left out.
        batch_size: of one forward pass; all images if there are fewer. 500 for images of up to 32
            pixels where None.
    """
    batch_size = batch_size or fitting_batch(images.shape[-1], 500)
    network.eval()
    if not _norms(network):
        return network  # nothing depends on the images, as in a transformer
    for norm in _norms(network):
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    batch_size = min(batch_size, len(images))
    for batch in images[: len(images) // batch_size * batch_size].split(batch_size):
        network(batch)
    return network.eval()


def require_calibrated(network: nn.Module) -> None:
    """Refuse a network with a BatchNorm that has no statistics.

    Raises:
        UncalibratedError: naming the first such layer.
    """
    for name, module in network.named_modules():
        if isinstance(module, BATCH_NORMS) and (
            module.running_var is None or not bool(module.running_var.isfinite().all())
        ):
            raise UncalibratedError(
                "a network is evaluated and exported with BatchNorm statistics of its own; layer "
                f"{name!r} has none. Calibrate it first."
            )
