"""The blocks that networks are made of, as plain facts: sizes in, loop nests out, no PyTorch.

A block is what a latency table measures, what a supernet slices and what the export writes.
`pliant.networks.plain` holds the module of the same name for each of them. Sizes are those of the
active network, in pixels and channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple

from pliant.errors import EncodingError
from pliant.workload import (
    NETWORK_INPUT,
    Activation,
    Kind,
    Layer,
    Operation,
    peak_activation_bytes,
)

BLOCK_TYPES: dict[str, type[Block]] = {}
"""Every description by its name: each subclass of `Block` enters itself when it is defined."""

NORM_EPSILON = 1e-5
"""PyTorch's default."""

computes = cache(Operation)
"""An operation, made once: blocks describe their layers many times in a search."""


class BlockCost(NamedTuple):
    """What one block adds to a network for one image."""

    macs: int
    parameters: int
    peak_activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(ABC):
    """One piece of a network with a single input and a single output."""

    slot: str
    """The place in the network, the same in every architecture that has it."""
    size: int
    """Height and width of the input."""
    views: int = 1
    """Images that run for each image of the batch: 2 with flip test-time augmentation.

    The first block adds the mirror image, and the head averages over both.
    """

    norm_epsilon: float = NORM_EPSILON
    """Added to the variance by every BatchNorm of the block."""

    def __init_subclass__(cls) -> None:
        """Enter the description under its name, by which profiles and summaries know it.

        Raises:
            EncodingError: another class has the name.
        """
        known = BLOCK_TYPES.setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise EncodingError(
                f"a block's name is its own; {cls.__name__} is that of {known.__module__}, received"
                f" another one from {cls.__module__}. Rename the class."
            )
        BLOCK_TYPES[cls.__name__] = cls  # a dataclass with slots is made anew from the first class

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of the input."""

    @abstractmethod
    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        """The loop nests in running order.

        The first ones read `reads`, the last one is the output.
        """

    @property
    def cost(self) -> BlockCost:
        """MACs, parameters and the activations alive at once, counted once for equal blocks."""
        return _cost(self)

    @property
    def in_views(self) -> int:
        """Views of an image in the input."""
        return self.views

    @property
    def sizes(self) -> dict[str, int | float | bool | str]:
        """What the block is built from: its fields but the slot.

        Views and the epsilon of its BatchNorms are left out where they are the usual ones.
        """
        usual = {"views": 1, "norm_epsilon": NORM_EPSILON}
        return {
            name: getattr(self, name)
            for name in (field.name for field in fields(self))
            if name != "slot" and not (name in usual and getattr(self, name) == usual[name])
        }

    def _layer(self, name: str, kind: Kind, *reads: str, bias: bool = True, **sizes: Any) -> Layer:
        """A loop nest named within the block, over all views."""
        operation: Operation | None = sizes.get("operation")
        if operation is not None and self.norm_epsilon != NORM_EPSILON and operation.normalises:
            sizes["operation"] = replace(operation, epsilon=self.norm_epsilon)
        return Layer(f"{self.slot}.{name}", kind, reads, N=self.views, bias=bias, **sizes)

    def _conv(
        self,
        name: str,
        reads: str,
        *,
        into: int,
        out: int,
        size: int,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = True,
        operation: Operation | None = None,
    ) -> Layer:
        """A convolution named within the block; `size` is its output's height and width."""
        groups, outputs, inputs = (out, 1, 1) if depthwise else (1, out, into)
        loops: dict[str, Any] = {
            "G": groups,
            "K": outputs,
            "C": inputs,
            "P": size,
            "Q": size,
            "R": kernel,
            "S": kernel,
        }
        loops |= {"strides": (stride, stride), "operation": operation}
        return self._layer(name, "conv", reads, **loops, bias=bias)

    def _elementwise(
        self,
        name: str,
        *reads: str,
        channels: int,
        size: int,
        operation: Operation | None = None,
        stored_per_channel: int = 0,
    ) -> Layer:
        return self._layer(
            name,
            "elementwise",
            *reads,
            G=channels,
            P=size,
            Q=size,
            operation=operation,
            stored_per_channel=stored_per_channel,
        )


@cache
def _cost(block: Block) -> BlockCost:
    layers = block.layers()
    input_bytes = 4 * block.in_views * block.in_channels * block.size**2
    return BlockCost(
        sum(layer.macs for layer in layers),
        sum(layer.parameters for layer in layers),
        peak_activation_bytes(layers, input_bytes),
    )


def ceil_div(size: int, stride: int) -> int:
    """Height and width after a stride with padding that keeps the size at stride 1."""
    return -(-size // stride)


def make_divisible(channels: float, multiple: int = 8) -> int:
    """The nearest multiple of 8, at least 8 and never below 90 % of what was asked.

    As in MobileNetV3 (Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244).
    """
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess(Block):
    """Normalises pixels from 0 to 1 by the training images' mean and deviation, and resizes them.

    Of two views the second is mirrored.
    """

    channels: int
    resolution: int

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def in_views(self) -> int:
        """One: the others are made here."""
        return 1

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        return (
            self._elementwise(
                "resize",
                reads,
                channels=self.channels,
                size=self.resolution,
                operation=computes("preprocess"),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvBlock(Block):
    """Convolution, maximum pooling by `pool`, BatchNorm, activation."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    activation: Activation = "relu"

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size = ceil_div(self.size, self.stride)
        conv = self._conv(
            "conv",
            reads,
            into=self.inputs,
            out=self.outputs,
            size=size,
            kernel=self.kernel,
            stride=self.stride,
            operation=computes("conv", self.activation, "conv1", "norm1")
            if self.pool == 1
            else computes("conv", module="conv1", bias=False),
        )
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
                operation=computes("conv", self.activation, "depthwise", "depthwise_norm"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Block):
    """Global average pooling and a linear classifier.

    Optional before them: BatchNorm with its activation, a 1x1 convolution; between them: the mean
    over views, a hidden linear layer.
    """

    inputs: int
    classes: int
    expand: int = 0
    """Outputs of the 1x1 convolution with BatchNorm before pooling; 0 for none."""
    hidden: int = 0
    """Width of the linear layer between pooling and classifier; 0 for none."""
    activation: Activation = "relu"
    dropout: float = 0.0
    """Share of the classifier's inputs dropped while training; nothing at inference."""
    input_norm: bool = False
    """BatchNorm and activation of the input, in networks that activate before they convolve."""

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        if self.input_norm:
            layers.append(
                self._elementwise(
                    "norm",
                    reads,
                    channels=self.inputs,
                    size=self.size,
                    operation=computes("batch_norm", self.activation, "input_norm"),
                )
            )
        if self.expand:
            layers.append(
                self._conv(
                    "expand",
                    layers[-1].name if layers else reads,
                    into=self.inputs,
                    out=self.expand,
                    size=self.size,
                    operation=computes("conv", self.activation, "expand", "expand_norm"),
                )
            )
        width = self.expand or self.inputs
        layers.append(
            self._layer(
                "pool",
                "pool",
                layers[-1].name if layers else reads,
                G=width,
                R=self.size,
                S=self.size,
                strides=(self.size, self.size),
                operation=computes("global_pool"),
            )
        )
        if self.views > 1:
            mean = computes("mean_over_flips")
            layers.append(
                Layer(
                    f"{self.slot}.views",
                    "elementwise",
                    (layers[-1].name,),
                    G=width,
                    operation=mean,
                )
            )
        if self.hidden:
            layers.append(self._linear("hidden", layers[-1].name, width, self.hidden))
            width = self.hidden
        layers.append(self._linear("classifier", layers[-1].name, width, self.classes))
        return tuple(layers)

    def _linear(self, name: str, reads: str, inputs: int, outputs: int) -> Layer:
        """A linear layer of one view's features, named as its module."""
        activation = self.activation if name == "hidden" else "none"
        computed = computes("linear", activation, name)
        return Layer(
            f"{self.slot}.{name}", "matmul", (reads,), K=outputs, C=inputs, operation=computed
        )
