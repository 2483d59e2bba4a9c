"""The images of all zero-shot tests, and a network with the habits of other people's code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A block that overwrites in place, as most code does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.conv2, self.norm2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return self.relu(y)


class Squeeze(nn.Module):
    """Squeeze and excitation: convolutions of a single position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Net(nn.Module):
    """Strides, groups, dilation, every kind of padding, pools, functions, dropout."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.block = Residual(8)
        self.down = nn.Sequential(
            nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12)
        )
        self.depthwise = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.norm = nn.GroupNorm(3, 12)
        self.squeeze = Squeeze(12)
        self.last = nn.Conv2d(12, 16, 3, stride=2, padding=1, groups=2, padding_mode="reflect")
        self.hidden, self.drop, self.head = nn.Linear(16, 6), nn.Dropout(0.5), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.down(self.block(self.stem(x))))
        x = self.last(F.relu(self.squeeze(self.norm(self.depthwise(x)))))
        return self.head(self.drop(F.relu(self.hidden(x.mean((2, 3))))))


@pytest.fixture(scope="session")
def make_network() -> Callable[[], nn.Module]:
    return Net


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(12, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def labels() -> Tensor:
    return torch.randint(4, (12,), generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
