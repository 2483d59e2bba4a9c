"""The graphs that runtimes make of a cell of NAS-Bench-201.

`CellSpace` describes what a network computes: operations on no path from the image to the output
are left out. What a runtime runs may be more than that, and decides the latency:

- as written: a framework that runs every line runs all six operations, and a product with zero for
  each `none`;
- unread removed: a compiler drops what nothing reads, but not operations on zeros;
- zeros folded: it also folds a product with zero into the convolution before it, as into any
  convolution that is followed by a product with a constant. Such a convolution then runs with
  weights of zero, although its result changes nothing.

The rule of the last graph was inferred from the published latencies of a Raspberry Pi 4
(`benchmarks/latency_predictors.py`); the others follow from the framework's and compilers' manuals.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
2020, arXiv:2001.00326.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from pliant.spaces.cell_blocks import CONV_KERNELS
from pliant.workload import Layer, Operation

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target node of each edge, in the order of the benchmark's text."""
OUTPUT = 3
ZERO = "zero"
"""A product with zero that runs."""

Operations = tuple[str, ...]
"""Names of the operations, one per edge."""


def as_written(operations: Operations) -> Operations:
    """All operations run; `none` is a product with zero."""
    return tuple(ZERO if name == "none" else name for name in operations)


def unread_removed(operations: Operations) -> Operations:
    """Only operations that are read run, those on zeros among them."""
    read = {OUTPUT}
    for (source, target), name in reversed(list(zip(EDGES, operations, strict=True))):
        if name != "none" and target in read:
            read.add(source)
    return tuple(
        name if target in read else "none"
        for (_, target), name in zip(EDGES, operations, strict=True)
    )


def zeros_folded(operations: Operations) -> Operations:
    """What is read runs, and a convolution whose result is only multiplied by zero."""
    value = _node_values(operations)
    kept = {
        edge
        for edge, (source, _) in enumerate(EDGES)
        if operations[edge] not in ("none", "skip_connect")
        or (operations[edge] == "skip_connect" and value[source] != ZERO)
    }
    running = _read_by(OUTPUT, kept)
    folded = {
        edge
        for node in (1, 2)
        for edge in [value[node]]
        if isinstance(edge, int) and _is_only_multiplied_by_zero(node, operations)
    } - running
    if len(folded) == 1:  # the zeros of two convolutions are added up before they are multiplied
        [edge] = folded
        running |= folded | _read_by(EDGES[edge][0], kept)
    return tuple(name if edge in running else "none" for edge, name in enumerate(operations))


def _node_values(operations: Operations) -> dict[int, str | int]:
    """What each node is: `ZERO`, the edge of the convolution that it is the result of, or a sum."""
    value: dict[int, str | int] = {0: "image"}
    for node in (1, 2, 3):
        terms = [
            edge
            for edge, (source, target) in enumerate(EDGES)
            if target == node
            and operations[edge] != "none"
            and not (operations[edge] == "skip_connect" and value[source] == ZERO)
        ]
        if not terms:
            value[node] = ZERO
        elif len(terms) > 1:
            value[node] = "sum"
        elif operations[terms[0]] in CONV_KERNELS:
            value[node] = terms[0]
        elif operations[terms[0]] == "skip_connect":
            value[node] = value[EDGES[terms[0]][0]]
        else:
            value[node] = "pool"
    return value


def _read_by(node: int, kept: set[int]) -> set[int]:
    """The edges on paths to a node."""
    found = {edge for edge in kept if EDGES[edge][1] == node}
    for edge in list(found):
        found |= _read_by(EDGES[edge][0], kept)
    return found


def _is_only_multiplied_by_zero(node: int, operations: Operations) -> bool:
    readers = (edge for edge, (source, _) in enumerate(EDGES) if source == node)
    return all(operations[edge] == "none" for edge in readers)


GRAPHS: Mapping[str, Callable[[Operations], Operations]] = {
    "as written": as_written,
    "unread removed": unread_removed,
    "zeros folded": zeros_folded,
}


@cache
def operation_layer(name: str, channels: int, size: int) -> Layer | None:
    """The layer of one operation; None of those that compute nothing.

    Args:
        name: of the operation, or `ZERO`.
        channels: of input and output.
        size: height and width, in pixels.
    """
    loops: dict[str, Any] = {"P": size, "Q": size}
    if name in CONV_KERNELS:
        kernel = CONV_KERNELS[name]
        conv = Operation("conv", input_activation="relu")
        return Layer(
            name,
            "conv",
            ("x",),
            K=channels,
            C=channels,
            R=kernel,
            S=kernel,
            operation=conv,
            **loops,
        )
    if name == "avg_pool_3x3":
        pool = Operation("average_pool")
        return Layer(name, "pool", ("x",), G=channels, R=3, S=3, operation=pool, **loops)
    if name == ZERO:
        zero = Operation("zero")
        return Layer(name, "elementwise", ("x",), G=channels, operation=zero, **loops)
    return None


def cell_layers(operations: Sequence[str], channels: int, size: int) -> list[Layer]:
    """The layers of one cell of a graph, without the sums at its nodes."""
    found = (operation_layer(name, channels, size) for name in operations)
    return [layer for layer in found if layer is not None]
