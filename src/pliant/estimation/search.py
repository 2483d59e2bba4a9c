"""Search a space by an accuracy estimator within a budget, and prove what was found.

    settings = EstimatorSettings("mobile-32", "cifar10/", epochs=8)
    result = search_by_estimator(settings, "inherit", Path("runs/mine"), budget="160epochs",
                                 limits=["macs=3M"])
    print(result.advice)

Evolution spends two fifths of the budget, random search as much, and the rest trains the finalists
of both from scratch, with another seed: estimates only choose, what is reported was trained. With
`inherit` a child starts from its parent's trained weights, and its row counts the epochs of its
lineage. Every evaluation is recorded; started again, the search resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from pliant.accuracy.active_predictor import Predictor, training_architectures
from pliant.accuracy.predictor import PredictorQuality
from pliant.errors import RecipeError
from pliant.estimation.budget import Budget, Spending, Told, parse_budget
from pliant.estimation.estimators import (
    ESTIMATORS,
    INHERIT,
    PREDICTOR,
    SCRATCH,
    ZERO_SHOT,
    Estimators,
    EstimatorSettings,
    open_pool,
)
from pliant.estimation.evaluate import add, evaluate_recorded
from pliant.estimation.lineage import LineageOf, Lineages, untrained
from pliant.estimation.search_result import (
    EVOLUTION,
    LARGEST,
    RANDOM,
    EstimatorSearchResult,
    Finalist,
    result_json,
)
from pliant.files import write_atomically
from pliant.metrics import ARITHMETIC_METRICS, Accuracy, Cost, Estimate, InferencePrecision
from pliant.objective import ACCURACY, Candidate, CostModel, Limit, as_limits
from pliant.progress import Progress, given_or_shown
from pliant.record import Record
from pliant.scoring.score import context_digest
from pliant.scoring.zero_shot_search import (
    SAMPLES,
    ZeroShotSearchConfiguration,
    cost_model,
    most_parameters,
)
from pliant.search.ask_tell import Searcher, combined, run_search
from pliant.search.evolution import EvolutionSearch
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.targets import THIS_CPU, TargetLike, TargetOptions, open_target
from pliant.workers import WorkerPool
from pliant.workers.choose import AnyWorkers, require_workers

SEARCH_SHARE = 0.4
"""Of the budget, for evolution; random search gets as much, retraining the rest."""
BATCH = 4
"""Networks per step of a search, or one per worker where there are more of them."""
POPULATION = 8
ASKS = 20
"""Times that a searcher is asked before it has nothing more."""
RETRAINED = f"{SCRATCH} 1"
"""Training from scratch with another seed than that of the search."""
REFITS = 3
"""Times that a predictor learns from what it puts first, a tenth as many networks as it knows."""
SEARCHING_ESTIMATORS = tuple(name for name in ESTIMATORS if name != ZERO_SHOT)


def search_by_estimator(
    settings: EstimatorSettings,
    estimator: str,
    folder: Path,
    *,
    budget: str,
    limits: Iterable[Limit | str] | Limit | str = (),
    confidence: float | None = None,
    evaluations: int = 1000,
    max_depth: int | None = None,
    target: TargetLike | None = None,
    precision: InferencePrecision = "fp32",
    finalists: int = 3,
    workers: AnyWorkers = None,
    progress: Progress | None = None,
) -> EstimatorSearchResult:
    """Find the most accurate networks within limits, by evolution and at random at equal cost.

    Args:
        settings: of the estimator; `folder` and `evolves` are replaced.
        estimator: one of `SEARCHING_ESTIMATORS`.
        folder: of the record, of checkpoints, and of `search.json`.
        budget: a time such as `2h`, CPU time of each worker with everything that is trained; or
            `200epochs`, where the estimator trains every network.
        limits: on costs that the target reports; without one on MACs, parameters and memory.
        confidence: with which measured costs shall be within their limits, such as 0.95.
        evaluations: of evolution at most, and of random search.
        max_depth: most layers with weights on the longest path of a network.
        target: what the networks will run on; this CPU where None and a limit needs a target.
        precision: of the networks on the target.
        finalists: of each search that are trained from scratch, at most.
        workers: as of `pliant.workers.open_workers`.
        progress: shown where None.

    Raises:
        InfeasibleError: no network is within the limits; with the range that is feasible.
        RecipeError: an unknown estimator, a budget that is too small, a limit on a metric that the
            target does not report, or a predictor that ranks no better than chance.
        RunConflictError: the folder belongs to another search, or another process writes it.
    """
    if estimator not in SEARCHING_ESTIMATORS:
        raise RecipeError(
            f"a search asks one of {', '.join(SEARCHING_ESTIMATORS)}, received {estimator!r}."
        )
    allowed, limits = parse_budget(budget, estimator), as_limits(limits)
    if allowed.epochs is not None and allowed.epochs < settings.epochs:
        raise RecipeError(
            f"a budget pays for one training at least, which takes {settings.epochs} epochs; "
            f"received {allowed}. Raise --budget, or lower --epochs."
        )
    workers = require_workers(workers)
    settings = replace(settings, folder=folder / "weights", evolves=True)
    digest = context_digest(estimator=estimator, settings=replace(settings, folder=None))
    with given_or_shown(progress) as told:
        estimators = Estimators(settings, progress=told)
        configuration = _configuration(
            estimators,
            estimator,
            folder,
            limits,
            confidence,
            evaluations,
            max_depth,
            target,
            precision,
            told,
        )
        costs, rng = cost_model(configuration), np.random.default_rng((settings.seed, 1))
        feasible = check_feasible(estimators.space, configuration.objective, costs, rng, SAMPLES)
        with Record.open(folder / "record.sqlite", recipe_digest=digest) as record:
            search = _Search(estimators, estimator, record, workers, told)
            with search:
                result = search.run(configuration, costs, feasible, allowed, finalists)
    summary = {"estimator": estimator, "budget": str(allowed), "seed": settings.seed}
    summary |= {"limits": [str(one) for one in limits]} | result_json(result)
    write_atomically(folder / "search.json", json.dumps(summary, indent=2) + "\n")
    return result


def _configuration(
    estimators: Estimators,
    estimator: str,
    folder: Path,
    limits: tuple[Limit, ...],
    confidence: float | None,
    evaluations: int,
    max_depth: int | None,
    target: TargetLike | None,
    precision: InferencePrecision,
    progress: Progress,
) -> ZeroShotSearchConfiguration:
    """What to look for; arguments as of `search_by_estimator`."""
    space, seed = estimators.space, estimators.settings.seed
    beyond = [one for one in limits if one.metric not in (*ARITHMETIC_METRICS, ACCURACY)]
    if target is None and beyond:
        target = THIS_CPU
    options = TargetOptions(folder=folder, seed=seed, precision=precision)
    opened = None
    if target is not None:
        of_target = space.with_bits(8) if precision == "int8" else space
        opened = open_target(target, of_target, options, progress=progress)
    return ZeroShotSearchConfiguration(
        space, estimator, limits, evaluations, max_depth, opened, seed, confidence=confidence
    )


class _Search:
    """One command at work; a context manager, which ends its workers."""

    def __init__(
        self,
        estimators: Estimators,
        name: str,
        record: Record,
        workers: AnyWorkers,
        progress: Progress,
    ) -> None:
        self.estimators, self.settings = estimators, estimators.settings
        self.name, self.record, self.workers = name, record, workers
        self.progress = progress
        self._pool: WorkerPool | None = None
        self._predictor: Predictor | None = None
        self._learning_seconds = 0.0

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.__exit__(*raised)

    @property
    def pool(self) -> WorkerPool:
        """The workers, after what they share was trained."""
        if self._pool is None:
            source = self.settings.predictor_source if self.name == PREDICTOR else self.name
            self._pool = open_pool(self.estimators, source, self.workers)
        return self._pool

    def run(
        self,
        configuration: ZeroShotSearchConfiguration,
        costs: CostModel,
        feasible: FeasibleRange,
        budget: Budget,
        finalists: int,
    ) -> EstimatorSearchResult:
        """Both searches, then the finalists from scratch."""
        quality = self._prepare_predictor() if self.name == PREDICTOR else None
        if self._predictor is not None:
            quality = self._refit(self._predictor, configuration, costs, feasible)
        total, setup = self._total(budget)
        space, objective, seed = self.estimators.space, configuration.objective, configuration.seed
        batch, most = max(BATCH, self.pool.size), configuration.evaluations
        spending = Spending(self.settings, in_epochs=budget.epochs is not None)
        evolution = EvolutionSearch(
            space,
            objective,
            costs,
            population=max(POPULATION, batch),
            batch=batch,
            start=[feasible.example],
            seed=seed,
        )
        # Only inherited weights depend on what a network was mutated from.
        parents = evolution.parents if self.name == INHERIT else {}
        lineages = Lineages(self.settings, parents)
        told = self._search(
            evolution, self.name, costs, lineages.of, spending, SEARCH_SHARE * total, batch, most
        )
        # A random network has no parent: its weights are those of training from scratch.
        by_chance = SCRATCH if self.name == INHERIT else self.name
        random = self._search(
            RandomSearch(space, objective, costs, batch=batch, seed=seed + 1),
            by_chance,
            costs,
            Lineages(self.settings, {}).of,
            spending,
            told.spent,
            batch,
            most,
        )
        limited = [one.metric for one in objective.cost_limits]
        largest = most_parameters(configuration, costs, feasible)
        best = _best(told.history, objective.satisfied)[:finalists]
        best_random = _best(random.history, objective.satisfied)[:finalists]
        left = max(0.0, total - told.spent - random.spent)
        [cost] = costs([largest])
        assert isinstance(cost, Cost)  # it is within the limits
        rows = _finalists(best, best_random, Finalist(LARGEST, largest, None, cost))
        trained = self._retrain(rows, lineages, spending, left)
        return EstimatorSearchResult(
            estimator=self.name,
            finalists=tuple(trained),
            evaluated=len(told.history),
            random_evaluated=len(random.history),
            spent=told.spent,
            random_spent=random.spent,
            unit="epochs" if budget.epochs is not None else "CPU seconds",
            setup_seconds=setup,
            failures=tuple(
                one.failure for one in (*told.history, *random.history) if one.failure is not None
            ),
            feasible=feasible,
            predictor=quality,
            metrics=tuple(dict.fromkeys([*limited, *objective.costs])),
        )

    def _total(self, budget: Budget) -> tuple[float, float]:
        """What may be spent in all, after what all networks share; and the CPU time of that.

        Raises:
            RecipeError: nothing is left.
        """
        if self._predictor is not None:
            setup = self._predictor.setup_seconds + self._learning_seconds
        else:
            estimator = self.estimators.get(self.name)
            estimator.prepare()
            setup = estimator.setup_seconds
        if budget.epochs is not None:
            return float(budget.epochs), setup
        left = (budget.seconds or 0.0) - setup
        if left <= 0:
            raise RecipeError(
                f"a budget is more than what networks share takes; {self.name} took "
                f"{setup:.0f} s of CPU before the first network, of {budget}. Raise --budget, or "
                "lower --shared-epochs or --train-share."
            )
        return left * self.pool.size, setup

    def _search(
        self,
        searcher: Searcher,
        name: str,
        costs: CostModel,
        lineage: LineageOf,
        spending: Spending,
        allowed: float,
        batch: int,
        most: int,
    ) -> Told:
        """Ask, evaluate and tell until as much is spent as is allowed.

        Args:
            searcher: chooses the networks.
            name: of the estimator that evaluates them.
            costs: of the networks, for the candidates.
            lineage: where a network inherits its weights from.
            spending: what an evaluation costs.
            allowed: of it; exceeded by less than one evaluation where costs are as before.
            batch: networks per step.
            most: networks in all.
        """
        told = Told()
        while told.spent < allowed and len(told.history) < most:
            affordable = spending.affordable(allowed - told.spent, told)
            asked = _ask(searcher, min(batch, most - len(told.history), affordable))
            if not asked:
                break
            estimates = self.evaluate(name, asked, lineage)
            rows = zip(asked, estimates, costs(asked), strict=True)
            candidates = [Candidate(one, found.quality, cost) for one, found, cost in rows]
            searcher.tell(candidates)
            told.history += candidates
            for one, found in zip(asked, estimates, strict=True):
                told.spent += spending.of(found, lineage(one))
        return told

    def evaluate(
        self, name: str, architectures: Sequence[Architecture], lineage: LineageOf
    ) -> list[Estimate]:
        """Estimates from the record, or by the workers."""
        if self._predictor is not None and name == PREDICTOR:
            return self._predict(self._predictor, architectures)
        if name.split()[0] not in (SCRATCH, INHERIT):
            lineage = untrained
        return evaluate_recorded(
            name,
            architectures,
            self.estimators.space,
            self.record,
            self.estimators.get(name).identity,
            lambda: nullcontext(self.pool),
            lineage=lineage,
            progress=self.progress,
        )

    def _predict(
        self, predictor: Predictor, architectures: Sequence[Architecture]
    ) -> list[Estimate]:
        estimates, identity = predictor.evaluate(architectures), predictor.identity
        for one, found in zip(architectures, estimates, strict=True):
            if self.record.evaluation(PREDICTOR, str(one), identity) is None:
                add(self.record, PREDICTOR, one, self.estimators.space, identity, found)
        return estimates

    def _prepare_predictor(self) -> PredictorQuality:
        """Fit the predictor, and refuse one whose ranks are no better than chance."""
        settings, space = self.settings, self.estimators.space
        source = settings.predictor_source
        drawn = training_architectures(space, settings.predictor_evaluations, settings.seed)
        estimates = self.evaluate(source, drawn, Lineages(settings, {}).of)
        self._learning_seconds = self.estimators.get(source).setup_seconds
        self._learning_seconds += sum(one.seconds for one in estimates)
        known = [
            (one, found.quality.top1)
            for one, found in zip(drawn, estimates, strict=True)
            if isinstance(found.quality, Accuracy)
        ]
        self._predictor = Predictor(space, None, known=known, seed=settings.seed)
        return self._predictor.require_trusted()

    def _refit(
        self,
        predictor: Predictor,
        configuration: ZeroShotSearchConfiguration,
        costs: CostModel,
        feasible: FeasibleRange,
    ) -> PredictorQuality:
        """Let the source evaluate what the predictor puts first, and learn from that, in rounds.

        The final search uses the last fit alone, so that no two predictors are compared.
        """
        source, nobody = self.settings.predictor_source, Lineages(self.settings, {})
        for number in range(REFITS):
            searcher = EvolutionSearch(
                configuration.space,
                configuration.objective,
                costs,
                population=configuration.population,
                batch=configuration.batch,
                start=[feasible.example],
                seed=configuration.seed + 10 + number,
            )
            history = run_search(searcher, combined(predictor, costs), configuration.evaluations)
            best = _best(history, configuration.objective.satisfied)
            promising = [one.architecture for one in best if one.architecture not in predictor.rows]
            chosen = promising[: max(1, len(predictor.rows) // 10)]
            estimates = self.evaluate(source, chosen, nobody.of)
            self._learning_seconds += sum(one.seconds for one in estimates)
            known = {
                one: found.quality.top1
                for one, found in zip(chosen, estimates, strict=True)
                if isinstance(found.quality, Accuracy)
            }
            if known:
                predictor.refit(list(known), list(known.values()))
        return predictor.quality

    def _retrain(
        self,
        finalists: Sequence[Finalist],
        lineages: Lineages,
        spending: Spending,
        left: float,
    ) -> list[Finalist]:
        """Train finalists from scratch while the budget lasts; the first of each kind always."""
        found, spent, kinds = [], 0.0, set[str]()
        nobody = Lineages(self.settings, {})
        for one in finalists:
            if self.name == INHERIT and one.by == EVOLUTION:
                one = replace(one, lineage_epochs=lineages.of(one.architecture).lineage_epochs)
            if one.by not in kinds or spent < left:
                kinds.add(one.by)
                [estimate] = self.evaluate(RETRAINED, [one.architecture], nobody.of)
                spent += spending.of(estimate, nobody.of(one.architecture))
                one = replace(one, retrained=estimate.quality)
            found.append(one)
        return found


def _ask(searcher: Searcher, most: int) -> list[Architecture]:
    """Networks to evaluate; few draws are within narrow limits, so it is tried several times."""
    for _ in range(ASKS):
        if asked := searcher.ask(most):
            return asked
    return []


def _best(history: Sequence[Candidate], satisfied: Callable[[Candidate], bool]) -> list[Candidate]:
    """The networks within the limits, most accurate first; of equal ones the smaller first."""
    within = [one for one in history if satisfied(one)]
    return sorted(within, key=lambda one: (-one.value, one.known_cost.parameters or 0))


def _finalists(
    best: Sequence[Candidate], random: Sequence[Candidate], largest: Finalist
) -> list[Finalist]:
    """In the order in which they are trained: the best of each, then the others in turn."""
    rows = []
    for place in range(max(len(best), len(random), 1)):
        rows += [Finalist.of(EVOLUTION, one) for one in best[place : place + 1]]
        rows += [Finalist.of(RANDOM, one) for one in random[place : place + 1]]
        if place == 0:
            rows.append(largest)
    return rows
