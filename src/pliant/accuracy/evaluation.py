"""Top-1 accuracy of a calibrated network on a split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pliant.accuracy.calibration import fitting_batch, require_calibrated
from pliant.data.splits import Split
from pliant.metrics import Accuracy


def pixels(images: Tensor) -> Tensor:
    """Stored images, uint8, as the networks' input: 0 to 1, channels last in memory."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def top1(network: nn.Module, split: Split, *, batch_size: int | None = None) -> Accuracy:
    """Share of a split's images that the network classifies correctly.

    Args:
        network: calibrated.
        split: its images are not augmented.
        batch_size: of one forward pass; 1,000 for images of up to 32 pixels where None.

    Raises:
        UncalibratedError: a BatchNorm has no statistics.
    """
    require_calibrated(network)
    device = next(network.parameters()).device
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_size = batch_size or fitting_batch(split.batch(np.arange(1))[0].shape[-1], 1000)
    right = 0
    for start in range(0, len(split), batch_size):
        images, labels = split.batch(np.arange(start, min(start + batch_size, len(split))))
        right += int((network(pixels(images).to(device)).argmax(1).cpu() == labels).sum())
    return Accuracy(right / len(split), len(split))
