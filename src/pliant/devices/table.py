"""Latencies of measured blocks, and what of a block the latency of a whole network depends on.

The latency of a network is not the sum of its blocks' latencies in isolation: an isolated block
reorders its input and output tensors, which consecutive blocks of a network do not, and its weights
stay in the caches. The sum is therefore corrected by a few coefficients fitted on whole networks
(`devices.ladder`); `block_terms` has the columns.

A table is bounded: of many resolutions a few are measured. The latency of a block between them is
interpolated over its number of pixels; that of a block whose shape was never measured is estimated
by MACs, elements moved and layers, fitted on the table's blocks of its type.

Cai, H., Zhu, L. and Han, S., ProxylessNAS: direct neural architecture search on target task and
hardware, 2019, arXiv:1812.00332 (latency tables of blocks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls

from pliant.errors import MeasurementError
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.input_output_blocks import Preprocess
from pliant.spaces.space import Space

Correction = Literal["scaled", "per_block_overhead", "boundary_traffic"]
"""Form of the linear model that predicts the latency of a network; see `block_terms`."""
CORRECTIONS: Mapping[Correction, int] = {
    "scaled": 1,
    "per_block_overhead": 2,
    "boundary_traffic": 3,
}
"""Number of coefficients of each."""

MAX_RESOLUTIONS = 4
"""Number of resolutions whose blocks are measured; latencies between them are interpolated."""
MAX_BLOCKS = 800
"""Number of blocks that are measured, so that a profile takes minutes.

Residual and mobile spaces have fewer; cell spaces have tens of thousands.
"""
MIN_LATENCY_MS = 1e-6
"""Predictions are at least a nanosecond, even where a coefficient is negative."""
MAX_DRAWS_WITHOUT_NEW = 2000
"""Sampling stops after this many networks in a row without a new block."""
MAX_DRAWS = 50_000
"""Number of networks that are sampled to find the blocks of a space."""


def block_key(block: Block) -> Block:
    """A block without its slot: blocks with equal keys are measured once."""
    return dataclasses.replace(block, slot="")


def distinct_blocks(space: Space, rng: np.random.Generator) -> list[Block]:
    """The blocks of a space at up to `MAX_RESOLUTIONS` resolutions, without slots.

    They are found by sampling networks until no new block appears, or until there are `MAX_BLOCKS`
    of them; the last network may add a few more.
    """
    resolution = next(
        (choice for choice in space.choices if choice.dimension == "resolution"), None
    )
    frozen = {}
    found: dict[Block, None] = {}
    fruitless = 0
    for architecture in (space.largest(), space.smallest()):
        found.update(dict.fromkeys(map(block_key, space.blocks(architecture))))
    if resolution is not None and len(resolution.options) > MAX_RESOLUTIONS:
        picks = np.linspace(0, len(resolution.options) - 1, MAX_RESOLUTIONS).round().astype(int)
        frozen[resolution.name] = [resolution.options[pick] for pick in picks]
        for option in resolution.options:
            # Resizing is measured at every resolution: it costs nothing at the image's own size, so
            # its latency is not continuous there and cannot be interpolated.
            blocks = space.layout(space.sample_choices(rng, {resolution.name: [option]}))
            found.update(
                dict.fromkeys(block_key(block) for block in blocks if isinstance(block, Preprocess))
            )
    for _ in range(MAX_DRAWS):
        before = len(found)
        # `layout`, not `blocks`: these networks are used once, so they need not be cached.
        found.update(dict.fromkeys(map(block_key, space.layout(space.sample_choices(rng, frozen)))))
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == MAX_DRAWS_WITHOUT_NEW or len(found) >= MAX_BLOCKS:
            break
    return list(found)


@dataclass(frozen=True)
class LookupTable:
    """The latency of every block of a space, from those that were measured in isolation."""

    space: Space
    latency_us: Mapping[Block, float]
    """Latency of each block (without slot) in isolation, without dispatch overhead."""

    def block_us(self, block: Block) -> float:
        """Latency of one block in isolation: measured, interpolated or estimated, in this order.

        Raises:
            MeasurementError: the table has no block of this type.
        """
        key = block_key(block)
        if key in self.latency_us:
            return self.latency_us[key]
        points = self._by_shape.get(_any_size(key), [])
        if len(points) > 1:
            pixels, times = zip(*points, strict=True)
            return float(np.interp(_pixels(key), pixels, times))
        return self._estimate_us(key)

    def is_measured(self, block: Block) -> bool:
        """Whether the latency of a block was measured, or is interpolated between such."""
        key = block_key(block)
        return key in self.latency_us or len(self._by_shape.get(_any_size(key), [])) > 1

    @cached_property
    def _by_shape(self) -> Mapping[Block, list[tuple[int, float]]]:
        shapes: dict[Block, list[tuple[int, float]]] = {}
        for block, microseconds in self.latency_us.items():
            shapes.setdefault(_any_size(block), []).append((_pixels(block), microseconds))
        return {shape: sorted(points) for shape, points in shapes.items()}

    def _estimate_us(self, key: Block) -> float:
        """By the additive model, fitted on the measured blocks of the same type."""
        alike = [
            (block, microseconds)
            for block, microseconds in self.latency_us.items()
            if type(block) is type(key)
        ]
        if not alike:
            raise MeasurementError(
                "a latency table has every type of block of its space; this one has no "
                f"{type(key).__name__}. Profile the device again for space {self.space.name!r}."
            )
        terms = np.array([_work(block) for block, _ in alike])
        measured = np.array([microseconds for _, microseconds in alike])
        # Non-negative, for the relative error: no work takes negative time.
        coefficients = nnls(terms / measured[:, None], np.ones(len(measured)))[0]
        return float(np.dot(_work(key), coefficients))


def _any_size(block: Block) -> Block:
    changes: dict[str, Any] = {"size": 0}
    if isinstance(block, Preprocess):
        changes["resolution"] = 0
        changes["size"] = block.size
    return dataclasses.replace(block, **changes)


def _pixels(block: Block) -> int:
    return block.resolution**2 if isinstance(block, Preprocess) else block.size**2


def block_terms(correction: Correction, table: LookupTable, block: Block) -> list[float]:
    """The features of one block, scaled to magnitudes near 1; those of a network are their sums.

    scaled: latency in isolation, in milliseconds. per_block_overhead: also the number of blocks.
    boundary_traffic: also the elements of each block's input.
    """
    terms = [table.block_us(block) / 1e3, 1 / 100, block.in_channels * block.size**2 / 1e6]
    return terms[: CORRECTIONS[correction]]


def _work(block: Block) -> list[float]:
    """MACs, elements moved and number of layers."""
    layers = block.layers()
    moved = sum(layer.output_elements + layer.parameters for layer in layers)
    return [block.cost.macs / 1e6, moved / 1e5, len(layers) / 10]


def sample_evenly_by_macs(
    space: Space, count: int, rng: np.random.Generator, pool: int = 400
) -> list[Architecture]:
    """Distinct random networks, evenly spaced over the MACs of a sample, in random order.

    Args:
        space: to sample from.
        count: number of networks; fewer if the pool has fewer distinct ones.
        rng: draws the pool and the order.
        pool: number of networks that are sampled to select from.
    """
    drawn = list(dict.fromkeys(space.sample_choices(rng) for _ in range(pool)))
    drawn.sort(key=lambda one: (space.cost(one).macs, str(one)))
    picks = np.unique(np.linspace(0, len(drawn) - 1, min(count, len(drawn))).round().astype(int))
    return [drawn[pick] for pick in rng.permutation(picks)]
