"""Random layers and mappings of the whole class, small enough to walk step by step.

Strides, dilation, groups, depthwise, pooling and element-wise layers, ragged edges at every level,
bypass, any order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import Mapping
from pliant.workload import Kind, Layer

_LARGEST = (2, 2, 5, 5, 7, 5, 4, 3)
_KINDS: tuple[Kind, ...] = ("conv", "conv", "conv", "matmul", "pool", "elementwise")


def random_layer(generator: np.random.Generator) -> Layer:
    """A layer of at most some thousand operations."""
    kind = _KINDS[generator.integers(len(_KINDS))]
    sizes = dict(
        zip(DIMS, (int(generator.integers(1, largest + 1)) for largest in _LARGEST), strict=True)
    )
    if kind in ("pool", "elementwise") or (kind == "conv" and generator.random() < 0.3):
        sizes |= {"K": 1, "C": 1, "G": int(generator.integers(1, 5))}
    if kind in ("matmul", "elementwise"):
        sizes |= {"R": 1, "S": 1}
    stride, dilation, other_stride, other_dilation = (
        int(value) for value in generator.integers(1, 4, size=4)
    )
    inputs = ("image",) * (2 if kind == "elementwise" else 1)
    layer = Layer(
        "random", kind, inputs, strides=(stride, other_stride), dilations=(dilation, other_dilation)
    )
    return replace(layer, **sizes)  # type: ignore[arg-type]


def random_mapping(layer: Layer, generator: np.random.Generator) -> Mapping:
    """A mapping of the layer on one axis without limits; its factors need not divide anything."""
    levels: list[list[int]] = [[], [], [], []]
    for dim in DIMS:
        rest = int(getattr(layer, dim))
        for level in levels[:3]:
            factor = int(generator.integers(1, rest + 1)) if generator.random() < 0.6 else 1
            level.append(factor)
            rest = math.ceil(rest / factor)
        levels[3].append(rest)
    register, spatial, buffer, dram = (cast(Any, tuple(level)) for level in levels)
    orders = ["".join(generator.permutation(list(DIMS))) for _ in range(2)]
    bypass = "".join(tensor for tensor in "WIO" if generator.random() < 0.25)
    return Mapping(register, (spatial,), buffer, dram, orders[0], orders[1], bypass)


def random_nest(
    generator: np.random.Generator, most_steps: int = 400, most_operations: int = 6000
) -> tuple[Layer, Mapping]:
    """A layer and a mapping that can be walked in milliseconds."""
    while True:
        layer = random_layer(generator)
        mapping = random_mapping(layer, generator)
        steps = math.prod(mapping.buffer) * math.prod(mapping.dram)
        if (
            steps <= most_steps
            and math.prod(getattr(layer, dim) for dim in DIMS) <= most_operations
        ):
            return layer, mapping
