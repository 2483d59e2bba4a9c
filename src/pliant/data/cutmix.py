"""CutMix: part of an image shows another one, and the label says how much of each (Yun et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cutmix(images: Tensor, labels: Tensor, *, classes: int, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into some images, and mix their labels by area.

    The rectangle has the image's shape and a share of its area that is uniform from 0 to 1; its middle is anywhere, and what
    lies beyond the border is cut. The paper draws one rectangle for a whole batch, here every image has its own.

    Args:
        images: (N, channels, height, width), floats.
        labels: int (N,).
        classes: number of labels.
        probability: that an image gets a rectangle.
        generator: source of the draws, on the CPU.

    Returns:
        The images, and the share of each class in them, float32 (N, classes); rows add up to 1.
    """
    count, _, height, width = images.shape
    sides = torch.rand(count, generator=generator).sqrt() * (torch.rand(count, generator=generator) < probability)
    pasted = _covered(height, sides, generator)[:, :, None] & _covered(width, sides, generator)[:, None, :]
    partner = torch.randperm(count, generator=generator)
    share = pasted.float().mean((1, 2))[:, None]
    shown = F.one_hot(labels, classes).float()
    mixed = torch.where(pasted[:, None].to(images.device), images[partner], images)
    return mixed, torch.lerp(shown, shown[partner], share.to(shown.device))


def _covered(size: int, sides: Tensor, generator: torch.Generator) -> Tensor:
    """Which of `size` pixels lie within spans of these shares of it around middles drawn anywhere; (N, size)."""
    middles = torch.rand(len(sides), 1, generator=generator) * size
    return (torch.arange(size) + 0.5 - middles).abs() < sides[:, None] * size / 2
