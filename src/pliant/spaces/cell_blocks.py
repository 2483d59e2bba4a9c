"""The blocks of NAS-Bench-201: the cell, and the reduction between the stages of cells.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
2020, arXiv:2001.00326, Figure 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from pliant.errors import EncodingError
from pliant.spaces.block import Block, computes
from pliant.spaces.rounding import ceil_div
from pliant.workload import NETWORK_INPUT, Layer

CONV_KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
"""The operations of a cell that have weights, and their kernels."""

Edge = tuple[int, int, str]
"""The node that is read, the node that is added to, and the operation between them."""


@cache
def cell_edges(operations: str) -> tuple[Edge, ...]:
    """The edges of a cell's text that are not `none`, by target then source.

    Args:
        operations: as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+...`.
    """
    nodes = enumerate(operations.split("+"), 1)
    return tuple(
        (int(source), target, name)
        for target, node in nodes
        for name, source in re.findall(r"(\w+)~(\d)", node)
        if name != "none"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Block):
    """Four nodes, the first one the input and the last one the output.

    Each is the sum of operations on those before it.

    The cell of NAS-Bench-201 (Dong and Yang 2020). A convolution is ReLU, convolution, BatchNorm;
    all keep size and channels.

    Raises:
        EncodingError: an operation reads a node that nothing reaches.
    """

    channels: int
    operations: str
    """In the benchmark's form, `none` where an operation changes nothing.

    Without any path the output is zero.
    """

    def __post_init__(self) -> None:
        reached = {0, *(target for _, target, _ in self.edges)}
        if lost := [edge for edge in self.edges if edge[0] not in reached]:
            raise EncodingError(
                f"an operation reads a node that has a value, received {self.operations!r}."
                f" Write none for {lost[0][2]!r}."
            )

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The operations, by target then source."""
        return cell_edges(self.operations)

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        values, layers, width, size = {0: reads}, [], self.channels, self.size
        for target, edges in groupby(self.edges, key=lambda edge: edge[1]):
            terms = []
            for source, _, operation in edges:
                name, value = f"{operation}_{source}{target}", values[source]
                if operation in CONV_KERNELS:
                    layers.append(
                        self._conv(
                            name,
                            value,
                            into=width,
                            out=width,
                            size=size,
                            kernel=CONV_KERNELS[operation],
                            operation=computes(
                                "conv",
                                module=f"convs.{name}",
                                batch_norm=f"norms.{name}",
                                input_activation="relu",
                            ),
                        )
                    )
                elif operation == "avg_pool_3x3":
                    layers.append(
                        self._layer(
                            name,
                            "pool",
                            value,
                            G=width,
                            P=size,
                            Q=size,
                            R=3,
                            S=3,
                            operation=computes("average_pool"),
                        )
                    )
                terms.append(value if operation == "skip_connect" else layers[-1].name)
            if len(terms) > 1:
                layers.append(
                    self._elementwise(
                        f"add{target}",
                        *terms,
                        channels=width,
                        size=size,
                        operation=computes("add"),
                    )
                )
            values[target] = layers[-1].name if len(terms) > 1 else terms[0]
        if layers:
            return tuple(layers)
        output = computes("identity" if 3 in values else "zero")
        return (self._elementwise("output", reads, channels=width, size=size, operation=output),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction(Block):
    """Between the stages of cells.

    ReLU, 3x3, BatchNorm twice, the first at stride 2, plus the input pooled by 2 and projected.
    """

    inputs: int
    outputs: int

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size, into, out = ceil_div(self.size, 2), self.inputs, self.outputs
        first = self._conv(
            "conv1",
            reads,
            into=into,
            out=out,
            size=size,
            kernel=3,
            stride=2,
            operation=computes(
                "conv", "relu", module="conv1", batch_norm="norm1", input_activation="relu"
            ),
        )
        second = self._conv(
            "conv2",
            first.name,
            into=out,
            out=out,
            size=size,
            kernel=3,
            operation=computes("conv", module="conv2", batch_norm="norm2"),
        )
        pool = self._layer(
            "shortcut.pool",
            "pool",
            reads,
            G=into,
            P=size,
            Q=size,
            R=2,
            S=2,
            strides=(2, 2),
            operation=computes("average_pool"),
        )
        shortcut = self._conv(
            "shortcut",
            pool.name,
            into=into,
            out=out,
            size=size,
            bias=False,
            operation=computes("conv", module="shortcut"),
        )
        return (
            first,
            second,
            pool,
            shortcut,
            self._elementwise(
                "add",
                second.name,
                shortcut.name,
                channels=out,
                size=size,
                operation=computes("add"),
            ),
        )
