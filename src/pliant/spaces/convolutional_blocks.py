"""Blocks of convolutions: plain, inverted residual (MobileNet), basic and bottleneck (ResNet).

M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", 2018, arXiv:1801.04381. A. Howard et al., "Searching for MobileNetV3", 2019,
arXiv:1905.02244. K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
2015, arXiv:1512.03385. T. He, Z. Zhang, H. Zhang, Z. Zhang, J. Xie, M. Li, "Bag of Tricks for Image
Classification with Convolutional Neural Networks", 2018, arXiv:1812.01187 (ResNet-D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pliant.spaces.block import Block, computes
from pliant.spaces.padding import Padding, explicit_padding
from pliant.spaces.rounding import ceil_div, make_divisible
from pliant.workload import NETWORK_INPUT, Activation, Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvBlock(Block):
    """Convolution, maximum pooling by `pool`, BatchNorm, activation; plus the input if asked."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    activation: Activation = "relu"
    padding: Padding = "symmetric"
    residual: bool = False
    """Whether the input is added to the output, which then has its size and channels."""

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size = ceil_div(self.size, self.stride)
        padding = explicit_padding(self.padding, self.size, self.kernel, self.stride)
        conv = self._conv(
            "conv",
            reads,
            into=self.inputs,
            out=self.outputs,
            size=size,
            kernel=self.kernel,
            stride=self.stride,
            operation=computes("conv", self.activation, "conv1", "norm1", padding=padding)
            if self.pool == 1
            else computes("conv", module="conv1", bias=False, padding=padding),
        )
        if self.residual:
            operation = computes("add")
            add = self._elementwise(
                "add", conv.name, reads, channels=self.outputs, size=size, operation=operation
            )
            return (conv, add)
        if self.pool == 1:
            return (conv,)
        after = size // self.pool
        pool = self._layer(
            "pool",
            "pool",
            conv.name,
            G=self.outputs,
            P=after,
            Q=after,
            R=self.pool,
            S=self.pool,
            strides=(self.pool, self.pool),
            # Pooling and BatchNorm may not swap where a scale is negative: nothing is folded.
            operation=computes("max_pool", self.activation, batch_norm="norm1"),
        )
        return (conv, pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(Block):
    """Maximum pooling over 3x3 pixels with a stride of 2 (ResNet)."""

    channels: int

    @property
    def in_channels(self) -> int:
        return self.channels

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size = ceil_div(self.size, 2)
        loops: dict[str, Any] = {"G": self.channels, "P": size, "Q": size, "R": 3, "S": 3}
        operation = computes("max_pool", padding=(1, 1))
        return (self._layer("pool", "pool", reads, **loops, strides=(2, 2), operation=operation),)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual(Block):
    """Expand by 1x1, depthwise, optional squeeze-and-excitation, project by 1x1 (MobileNetV3).

    A residual where shapes allow.
    """

    inputs: int
    mid_channels: int
    outputs: int
    kernel: int
    stride: int = 1
    expand: bool = True
    """Without it the block has no expanding convolution, and `mid_channels` equals `inputs`."""
    squeeze_excite: bool = False
    activation: Activation = "relu"
    padding: Padding = "symmetric"

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size, mid_channels = ceil_div(self.size, self.stride), self.mid_channels
        layers = []
        if self.expand:
            layers.append(
                self._conv(
                    "expand",
                    reads,
                    into=self.inputs,
                    out=mid_channels,
                    size=self.size,
                    operation=computes("conv", self.activation, "expand", "expand_norm"),
                )
            )
        inner = layers[-1].name if layers else reads
        padding = explicit_padding(self.padding, self.size, self.kernel, self.stride)
        layers.append(
            self._conv(
                "depthwise",
                inner,
                into=mid_channels,
                out=mid_channels,
                size=size,
                kernel=self.kernel,
                stride=self.stride,
                depthwise=True,
                operation=computes(
                    "conv", self.activation, "depthwise", "depthwise_norm", padding=padding
                ),
            )
        )
        if self.squeeze_excite:
            narrow, wide = make_divisible(mid_channels / 4), layers[-1].name
            layers += [
                self._layer(
                    "squeeze.pool",
                    "pool",
                    wide,
                    G=mid_channels,
                    R=size,
                    S=size,
                    strides=(size, size),
                    operation=computes("global_pool"),
                ),
                self._conv(
                    "squeeze.reduce",
                    f"{self.slot}.squeeze.pool",
                    into=mid_channels,
                    out=narrow,
                    size=1,
                    operation=computes("conv", "relu", "squeeze_reduce"),
                ),
                self._conv(
                    "squeeze.expand",
                    f"{self.slot}.squeeze.reduce",
                    into=narrow,
                    out=mid_channels,
                    size=1,
                    operation=computes("conv", "hsigmoid", "squeeze_expand"),
                ),
                self._elementwise(
                    "squeeze.scale",
                    wide,
                    f"{self.slot}.squeeze.expand",
                    channels=mid_channels,
                    size=size,
                    operation=computes("mul"),
                ),
            ]
        layers.append(
            self._conv(
                "project",
                layers[-1].name,
                into=mid_channels,
                out=self.outputs,
                size=size,
                operation=computes("conv", module="project", batch_norm="project_norm"),
            )
        )
        if self.residual:
            layers.append(
                self._elementwise(
                    "add",
                    layers[-1].name,
                    reads,
                    channels=self.outputs,
                    size=size,
                    operation=computes("add"),
                )
            )
        return tuple(layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicBlock(Block):
    """act(x + BN(conv3x3(act(BN(conv3x3(x)))))): plain convolutions, which CPUs run fastest."""

    channels: int
    mid_channels: int
    activation: Activation = "relu"

    @property
    def in_channels(self) -> int:
        return self.channels

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        first = self._conv(
            "conv1",
            reads,
            into=self.channels,
            out=self.mid_channels,
            size=self.size,
            kernel=3,
            operation=computes("conv", self.activation, "conv1", "norm1"),
        )
        second = self._conv(
            "conv2",
            first.name,
            into=self.mid_channels,
            out=self.channels,
            size=self.size,
            kernel=3,
            operation=computes("conv", module="conv2", batch_norm="norm2"),
        )
        return (
            first,
            second,
            self._elementwise(
                "add",
                second.name,
                reads,
                channels=self.channels,
                size=self.size,
                operation=computes("add", self.activation),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1, plus the input (ResNet).

    Where shapes change, the input is average-pooled and projected (ResNet-D).
    """

    inputs: int
    mid_channels: int
    outputs: int
    stride: int = 1
    project: bool = False
    activation: Activation = "relu"

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size = ceil_div(self.size, self.stride)
        layers = [
            self._conv(
                "conv1",
                reads,
                into=self.inputs,
                out=self.mid_channels,
                size=self.size,
                operation=computes("conv", self.activation, "conv1", "norm1"),
            ),
            self._conv(
                "conv2",
                f"{self.slot}.conv1",
                into=self.mid_channels,
                out=self.mid_channels,
                size=size,
                kernel=3,
                stride=self.stride,
                operation=computes("conv", self.activation, "conv2", "norm2"),
            ),
            self._conv(
                "conv3",
                f"{self.slot}.conv2",
                into=self.mid_channels,
                out=self.outputs,
                size=size,
                operation=computes("conv", module="conv3", batch_norm="norm3"),
            ),
        ]
        shortcut = reads
        if self.project:
            if self.stride > 1:
                stride = self.stride
                layers.append(
                    self._layer(
                        "shortcut.pool",
                        "pool",
                        reads,
                        G=self.inputs,
                        P=size,
                        Q=size,
                        R=stride,
                        S=stride,
                        strides=(stride, stride),
                        operation=computes("average_pool"),
                    )
                )
                shortcut = layers[-1].name
            layers.append(
                self._conv(
                    "shortcut",
                    shortcut,
                    into=self.inputs,
                    out=self.outputs,
                    size=size,
                    operation=computes("conv", module="shortcut", batch_norm="shortcut_norm"),
                )
            )
            shortcut = layers[-1].name
        layers.append(
            self._elementwise(
                "add",
                f"{self.slot}.conv3",
                shortcut,
                channels=self.outputs,
                size=size,
                operation=computes("add", self.activation),
            )
        )
        return tuple(layers)
