"""Predicts the latency of networks on a device from whatever was measured there.

The more was measured, the more a model may have to learn: the ladder has a rung for each amount.

- roofline: the bound of two numbers from a data sheet, with no sample at all; from three networks
  on times a fitted factor;
- additive: non-negative costs per MAC, per number moved, per layer and per operator, from about
  five networks on;
- block table: measured blocks, with a correction fitted on three networks or more;
- residual: what the better of the two misses, by ridge regression or a Gaussian process from
  thirty networks on, and by boosted trees from a hundred on;
- transfer: the predictions of devices that are known already (see `transfer`).

The rung, and within it the graph and the columns that are counted, is the one with the lowest
cross-validated error. Its errors on held-out networks are also what its intervals are made of.

L. L. Zhang et al., "nn-Meter: towards accurate latency prediction of deep-learning model inference
on diverse edge devices", 2021, doi:10.1145/3458864.3467882 (features of what a runtime really
runs). L. Dudziak et al., "BRP-NAS: prediction-based NAS using GCNs", 2020, arXiv:2007.08668
(learned latency predictors, and the lookup tables that they are compared with).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import numpy as np
from scipy.stats import spearmanr

from pliant.devices.features import NETWORK, TOTALS, BlockSums, LayerCounts
from pliant.devices.interval import Interval, log_errors
from pliant.devices.regression import (
    Fit,
    Predict,
    fit_boosted_trees,
    fit_gaussian_process,
    fit_least_squares,
    fit_non_negative,
    fit_ridge,
)
from pliant.devices.table import (
    CORRECTIONS,
    MIN_LATENCY_MS,
    Correction,
    LookupTable,
    block_terms,
)
from pliant.devices.transfer import choose_networks, fit_transfer
from pliant.errors import MeasurementError
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.space import Space

Milliseconds = Callable[[Sequence[Architecture]], np.ndarray]
"""Architectures in; latencies out, shape (architectures,)."""

MIN_SCALED = 3
MIN_ADDITIVE = 5
MIN_TRANSFER = 5
MIN_RESIDUAL = 30
MIN_TREES = 100
"""Networks from which on a rung is tried."""
NETWORKS_PER_COLUMN = 2
"""An additive model with more columns per network is not tried, but for the first one."""
LEAVE_ONE_OUT = 20
"""Up to this many networks each is held out alone; of more, a tenth at a time."""
FOLDS = 10
CANDIDATES = 1000
"""Random networks of which those to measure are chosen."""
DECIMALS = 9
"""Of a residual, which is a logarithm."""
EXACT = 1e-9
"""A relative error at which nothing is left to learn."""


@dataclass(frozen=True)
class DeviceRows:
    """What was measured on a device, and what is known of it besides.

    Args:
        networks: that were measured.
        latency_ms: of each of them.
        block_us: latency of blocks (without slot) in isolation; empty where there is no table.
        bound_ms: a lower bound of latency, such as a roofline; None where there is none.
        sources: predictions of devices that are known already, by name.

    Raises:
        MeasurementError: as many latencies as networks are needed, all of them positive numbers.
    """

    networks: Sequence[Architecture]
    latency_ms: Sequence[float]
    block_us: Mapping[Block, float] = field(default_factory=dict)
    bound_ms: Milliseconds | None = None
    sources: Mapping[str, Milliseconds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.networks) != len(self.latency_ms):
            raise MeasurementError(
                f"each network has one latency, received {len(self.networks)} networks and "
                f"{len(self.latency_ms)} latencies. Leave out what was not measured."
            )
        for one, latency in zip(self.networks, self.latency_ms, strict=True):
            if not (latency > 0 and math.isfinite(latency)):
                raise MeasurementError(
                    f"a latency is a number above 0, received {latency} ms of {one}. Leave it out."
                )


@dataclass(frozen=True)
class Rung:
    """One model that was tried, and its error on networks that it was not fitted on."""

    name: str
    mape_percent: float
    """Mean absolute percentage error by cross-validation; NaN where nothing was measured."""


@dataclass(frozen=True)
class _Model:
    """Columns of networks, and the regression from them to milliseconds."""

    name: str
    columns: Callable[[Sequence[Architecture]], np.ndarray]
    fit: Fit


@dataclass(frozen=True)
class Predictor:
    """Latency of any network of a space on one device.

    Args:
        space: of the networks.
        rung: the model that was selected.
        rungs: the best model of every rung that was tried, simplest first.
        networks: how many networks it was fitted on.
        interval: of its predictions; without errors where nothing was measured.
    """

    space: Space
    rung: str
    rungs: tuple[Rung, ...]
    networks: int
    interval: Interval
    _columns: Callable[[Sequence[Architecture]], np.ndarray] = field(repr=False)
    _predict: Predict = field(repr=False)
    _rows: DeviceRows = field(repr=False)

    @property
    def mape_percent(self) -> float:
        """Mean absolute percentage error by cross-validation; NaN where nothing was measured."""
        return next(one.mape_percent for one in self.rungs if one.name == self.rung)

    @property
    def spearman(self) -> float:
        """Rank correlation of measured latencies and those predicted on held-out networks."""
        if self.networks < MIN_SCALED:
            return math.nan
        measured = np.array(self._rows.latency_ms)
        held_out = measured / np.exp(self.interval.log_errors)
        return float(spearmanr(held_out, measured).statistic)

    def within(self, share: float) -> float:
        """Share of networks whose held-out prediction misses by at most a share of the latency."""
        errors = np.abs(np.expm1(-np.array(self.interval.log_errors)))
        return float(np.mean(errors <= share)) if len(errors) else math.nan

    def predict_ms(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Latency of each architecture; shape (architectures,), all above 0.

        Raises:
            MeasurementError: a network has an operator that the space's samples have not.
        """
        if not len(architectures):
            return np.empty(0)
        return np.maximum(self._predict(self._columns(architectures)), MIN_LATENCY_MS)

    def block_ms(self, architecture: Architecture) -> list[float]:
        """Each block's share of the predicted latency, in running order.

        Shares are those of the block table where there is one, else those of an additive model of
        the blocks.
        """
        blocks = self.space.blocks(architecture)
        [total] = self.predict_ms([architecture]).tolist()
        if self._rows.block_us:
            shares = np.array([self._table.block_us(block) for block in blocks])
        else:
            counts = layer_counts(self.space)[NETWORK]
            columns = np.array([counts.of_block(block) for block in blocks])
            shares = np.maximum(self._block_model(columns), 0)
        if shares.sum() == 0:
            shares = np.ones(len(blocks))
        return [float(one) for one in total * shares / shares.sum()]

    @cached_property
    def _table(self) -> LookupTable:
        return LookupTable(self.space, self._rows.block_us)

    @cached_property
    def _block_model(self) -> Predict:
        """Without a constant, which no block has."""
        if len(self._rows.networks) < MIN_ADDITIVE:
            return lambda columns: columns[:, TOTALS.index("numbers moved")]
        columns = layer_counts(self.space)[NETWORK](self._rows.networks)
        return fit_non_negative(columns, np.array(self._rows.latency_ms))


_counts: WeakKeyDictionary[Space, dict[str, LayerCounts]] = WeakKeyDictionary()


def layer_counts(space: Space) -> dict[str, LayerCounts]:
    """The counts of each graph of a space, made once per space."""
    if space not in _counts:
        _counts[space] = {name: LayerCounts(space, name) for name in (NETWORK, *space.graphs)}
    return _counts[space]


def networks_to_measure(
    space: Space, count: int, rng: np.random.Generator, candidates: Sequence[Architecture] = ()
) -> list[Architecture]:
    """The networks to measure on a new device: few that say much about additive costs.

    Args:
        space: of the networks.
        count: how many.
        rng: draws the candidates.
        candidates: to choose from instead of 1,000 random networks.

    Returns:
        Different networks, the most informative first.
    """
    known = list(candidates) or [space.sample_choices(rng) for _ in range(CANDIDATES)]
    models = [
        _AdditiveColumns(counts, _column_sets(counts)["work by operator"])(known)
        for counts in layer_counts(space).values()
    ]
    if len(models) > 1:
        models.append(np.hstack(models))  # which also tells the graphs apart
    return choose_networks(known, models, count)


def fit(rows: DeviceRows, space: Space) -> Predictor:
    """The predictor with the lowest cross-validated error; the same rows give the same one.

    A network that was measured several times counts once, with the median of its latencies.

    Args:
        rows: what was measured.
        space: of the networks.

    Raises:
        MeasurementError: too few networks were measured for any rung.
    """
    rows = _each_network_once(rows)
    tried: list[_Tried] = []
    for models in (_roofline(rows), _additive(rows, space), _table(rows, space), _transfer(rows)):
        tried += _best_of(models, rows)
    if not tried:
        raise MeasurementError(
            f"a predictor is fitted on at least {MIN_ADDITIVE} networks, or on a roofline or a "
            f"block table and fewer; received {len(rows.networks)}. Measure more networks."
        )
    base = _select(tried)
    if base.rung.mape_percent > 100 * EXACT:
        for models in _residuals(base, rows, space):
            tried += _best_of(models, rows)
    best = _select(tried)
    columns = best.model.columns
    return Predictor(
        space,
        best.rung.name,
        tuple(one.rung for one in tried),
        len(rows.networks),
        Interval(best.log_errors),
        columns,
        best.model.fit(columns(rows.networks), np.array(rows.latency_ms)),
        rows,
    )


def _each_network_once(rows: DeviceRows) -> DeviceRows:
    """Else one of two equal networks would be held out while the other one is fitted."""
    found: dict[Architecture, list[float]] = {}
    for one, latency in zip(rows.networks, rows.latency_ms, strict=True):
        found.setdefault(one, []).append(latency)
    latency_ms = [float(np.median(several)) for several in found.values()]
    return replace(rows, networks=list(found), latency_ms=latency_ms)


@dataclass(frozen=True)
class _Tried:
    """A model and its errors on networks that it was not fitted on."""

    rung: Rung
    model: _Model
    log_errors: tuple[float, ...]


def _best_of(models: Sequence[_Model], rows: DeviceRows) -> list[_Tried]:
    """The model of a rung with the lowest cross-validated error; none where there is no model."""
    found = [_validated(model, rows) for model in models]
    return [min(found, key=lambda one: one.rung.mape_percent)] if found else []


def _select(tried: Sequence[_Tried]) -> _Tried:
    """The simplest model that no other one beats clearly."""
    best = tried[0]
    for one in tried[1:]:
        if _is_clearly_better(one, best):
            best = one
    return best


def _is_clearly_better(one: _Tried, other: _Tried) -> bool:
    """Whether the mean of paired differences of relative errors is above its standard error."""
    errors = [np.abs(np.expm1(-np.array(tried.log_errors))) for tried in (one, other)]
    gains = errors[1] - errors[0]
    if len(gains) < MIN_SCALED:
        return False
    return bool(gains.mean() > gains.std(ddof=1) / math.sqrt(len(gains)))


def _validated(model: _Model, rows: DeviceRows) -> _Tried:
    """A model with its errors by cross-validation; the folds are the same for all models."""
    columns, measured = model.columns(rows.networks), np.array(rows.latency_ms, dtype=float)
    predicted = np.empty(len(measured))
    for held_out in _folds(len(measured)):
        kept = np.setdiff1d(np.arange(len(measured)), held_out)
        predicted[held_out] = model.fit(columns[kept], measured[kept])(columns[held_out])
    predicted = np.maximum(predicted, MIN_LATENCY_MS)
    mape = 100 * float(np.mean(np.abs(predicted / measured - 1))) if len(measured) else math.nan
    return _Tried(Rung(model.name, mape), model, log_errors(measured, predicted))


def _folds(networks: int) -> list[np.ndarray]:
    if networks == 0:
        return []
    order = np.random.default_rng(0).permutation(networks)
    return np.array_split(order, networks if networks <= LEAVE_ONE_OUT else FOLDS)


# The rungs, simplest first. Each is a list of models, of which the best one stands for the rung.


def _roofline(rows: DeviceRows) -> list[_Model]:
    bound = rows.bound_ms
    if bound is None:
        return []

    def columns(architectures: Sequence[Architecture]) -> np.ndarray:
        return np.asarray(bound(architectures), dtype=float).reshape(-1, 1)

    if len(rows.networks) < MIN_SCALED:
        return [_Model("roofline", columns, lambda _, __: lambda other: other[:, 0])]
    return [_Model("scaled roofline", columns, fit_least_squares)]


def _additive(rows: DeviceRows, space: Space) -> list[_Model]:
    if len(rows.networks) < MIN_ADDITIVE:
        return []
    models: list[_Model] = []
    for graph, counts in layer_counts(space).items():
        for kind, picked in _column_sets(counts).items():
            columns = _AdditiveColumns(counts, picked)
            if not models or NETWORKS_PER_COLUMN * columns.width <= len(rows.networks):
                name = f"additive: {kind} of {graph}"
                models.append(_Model(name, columns, fit_non_negative))
    return models


def _column_sets(counts: LayerCounts) -> dict[str, list[int]]:
    """Sets of columns that are tried, the smallest first."""
    totals, operators = len(TOTALS), len(counts.operators)
    work = list(range(totals, totals + operators))
    layers = list(range(totals + operators, totals + 2 * operators))
    return {
        "totals": list(range(totals)),
        "work by operator": work,
        "work and layers by operator": work + layers,
        "totals, work and layers by operator": [*range(totals), *work, *layers],
    }


class _AdditiveColumns:
    """A constant, and columns from 0 at the least that random networks have, to about 1.

    The constant is then the latency of what all networks of the space have in common, which is
    positive. Of columns that are multiples of one another the first is kept.
    """

    def __init__(self, counts: LayerCounts, picked: Sequence[int]) -> None:
        self._counts = counts
        probes = counts.of_probes
        self._least = probes.min(axis=0)
        self._range = (probes - self._least).max(axis=0)
        kept: dict[bytes, int] = {}
        for column in picked:
            if self._range[column] > 0:
                shape = (probes[:, column] - self._least[column]) / self._range[column]
                kept.setdefault(shape.round(9).tobytes(), column)
        self._picked = list(kept.values())

    @property
    def width(self) -> int:
        """Number of columns, the constant among them."""
        return 1 + len(self._picked)

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Shape (architectures, width)."""
        counted = self._counts(architectures)[:, self._picked]
        scaled = (counted - self._least[self._picked]) / self._range[self._picked]
        return np.hstack([np.ones((len(scaled), 1)), scaled])


def _table(rows: DeviceRows, space: Space) -> list[_Model]:
    if not rows.block_us or len(rows.networks) < MIN_SCALED:
        return []
    table = LookupTable(space, rows.block_us)
    models = []
    for correction, size in CORRECTIONS.items():
        if size < len(rows.networks):
            name = f"block table: {correction.replace('_', ' ')}"
            sums = BlockSums(space, partial(_table_terms, correction, table))
            models.append(_Model(name, sums, fit_least_squares))
    return models


def _table_terms(correction: Correction, table: LookupTable, block: Block) -> np.ndarray:
    return np.array(block_terms(correction, table, block))


def _transfer(rows: DeviceRows) -> list[_Model]:
    if not rows.sources or len(rows.networks) < MIN_TRANSFER:
        return []
    sources = list(rows.sources.values())

    def columns(architectures: Sequence[Architecture]) -> np.ndarray:
        return np.log(np.stack([source(architectures) for source in sources], axis=1))

    name = f"transfer from {', '.join(rows.sources)}"
    return [_Model(name, columns, fit_transfer)]


def _residuals(base: _Tried, rows: DeviceRows, space: Space) -> list[list[_Model]]:
    """What the base misses, learned from the counts of all graphs."""
    learned: dict[str, tuple[int, Fit]] = {
        "ridge regression": (MIN_RESIDUAL, fit_ridge),
        "Gaussian process": (MIN_RESIDUAL, fit_gaussian_process),
        "boosted trees": (MIN_TREES, fit_boosted_trees),
    }
    width = base.model.columns(rows.networks).shape[1]
    counts = list(layer_counts(space).values())

    def columns(architectures: Sequence[Architecture]) -> np.ndarray:
        parts = [base.model.columns(architectures), *(one(architectures) for one in counts)]
        return np.hstack(parts)

    return [
        [_Model(f"{base.rung.name} + {name}", columns, _on_top_of(base.model.fit, width, learn))]
        for name, (least, learn) in learned.items()
        if len(rows.networks) >= least
    ]


def _on_top_of(base: Fit, width: int, learn: Fit) -> Fit:
    """A regression of the logarithm of what a base misses.

    Args:
        base: of the first columns.
        width: how many these are.
        learn: of all further columns.
    """

    def fit_both(columns: np.ndarray, latency_ms: np.ndarray) -> Predict:
        first, rest = columns[:, :width], columns[:, width:]
        predict_base = base(first, latency_ms)
        missed = np.log(latency_ms / np.maximum(predict_base(first), MIN_LATENCY_MS))
        predict_rest = learn(rest, missed)

        def predict(other: np.ndarray) -> np.ndarray:
            level = np.maximum(predict_base(other[:, :width]), MIN_LATENCY_MS)
            # Rounded, so that it does not depend on which networks are predicted together.
            return np.asarray(level * np.exp(np.round(predict_rest(other[:, width:]), DECIMALS)))

        return predict

    return fit_both
