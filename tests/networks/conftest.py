"""Supernets whose every weight matters, so that no slip hides behind a zero or an identity."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of moderate size.

    BatchNorm scales of both signs, biases and kernel matrices away from their start.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.3 * noise + torch.where(noise > 1.5, -1.0, 1.0))
            elif parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1] in (9, 25):
                parameter.copy_(torch.eye(len(parameter)) + 0.1 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return model


@pytest.fixture(scope="session")
def perturbed() -> Callable[[Space], Supernet]:
    def make(space: Space) -> Supernet:
        channels = space.channels
        return perturb(
            Supernet(space, mean=[0.4, 0.5, 0.45][:channels], std=[0.2, 0.25, 0.3][:channels])
        )

    return make


@pytest.fixture(scope="session")
def shipped() -> Callable[[str, int], Space]:
    def make(name: str, size: int) -> Space:
        return preset(name, channels=3, image_size=size, classes=10)

    return make


@pytest.fixture(scope="session")
def pixels() -> Callable[..., Tensor]:
    def make(space: Space, images: int, seed: int = 0) -> Tensor:
        return torch.rand(
            (images, space.channels, space.image_size, space.image_size),
            generator=torch.Generator().manual_seed(seed),
        )

    return make
