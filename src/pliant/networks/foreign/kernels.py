"""Kernels that may be smaller: convolutions wider than 3x3 whose padding can shrink with them.

A smaller kernel is the centre of the larger one, as `pliant.networks.elastic` makes it. What it
loses on each side is taken from the padding, so that the outputs keep their size whatever the
stride. The padding is the convolution's own, or that of an operator that only it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx

from pliant.networks.foreign.graph import ForeignGraph
from pliant.networks.foreign.operators import Node, argument
from pliant.networks.morph.channel_graph import operator_name

SMALLEST = 3
PADS = ("pad", "constant_pad_nd")
MATRICES = "kernel_matrices"
"""What holds the matrices of a convolution's smaller kernels, in the convolution."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """The kernel of a convolution, square and of odd size."""

    weight: str
    """The parameter's name."""
    size: int
    options: tuple[int, ...]
    """Sizes that it may have, ascending; the last is its own."""
    convolutions: tuple[Node, ...]
    """All that read the weight."""

    @property
    def layer(self) -> str:
        """The module of the weight."""
        return self.weight.removesuffix(".weight")

    def matrix(self, link: str) -> str:
        """The name of a matrix, such as `to3`."""
        return f"{self.layer}.{MATRICES}.{link}"

    def less_padding(self, option: int) -> Iterator[tuple[Node, int]]:
        """The operators that pad, and the pixels that each side has less of at an option."""
        border = (self.size - option) // 2
        for node in self.convolutions:
            yield _padded_by(node), border * _dilation(node)


def elastic_kernels(graph: ForeignGraph) -> dict[str, Kernel]:
    """The kernels that may be smaller, by the name of the weight."""
    found = {}
    for weight in graph.weights:
        shape = graph.weight_shape(weight)
        if len(shape) != 4 or shape[2] != shape[3] or shape[2] % 2 == 0 or shape[2] <= SMALLEST:
            continue
        nodes = tuple(graph.users_of_weight[weight])
        if not weight.endswith(".weight") or not all(map(_is_convolution, nodes)):
            continue
        size = int(shape[2])
        least = max(size - 2 * _spare(node) for node in nodes)
        options = tuple(range(max(SMALLEST, least), size + 1, 2))
        if len(options) > 1:
            found[weight] = Kernel(weight, size, options, nodes)
    return found


def with_less_padding(node: Node, less: int) -> list[Any]:
    """The arguments of an operator that pads, with so many pixels less on each side."""
    args = list(node.args)
    at = 1 if operator_name(node) in PADS else 4
    if not isinstance(args[at], str):  # "same" follows from the kernel
        args[at] = [padding - less for padding in args[at]]
    return args


def _is_convolution(node: Node) -> bool:
    return operator_name(node) == "conv2d"


def _dilation(node: Node) -> int:
    """Of rows and columns where they are alike; else 0, with which nothing can be spared."""
    found = {int(one) for one in argument(node, 5, "dilation", [1])}
    return found.pop() if len(found) == 1 else 0


def _padded_by(node: Node) -> Node:
    """The operator that pads for a convolution: itself, or the one that it reads."""
    source = node.args[0]
    padding = argument(node, 4, "padding", [0])
    if isinstance(padding, str) or any(padding) or not isinstance(source, fx.Node):
        return node
    return source if _pads_with_zeros(source) and len(source.users) == 1 else node


def _pads_with_zeros(node: Node) -> bool:
    if node.op != "call_function" or operator_name(node) not in PADS or len(node.args[1]) != 4:
        return False
    rest = [one for one in node.args[2:] if one not in ("constant", None)]
    return not any(rest) and not node.kwargs


def _spare(node: Node) -> int:
    """Rows that the kernel may lose on each side."""
    dilation = _dilation(node)
    pads = _padded_by(node)
    padding: Any = pads.args[1] if pads is not node else argument(node, 4, "padding", [0])
    if dilation == 0 or padding == "valid":
        return 0
    if padding == "same":
        return int(node.args[1].meta["val"].shape[-1])
    return int(min(padding)) // dilation
