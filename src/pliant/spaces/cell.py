"""The cell space of NAS-Bench-201.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
2020, arXiv:2001.00326. One small cell, stacked 15 times; there are 15,625 of them.

The benchmark's authors trained every network of the space, so scores and searches can be compared
on it. Architectures have Pliant's text form, `1.0o4_2.0o0_...`, and the benchmark's,
`|nor_conv_3x3~0|+|none~0|...`; `CellSpace.parse` reads both.

A network has only the operations through which the image reaches its output. In the benchmark the
others run as well: what nothing reads changes no result, and neither does an operation on zero, but
for a convolution, whose BatchNorm adds an offset to it. That offset is 0 before training.
`CellSpace.benchmark_size` counts all operations, as the benchmark's figures do.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, partial
from typing import NamedTuple

from pliant.errors import EncodingError, nearest
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.cell_blocks import CONV_KERNELS, Cell, Reduction
from pliant.spaces.cell_graphs import EDGES, GRAPHS, Operations, cell_layers
from pliant.spaces.convolutional_blocks import ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.rounding import ceil_div
from pliant.spaces.space import Choice, Graph, Space
from pliant.workload import Layer

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
"""What an edge can be, cheapest first: an architecture holds the position."""

_BENCHMARK_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_BENCHMARK_SEED = 88
_STAGES = 3


class BenchmarkSize(NamedTuple):
    """What the benchmark's tables say of a network; all operations count, those on no path too."""

    parameters: int
    """Weights and biases as PyTorch counts them: two a channel for a BatchNorm."""
    flops: int
    """Multiply-accumulates of convolutions and the classifier, which the benchmark calls FLOPs."""


class CellSpace(Space):
    """A 3x3 stem and three stages of one repeated cell, with reductions between them.

    A reduction doubles the channels.

    Args:
        width: channels of the first stage; C in the benchmark.
        depth: cells a stage; N in the benchmark.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int = 16,
        depth: int = 5,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.width, self.depth = width, depth

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """An operation an edge: `3.1o` is what node 3 takes from node 1."""
        return tuple(
            Choice(f"{target}.{source}o", tuple(range(len(OPERATIONS)))) for source, target in EDGES
        )

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """Preprocess, stem, stages, head; cells that hand on their input are left out."""
        active = self.prune_dead_edges(architecture)
        cell, repeated = (
            self.benchmark_text(active),
            range(0 if _is_identity(self.operations(active)) else self.depth),
        )
        size, width = self.image_size, self.width
        blocks: list[Block] = [
            Preprocess(slot="preprocess", size=size, channels=self.channels, resolution=size),
            ConvBlock(
                slot="stem", size=size, inputs=self.channels, outputs=width, activation="none"
            ),
        ]
        for stage in range(1, _STAGES + 1):
            if stage > 1:
                blocks.append(
                    Reduction(
                        slot=f"stage{stage}_reduction", size=size, inputs=width, outputs=2 * width
                    )
                )
                size, width = ceil_div(size, 2), 2 * width
            blocks += [
                Cell(
                    slot=f"stage{stage}_cell{number + 1}",
                    size=size,
                    channels=width,
                    operations=cell,
                )
                for number in repeated
            ]
        return (
            *blocks,
            Head(slot="head", size=size, inputs=width, classes=self.classes, input_norm=True),
        )

    @cached_property
    def graphs(self) -> Mapping[str, Graph]:
        """The graphs that frameworks and compilers make of the cell; see `cell_graphs`."""
        return {name: partial(self._cell_layers, name) for name in GRAPHS}

    def _cell_layers(self, graph: str, architecture: Architecture) -> Iterator[tuple[int, Layer]]:
        """The layers of all cells of a graph, with how often each is there."""
        operations = GRAPHS[graph](self.operations(architecture))
        size, width = self.image_size, self.width
        for _ in range(_STAGES):
            for layer in cell_layers(operations, width, size):
                yield self.depth, layer
            size, width = ceil_div(size, 2), 2 * width

    # The benchmark's words.

    def operations(self, architecture: Architecture) -> Operations:
        """The names of the operations, in the order of `EDGES`."""
        return tuple(OPERATIONS[int(option)] for _, option in architecture)

    def of_operations(self, operations: Operations) -> Architecture:
        """The architecture of the names of its operations, in the order of `EDGES`.

        Raises:
            EncodingError: their number is wrong, or a name is unknown.
        """
        if len(operations) != len(EDGES):
            raise EncodingError(f"a cell has {len(EDGES)} operations, received {len(operations)}.")
        if unknown := [name for name in operations if name not in OPERATIONS]:
            raise EncodingError(
                f"no operation of a cell is called {unknown[0]!r}. "
                f"{nearest(unknown[0], OPERATIONS)}"
            )
        return self.decode(OPERATIONS.index(name) for name in operations)

    def benchmark_text(self, architecture: Architecture) -> str:
        """The benchmark's string, `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`."""
        return _text(self.operations(architecture))

    def parse(self, text: str) -> Architecture:
        """Read an architecture in either form.

        Raises:
            EncodingError: the text is the form of no architecture.
        """
        if "|" not in text and "~" not in text:
            return super().parse(text)
        written = re.sub(r"\s", "", text)
        names = tuple(re.findall(r"([^|~+]+)~", written))
        architecture = self.of_operations(names) if len(names) == len(EDGES) else None
        if architecture is None or self.benchmark_text(architecture) != written:
            example = self.benchmark_text(self.largest())
            raise EncodingError(
                f"a cell reads like {example} in the benchmark's form, received {text!r}."
                " Name an operation for each edge."
            )
        return architecture

    def benchmark_index(self, architecture: Architecture) -> int:
        """The number under which the benchmark knows the network, 0 to 15,624."""
        return _indices()[self.operations(architecture)]

    def of_benchmark_index(self, index: int) -> Architecture:
        """The network of a number of the benchmark.

        Raises:
            EncodingError: the number is not one of them.
        """
        order = _benchmark_order()
        if not 0 <= index < len(order):
            raise EncodingError(
                f"the benchmark numbers its networks from 0 to {len(order) - 1}, received {index}."
            )
        return self.of_operations(order[index])

    # What networks do.

    def prune_dead_edges(self, architecture: Architecture) -> Architecture:
        """The architecture with `none` for operations on no path from input to output."""
        operations = self.operations(architecture)
        reached, read = {0}, {3}
        edges = [edge for edge, name in zip(EDGES, operations, strict=True) if name != "none"]
        for source, target in edges:
            if source in reached:
                reached.add(target)
        for source, target in reversed(edges):
            if target in read:
                read.add(source)
        alive = reached & read
        kept = (
            name if set(edge) <= alive else "none"
            for edge, name in zip(EDGES, operations, strict=True)
        )
        return self.of_operations(tuple(kept))

    def isomorphism_class(self, architecture: Architecture) -> str:
        """Equal for cells of the same structure by the benchmark's rule.

        There are 6,466 different ones.

        A node is the sorted sum of what flows in; skipping changes nothing, and `none`, or any
        operation on it, is zero.
        """
        nodes = {0: "0"}
        for target in range(1, 4):
            terms = []
            for (source, end), name in zip(EDGES, self.operations(architecture), strict=True):
                if end == target:
                    zero = name == "none" or nodes[source] == "#"
                    terms.append(
                        "#"
                        if zero
                        else nodes[source]
                        if name == "skip_connect"
                        else f"({nodes[source]})@{name}"
                    )
            nodes[target] = "+".join(sorted(terms))
        return nodes[3]

    def benchmark_size(self, architecture: Architecture) -> BenchmarkSize:
        """Parameters and FLOPs as the benchmark counts them for this width, depth and images."""
        frame = self.lower(self.smallest())  # cells without any path have no weights
        norms = sum(layer.K for layer in frame.layers if layer.kind == "conv" and layer.bias)
        parameters, flops = (
            frame.parameters + norms + 2 * self.width * 2 ** (_STAGES - 1),
            frame.macs,
        )
        kernels = [
            CONV_KERNELS[name] for name in self.operations(architecture) if name in CONV_KERNELS
        ]
        for block in self.blocks(self.largest()):
            if isinstance(block, Cell):
                weights = [kernel**2 * block.channels**2 for kernel in kernels]
                parameters += sum(weights) + 2 * block.channels * len(kernels)
                flops += sum(weights) * block.size**2
        return BenchmarkSize(parameters, flops)


def _text(operations: Operations) -> str:
    nodes = {1: "|", 2: "|", 3: "|"}
    for (source, target), name in zip(EDGES, operations, strict=True):
        nodes[target] += f"{name}~{source}|"
    return "+".join(nodes.values())


def _is_identity(operations: Operations) -> bool:
    """Whether a cell without dead edges is a single path of skips."""
    targets = [
        target for (_, target), name in zip(EDGES, operations, strict=True) if name != "none"
    ]
    return set(operations) == {"none", "skip_connect"} and len(set(targets)) == len(targets)


@cache
def _benchmark_order() -> tuple[Operations, ...]:
    """The benchmark's order of all cells: shuffled by Python's generator from a fixed seed."""
    order = list(itertools.product(_BENCHMARK_OPERATIONS, repeat=len(EDGES)))
    random.Random(_BENCHMARK_SEED).shuffle(order)
    return tuple(order)


@cache
def _indices() -> Mapping[Operations, int]:
    return {operations: index for index, operations in enumerate(_benchmark_order())}
