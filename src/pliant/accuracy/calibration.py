"""BatchNorm statistics of a plain network, computed from training images before it is evaluated or exported.

The statistics of a supernet belong to none of its networks, so a network that is extracted has none (they are NaN) and must
pass here (Cai et al. 2020 call it resetting BatchNorm; all systems that share weights need it).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pliant.errors import UncalibratedError

CALIBRATION_IMAGES = 2000
"""Training images behind the statistics; Once-for-All's number."""


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> nn.Module:
    """Set every BatchNorm's mean and variance to the average over batches of images; leaves the network in eval mode.

    Args:
        images: (N, channels, size, size) pixels from 0 to 1, not augmented. Batches are of equal size, as the average weighs
            them equally: images beyond a multiple of the batch size are left out.
        batch_size: of one forward pass; all images where there are fewer.
    """
    network.eval()
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
        if isinstance(module, nn.BatchNorm2d) and (
            module.running_var is None or not bool(module.running_var.isfinite().all())
        ):
            raise UncalibratedError(
                f"a network is evaluated and exported with BatchNorm statistics of its own; layer {name!r} has none. Calibrate it first."
            )
