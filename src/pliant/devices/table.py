"""The latency of any network of a space, from a table of its blocks measured once.

Blocks timed alone carry what a whole network does not pay at every joint: the reordering of tensors at the borders, and weights
that stay in the caches. So the sum over blocks is corrected by a few coefficients fitted on whole networks, and the form of the
correction is chosen by leave-one-out error; a model of MACs, bytes and layers without any table competes, since it
sometimes wins. The error that is reported is of networks that nothing was fitted on.

A table is bounded: of many resolutions a few are measured. A block between them is interpolated over its pixels; one of a shape
that was never measured is estimated by a fit of MACs and numbers moved over the table's blocks of its type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from pliant.errors import MeasurementError
from pliant.metrics import Cost
from pliant.spaces.architecture import Architecture
from pliant.spaces.blocks import Block, Preprocess
from pliant.spaces.space import Space

Correction = Literal["scaled", "joints", "borders", "static"]
"""What the prediction is a linear combination of; see `_terms`."""
CORRECTIONS: Mapping[Correction, int] = {"scaled": 1, "joints": 2, "borders": 3, "static": 3}
"""Number of coefficients of each; of two that do equally well the earlier one is kept."""

MOST_RESOLUTIONS = 4
"""Resolutions whose blocks are measured; between them a block's latency is interpolated over its pixels."""
MOST_BLOCKS = 800
"""Blocks that are measured, so that a profile takes minutes. Residual and mobile spaces have fewer; cells have tens of thousands."""
LEAST_MS = 1e-6
"""No prediction is below a nanosecond, whatever a correction subtracts."""
FRUITLESS_DRAWS = 2000
MOST_DRAWS = 50_000


def block_key(block: Block) -> Block:
    """A block without its place: equal keys are measured once."""
    return dataclasses.replace(block, slot="")


def distinct_blocks(space: Space, rng: np.random.Generator) -> list[Block]:
    """The blocks of a space at up to four of its resolutions, found by drawing networks until no new one turns up.

    At most `MOST_BLOCKS` and what the last network adds.
    """
    resolution = next(
        (choice for choice in space.choices if choice.dimension == "resolution"), None
    )
    frozen = {}
    found: dict[Block, None] = {}
    fruitless = 0
    for architecture in (space.largest(), space.smallest()):
        found.update(dict.fromkeys(map(block_key, space.blocks(architecture))))
    if resolution is not None and len(resolution.options) > MOST_RESOLUTIONS:
        picks = np.linspace(0, len(resolution.options) - 1, MOST_RESOLUTIONS).round().astype(int)
        frozen[resolution.name] = [resolution.options[pick] for pick in picks]
        for option in resolution.options:
            # Resizing at all of them: the image's own size needs none, so between it and the next one the time jumps.
            blocks = space.layout(space.sample_choices(rng, {resolution.name: [option]}))
            found.update(
                dict.fromkeys(block_key(block) for block in blocks if isinstance(block, Preprocess))
            )
    for _ in range(MOST_DRAWS):
        before = len(found)
        # `layout`, not `blocks`: these networks are not asked for again, so they are not worth remembering.
        found.update(dict.fromkeys(map(block_key, space.layout(space.sample_choices(rng, frozen)))))
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == FRUITLESS_DRAWS or len(found) >= MOST_BLOCKS:
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
    """By block without slot, timed alone, without the cost of a call."""
    correction: Correction
    coefficients: tuple[float, ...]
    fit: Fit | None = None

    def __call__(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """The cost of each architecture; the latency is that of one batch of the device's size.

        Raises:
            MeasurementError: a block of a type that the table does not hold.
        """
        return [
            dataclasses.replace(self.space.cost(one), latency_ms=self._latency_ms(one))
            for one in architectures
        ]

    def _latency_ms(self, architecture: Architecture) -> float:
        return max(sum(self.block_ms(self.space.blocks(architecture))), LEAST_MS)

    def block_ms(self, blocks: Sequence[Block]) -> list[float]:
        """What each block adds to its network's predicted latency, so that the parts add up to it."""
        known = self._parts_ms
        for block in blocks:
            if block not in known:
                known[block] = float(
                    np.dot(_terms(self.correction, self, block), self.coefficients)
                )
        return [known[block] for block in blocks]

    def block_us(self, block: Block) -> float:
        """One block timed alone, measured or estimated as this module says.

        Raises:
            MeasurementError: a block of a type that the table does not hold.
        """
        key = block_key(block)
        if key in self.latency_us:
            return self.latency_us[key]
        points = self._by_shape.get(_any_size(key), [])
        if len(points) > 1:
            pixels, times = zip(*points, strict=True)
            return float(np.interp(_pixels(key), pixels, times))
        return self._of_type(key)

    @cached_property
    def _parts_ms(self) -> dict[Block, float]:
        return {}

    @cached_property
    def _by_shape(self) -> Mapping[Block, list[tuple[int, float]]]:
        shapes: dict[Block, list[tuple[int, float]]] = {}
        for block, microseconds in self.latency_us.items():
            shapes.setdefault(_any_size(block), []).append((_pixels(block), microseconds))
        return {shape: sorted(points) for shape, points in shapes.items()}

    def _of_type(self, key: Block) -> float:
        alike = [
            (block, microseconds)
            for block, microseconds in self.latency_us.items()
            if type(block) is type(key)
        ]
        if not alike:
            raise MeasurementError(
                f"a latency table holds every type of block of its space; it has no {type(key).__name__}. "
                f"Profile the device again for space {self.space.name!r}."
            )
        terms = np.array([_static_terms(block) for block, _ in alike])
        coefficients = _positive_fit(terms, np.array([microseconds for _, microseconds in alike]))
        return float(np.dot(_static_terms(key), coefficients))


def _any_size(block: Block) -> Block:
    changes: dict[str, Any] = {"size": 0}
    if isinstance(block, Preprocess):
        changes["resolution"] = 0
        changes["size"] = block.size
    return dataclasses.replace(block, **changes)


def _pixels(block: Block) -> int:
    return block.resolution**2 if isinstance(block, Preprocess) else block.size**2


def _terms(correction: Correction, table: LookupTable, block: Block) -> list[float]:
    """What one block adds to each term that the prediction of a network combines linearly, in units near 1.

    scaled: milliseconds timed alone. joints: also the number of blocks. borders: also the numbers that blocks hand on.
    static: no table, but MACs, numbers moved and layers.
    """
    if correction == "static":
        return _static_terms(block)
    terms = [table.block_us(block) / 1e3, 1 / 100, block.in_channels * block.size**2 / 1e6]
    return terms[: CORRECTIONS[correction]]


def _static_terms(block: Block) -> list[float]:
    layers = block.layers()
    moved = sum(layer.output_elements + layer.parameters for layer in layers)
    return [block.cost.macs / 1e6, moved / 1e5, len(layers) / 10]


def _network_terms(
    correction: Correction, table: LookupTable, networks: Sequence[Architecture]
) -> np.ndarray:
    """Shape (networks, coefficients)."""
    known: dict[Block, np.ndarray] = {}
    rows = []
    for network in networks:
        blocks = table.space.blocks(network)
        known |= {
            block: np.array(_terms(correction, table, block))
            for block in blocks
            if block not in known
        }
        rows.append(sum(known[block] for block in blocks))
    return np.array(rows)


def fit_table(
    space: Space,
    latency_us: Mapping[Block, float],
    networks: Sequence[Architecture],
    measured_ms: Sequence[float],
    held_out: int,
) -> LookupTable:
    """Choose and fit the correction on whole networks, and report the error on the last `held_out` of them.

    Args:
        networks: in random order; all but the last `held_out` are fitted on.
    """
    fitted, measured = len(networks) - held_out, np.array(measured_ms)
    best: tuple[float, LookupTable] | None = None
    for correction, size in CORRECTIONS.items():
        if size >= fitted > 1:
            continue  # as many coefficients as networks say nothing
        bare = LookupTable(space, latency_us, correction, ())
        terms = _network_terms(correction, bare, networks[:fitted])
        fit = _positive_fit if correction == "static" else _free_fit
        error = _leave_one_out(fit, terms, measured[:fitted])
        if best is None or error < best[0]:
            best = (
                error,
                dataclasses.replace(
                    bare, coefficients=tuple(map(float, fit(terms, measured[:fitted])))
                ),
            )
    assert best is not None
    return dataclasses.replace(best[1], fit=_judge(best[1], networks, measured, held_out))


def _judge(
    table: LookupTable, networks: Sequence[Architecture], measured: np.ndarray, held_out: int
) -> Fit:
    """The error on the last `held_out` networks; NaN where there are too few to say."""
    fitted = len(networks) - held_out
    costs = table(networks)
    macs = np.array([[(cost.macs or 0) / 1e6, 1.0] for cost in costs])
    line = macs @ _free_fit(macs[:fitted], measured[:fitted])
    predicted = np.array([cost.latency_ms for cost in costs])
    return Fit(
        networks=held_out,
        mape_percent=mape_percent(predicted[fitted:], measured[fitted:])
        if held_out
        else float("nan"),
        spearman=float(spearmanr(predicted[fitted:], measured[fitted:]).statistic)
        if held_out > 2
        else float("nan"),
        macs_mape_percent=mape_percent(line[fitted:], measured[fitted:])
        if held_out
        else float("nan"),
    )


def mape_percent(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute error relative to what was measured, in percent."""
    return float(100 * np.mean(np.abs(predicted / measured - 1)))


def _free_fit(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Coefficients with the least squared relative error."""
    return np.linalg.lstsq(terms / measured[:, None], np.ones(len(measured)), rcond=None)[0]


def _positive_fit(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The same with coefficients from 0 up: work that takes less than no time is noise."""
    found: np.ndarray = nnls(terms / measured[:, None], np.ones(len(measured)))[0]
    return found


def _leave_one_out(
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray], terms: np.ndarray, measured: np.ndarray
) -> float:
    """Mean relative error of each network under a fit of the others; 0 for a single one, which leaves nothing to fit."""
    errors = [0.0]
    for left_out in range(len(measured) if len(measured) > 1 else 0):
        kept = np.arange(len(measured)) != left_out
        errors.append(
            abs(terms[left_out] @ fit(terms[kept], measured[kept]) / measured[left_out] - 1)
        )
    return float(np.sum(errors) / len(measured))


def spread_networks(
    space: Space, count: int, rng: np.random.Generator, pool: int = 400
) -> list[Architecture]:
    """Random networks spread evenly over the MACs of the space, in random order; all different where the space has as many."""
    drawn = list(dict.fromkeys(space.sample_choices(rng) for _ in range(pool)))
    drawn.sort(key=lambda one: (space.cost(one).macs, str(one)))
    picks = np.unique(np.linspace(0, len(drawn) - 1, min(count, len(drawn))).round().astype(int))
    return [drawn[pick] for pick in rng.permutation(picks)]
