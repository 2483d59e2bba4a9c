"""A block: one piece of a network, described by sizes and lowered to loop nests, without PyTorch.

A block is what a latency table measures, what a supernet slices and what the export writes.
`pliant.networks.plain` has the module of the same name for each description. Sizes are those of
the active network, in pixels and channels.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple

from pliant.errors import EncodingError
from pliant.workload import NETWORK_INPUT, Kind, Layer, Operation, peak_activation_bytes, with_bits

BLOCK_TYPES: dict[str, type[Block]] = {}
"""Every description by its name: each subclass of `Block` enters itself when it is defined."""

NORM_EPSILON = 1e-5
"""PyTorch's default."""


def is_same_definition(known: type, new: type) -> bool:
    """Whether two classes are one: made anew, or of a file that was read again."""

    def place(kind: type) -> tuple[str, str]:
        module = sys.modules.get(kind.__module__)
        return (getattr(module, "__file__", None) or kind.__module__, kind.__qualname__)

    return place(known) == place(new)


computes = cache(Operation)
"""An operation, made once: blocks describe their layers many times in a search."""


class BlockCost(NamedTuple):
    """What one block adds to a network for one image."""

    macs: int
    parameters: int
    parameter_bytes: int
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
            EncodingError: a class of another file has the name.
        """
        known = BLOCK_TYPES.setdefault(cls.__name__, cls)
        if not is_same_definition(known, cls):
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
        return cost_with_bits(self, 32)

    @property
    def in_views(self) -> int:
        """Views of an image in the input."""
        return self.views

    @property
    def sizes(self) -> dict[str, int | float | bool | str]:
        """What the block is built from: its fields but the slot.

        Views, the epsilon of its BatchNorms, the padding and the sum with the input are left out
        where they are the usual ones.
        """
        usual = {
            "views": 1,
            "norm_epsilon": NORM_EPSILON,
            "padding": "symmetric",
            "residual": False,
        }
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
def cost_with_bits(block: Block, bits: int) -> BlockCost:
    """The cost of a block whose weights and activations have so many bits."""
    layers = block.layers()
    first = with_bits(layers, bits)
    input_bits = first[0].bits
    elements = block.in_views * block.in_channels * block.size**2
    return BlockCost(
        sum(layer.macs for layer in layers),
        sum(layer.parameters for layer in layers),
        sum(layer.parameter_bytes for layer in first),
        peak_activation_bytes(first, -(-elements * input_bits // 8)),
    )
