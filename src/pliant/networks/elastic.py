"""Elastic layers: the plain PyTorch layers, run with the first channels and the inner kernel only.

Each subclasses its plain layer and keeps the names and shapes of its parameters, so plain weights
load as they are. The active sizes are arguments of `forward`, never state: weights are sliced as
views, nothing is masked or copied, and two sub-networks can run side by side. The number of input
channels is that of the input tensor.

Elastic width and kernel size with learned kernel transformations as in H. Cai, C. Gan, T. Wang,
Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
2020, arXiv:1908.09791, section 3.3. Channel slicing as in J. Yu, L. Yang, N. Xu, J. Yang, T. Huang,
"Slimmable Neural Networks", 2018, arXiv:1812.08928.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.networks.depthwise import depthwise_conv


def kernel_matrices(sizes: Iterable[int]) -> nn.ParameterDict:
    """The matrix of each smaller kernel by its link, such as `to3`; the identity at first.

    All channels of a convolution share it.
    """
    return nn.ParameterDict({f"to{size}": nn.Parameter(torch.eye(size**2)) for size in sizes})


def smaller_kernel(weight: Tensor, kernel: int, matrix: Callable[[str], Tensor]) -> Tensor:
    """The kernels of a smaller size, (outputs, inputs per group, kernel, kernel).

    Each is the centre of the next larger one times a learned matrix, in a chain from 7 to 5 to 3
    (Cai et al. 2020, section 3.3).

    Args:
        weight: (outputs, inputs per group, k, k), k odd; returned as it is at its own size.
        kernel: odd, at most k.
        matrix: returns the matrix of a link by its name, such as `to3`.
    """
    for smaller in range(weight.shape[-1] - 2, kernel - 1, -2):
        # (..., k, k) to (..., (k - 2)^2): the centre as a vector, which the matrix of this link
        # maps to the smaller kernel.
        centre = weight[..., 1:-1, 1:-1].flatten(-2)
        weight = F.linear(centre, matrix(f"to{smaller}")).unflatten(-1, (smaller, smaller))
    return weight


class ElasticConv2d(nn.Conv2d):
    """A convolution with fewer channels, and for depthwise ones a smaller kernel.

    Each layer has one matrix per link of the chain of its kernels, see `smaller_kernel`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        padding: int,
        *,
        groups: int,
        bias: bool,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
        self.depthwise = groups > 1
        if self.depthwise and kernel > 3:
            self.kernel_matrices = kernel_matrices(range(3, kernel, 2))

    def active_weight(self, outputs: int, inputs: int, kernel: int) -> Tensor:
        """The weight of the active convolution, (outputs, inputs per group, kernel, kernel).

        It is a view of the shared weight if the kernel is the largest.
        """
        if not self.depthwise:
            return self.weight[:outputs, :inputs]
        return smaller_kernel(
            self.weight[:outputs], kernel, lambda link: self.kernel_matrices[link]
        )

    def forward(self, x: Tensor, outputs: int, kernel: int = 1) -> Tensor:
        """Convolve (N, inputs, H, W) with the first `outputs` filters at kernel size `kernel`."""
        weight = self.active_weight(outputs, x.shape[1], kernel)
        padding = kernel // 2 if self.padding[0] else 0  # 0 where the input is padded already
        if self.depthwise and self.bias is None:
            return depthwise_conv(x, weight, self.stride[0], padding)
        bias = None if self.bias is None else self.bias[:outputs]
        return F.conv2d(x, weight, bias, self.stride, padding, 1, outputs if self.depthwise else 1)


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm over the channels it receives, by batch statistics only.

    Statistics of one sub-network are wrong for every other, so none are kept: a sub-network gets
    its own when it is extracted and calibrated.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, channels, H, W)."""
        channels = x.shape[1]
        return F.batch_norm(
            x, None, None, self.weight[:channels], self.bias[:channels], True, 0.0, self.eps
        )


class ElasticLinear(nn.Linear):
    """A linear layer over the features it receives."""

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """(..., features) to the first `outputs`, (..., outputs); all of them where None."""
        return F.linear(x, self.weight[:outputs, : x.shape[-1]], self.bias[:outputs])


class ElasticLayerNorm(nn.LayerNorm):
    """A LayerNorm over the channels it receives."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each row of (..., channels)."""
        channels = x.shape[-1]
        return F.layer_norm(x, (channels,), self.weight[:channels], self.bias[:channels], self.eps)
