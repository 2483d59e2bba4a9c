"""Predicts the latency of any network of a space from a lookup table of measured blocks.

The latency of a network is not the sum of its blocks' latencies in isolation: an isolated block
reorders its input and output tensors, which consecutive blocks of a network do not, and its weights
stay in the caches. The sum is therefore corrected by a few coefficients fitted on whole networks;
the form of the correction is selected by leave-one-out error. An additive model of MACs, elements
moved and layers, without a table, is among the candidates, since it sometimes has the lowest error.
The reported error is of held-out networks that no coefficient was fitted on.

A table is bounded: of many resolutions a few are measured. The latency of a block between them is
interpolated over its number of pixels; that of a block whose shape was never measured is estimated
by the additive model, fitted on the table's blocks of its type.

Cai, H., Zhu, L. and Han, S., ProxylessNAS: direct neural architecture search on target task and
hardware, 2019, arXiv:1812.00332 (latency tables of blocks).
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
from pliant.spaces.block import Block
from pliant.spaces.input_output_blocks import Preprocess
from pliant.spaces.space import Space

Correction = Literal["scaled", "per_block_overhead", "boundary_traffic", "additive"]
"""Form of the linear model that predicts the latency of a network; see `block_terms`."""
CORRECTIONS: Mapping[Correction, int] = {
    "scaled": 1,
    "per_block_overhead": 2,
    "boundary_traffic": 3,
    "additive": 3,
}
"""Number of coefficients of each; of two with equal error the earlier one is kept."""

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


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """Error of the predicted latencies on held-out networks."""

    networks: int
    mape_percent: float
    """Mean absolute percentage error."""
    within_10_percent: float
    """Share of the networks whose latency is predicted within 10 %."""
    spearman: float
    macs_mape_percent: float
    """Mean absolute percentage error of the baseline: linear regression on MACs."""


@dataclass(frozen=True)
class LookupTable:
    """A cost model: latency from measured blocks; parameters, MACs and memory from the layers."""

    space: Space
    latency_us: Mapping[Block, float]
    """Latency of each block (without slot) in isolation, without dispatch overhead."""
    correction: Correction
    coefficients: tuple[float, ...]
    held_out_error: HeldOutError | None = None

    def __call__(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """The cost of each architecture; the latency is of one batch of the profile's size.

        Raises:
            MeasurementError: the table has no block of some block's type.
        """
        return [
            dataclasses.replace(self.space.cost(one), latency_ms=self._latency_ms(one))
            for one in architectures
        ]

    def _latency_ms(self, architecture: Architecture) -> float:
        return max(sum(self._added_ms(self.space.blocks(architecture))), MIN_LATENCY_MS)

    def block_ms(self, blocks: Sequence[Block]) -> list[float]:
        """Each block's share of the predicted latency of its network, never below 0.

        A fitted correction may take more from a small block than it has, since overhead that
        timings in isolation repeat is not repeated inside a network. Then the correction is shared
        out in proportion to the latencies in isolation; the sum stays the prediction.
        """
        added = self._added_ms(blocks)
        if min(added) >= 0:
            return added
        alone = [self.block_us(block) for block in blocks]
        total = max(sum(added), MIN_LATENCY_MS)
        return [total * one / sum(alone) for one in alone]

    def _added_ms(self, blocks: Sequence[Block]) -> list[float]:
        """What each block adds to the prediction; with a free fit it may be negative."""
        known = self._contributions_ms
        for block in blocks:
            if block not in known:
                known[block] = float(
                    np.dot(block_terms(self.correction, self, block), self.coefficients)
                )
        return [known[block] for block in blocks]

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

    @cached_property
    def _contributions_ms(self) -> dict[Block, float]:
        return {}

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
        terms = np.array([_additive_terms(block) for block, _ in alike])
        coefficients = _positive_fit(terms, np.array([microseconds for _, microseconds in alike]))
        return float(np.dot(_additive_terms(key), coefficients))


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
    boundary_traffic: also the elements of each block's input. additive: MACs, elements moved and
    number of layers, without the table.
    """
    if correction == "additive":
        return _additive_terms(block)
    terms = [table.block_us(block) / 1e3, 1 / 100, block.in_channels * block.size**2 / 1e6]
    return terms[: CORRECTIONS[correction]]


def _additive_terms(block: Block) -> list[float]:
    layers = block.layers()
    moved = sum(layer.output_elements + layer.parameters for layer in layers)
    return [block.cost.macs / 1e6, moved / 1e5, len(layers) / 10]


def _network_terms(
    correction: Correction, table: LookupTable, networks: Sequence[Architecture]
) -> np.ndarray:
    """The features of whole networks: shape (networks, coefficients)."""
    known: dict[Block, np.ndarray] = {}
    rows = []
    for network in networks:
        blocks = table.space.blocks(network)
        known |= {
            block: np.array(block_terms(correction, table, block))
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
    """Select and fit the correction on whole networks.

    Args:
        space: the one that the blocks and networks are of.
        latency_us: latency of each block (without slot) in isolation.
        networks: in random order.
        measured_ms: latency of each network.
        held_out: how many of the last networks to hold out from the fit, for the reported error.
    """
    fitted, measured = len(networks) - held_out, np.array(measured_ms)
    best: tuple[float, LookupTable] | None = None
    for correction, size in CORRECTIONS.items():
        if size >= fitted > 1:
            continue  # with as many coefficients as networks, the error is no evidence
        bare = LookupTable(space, latency_us, correction, ())
        terms = _network_terms(correction, bare, networks[:fitted])
        fit = _positive_fit if correction == "additive" else _free_fit
        error = _leave_one_out(fit, terms, measured[:fitted])
        if best is None or error < best[0]:
            best = (
                error,
                dataclasses.replace(
                    bare, coefficients=tuple(map(float, fit(terms, measured[:fitted])))
                ),
            )
    assert best is not None
    return dataclasses.replace(
        best[1], held_out_error=_evaluate(best[1], networks, measured, held_out)
    )


def _evaluate(
    table: LookupTable, networks: Sequence[Architecture], measured: np.ndarray, held_out: int
) -> HeldOutError:
    """The error on the last `held_out` networks; NaN where these are too few."""
    fitted = len(networks) - held_out
    unseen = networks[fitted:]
    predicted = np.array([cost.latency_ms for cost in table(unseen)])
    line = macs_line(table.space, networks[:fitted], measured[:fitted], unseen)
    return held_out_error(predicted, line, measured[fitted:])


def held_out_error(predicted: np.ndarray, line: np.ndarray, measured: np.ndarray) -> HeldOutError:
    """The error of predictions for held-out networks; NaN where these are too few.

    Args:
        predicted: latencies, shape (networks,).
        line: those of linear regression on MACs.
        measured: those that were measured.
    """
    networks = len(measured)
    if not networks:
        return HeldOutError(0, *[float("nan")] * 4)
    return HeldOutError(
        networks=networks,
        mape_percent=mape_percent(predicted, measured),
        within_10_percent=float(np.mean(np.abs(predicted / measured - 1) <= 0.1)),
        spearman=float(spearmanr(predicted, measured).statistic) if networks > 2 else float("nan"),
        macs_mape_percent=mape_percent(line, measured),
    )


def macs_line(
    space: Space,
    networks: Sequence[Architecture],
    measured_ms: np.ndarray,
    unseen: Sequence[Architecture],
) -> np.ndarray:
    """Latencies by linear regression on MACs, the baseline of every predictor.

    Args:
        space: of all networks.
        networks: that it is fitted on.
        measured_ms: latency of each of these.
        unseen: that it predicts.
    """
    known, new = (
        np.array([[(space.cost(one).macs or 0) / 1e6, 1.0] for one in some])
        for some in (networks, unseen)
    )
    line: np.ndarray = new.reshape(-1, 2) @ _free_fit(known, measured_ms)
    return line


def mape_percent(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute percentage error of predictions."""
    return float(100 * np.mean(np.abs(predicted / measured - 1)))


def _free_fit(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Least-squares coefficients for the relative error."""
    return np.linalg.lstsq(terms / measured[:, None], np.ones(len(measured)), rcond=None)[0]


def _positive_fit(terms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Non-negative least squares for the relative error: no work takes negative time."""
    found: np.ndarray = nnls(terms / measured[:, None], np.ones(len(measured)))[0]
    return found


def _leave_one_out(
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray], terms: np.ndarray, measured: np.ndarray
) -> float:
    """Mean relative error of each network under a fit on the others; 0 for a single network."""
    errors = [0.0]
    for left_out in range(len(measured) if len(measured) > 1 else 0):
        kept = np.arange(len(measured)) != left_out
        errors.append(
            abs(terms[left_out] @ fit(terms[kept], measured[kept]) / measured[left_out] - 1)
        )
    return float(np.sum(errors) / len(measured))


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
