"""The blocks of NAS-Bench-201 as modules: the cell and the reduction, plain and elastic.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020, arXiv:2001.00326. They are registered as a user's own blocks are, and `model.py` carries
their source only where a network has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.networks.elastic_blocks import ElasticBlock, register_block
from pliant.networks.plain import BlockModule
from pliant.spaces import cell_blocks

CONV_KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


def cell_edges(operations: str) -> tuple[tuple[int, int, str], ...]:
    """(source, target, operation) of a cell's text, without `none`.

    The text reads `|nor_conv_3x3~0|+|none~0|skip_connect~1|+...`.
    """
    nodes = enumerate(operations.split("+"), 1)
    return tuple(
        (int(source), target, name)
        for target, node in nodes
        for name, source in re.findall(r"(\w+)~(\d)", node)
        if name != "none"
    )


class PlainCell(BlockModule):
    """Four nodes, each the sum of operations on those before it (NAS-Bench-201).

    The output is zero where no path leads to the last one.
    """

    def __init__(self, *, size: int, channels: int, operations: str) -> None:
        super().__init__()
        self.edges = cell_edges(operations)
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for source, target, operation in self.edges:
            if operation in CONV_KERNELS:
                self.add_conv(f"{operation}_{source}{target}", channels, CONV_KERNELS[operation])

    def add_conv(self, name: str, channels: int, kernel: int) -> None:
        """A convolution and its BatchNorm."""
        self.convs[name], self.norms[name] = (
            self.conv(channels, channels, kernel),
            self.norm(channels),
        )

    def convolve(self, name: str, x: Tensor) -> Tensor:
        """Convolution and BatchNorm of a name."""
        return self.norms[name](self.convs[name](x))

    def forward(self, x: Tensor) -> Tensor:
        return self.paths(x, self.edges)

    def paths(self, x: Tensor, edges: Sequence[tuple[int, int, str]]) -> Tensor:
        """The last node; what several convolutions read is rectified once."""
        nodes, rectified = {0: x}, {}
        for source, target, operation in edges:
            value = nodes[source]
            if operation in CONV_KERNELS:
                if source not in rectified:
                    rectified[source] = F.relu(value)
                value = self.convolve(f"{operation}_{source}{target}", rectified[source])
            elif operation == "avg_pool_3x3":
                value = F.avg_pool2d(value, 3, 1, 1, count_include_pad=False)
            nodes[target] = nodes[target] + value if target in nodes else value
        return nodes[3] if 3 in nodes else torch.zeros_like(x)


class PlainReduction(BlockModule):
    """BN(conv(relu(BN(conv(relu(x)))))) at half the size, plus the input pooled and projected."""

    def __init__(self, *, size: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = self.conv(inputs, outputs, 3, stride=2)
        self.norm1 = self.norm(outputs)
        self.conv2 = self.conv(outputs, outputs, 3)
        self.norm2 = self.norm(outputs)
        self.shortcut = self.conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(F.relu(x))))))
        return y + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))


class ElasticCell(ElasticBlock, PlainCell):
    """Every convolution that an edge may have; those of the active cell run.

    All cells have the same channels.
    """

    def __init__(self, *, size: int, channels: int, operations: str) -> None:
        super().__init__(size=size, channels=channels, operations=operations)
        for source, target, largest in self.edges:
            for operation, kernel in CONV_KERNELS.items():
                if operation != largest:
                    self.add_conv(f"{operation}_{source}{target}", channels, kernel)

    def convolve(self, name: str, x: Tensor) -> Tensor:
        """Convolution and BatchNorm of a name."""
        return self.norms[name](self.convs[name](x, x.shape[1], CONV_KERNELS[name[:-3]]))

    def forward(self, x: Tensor, active: cell_blocks.Cell) -> Tensor:
        """Run the active cell's operations."""
        return self.paths(x, active.edges)


class ElasticReduction(ElasticBlock, PlainReduction):
    """Nothing is elastic.

    It is between cells, which have the same channels in every network.
    """

    def forward(self, x: Tensor, active: cell_blocks.Reduction) -> Tensor:
        """Halve the size."""
        y = self.norm1(self.conv1(F.relu(x), active.outputs, 3))
        y = self.norm2(self.conv2(F.relu(y), active.outputs, 3))
        return y + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True), active.outputs)


register_block(cell_blocks.Cell, PlainCell, ElasticCell)
register_block(cell_blocks.Reduction, PlainReduction, ElasticReduction)
