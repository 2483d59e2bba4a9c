"""Evaluate networks by several estimators, and compare those with training from scratch.

    settings = EstimatorSettings("mobile-32", "cifar10/", epochs=8)
    result = estimate_networks(settings, "scratch,supernet,predictor", Path("estimates.parquet"))
    print(result.comparison.advice)

Every evaluation is recorded next to the table as soon as it is there, and shared weights have
checkpoints: a killed command resumes, and further networks or estimators are added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pliant.accuracy.active_predictor import Predictor, training_architectures
from pliant.accuracy.halving import rung_epochs
from pliant.accuracy.predictor import PredictorQuality
from pliant.accuracy.ranking import BASELINES
from pliant.errors import RecipeError
from pliant.estimation.comparison import Comparison, Evaluated, compare
from pliant.estimation.estimators import (
    PREDICTOR,
    SCRATCH,
    ZERO_SHOT,
    Estimators,
    EstimatorSettings,
    open_pool,
    require_estimators,
)
from pliant.estimation.evaluate import evaluate_recorded
from pliant.estimation.halving import HalvedTraining
from pliant.estimation.spread import spread_over_macs
from pliant.files import replace_atomically
from pliant.metrics import Accuracy, Estimate, Failed, Score, Stopped
from pliant.progress import Progress, given_or_shown
from pliant.record import Record
from pliant.scoring.images import training_batch
from pliant.scoring.networks import preset_networks
from pliant.scoring.process_pool import ScorePool, Worker
from pliant.scoring.score import score_context, score_in_pool
from pliant.scoring.score_tables import require_table_name
from pliant.scoring.selection import MethodScorer, select_methods
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workers.choose import AnyWorkers, require_workers


@dataclass(frozen=True)
class EstimationResult:
    """What all estimators found."""

    architectures: tuple[Architecture, ...]
    evaluated: tuple[Evaluated, ...]
    """Training from scratch first, once per seed; zero-shot scores one by one."""
    comparison: Comparison | None
    """None without training from scratch, or where too few networks were trained."""
    predictor: PredictorQuality | None
    """Of the predictor, on networks held out of its fit."""


def estimate_networks(
    settings: EstimatorSettings,
    estimators: str | Sequence[str],
    out: Path,
    *,
    architectures: int | Sequence[str] = 24,
    seeds: int = 2,
    scores: str = "all",
    halving: int | None = None,
    workers: AnyWorkers = None,
    progress: Progress | None = None,
) -> EstimationResult:
    """Evaluate networks by estimators, write a table, and compare them.

    Args:
        settings: of all estimators; `folder` is replaced by one next to the table.
        estimators: names of `ESTIMATORS`, several of them with commas between.
        out: .parquet or .csv file of all estimates.
        architectures: which networks, or how many, spread over the range of MACs.
        seeds: of training from scratch; the mean of them is the ground truth.
        scores: the zero-shot scores, as of `score_networks`.
        halving: early stopping of training from scratch: of so many networks that were trained for
            as many epochs, the best one is trained on; all are trained to the end where None.
        workers: processes of this machine (one per core where None, 0 for this process), or the
            address of a Ray cluster.
        progress: shown where None.

    Raises:
        RecipeError: an unknown estimator, space or score, or a table of another format.
        DataError: images that cannot be used.
        DivergedError: the training of shared weights diverged.
        RunConflictError: another process writes the record.
    """
    require_table_name(out)
    names = require_estimators(list(estimators) if not isinstance(estimators, str) else estimators)
    workers = require_workers(workers)
    if seeds < 1:
        raise RecipeError(f"training from scratch takes at least one seed, received {seeds}.")
    if halving is not None:
        if SCRATCH not in names:
            raise RecipeError(
                f"successive halving stops training from scratch, received estimators "
                f"{', '.join(names)}. Add scratch, or leave out the halving."
            )
        rung_epochs(settings.epochs, halving)
    if ZERO_SHOT in names:
        select_methods(scores)
    settings = replace(settings, folder=out.with_name(f"{out.name}.weights"))
    with given_or_shown(progress) as told, ExitStack() as opened:
        of = Estimators(settings, progress=told)
        chosen = _networks(of.space, architectures, settings.seed)
        path = out.with_name(f"{out.name}.record")  # written where nothing was refused
        record = opened.enter_context(Record.open(path, recipe_digest="estimates"))
        estimation = _Estimation(of, record, workers, told, halving)
        evaluated: list[Evaluated] = []
        for name in names:
            evaluated += estimation.evaluate(name, chosen, seeds, scores)
        result = EstimationResult(
            tuple(chosen),
            tuple(evaluated),
            estimation.compare(chosen, evaluated),
            estimation.predictor_quality,
        )
    write_estimates(result, estimation, out)
    return result


def _networks(space: Space, architectures: int | Sequence[str], seed: int) -> list[Architecture]:
    """The networks that were named, or so many of different costs."""
    if not isinstance(architectures, int):
        return [space.parse(text) for text in architectures]
    if architectures < 1:
        raise RecipeError(f"estimates are of networks, received {architectures}.")
    return spread_over_macs(space, architectures, seed)


class _Estimation:
    """One command at work."""

    def __init__(
        self,
        estimators: Estimators,
        record: Record,
        workers: AnyWorkers,
        progress: Progress,
        halving: int | None,
    ) -> None:
        self.estimators, self.settings, self.record = estimators, estimators.settings, record
        self.workers, self.progress = workers, progress
        self.halving = halving
        self.predictor_quality: PredictorQuality | None = None

    def evaluate(
        self, name: str, networks: Sequence[Architecture], seeds: int, scores: str
    ) -> list[Evaluated]:
        """All estimates of one estimator: one list per seed or score where it has several."""
        if name == ZERO_SHOT:
            return self._zero_shot(networks, scores)
        if name == PREDICTOR:
            return [self._predictor(networks)]
        if name == SCRATCH:
            return self._scratch(networks, seeds)
        return [self._one_by_one(name, networks)]

    def _scratch(self, networks: Sequence[Architecture], seeds: int) -> list[Evaluated]:
        """Training from scratch once per seed; with early stopping the first seed decides."""
        more = [f"{SCRATCH} {number}" for number in range(1, seeds)]
        if self.halving is None:
            return [self._one_by_one(one, networks) for one in (SCRATCH, *more)]
        estimator = self.estimators.get(SCRATCH)
        training = HalvedTraining(
            SCRATCH,
            self.estimators.space,
            self.record,
            estimator.identity,
            partial(open_pool, self.estimators, SCRATCH, self.workers),
            epochs=self.settings.epochs,
            factor=self.halving,
        )
        first = training.evaluate(networks, self.progress)
        evaluated = [Evaluated(SCRATCH, first)]
        finished = [
            one
            for one, found in zip(networks, first, strict=True)
            if isinstance(found.quality, Accuracy)
        ]
        for name in more:
            again = dict(zip(finished, self._one_by_one(name, finished).estimates, strict=True))
            others = zip(networks, first, strict=True)
            rows = [again.get(one, Estimate(found.quality, 0.0)) for one, found in others]
            evaluated.append(Evaluated(name, rows))
        return evaluated

    def _one_by_one(self, name: str, networks: Sequence[Architecture]) -> Evaluated:
        estimator = self.estimators.get(name)
        estimates = evaluate_recorded(
            name,
            networks,
            self.estimators.space,
            self.record,
            estimator.identity,
            partial(open_pool, self.estimators, name, self.workers),
            progress=self.progress,
        )
        return Evaluated(name, estimates, estimator.setup_seconds)

    def _predictor(self, networks: Sequence[Architecture]) -> Evaluated:
        """A predictor that learned from the source's evaluations of other networks."""
        settings, space = self.settings, self.estimators.space
        wanted = settings.predictor_evaluations
        drawn = training_architectures(space, wanted + len(networks), settings.seed)
        others = [one for one in drawn if one not in set(networks)][:wanted]
        source = self._one_by_one(settings.predictor_source, others)
        known = [
            (one, found.quality.top1)
            for one, found in zip(others, source.estimates, strict=True)
            if isinstance(found.quality, Accuracy)
        ]
        predictor = Predictor(space, None, known=known, seed=settings.seed)
        self.predictor_quality = predictor.quality
        estimates = predictor.evaluate(networks)
        spent = source.setup_seconds + sum(one.seconds for one in source.estimates)
        return Evaluated(PREDICTOR, estimates, spent + predictor.setup_seconds)

    def _zero_shot(self, networks: Sequence[Architecture], scores: str) -> list[Evaluated]:
        settings, data = self.settings, self.estimators.data
        selection = select_methods(scores)
        batch = training_batch(data, seed=settings.seed)
        source = preset_networks(settings.space, batch.shape)
        scorer = MethodScorer({one.name: one for one in selection.methods})
        worker = Worker(source, batch, scorer, settings.seed)
        with ScorePool(worker, 1 if self.workers == 0 else self.workers) as pool:
            rows = score_in_pool(
                [str(one) for one in networks],
                selection,
                pool,
                record=self.record,
                context=score_context(source.space, batch, settings.seed),
                progress=self.progress,
            )
        found: dict[str, list[Estimate]] = {}
        for row in rows:
            if row.method not in BASELINES:
                estimate = Estimate(row.quality, row.seconds or 0.0)
                found.setdefault(row.method, []).append(estimate)
        return [Evaluated(name, estimates) for name, estimates in found.items()]

    def compare(
        self, networks: Sequence[Architecture], evaluated: Sequence[Evaluated]
    ) -> Comparison | None:
        """Against training from scratch, where there is any."""
        truth = [one for one in evaluated if one.name.startswith(SCRATCH)]
        if not truth:
            return None
        others = [one for one in evaluated if one not in truth]
        costs = [self.estimators.space.cost(one) for one in networks]
        baselines = {name: [cost.metric(name) for cost in costs] for name in BASELINES}
        return compare(truth, others, baselines, seed=self.settings.seed)


_SCHEMA = pa.schema(
    [
        ("estimator", pa.string()),
        ("architecture", pa.string()),
        ("top1", pa.float64()),
        ("score", pa.float64()),
        ("failure", pa.string()),
        ("stopped_top1", pa.float64()),
        ("stopped_epochs", pa.float64()),
        ("seconds", pa.float64()),
        ("parameters", pa.int64()),
        ("macs", pa.int64()),
        ("curve", pa.string()),
    ]
)


def _curve_text(curve: Sequence[tuple[float, float]]) -> str:
    """JSON; null where the loss was no number."""
    return json.dumps([(epoch, loss if math.isfinite(loss) else None) for epoch, loss in curve])


def write_estimates(result: EstimationResult, estimation: _Estimation, out: Path) -> None:
    """Write one row per estimator and network; the curve as JSON of (epoch, loss).

    A training that was stopped early has no `top1`, but what it had reached in columns of its own.
    """
    rows = []
    for evaluated in result.evaluated:
        for one, found in zip(result.architectures, evaluated.estimates, strict=True):
            quality, cost = found.quality, estimation.estimators.space.cost(one)
            stopped = quality if isinstance(quality, Stopped) else None
            rows.append(
                {
                    "estimator": evaluated.name,
                    "architecture": str(one),
                    "top1": quality.top1 if isinstance(quality, Accuracy) else None,
                    "score": quality.value if isinstance(quality, Score) else None,
                    "failure": quality.reason if isinstance(quality, Failed) else None,
                    "stopped_top1": stopped and stopped.reached.top1,
                    "stopped_epochs": stopped and stopped.epochs,
                    "seconds": found.seconds,
                    "parameters": cost.parameters,
                    "macs": cost.macs,
                    "curve": _curve_text(found.curve) if found.curve else None,
                }
            )
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    write = pq.write_table if out.suffix == ".parquet" else pyarrow.csv.write_csv
    replace_atomically(out, lambda partial: write(table, partial))
