"""Search a trained supernet under the limits of a run, beside random search at equal cost; what is on the front is measured."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.accuracy.supernet import SupernetEstimator
from pliant.deploy.package import onnx_bytes
from pliant.deploy.verify import measure_in_fresh_process
from pliant.devices.profile import DeviceProfile, measure_networks
from pliant.devices.table import LookupTable
from pliant.errors import InfeasibleError, ProfileMismatchError
from pliant.metrics import Accuracy, Cost, Failed
from pliant.networks.supernet import Supernet
from pliant.objective import Candidate, Limit, Objective
from pliant.progress import Progress, silent
from pliant.runs.profile import settings
from pliant.runs.run import Run
from pliant.search.ask_tell import Evaluate, combined, memoized, run_search
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.linas import LinasSearch, select_diverse
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture

MINIMISE = ("latency_ms",)
TIGHTENINGS = 3
"""Times that the search's own limits are lowered because what was measured is above what was predicted."""


@dataclass(frozen=True)
class Finalist:
    """A network of the front: what was predicted, and what it really is."""

    architecture: Architecture
    estimate: Accuracy
    """On the validation images of the search."""
    predicted: Cost
    validated: Accuracy
    """On all validation images."""
    measured: Cost | None
    """With the latency measured here; None where the device is elsewhere."""
    spread_ms: float | None
    fresh_ms: float | None = None
    """Latency in a process of its own, where a limit had it measured."""

    @property
    def cost(self) -> Cost:
        """What counts against the limits: measured where it can be."""
        return self.measured or self.predicted


@dataclass(frozen=True)
class Found:
    """The outcome of a search."""

    finalists: tuple[Finalist, ...]
    """Cheapest first."""
    chosen: Finalist
    """The most accurate one on validation images that holds all limits, also when measured in a fresh process."""
    random_finalists: tuple[Finalist, ...]
    history: tuple[Candidate, ...]
    random_history: tuple[Candidate, ...]
    share_within: float
    """Share of random networks that hold the limits."""


def search_front(
    run: Run,
    supernet: Supernet,
    profile: DeviceProfile,
    *,
    limits: Sequence[Limit] | None = None,
    progress: Progress = silent,
) -> Found:
    """Find the networks that are worth delivering.

    Args:
        limits: instead of the recipe's.

    Raises:
        InfeasibleError: no network holds the limits; with the range that can be reached.
    """
    limits = tuple(run.recipe.parsed_limits if limits is None else limits)
    table = profile.table(run.space)
    reach = require_feasible(run, profile, limits)
    estimator = make_estimator(run, supernet)
    weights = weights_digest(run)
    evaluate = _evaluation(run, estimator, table, weights, progress)
    started = time.perf_counter()
    objective = Objective(MINIMISE, limits)
    history = run_search(_searcher(run, table, limits), evaluate, run.recipe.search.estimates)
    random_history = run_search(
        RandomSearch(run.space, objective, table, seed=run.recipe.seed + 1),
        evaluate,
        run.recipe.search.estimates,
    )
    run.record.set_metadata(
        "search_seconds",
        (run.record.metadata("search_seconds") or 0.0) + time.perf_counter() - started,
    )
    final = finals(run, estimator, profile, progress)
    finalists, chosen = final.choose(history, limits, run.recipe.search.front)
    random_finalists = final.evaluate(
        _promising(random_history, limits, max(2, run.recipe.search.front // 2))
    )
    return Found(
        tuple(finalists),
        chosen,
        tuple(random_finalists),
        tuple(history),
        tuple(random_history),
        reach.share,
    )


def require_feasible(run: Run, profile: DeviceProfile, limits: Sequence[Limit]) -> FeasibleRange:
    """Ask whether any network holds the limits, in seconds and before anything is trained.

    Raises:
        InfeasibleError: none does; with the range that can be reached.
    """
    objective = Objective(MINIMISE, tuple(limits))
    return check_feasible(run.space, objective, profile.table(run.space), run.rng(1))


def make_estimator(run: Run, supernet: Supernet) -> SupernetEstimator:
    """The supernet as an accuracy estimator, with the recipe's number of validation images and the precision of its training."""
    return SupernetEstimator(
        supernet,
        run.data.train,
        run.data.validation,
        images=run.recipe.search.images,
        precision=run.record.metadata("precision") or "fp32",
        seed=run.recipe.seed,
    )


def weights_digest(run: Run) -> str:
    """What the weights are called in the record, so that results of other weights are never taken for theirs."""
    return hashlib.sha256(run.weights.read_bytes()).hexdigest()[:12]


def profile_digest(profile: DeviceProfile) -> str:
    """The same for a device profile."""
    return hashlib.sha256(profile.model_dump_json().encode()).hexdigest()[:12]


def _searcher(run: Run, table: LookupTable, limits: Sequence[Limit]) -> LinasSearch:
    options = run.recipe.search
    return LinasSearch(
        run.space,
        Objective(MINIMISE, tuple(limits)),
        table,
        lambda architectures, top1: AccuracyPredictor(
            run.space, architectures, top1, seed=run.recipe.seed
        ),
        batch=-(-options.estimates // options.rounds),
        candidates=options.candidates,
        seed=run.recipe.seed,
    )


def _evaluation(
    run: Run, estimator: SupernetEstimator, table: LookupTable, weights: str, progress: Progress
) -> Evaluate:
    """Accuracy from the supernet, remembered for good; cost from the table, which another device replaces."""
    context = json.dumps({"weights": weights, "images": run.recipe.search.images})
    arithmetic = lambda architectures: [run.space.cost(one) for one in architectures]  # noqa: E731
    accuracy = memoized(
        combined(estimator, arithmetic),
        run.record,
        stage="estimate",
        context=context,
        split="validation",
    )
    total = 2 * run.recipe.search.estimates
    done = 0

    def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
        nonlocal done
        found = []
        for architecture, cost in zip(architectures, table(architectures), strict=True):
            [known] = accuracy([architecture])
            found.append(Candidate(architecture, known.quality, cost))
            done += 1
            progress("search", done, total, "estimates with supernet weights")
        return found

    return evaluate


def _promising(
    history: Sequence[Candidate], limits: Sequence[Limit], wanted: int
) -> list[Candidate]:
    objective = Objective(MINIMISE, tuple(limits))
    within = [one for one in history if objective.satisfied(one)]
    return select_diverse(objective.front(within), objective, wanted) if within else []


class Finals:
    """Evaluates the networks of a front for real: all validation images, measured latency."""

    def __init__(
        self,
        run: Run,
        estimator: SupernetEstimator,
        profile: DeviceProfile,
        weights: str,
        progress: Progress,
    ) -> None:
        self.run, self.estimator, self.profile, self.progress = run, estimator, profile, progress
        self.context = json.dumps({"weights": weights, "profile": profile_digest(profile)})
        self.here = is_here(profile)

    def choose(
        self, history: Sequence[Candidate], limits: Sequence[Limit], wanted: int
    ) -> tuple[list[Finalist], Finalist]:
        """The front and its most accurate network within the limits as measured."""
        tried: list[Finalist] = []
        afresh_ms: list[float] = []
        tightened = tuple(limits)
        for _ in range(TIGHTENINGS + 1):
            tried = self.evaluate(_promising(history, tightened, wanted)) or tried
            within = [one for one in tried if Objective(MINIMISE, tuple(limits)).admits(one.cost)]
            within.sort(key=lambda one: (-one.validated.top1, one.cost.latency_ms or 0.0))
            for chosen in map(self._afresh, within) if _limits_latency(limits) else within:
                if chosen.fresh_ms is None or Objective(MINIMISE, tuple(limits)).admits(
                    replace(chosen.cost, latency_ms=chosen.fresh_ms)
                ):
                    return sorted(tried, key=lambda one: one.cost.latency_ms or 0.0), chosen
                afresh_ms.append(chosen.fresh_ms)
            tightened = tuple(_tighter(limit, tried) for limit in tightened)
        reached = min(afresh_ms or [one.cost.latency_ms or 0.0 for one in tried] or [0.0])
        raise InfeasibleError(
            f"a delivered network holds its limits as measured; of the networks of the front none does "
            f"({', '.join(str(limit) for limit in limits)}): the fastest took {reached:.3g} ms. Raise the limit to at least that."
        )

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Finalist]:
        """Each candidate validated on all images and measured, from the record where that was done before."""
        fresh = [
            one
            for one in candidates
            if self.run.record.evaluation("front", str(one.architecture), self.context) is None
        ]
        latencies = self._measure(fresh)
        for number, one in enumerate(fresh, 1):
            name = str(one.architecture)
            cost, spread_ms = latencies.get(name, (None, None))
            self.run.record.add_evaluation(
                "front",
                name,
                context=self.context,
                split="validation",
                quality=self.estimator.validate(one.architecture),
                cost=cost,
            )
            self.run.record.set_metadata(f"spread_ms {name} {self.context}", spread_ms)
            self.progress("front", number, len(fresh), "validated on all images and measured")
        return [self._finalist(one) for one in candidates]

    def _afresh(self, finalist: Finalist) -> Finalist:
        """Measured once more, in a process of its own as it will be delivered: near a limit, another measurement may miss it."""
        if not self.here:
            return finalist
        name, record = str(finalist.architecture), self.run.record
        row = record.evaluation("fresh", name, self.context)
        if row is None:
            model = onnx_bytes(
                self.estimator.network(finalist.architecture),
                self.run.space.blocks(finalist.architecture),
            )
            with tempfile.TemporaryDirectory(prefix="pliant-") as scratch:
                path = Path(scratch) / "model.onnx"
                path.write_bytes(model)
                cost = replace(
                    finalist.cost, latency_ms=measure_in_fresh_process(path, settings(self.run))
                )
            row = record.add_evaluation("fresh", name, context=self.context, cost=cost)
        assert isinstance(row.cost, Cost)
        return replace(finalist, fresh_ms=row.cost.latency_ms)

    def _measure(self, candidates: Sequence[Candidate]) -> dict[str, tuple[Cost, float]]:
        if not (self.here and candidates):
            return {}
        networks = {str(one.architecture): one.architecture for one in candidates}
        models = {
            name: onnx_bytes(
                self.estimator.network(architecture), self.run.space.blocks(architecture)
            )
            for name, architecture in networks.items()
        }
        found = measure_networks(models, settings(self.run), seed=self.run.recipe.seed)
        return {
            name: (
                Cost(
                    **asdict(self.run.space.cost(networks[name])) | {"latency_ms": one.latency_ms}
                ),
                one.spread_ms,
            )
            for name, one in found.items()
        }

    def _finalist(self, candidate: Candidate) -> Finalist:
        name = str(candidate.architecture)
        row = self.run.record.evaluation("front", name, self.context)
        assert row is not None
        assert isinstance(row.quality, Accuracy)
        assert not isinstance(row.cost, Failed)
        assert isinstance(candidate.quality, Accuracy)
        assert isinstance(candidate.cost, Cost)
        spread_ms = self.run.record.metadata(f"spread_ms {name} {self.context}")
        return Finalist(
            candidate.architecture,
            candidate.quality,
            candidate.cost,
            row.quality,
            row.cost,
            spread_ms,
        )


def finals(
    run: Run, estimator: SupernetEstimator, profile: DeviceProfile, progress: Progress = silent
) -> Finals:
    """The real evaluation of a front's networks, remembered in the record."""
    return Finals(run, estimator, profile, weights_digest(run), progress)


def _limits_latency(limits: Sequence[Limit]) -> bool:
    return any(limit.metric == "latency_ms" for limit in limits)


def _tighter(limit: Limit, tried: Sequence[Finalist]) -> Limit:
    """A lower latency limit, by as much as the measured networks missed their predictions at most."""
    if limit.metric != "latency_ms" or not tried:
        return limit
    excess = max((one.cost.latency_ms or 0.0) / (one.predicted.latency_ms or 1.0) for one in tried)
    return Limit(limit.metric, limit.bound / max(excess, 1.02), limit.text)


def is_here(profile: DeviceProfile) -> bool:
    """Whether the profile is of this machine and runtime, so that latencies can be measured."""
    try:
        profile.require_here()
    except ProfileMismatchError:
        return False
    return True
