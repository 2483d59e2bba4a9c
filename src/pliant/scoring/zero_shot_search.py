"""Search without training: evolution that maximises a zero-shot score within hard limits.

Next to it, random search and parameter count under the same limits. The evolution is that of M. Lin
et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063, Algorithm 2. Costs are those of a target; without
one they are arithmetic (MACs, parameters, peak memory). The folder holds a record, from which a
killed search resumes, and `search.json` with the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from pliant.accuracy.zero_shot import AnyMethod, Method
from pliant.errors import InfeasibleError, RecipeError
from pliant.files import write_atomically
from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Cost, Failed, Quality, Score
from pliant.objective import (
    AccuracyEstimator,
    Candidate,
    CostModel,
    Limit,
    Objective,
    Target,
    as_limits,
)
from pliant.progress import Progress, given_or_shown, silent
from pliant.record import Record
from pliant.scoring.images import AnyImages, as_batch
from pliant.scoring.process_pool import ScoreEstimator, ScorePool, Worker
from pliant.scoring.score import (
    AnySpace,
    context_digest,
    default_batch,
    score_context,
    space_networks,
)
from pliant.scoring.selection import MethodScorer, select_methods
from pliant.scoring.zero_shot_result import (
    BEST,
    ZeroShotSearchResult,
    rank_networks,
    result_json,
)
from pliant.search.ask_tell import Evaluate, combined, memoized, run_search
from pliant.search.confidence import confident_objective
from pliant.search.evolution import EvolutionSearch, depth, no_deeper
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import Arithmetic, TargetLike, TargetOptions, open_target
from pliant.workers.choose import AnyWorkers

SAMPLES = 256
"""Random networks that are asked whether the limits can be met."""
STAGE = "score"
"""Of the evaluations in the record."""


@dataclass(frozen=True)
class ZeroShotSearchConfiguration:
    """What a search without training looks for."""

    space: Space
    method: str
    """Name of the score to maximise, which the pool's scorer knows."""
    limits: tuple[Limit, ...] = ()
    evaluations: int = 1000
    """Networks that the evolution scores at most, and random search as many."""
    max_depth: int | None = None
    """Most layers with weights on the longest path of a network."""
    target: Target | None = None
    """What the networks will run on; None limits only what is arithmetic."""
    seed: int = 0
    version: str = ""
    """Of a score of the user's own (`Method.version`): results of two versions never mix."""
    confidence: float | None = None
    """With which measured costs shall be within their limits; None compares predictions."""

    @property
    def objective(self) -> Objective:
        """The score against latency where the target reports it, else against MACs.

        Raises:
            RecipeError: a confidence, and a limit on a metric whose prediction has no interval.
            MeasurementError: too few networks were measured for the confidence.
        """
        timed = self.target is not None and "latency_ms" in self.target.metrics
        objective = Objective(("latency_ms",) if timed else ("macs",), self.limits)
        if self.confidence is None:
            return objective
        target: Target = self.target or Arithmetic(self.space)
        objective.require_reported(target)
        return confident_objective(objective, target, self.confidence)

    @property
    def population(self) -> int:
        """Small at first, for many generations of few evaluations; 256 as of Zen-NAS at most."""
        return int(np.clip(self.evaluations // 40, 16, 256))

    @property
    def batch(self) -> int:
        """Networks per step of the evolution, scored together; a kill loses at most these."""
        return int(np.clip(self.evaluations // 25, 8, 32))


def search_by_score(
    space: AnySpace,
    method: AnyMethod | AccuracyEstimator,
    folder: str | Path,
    *,
    limits: Iterable[Limit | str] | Limit | str = (),
    confidence: float | None = None,
    evaluations: int = 1000,
    max_depth: int | None = None,
    target: TargetLike | None = None,
    batch: AnyImages | None = None,
    seed: int = 0,
    workers: AnyWorkers = 1,
    progress: Progress | None = None,
) -> ZeroShotSearchResult:
    """Find the networks of a space with the highest score within limits, without training.

        space = preset("mobile-32", channels=3, image_size=32, classes=10)
        result = search_by_score(space, "zen", Path("runs/zen"), limits=["macs=50M"])

    Args:
        space: a space, a function that makes one, or its name; with more than one worker one of
            the last two.
        method: a name of `pliant.accuracy.zero_shot.SCORES`, `file.py:NAME`, or a function of your
            own from a `ScoringInput` to a number; or an accuracy estimator with an `identity`, a
            text that changes whenever its results do.
        folder: of the record, from which a killed search resumes, and of `search.json`.
        limits: on costs that the target reports; without one on MACs, parameters and peak memory.
        confidence: with which measured costs shall be within their limits, such as 0.95.
        evaluations: networks that the evolution scores at most, and random search as many.
        max_depth: most layers with weights on the longest path of a network.
        target: what the networks will run on: a target, or what `pliant.targets.open_target` opens.
        batch: the images: a `Batch`, or a data set, its name or a `Shape`, of which 64 are drawn;
            noise where None.
        seed: of everything random.
        workers: that score at the same time: processes, one per core where None, or a Ray cluster.
        progress: called after every batch; shown where None, `pliant.progress.silent` for none.

    Raises:
        InfeasibleError: no network is within the limits; with the range that is feasible.
        RecipeError: an unknown score, one that needs images, an estimator without an identity, or
            a limit on a metric that the target does not report.
        RunConflictError: the folder belongs to another score, space or seed, or another process
            writes it.
    """
    shown = None if batch is None else as_batch(batch, seed=seed)
    source = space_networks(space, shown)
    batch = shown or default_batch(source)
    estimator = cast(AccuracyEstimator, method) if hasattr(method, "estimate") else None
    scores: dict[str, Method] = {}
    if estimator is not None:
        name, version = _known_estimator(estimator)
        workers = 1
    else:
        of = cast(AnyMethod, method)
        chosen = select_methods(of, labelled=batch.labels is not None, several=False).methods[0]
        name, version = chosen.name, chosen.version
        scores[name] = chosen
    worker = Worker(source, batch, MethodScorer(scores), seed)
    with given_or_shown(progress) as told, ScorePool(worker, workers) as pool:
        options = TargetOptions(folder=Path(folder), seed=seed)
        opened = None
        if target is not None:
            opened = open_target(target, source.space, options, progress=told)
        configuration = ZeroShotSearchConfiguration(
            source.space,
            name,
            as_limits(limits),
            evaluations,
            max_depth,
            opened,
            seed,
            version,
            confidence,
        )
        return search_without_training(
            Path(folder), configuration, pool, estimator=estimator, progress=told
        )


def _known_estimator(estimator: AccuracyEstimator) -> tuple[str, str]:
    """The name and the identity of an estimator, under which the record keeps its results."""
    name, identity = type(estimator).__name__, getattr(estimator, "identity", None)
    if not isinstance(identity, str):
        raise RecipeError(
            f"a search keeps what an estimator said, so that it resumes; {name} needs an identity, "
            "a text that changes whenever its results do."
        )
    return name, identity


def search_without_training(
    folder: Path,
    configuration: ZeroShotSearchConfiguration,
    pool: ScorePool,
    *,
    estimator: AccuracyEstimator | None = None,
    progress: Progress = silent,
) -> ZeroShotSearchResult:
    """Find the networks of the highest score within the limits.

    Every scored network is recorded in the folder. Started again, the search resumes from there;
    with other limits, targets or more evaluations it looks up what was scored before.

    Args:
        folder: of the record and the result.
        configuration: what to look for.
        pool: scores the networks of the same space; its batch and seed count.
        estimator: says how good networks are, in place of the pool.
        progress: called after every batch.

    Raises:
        InfeasibleError: no network is within the limits; with the range that is feasible.
        RecipeError: a limit on a metric that the target does not report.
        RunConflictError: the folder belongs to another score, space or seed, or another process
            writes it.
    """
    space, objective = configuration.space, configuration.objective
    costs = cost_model(configuration)
    rng = np.random.default_rng((configuration.seed, 1))
    feasible = check_feasible(space, objective, _with_progress(costs, progress), rng, SAMPLES)
    context = score_context(space, pool.worker.batch, pool.worker.seed)
    digest = context_digest(of=context, method=configuration.method, version=configuration.version)
    with Record.open(folder / "record.sqlite", recipe_digest=digest) as record:
        quality = estimator or ScoreEstimator(pool, configuration.method)
        evaluate = _evaluation(configuration, costs, quality, record, context)
        evolution = _evolution(configuration, costs, feasible)
        watched = _watched(evaluate, configuration, 0, progress)
        history = run_search(evolution, watched, configuration.evaluations)
        baseline = RandomSearch(
            space, objective, costs, batch=configuration.batch, seed=configuration.seed + 1
        )
        watched = _watched(evaluate, configuration, len(history), progress)
        random_history = run_search(baseline, watched, len(history))
        [largest] = evaluate([most_parameters(configuration, costs, feasible)])
    failures = [one.failure for one in (*history, *random_history) if one.failure is not None]
    best_random = _by_score(random_history)[:1]
    result = ZeroShotSearchResult(
        best=rank_networks("evolution", space, _by_score(history)[:BEST]),
        front=rank_networks("evolution", space, objective.front(history)),
        random=next(iter(rank_networks("random search", space, best_random)), None),
        largest=rank_networks("parameter count", space, [largest])[0],
        feasible=feasible,
        scored=len(history),
        random_scored=len(random_history),
        failed=len(failures),
        failure=failures[0] if failures else None,
    )
    summary = _configuration_json(configuration) | result_json(result)
    write_atomically(folder / "search.json", json.dumps(summary, indent=2) + "\n")
    return result


def cost_model(configuration: ZeroShotSearchConfiguration) -> CostModel:
    """What networks cost on the target, or by arithmetic; networks that are too deep fail.

    Raises:
        InfeasibleError: even the smallest network is too deep.
        RecipeError: a limit on a metric that the target does not report.
    """
    space = configuration.space
    target: Target = configuration.target or Arithmetic(space)
    beyond = [one for one in configuration.limits if one.metric not in ARITHMETIC_METRICS]
    if configuration.target is None and beyond:
        raise RecipeError(
            f"without a target only {', '.join(sorted(ARITHMETIC_METRICS))} can be limited, "
            f"received {beyond[0]}. Give a chip or a device profile with --target; pliant device "
            f"measure --space {space.name} --out this-cpu/ makes one of this machine."
        )
    configuration.objective.require_reported(target)
    costs = _numbers_only(target)
    if configuration.max_depth is None:
        return costs
    shallowest = depth(space.lower(space.smallest()))
    if shallowest > configuration.max_depth:
        raise InfeasibleError(
            f"the smallest network of space {space.name!r} is {shallowest} layers deep, received a "
            f"greatest depth of {configuration.max_depth}. Raise --max-depth to at least "
            f"{shallowest}."
        )
    return no_deeper(space, costs, configuration.max_depth)


def _numbers_only(target: Target) -> CostModel:
    """The predictions of a target; NaN, which would be within every limit, is a failure."""

    def costs(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [_refuse_nan(cost, target) for cost in target.predict(architectures)]

    return costs


def _refuse_nan(cost: Cost | Failed, target: Target) -> Cost | Failed:
    if isinstance(cost, Failed):
        return cost
    for metric in COST_METRICS:
        value = getattr(cost, metric)
        if value is not None and math.isnan(value):
            function = f"{type(target).__name__}.predict"
            return Failed(f"{function} of target {target.name} returned NaN for {metric}")
    return cost


def _with_progress(costs: CostModel, progress: Progress) -> CostModel:
    """The same costs a few at a time, since those of a chip may take minutes at first."""
    done = 0

    def predicted(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        nonlocal done
        found: list[Cost | Failed] = []
        for start in range(0, len(architectures), 8):
            found += costs(architectures[start : start + 8])
            done = min(done + 8, SAMPLES)
            progress("limits", done, SAMPLES, "networks of predicted cost")
        return found

    return predicted


def _evolution(
    configuration: ZeroShotSearchConfiguration, costs: CostModel, feasible: FeasibleRange
) -> EvolutionSearch:
    return EvolutionSearch(
        configuration.space,
        configuration.objective,
        costs,
        population=configuration.population,
        batch=configuration.batch,
        start=[feasible.example],
        seed=configuration.seed,
    )


def _evaluation(
    configuration: ZeroShotSearchConfiguration,
    costs: CostModel,
    quality: AccuracyEstimator,
    record: Record,
    context: str,
) -> Evaluate:
    """Scores from the record or the estimator; costs from the target, which may be another one."""
    arithmetic = Arithmetic(configuration.space)
    scores = memoized(
        combined(quality, arithmetic.predict),
        record,
        stage=STAGE,
        context=context,
        split="train",
        batch=configuration.batch,
    )

    def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
        pairs = zip(scores(architectures), costs(architectures), strict=True)
        return [Candidate(one.architecture, one.quality, cost) for one, cost in pairs]

    return evaluate


def _watched(
    evaluate: Evaluate,
    configuration: ZeroShotSearchConfiguration,
    before: int,
    progress: Progress,
) -> Evaluate:
    """The same evaluation, with progress; `before` networks were scored by the evolution."""
    done = before

    def watched(architectures: Sequence[Architecture]) -> list[Candidate]:
        nonlocal done
        candidates = evaluate(architectures)
        done += len(candidates)
        note = f"networks scored by {configuration.method}{', at random' if before else ''}"
        progress("search", done, 2 * configuration.evaluations, note)
        return candidates

    return watched


def most_parameters(
    configuration: ZeroShotSearchConfiguration, costs: CostModel, feasible: FeasibleRange
) -> Architecture:
    """The same evolution with parameter count as its score: arithmetic, so it takes seconds."""
    evaluate = combined(_ParameterCount(configuration.space), costs)
    searcher = _evolution(configuration, costs, feasible)
    history = run_search(searcher, evaluate, configuration.evaluations)
    return _by_score(history)[0].architecture


@dataclass(frozen=True)
class _ParameterCount:
    """The baseline: larger networks are expected to be better."""

    space: Space

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """Parameter counts as scores."""
        return [Score(float(self.space.cost(one).parameters or 0)) for one in architectures]


def _by_score(history: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that did not fail, highest score first; of equal ones the smaller first."""
    scored = [one for one in history if one.failure is None]
    return sorted(scored, key=lambda one: (-one.value, one.known_cost.parameters))


def _configuration_json(configuration: ZeroShotSearchConfiguration) -> dict[str, object]:
    space, target = configuration.space, configuration.target
    return {
        "space": {
            "name": space.name,
            "channels": space.channels,
            "image_size": space.image_size,
            "classes": space.classes,
        },
        "score": configuration.method,
        "target": None if target is None else target.name,
        "limits": [str(limit) for limit in configuration.limits],
        "confidence": configuration.confidence,
        "max_depth": configuration.max_depth,
        "seed": configuration.seed,
    }
