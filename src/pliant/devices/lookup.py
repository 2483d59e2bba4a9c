"""The latency of any network of a space, from a table of its blocks measured once.

Blocks timed alone carry what a whole network does not pay at every joint: the cost of a call, and the reordering of tensors
at the borders. So the sum over blocks is corrected by a few coefficients fitted on whole networks, and the form of the
correction is chosen by leave-one-out error; a model of MACs, bytes and layers without any table competes, since it
sometimes wins. The error that is reported is of networks that nothing was fitted on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.stats import spearmanr

from pliant.errors import MeasurementError
from pliant.metrics import Cost
from pliant.spaces import blocks as block_types
from pliant.spaces.architecture import Architecture
from pliant.spaces.blocks import Block
from pliant.spaces.space import Space

Correction = Literal["scaled", "joints", "borders", "static"]
"""What the prediction is a linear combination of; see `_terms`."""

MOST_RESOLUTIONS = 4
"""Resolutions whose blocks are measured; between them a block's latency is interpolated over its pixels."""
FRUITLESS_DRAWS = 2000
MOST_DRAWS = 50_000


def block_key(block: Block) -> Block:
    """A block without its place: equal keys are measured once."""
    return dataclasses.replace(block, slot="")


def distinct_blocks(space: Space, rng: np.random.Generator) -> list[Block]:
    """The blocks of a space at up to four of its resolutions, found by drawing networks until no new one turns up."""
    resolutions = next((choice.options for choice in space.choices if choice.name == "r"), None)
    frozen = {}
    if resolutions is not None and len(resolutions) > MOST_RESOLUTIONS:
        picks = np.linspace(0, len(resolutions) - 1, MOST_RESOLUTIONS).round().astype(int)
        frozen["r"] = [resolutions[pick] for pick in picks]
    found: dict[Block, None] = {}
    fruitless = 0
    for architecture in (space.largest(), space.smallest()):
        found.update(dict.fromkeys(map(block_key, space.blocks(architecture))))
    for _ in range(MOST_DRAWS):
        before = len(found)
        # `layout`, not `blocks`: these networks are not asked for again, so they are not worth remembering.
        found.update(dict.fromkeys(map(block_key, space.layout(space.sample_choices(rng, frozen)))))
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == FRUITLESS_DRAWS:
            break
    return list(found)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a prediction did on networks that it was not fitted on."""

    networks: int
    mape_percent: float
    """Mean absolute error relative to the measured latency."""
    spearman: float
    macs_mape_percent: float
    """The same of a straight line over MACs fitted on the same networks: the bar to beat."""


@dataclass(frozen=True)
class LookupTable:
    """A cost model: parameters, MACs and memory by arithmetic, latency from measured blocks."""

    space: Space
    latency_us: Mapping[Block, float]
    """By block without slot, timed alone."""
    correction: Correction
    coefficients: tuple[float, ...]
    fit: Fit | None = None

    def __call__(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """The cost of each architecture, for one batch of the device's size.

        Raises:
            MeasurementError: a block that the table does not hold and cannot interpolate.
        """
        terms = np.array([_terms(self.correction, self, self.space.blocks(one)) for one in architectures]).reshape(len(architectures), -1)
        latencies = np.maximum(terms @ np.array(self.coefficients), 1e-6)
        return [
            dataclasses.replace(self.space.cost(architecture), latency_ms=float(latency))
            for architecture, latency in zip(architectures, latencies, strict=True)
        ]

    def block_ms(self, blocks: Sequence[Block]) -> list[float]:
        """What each block adds to its network's predicted latency, so that the parts add up to it."""
        parts = [np.dot(_terms(self.correction, self, [block]), self.coefficients) for block in blocks]
        return [float(part) for part in parts]

    def block_us(self, block: Block) -> float:
        """One block timed alone; between measured sizes by a straight line over pixels."""
        known = self._seen.get(block)
        if known is None:
            key = block_key(block)
            known = self._seen[block] = self.latency_us[key] if key in self.latency_us else self._between(key)
        return known

    @cached_property
    def _seen(self) -> dict[Block, float]:
        return {}

    @cached_property
    def _by_shape(self) -> Mapping[Block, list[tuple[int, float]]]:
        shapes: dict[Block, list[tuple[int, float]]] = {}
        for block, microseconds in self.latency_us.items():
            shapes.setdefault(_any_size(block), []).append((_pixels(block), microseconds))
        return {shape: sorted(points) for shape, points in shapes.items()}

    def _between(self, key: Block) -> float:
        points = self._by_shape.get(_any_size(key), [])
        if len(points) < 2:
            raise MeasurementError(f"the latency table has no block like {key}. Profile the device again for space {self.space.name!r}.")
        pixels, times = zip(*points, strict=True)
        return float(np.interp(_pixels(key), pixels, times))


def _any_size(block: Block) -> Block:
    changes: dict[str, Any] = {"size": 0}
    if isinstance(block, block_types.Preprocess):
        changes["resolution"] = 0
        changes["size"] = block.size
    return dataclasses.replace(block, **changes)


def _pixels(block: Block) -> int:
    return block.resolution**2 if isinstance(block, block_types.Preprocess) else block.size**2


def _terms(correction: Correction, table: LookupTable, blocks: Sequence[Block]) -> list[float]:
    """What the prediction of a network combines linearly: each term is a sum over blocks, in units near 1.

    scaled: milliseconds timed alone. joints: also the number of blocks. borders: also the numbers that blocks hand on.
    static: no table, but MACs, numbers moved and layers.
    """
    if correction == "static":
        costs = [block.cost for block in blocks]
        layers = [layer for block in blocks for layer in block.layers()]
        moved = sum(layer.output_elements + layer.parameters for layer in layers)
        return [sum(cost.macs for cost in costs) / 1e6, moved / 1e5, len(layers) / 10]
    alone_ms = sum(table.block_us(block) for block in blocks) / 1e3
    if correction == "scaled":
        return [alone_ms]
    if correction == "joints":
        return [alone_ms, len(blocks) / 100]
    return [alone_ms, len(blocks) / 100, sum(block.in_channels * block.size**2 for block in blocks) / 1e6]


def fit_table(
    space: Space, latency_us: Mapping[Block, float], networks: Sequence[Architecture], measured_ms: Sequence[float], held_out: int
) -> LookupTable:
    """Choose and fit the correction on whole networks, and report the error on the last `held_out` of them.

    Args:
        networks: in random order; all but the last `held_out` are fitted on.
    """
    fitted, measured = len(networks) - held_out, np.array(measured_ms)
    best: tuple[float, LookupTable] | None = None
    corrections: tuple[Correction, ...] = ("scaled", "joints", "borders", "static")
    for correction in corrections:
        bare = LookupTable(space, latency_us, correction, ())
        terms = np.array([_terms(correction, bare, space.blocks(one)) for one in networks])
        error = _leave_one_out(terms[:fitted], measured[:fitted])
        if best is None or error < best[0]:
            coefficients = _relative_least_squares(terms[:fitted], measured[:fitted])
            best = (error, LookupTable(space, latency_us, correction, tuple(float(c) for c in coefficients)))
    assert best is not None
    table = best[1]
    predicted = np.array([cost.latency_ms for cost in table(networks)])
    macs = np.array([[(space.cost(one).macs or 0) / 1e6, 1.0] for one in networks])
    line = macs @ _relative_least_squares(macs[:fitted], measured[:fitted])
    fit = Fit(
        networks=held_out,
        mape_percent=mape_percent(predicted[fitted:], measured[fitted:]),
        spearman=float(spearmanr(predicted[fitted:], measured[fitted:]).statistic) if held_out > 2 else float("nan"),
        macs_mape_percent=mape_percent(line[fitted:], measured[fitted:]),
    )
    return dataclasses.replace(table, fit=fit)


def mape_percent(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute error relative to what was measured, in percent."""
    return float(100 * np.mean(np.abs(predicted / measured - 1)))


def _relative_least_squares(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Coefficients with the least squared relative error."""
    return np.linalg.lstsq(terms / measured[:, None], np.ones(len(measured)), rcond=None)[0]


def _leave_one_out(terms: np.ndarray, measured: np.ndarray) -> float:
    errors = []
    for left_out in range(len(measured)):
        kept = np.arange(len(measured)) != left_out
        coefficients = _relative_least_squares(terms[kept], measured[kept])
        errors.append(abs(terms[left_out] @ coefficients / measured[left_out] - 1))
    return float(np.mean(errors))


def spread_networks(space: Space, count: int, rng: np.random.Generator, pool: int = 400) -> list[Architecture]:
    """Random networks spread evenly over the MACs of the space, in random order; all different where the space has as many."""
    drawn = list(dict.fromkeys(space.sample_choices(rng) for _ in range(pool)))
    drawn.sort(key=lambda one: (space.cost(one).macs, str(one)))
    picks = np.unique(np.linspace(0, len(drawn) - 1, min(count, len(drawn))).round().astype(int))
    return [drawn[pick] for pick in rng.permutation(picks)]
