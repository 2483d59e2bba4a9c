"""Search without training: evolution that maximises a zero-shot score within hard limits.

Next to it, random search and parameter count under the same limits. The evolution is that of M. Lin
et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063, Algorithm 2. Costs are those of a target; without
one they are arithmetic (MACs, parameters, peak memory). The folder holds a record, from which a
killed search resumes, and `search.json` with the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pliant.errors import InfeasibleError, RecipeError
from pliant.files import write_atomically
from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Cost, Failed, Quality, Score
from pliant.objective import Candidate, CostModel, Limit, Objective, Target
from pliant.progress import Progress, silent
from pliant.record import Record
from pliant.scoring.process_pool import ScoreEstimator, ScorePool
from pliant.scoring.score import context_digest, score_context
from pliant.search.ask_tell import Evaluate, combined, memoized, run_search
from pliant.search.evolution import EvolutionSearch, depth, no_deeper
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import Arithmetic

STAGE = "score"
"""Of the evaluations in the record."""
BEST = 5
"""Networks of the evolution in a result."""


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

    @property
    def objective(self) -> Objective:
        """The score against latency where the target reports it, else against MACs."""
        timed = self.target is not None and "latency_ms" in self.target.metrics
        return Objective(("latency_ms",) if timed else ("macs",), self.limits)

    @property
    def population(self) -> int:
        """Small at first, for many generations of few evaluations; 256 as of Zen-NAS at most."""
        return int(np.clip(self.evaluations // 40, 16, 256))

    @property
    def batch(self) -> int:
        """Networks per step of the evolution, scored together; a kill loses at most these."""
        return int(np.clip(self.evaluations // 25, 8, 32))


@dataclass(frozen=True, slots=True)
class RankedNetwork:
    """A network, its score and its cost."""

    by: str
    """What found it: `evolution`, `random search` or `parameter count`."""
    architecture: Architecture
    score: float | None
    cost: Cost
    depth: int
    failure: str | None = None


@dataclass(frozen=True)
class ZeroShotSearchResult:
    """What a search without training found."""

    best: tuple[RankedNetwork, ...]
    """Of the evolution, highest score first; at most `BEST`."""
    front: tuple[RankedNetwork, ...]
    """Of the evolution: what no other network beats in score and cost, cheapest first."""
    random: RankedNetwork | None
    """The highest score of as many random networks within the limits."""
    largest: RankedNetwork
    """The most parameters within the limits, found by as many steps of evolution."""
    feasible: FeasibleRange
    scored: int
    """Networks that the evolution scored."""
    random_scored: int
    failed: int
    """Of both."""
    failure: str | None
    """The first reason."""

    @property
    def chosen(self) -> RankedNetwork | None:
        """The highest score of all, whatever found it; None where every network failed."""
        best, highest = None, -math.inf
        for network in (*self.best, self.random, self.largest):
            if network is None or network.score is None:
                continue
            if best is None or network.score > highest:
                best, highest = network, network.score
        return best


def search_without_training(
    folder: Path,
    configuration: ZeroShotSearchConfiguration,
    pool: ScorePool,
    *,
    progress: Progress = silent,
) -> ZeroShotSearchResult:
    """Find the networks of the highest score within the limits.

    Every scored network is recorded in the folder. Started again, the search resumes from there;
    with other limits, targets or more evaluations it looks up what was scored before.

    Args:
        folder: of the record and the result.
        configuration: what to look for.
        pool: scores the networks of the same space; its batch and seed count.
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
    feasible = check_feasible(space, objective, costs, rng)
    context = score_context(space, pool.worker.batch, pool.worker.seed)
    digest = context_digest(of=context, method=configuration.method, version=configuration.version)
    with Record.open(folder / "record.sqlite", recipe_digest=digest) as record:
        evaluate = _evaluation(configuration, costs, pool, record, context)
        evolution = _evolution(configuration, costs, feasible)
        watched = _watched(evaluate, configuration, 0, progress)
        history = run_search(evolution, watched, configuration.evaluations)
        baseline = RandomSearch(
            space, objective, costs, batch=configuration.batch, seed=configuration.seed + 1
        )
        watched = _watched(evaluate, configuration, len(history), progress)
        random_history = run_search(baseline, watched, len(history))
        [largest] = evaluate([_most_parameters(configuration, costs, feasible)])
    failures = [one.failure for one in (*history, *random_history) if one.failure is not None]
    best_random = _by_score(random_history)[:1]
    result = ZeroShotSearchResult(
        best=_ranked("evolution", space, _by_score(history)[:BEST]),
        front=_ranked("evolution", space, objective.front(history)),
        random=next(iter(_ranked("random search", space, best_random)), None),
        largest=_ranked("parameter count", space, [largest])[0],
        feasible=feasible,
        scored=len(history),
        random_scored=len(random_history),
        failed=len(failures),
        failure=failures[0] if failures else None,
    )
    summary = json.dumps(_summary(configuration, result), indent=2)
    write_atomically(folder / "search.json", summary + "\n")
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
            f"received {beyond[0]}. Give a chip or a device profile with --target; pliant profile "
            f"RECIPE --space {space.name} makes one of this machine."
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
    pool: ScorePool,
    record: Record,
    context: str,
) -> Evaluate:
    """Scores from the record or the processes; costs from the target, which may be another one."""
    arithmetic = Arithmetic(configuration.space)
    scores = memoized(
        combined(ScoreEstimator(pool, configuration.method), arithmetic.predict),
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


def _most_parameters(
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


def _ranked(by: str, space: Space, candidates: Sequence[Candidate]) -> tuple[RankedNetwork, ...]:
    networks = []
    for one in candidates:
        score = one.quality.value if isinstance(one.quality, Score) else None
        layers = depth(space.lower(one.architecture))
        networks.append(
            RankedNetwork(by, one.architecture, score, one.known_cost, layers, one.failure)
        )
    return tuple(networks)


def _summary(
    configuration: ZeroShotSearchConfiguration, result: ZeroShotSearchResult
) -> dict[str, object]:
    """The result for programs."""
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
        "max_depth": configuration.max_depth,
        "seed": configuration.seed,
        "scored": result.scored,
        "random_scored": result.random_scored,
        "failed": result.failed,
        "share_within_limits": result.feasible.share,
        "chosen": _as_json(result.chosen),
        "best": [_as_json(network) for network in result.best],
        "front": [_as_json(network) for network in result.front],
        "random": _as_json(result.random),
        "largest": _as_json(result.largest),
    }


def _as_json(network: RankedNetwork | None) -> dict[str, object] | None:
    if network is None:
        return None
    finite = network.score is not None and math.isfinite(network.score)  # JSON has no infinity
    return asdict(network) | {
        "architecture": str(network.architecture),
        "score": network.score if finite else None,
    }
