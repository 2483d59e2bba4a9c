"""What the steps of one run share: each part is made once, on first use, and kept."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pliant.accuracy.evaluation import Answers, answers
from pliant.accuracy.supernet import SupernetEstimator
from pliant.data.splits import Split
from pliant.deploy.int8 import Int8Network, model_answers, to_int8
from pliant.deploy.package import onnx_bytes
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import random_network_model
from pliant.errors import (
    DamagedFileError,
    InfeasibleError,
    ProfileMismatchError,
    RunConflictError,
)
from pliant.metrics import ARITHMETIC_METRICS, Accuracy, Cost, Failed, InferencePrecision
from pliant.networks.mixed import mixed_blocks
from pliant.networks.plain import Network
from pliant.networks.supernet import Supernet
from pliant.objective import Limit, Measured, Objective, Target, as_limits, checked_costs
from pliant.progress import Progress, printed
from pliant.report.summary import Baselines
from pliant.runs.advice import KnownCost, fitting_space
from pliant.runs.baselines import baselines
from pliant.runs.budget import Plan, plan_search
from pliant.runs.run import Run
from pliant.runs.train import SearchedCosts, require_start, train_supernet, training_device
from pliant.search.confidence import confident_objective
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.registry import Build
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import (
    THIS_CPU,
    Arithmetic,
    TargetLike,
    TargetOptions,
    open_target,
    reported_metrics,
    require_known,
)
from pliant.training.checkpoint import Checkpoints
from pliant.training.registry import SEARCHING
from pliant.units import format_cost


class Session:
    """One run at work. Steps take it, and ask it for what other steps made before.

    Args:
        run: open.
        target: instead of the recipe's; a name, a target, or a function or class that makes one
            for the space of the run. The run keeps its own.
        precision: of what is delivered, measured and limited, instead of the recipe's.
        searcher: instead of the recipe's; a name, or a function or class that makes one.
        limits: instead of the recipe's.
        confidence: with which limits shall hold, instead of the recipe's.
        energy: where the energy of the target comes from, as of `TargetOptions`, instead of the
            recipe's.
        device: that trains, as PyTorch names it; the best one found where None.
        progress: told by every step, `pliant.progress.silent` for none. Where None, a line where
            a step begins and ends; `with pliant.progress.shown() as progress` shows more.

    Raises:
        RecipeError: the target's name means none, or this machine has no such device.
        DamagedFileError: the target's file does not exist.
    """

    def __init__(
        self,
        run: Run,
        *,
        target: TargetLike | None = None,
        precision: InferencePrecision | None = None,
        searcher: str | Build | None = None,
        limits: Iterable[Limit | str] | Limit | str | None = None,
        confidence: float | None = None,
        energy: str | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.run = run
        self.searcher: str | Build = searcher or run.part("search.searcher")
        self.precision: InferencePrecision = precision or run.recipe.target.precision
        self._named_target: TargetLike = target or run.part("target.name")
        self._is_own_target = (
            target in (None, run.part("target.name"))
            and self.precision == run.recipe.target.precision
            and energy in (None, run.recipe.target.energy)
        )
        self._confidence, self._energy = confidence, energy
        self.limits = run.recipe.parsed_limits if limits is None else as_limits(limits)
        self.device = None if device is None else training_device(device)
        self.progress = run.progress = progress or printed()
        self._networks: dict[Architecture, Network] = {}
        self._answers: dict[Architecture, Answers] = {}
        self._int8: dict[Architecture, Int8Network] = {}
        with self._refusing():
            require_known(self._named_target)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """The name of a target that cannot be opened leaves the recipe of the run as it was."""
        try:
            yield
        except (DamagedFileError, ProfileMismatchError):
            self.run.restore_recipe()
            raise

    @property
    def confidence(self) -> float | None:
        """With which limits shall hold; that of the run, for the run's own target."""
        return self._confidence or (self.run.recipe.confidence if self._is_own_target else None)

    @property
    def energy(self) -> str | None:
        """Where the energy comes from; that of the run, for the run's own target."""
        return self._energy or (self.run.recipe.target.energy if self._is_own_target else None)

    @cached_property
    def target(self) -> Target:
        """What the networks will run on; this machine is measured where it never was.

        Raises:
            RecipeError: it does not report what is limited or minimised; known before measuring.
            ProfileMismatchError: a profile for another space, thread count or batch.
            MeasurementError: this machine is too busy to be measured.
        """
        table = self.run.recipe.target
        known = reported_metrics(self._named_target, self.energy)
        if known is not None:
            self._wanted(known.metrics).require_reported(known)
        options = TargetOptions(
            table.threads,
            table.batch,
            table.optimisation,
            table.mapping,
            self.run.folder,
            self.run.recipe.seed,
            self.precision,
            table.runtime,
            self.energy,
        )
        if self._named_target not in (THIS_CPU, self.run.part("target.name")):
            # Another device has settings of its own, those with which it was measured.
            options = replace(options, threads=None, batch=None, optimisation=None, runtime=None)
        with self._refusing():
            target = open_target(self._named_target, self.space, options, progress=self.progress)
        self._wanted(target.metrics).require_reported(target)
        if self._is_own_target:
            self._keep(target)
        return target

    def _keep(self, target: Target) -> None:
        """The run keeps which target it used, and a copy of the profile that it was given."""
        kept = self.run.profile_path
        if isinstance(target, MeasuredTarget) and not kept.is_file():
            target.profile.save(kept)
        self.run.resolve(target=target.identity)

    @cached_property
    def space(self) -> Space:
        """That of the run, with costs in the session's precision."""
        return self.run.space if self.precision == "fp32" else self.run.space.with_bits(8)

    @cached_property
    def objective(self) -> Objective:
        """What the run looks for."""
        return self._wanted(self.target.metrics)

    def _wanted(self, metrics: Sequence[str]) -> Objective:
        """The objective; where the recipe names no costs of the front, on a target's metrics."""
        table = self.run.recipe.objective
        costs = table.costs or (table.minimise or _front_metric(self.limits, metrics),)
        return Objective(costs, self.limits, table.minimise)

    @cached_property
    def search_objective(self) -> Objective:
        """The objective with lower limits, which predictions are within at the run's confidence.

        Raises:
            RecipeError: the target has no interval for a limited metric.
            MeasurementError: too few networks were measured for this confidence.
        """
        return confident_objective(self.objective, self.target, self.confidence)

    @cached_property
    def feasible(self) -> FeasibleRange:
        """Whether any network is within the limits, asked before anything is trained.

        Raises:
            InfeasibleError: none is; with the range that is feasible, and a shipped space that
                meets the limits.
        """
        objective = Objective(limits=self.limits)
        if self.confidence is not None:
            if by_layers := objective.arithmetic_limits:  # before the target is measured
                costs = Arithmetic(self.space).predict
                check_feasible(self.space, Objective(limits=by_layers), costs, self.run.rng(1))
            objective = Objective(limits=self.search_objective.limits)
        try:
            return check_feasible(self.space, objective, self._predict, self.run.rng(1))
        except InfeasibleError as error:
            if self.run.recipe.train.strategy in SEARCHING:  # no other shipped space is like it
                raise
            advice = fitting_space(self.space, objective.cost_limits, self._smallest())
            raise InfeasibleError(f"{error} {advice}" if advice else str(error)) from None

    def _smallest(self) -> KnownCost | None:
        """The smallest network with its predicted cost; None where no target was opened."""
        smallest = self.run.space.smallest()
        [cost] = self.target.predict([smallest]) if "target" in self.__dict__ else [None]
        if not isinstance(cost, Cost):
            return None
        return KnownCost(int(self.run.space.cost(smallest).metric("macs")), cost)

    def _predict(self, architectures: Sequence[Architecture]) -> Sequence[Cost | Failed]:
        return checked_costs(self.target.predict, architectures)

    @cached_property
    def baselines(self) -> Baselines:
        """What the images give with little work."""
        return baselines(self.run, self.progress)

    def require_trainable(self) -> None:
        """Refuse what cannot be trained before anything is measured.

        Raises:
            RecipeError: the recipe names no start, or a strategy that cannot search the space.
        """
        require_start(self.run)
        if self.run.recipe.train.strategy in SEARCHING:
            mixed_blocks(self.run.space)

    @cached_property
    def supernet(self) -> Supernet:
        """The trained weights; trained now where they never were."""
        return train_supernet(
            self.run, device=self.device, progress=self.progress, searched=self.searched
        )

    @cached_property
    def searched(self) -> SearchedCosts:
        """The target and the limits, for strategies that search while they train.

        Once the weights are trained, nothing is searched any more, and other limits may be asked.

        Raises:
            InfeasibleError: every network is within all limits, so that there is nothing to search.
            RunConflictError: the training began with other limits or for another target.
        """
        if self.run.recipe.train.strategy not in SEARCHING:
            return SearchedCosts()
        if self.run.weights.is_file():
            return SearchedCosts(self.target)
        self._require_something_to_search()
        self._require_measured_operations()
        self.require_same_search()
        limits = {limit.metric: limit.bound for limit in self.search_objective.cost_limits}
        measure = self._measure_untrained if self.target.can_measure else None
        return SearchedCosts(self.target, limits, measure)

    def _require_something_to_search(self) -> None:
        name, limits = self.run.recipe.train.strategy, self.search_objective.cost_limits
        rule = f"strategy {name} searches for the networks that a limit on a cost allows"
        if not limits:
            received = " and ".join(map(str, self.limits)) or "none"
            macs = sorted(self.run.space.cost(one).metric("macs") for one in self._ends())
            low, high = (format_cost("macs", one) for one in macs)
            raise InfeasibleError(
                f"{rule}, received {received}. Add one, such as --limit macs=NUMBER: the MACs of "
                f"space {self.space.name!r} reach from about {low} to {high}."
            )
        ranges = self.feasible.ranges
        if all(limit.bound >= ranges[limit.metric][1] for limit in limits):
            reached = "; ".join(
                f"{metric} reaches {format_cost(metric, low)} to {format_cost(metric, high)}"
                for metric, (low, high) in ranges.items()
            )
            raise InfeasibleError(
                f"{rule}, and every network of space {self.space.name!r} is within "
                f"{' and '.join(map(str, limits))}: {reached}. Lower a limit."
            )

    def _require_measured_operations(self) -> None:
        """Refuse a profile without some operations: the search would go by guesses of them."""
        target = self.target
        if not isinstance(target, MeasuredTarget):
            return
        names = {
            block: f"{mixed.slot} {option}"
            for mixed in mixed_blocks(self.run.space)
            for option, block in zip(mixed.choice.options, mixed.operations, strict=True)
            if block is not None
        }
        if missing := [names[block] for block in target.unmeasured(names)]:
            self.run.restore_recipe()
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ProfileMismatchError(
                "a search while training needs the latency of every operation; profile "
                f"{target.name} has none of {', '.join(missing[:5])}{more}. Measure them: pliant "
                f"device measure {self.run.folder} --out NEW_PROFILE/, then --target NEW_PROFILE/"
            )

    def _ends(self) -> tuple[Architecture, Architecture]:
        return self.run.space.smallest(), self.run.space.largest()

    def require_same_search(self) -> None:
        """Refuse limits and a target with which a search while training did not begin.

        Raises:
            RunConflictError: they are others.
        """
        run = self.run
        if run.recipe.train.strategy not in SEARCHING:
            return
        now = {
            "limits": ", ".join(sorted(map(str, self.limits))),
            "target": f"{self.target.name} ({self.target.identity})",
            "confidence": "none" if self.confidence is None else f"{self.confidence:g}",
        }
        began = run.weights.is_file() or bool(Checkpoints(run.folder / "supernet").files())
        known = run.record.metadata("searched") if began else None
        for key, value in (known or {}).items():
            if value != now[key]:
                run.restore_recipe()
                raise RunConflictError(
                    f"strategy {run.recipe.train.strategy} searches while it trains, so a run ends "
                    f"with the {key} with which it began: {value} there, {now[key]} here. Use "
                    "--run-dir NEW_DIRECTORY, or the same command to resume that run."
                )
        if not began:
            run.record.set_metadata("searched", now)

    def _measure_untrained(self, architecture: Architecture) -> Cost:
        """What a network costs on the target, with random weights.

        It is measured in both ways in which a delivered network is, and the higher cost counts: no
        other network has trained weights once this one has.
        """
        blocks = self.space.blocks(architecture)
        model = random_network_model(blocks, self.run.rng(2), self.precision)
        [beside] = self.target.measure({str(architecture): model}).values()
        apart = self.measure_apart(model)
        highest: dict[str, Any] = {name: beside.cost.metric(name) for name in beside.cost.metrics}
        for name in apart.cost.metrics:
            highest[name] = max(highest.get(name, 0.0), apart.cost.metric(name))
        return Cost(**highest)

    def measure_apart(self, model: bytes) -> Measured:
        """A measurement of one ONNX model in a subprocess, as a user's own would be."""
        with tempfile.TemporaryDirectory(prefix="pliant-") as scratch:
            path = Path(scratch) / "model.onnx"
            path.write_bytes(model)
            return self.target.measure_file(path)

    @cached_property
    def plan(self) -> Plan:
        """Epochs and estimates of the run, planned when its training and its search began."""
        _ = self.supernet
        return plan_search(self.run)

    @cached_property
    def weights_digest(self) -> str:
        """Names the weights in the record, so that results of others are never taken for theirs."""
        _ = self.supernet
        return hashlib.sha256(self.run.weights.read_bytes()).hexdigest()[:12]

    @cached_property
    def estimator(self) -> SupernetEstimator:
        """The supernet as an accuracy estimator, in the precision of its training."""
        data = self.run.data
        return SupernetEstimator(
            self.supernet,
            data.train,
            data.validation,
            images=self.run.recipe.search.images,
            precision=self.run.record.metadata("precision") or "fp32",
            seed=self.run.recipe.seed,
        )

    def network(self, architecture: Architecture) -> Network:
        """A network of the shortlist, extracted and calibrated once; in fp32, on the CPU."""
        if architecture not in self._networks:
            self._networks[architecture] = self.estimator.network(architecture)
        return self._networks[architecture]

    def answers(self, architecture: Architecture) -> Answers:
        """What a network of the shortlist answers on the whole validation split."""
        if architecture not in self._answers:
            self._answers[architecture] = self.answers_on(architecture, self.run.data.validation)
        return self._answers[architecture]

    def answers_on(self, architecture: Architecture, split: Split) -> Answers:
        """What a network of the shortlist, in its precision, answers on a split."""
        if self.precision == "int8":
            return model_answers(self.int8(architecture).model, split)
        return answers(self.network(architecture), split)

    def validate(self, architecture: Architecture) -> Accuracy:
        """Top-1 of a network of the shortlist on the whole validation split."""
        return self.answers(architecture).accuracy

    def onnx(self, architecture: Architecture) -> bytes:
        """A network of the shortlist as it is delivered, in its precision."""
        if self.precision == "int8":
            return self.int8(architecture).model
        return onnx_bytes(self.network(architecture), self.run.space.blocks(architecture))

    def int8(self, architecture: Architecture) -> Int8Network:
        """A network of the shortlist, quantized once."""
        if architecture not in self._int8:
            blocks = self.run.space.blocks(architecture)
            model = onnx_bytes(self.network(architecture), blocks)
            self._int8[architecture] = to_int8(
                model, self.run.data.train, seed=self.run.recipe.seed
            )
        return self._int8[architecture]


def overlaid(predicted: Cost | Failed, measured: Cost | None) -> Cost:
    """A predicted cost with the measured metrics in place of the predicted ones."""
    assert isinstance(predicted, Cost), "a network without a predicted cost is not shortlisted"
    if measured is None:
        return predicted
    return replace(predicted, **{name: getattr(measured, name) for name in measured.metrics})


def _front_metric(limits: Sequence[Limit], metrics: Sequence[str]) -> str:
    """The front's cost: the first limited metric that needs the target, else the target's first."""
    limited = [limit.metric for limit in limits if limit.metric in metrics]
    own = [name for name in limited if name not in ARITHMETIC_METRICS]
    return (
        own
        or [name for name in metrics if name not in ARITHMETIC_METRICS]
        or limited
        or list(metrics)
    )[0]
