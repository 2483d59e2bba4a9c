"""The promising networks of a search, evaluated for real: all validation images, measured costs.

Few images cannot tell good networks apart: the best of many on 30 images is the best by luck. So of
networks whose accuracies are within one standard error of the best one's, the one with the most
MACs is chosen, since in one supernet larger networks are the more accurate ones on average. The
rule is that of Breiman, L. et al., Classification and regression trees, 1984, section 3.4.3, with
the larger network in place of the simpler one: the limits already bound what it may cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pliant.accuracy.evaluation import indistinct
from pliant.errors import InfeasibleError
from pliant.metrics import Accuracy, Cost, Measured
from pliant.objective import ACCURACY, Candidate, Limit, Objective
from pliant.record import Evaluation
from pliant.runs.session import Session, overlaid
from pliant.search.confidence import confident_objective
from pliant.search.linas import select_diverse
from pliant.spaces.architecture import Architecture
from pliant.units import format_cost

TIGHTENINGS = 3
"""Times that the limits of the shortlist are lowered because measurements exceed predictions."""


@dataclass(frozen=True)
class ShortlistedNetwork:
    """A network of the front: what the search expected, and what it really is."""

    candidate: Candidate
    """With the estimate on the search's validation images, and the predicted cost."""
    validated: Accuracy
    """On all validation images."""
    measured: Measured | None
    """Side by side with the others; None where the target cannot be measured."""
    measured_apart: Measured | None = None
    """In a subprocess, as it is delivered; where a limit asked for it."""

    @property
    def architecture(self) -> Architecture:
        """Which network it is."""
        return self.candidate.architecture

    @property
    def estimate(self) -> Accuracy:
        """The accuracy that the search saw."""
        assert isinstance(self.candidate.quality, Accuracy)
        return self.candidate.quality

    @property
    def predicted(self) -> Cost:
        """The cost that the search saw."""
        return self.candidate.known_cost

    @property
    def cost(self) -> Cost:
        """What counts against the limits: measured where it can be."""
        return overlaid(self.predicted, self.measured.cost if self.measured else None)

    @property
    def outcome(self) -> Candidate:
        """The network with its validated accuracy and the cost that counts."""
        return Candidate(self.architecture, self.validated, self.cost)

    @property
    def outcome_apart(self) -> Candidate:
        """The same with what was measured in a subprocess."""
        apart = self.measured_apart.cost if self.measured_apart else None
        return replace(self.outcome, cost=overlaid(self.cost, apart))


class Shortlist:
    """Evaluates the networks of a front for real, each one once; results are in the record."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.record = session.run.record
        context = {"weights": session.weights_digest, "target": session.target.identity}
        if session.precision != "fp32":
            context["precision"] = session.precision
        self.context = json.dumps(context)

    def choose(
        self, history: Sequence[Candidate], wanted: int
    ) -> tuple[list[ShortlistedNetwork], ShortlistedNetwork]:
        """The front of a search, cheapest first, and its best network within the measured limits.

        Args:
            history: of the search.
            wanted: networks of the front to evaluate.

        Raises:
            InfeasibleError: none of them is within the limits as measured.
        """
        objective, tightened = self.session.objective, self.session.search_objective
        tried: list[ShortlistedNetwork] = []
        for _ in range(TIGHTENINGS + 1):
            tried = self.evaluate(self.promising(history, tightened, wanted)) or tried
            within = [one for one in tried if objective.satisfied(one.outcome)]
            for one in self._best_first(within):
                chosen = self._apart(one)
                if objective.satisfied(chosen.outcome_apart):
                    first = objective.costs[0]
                    return sorted(tried, key=lambda other: other.cost.metric(first)), chosen
            tightened = self._recalibrated(_tighter(objective, tightened, tried), tried)
        raise InfeasibleError(_why_none(objective, [self._known_apart(one) for one in tried]))

    def promising(
        self, history: Sequence[Candidate], objective: Objective, wanted: int
    ) -> list[Candidate]:
        """Of a search a diverse choice of its front, and the largest network within the limits.

        Args:
            history: of the search.
            objective: its limits as the search kept them.
            wanted: networks of the front.

        Returns:
            At most one more than wanted; none where nothing is within the limits.
        """
        front = objective.front(history)
        if not front:
            return []
        chosen = select_diverse(front, objective, wanted)
        largest = max(filter(objective.satisfied, history), key=lambda one: self._macs(one))
        if largest.architecture not in {one.architecture for one in chosen}:
            chosen.append(largest)
        return chosen

    def _best_first(self, within: Sequence[ShortlistedNetwork]) -> list[ShortlistedNetwork]:
        """Networks within the limits, the one to deliver first; see the top of this file."""
        objective, answers = self.session.objective, self.session.answers
        ranked = sorted(within, key=lambda one: objective.preference(one.validated.top1, one.cost))
        if objective.minimise is not None or not ranked:
            return ranked
        best = answers(ranked[0].architecture)
        tied = [one for one in ranked[1:] if indistinct(best, answers(one.architecture))]
        tied = sorted([ranked[0], *tied], key=self._macs, reverse=True)
        return tied + [one for one in ranked if one not in tied]

    def _macs(self, one: Candidate | ShortlistedNetwork) -> float:
        return self.session.run.space.cost(one.architecture).metric("macs")

    def _recalibrated(self, tightened: Objective, tried: Sequence[ShortlistedNetwork]) -> Objective:
        """The stricter of the limits and those that hold at the run's confidence.

        The interval is recalibrated on the networks that the search selected.
        """
        confident = confident_objective(
            self.session.objective,
            self.session.target,
            self.session.confidence,
            selected_errors(tried),
        )
        pairs = zip(tightened.limits, confident.limits, strict=True)
        limits = tuple(min(pair, key=lambda limit: limit.bound) for pair in pairs)
        return replace(tightened, limits=limits)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[ShortlistedNetwork]:
        """Each candidate validated on all images and measured; known ones come from the record."""
        fresh = [one.architecture for one in candidates if self._row("front", one) is None]
        measured = self._measure(fresh)
        for number, architecture in enumerate(fresh, 1):
            name = str(architecture)
            self.record.add_evaluation(
                "front",
                name,
                context=self.context,
                split="validation",
                quality=self.session.validate(architecture),
                cost=measured[name].cost if name in measured else None,
                measures=_spreads(measured.get(name)),
            )
            done = "validated on all images" + (" and measured" if name in measured else "")
            self.session.progress("front", number, len(fresh), done)
        return [self._shortlisted(one) for one in candidates]

    def _row(self, stage: str, one: Candidate | ShortlistedNetwork) -> Evaluation | None:
        return self.record.evaluation(stage, str(one.architecture), self.context)

    def _measure(self, architectures: Sequence[Architecture]) -> Mapping[str, Measured]:
        if not (architectures and self.session.target.can_measure):
            return {}
        models = {str(one): self.session.onnx(one) for one in architectures}
        return self.session.target.measure(models)

    def _shortlisted(self, candidate: Candidate) -> ShortlistedNetwork:
        row = self._row("front", candidate)
        assert row is not None
        assert isinstance(row.quality, Accuracy)
        return ShortlistedNetwork(candidate, row.quality, _measured(row))

    def _apart(self, one: ShortlistedNetwork) -> ShortlistedNetwork:
        """Measured again in a subprocess: near a limit another measurement may exceed it."""
        limited = {limit.metric for limit in self.session.objective.limits}
        if one.measured is None or not limited & set(one.measured.spread.metrics):
            return one
        if self._row("apart", one) is None:
            found = self.session.measure_apart(self.session.onnx(one.architecture))
            self.record.add_evaluation(
                "apart",
                str(one.architecture),
                context=self.context,
                cost=found.cost,
                measures=_spreads(found),
            )
        return self._known_apart(one)

    def _known_apart(self, one: ShortlistedNetwork) -> ShortlistedNetwork:
        row = self._row("apart", one)
        return one if row is None else replace(one, measured_apart=_measured(row))


def selected_errors(networks: Sequence[ShortlistedNetwork]) -> dict[str, list[float]]:
    """By metric the logarithm of measured over predicted, of the networks that were measured."""
    found: dict[str, list[float]] = {}
    for one in networks:
        for metric in one.measured.spread.metrics if one.measured is not None else ():
            ratio = one.cost.metric(metric) / one.predicted.metric(metric)
            found.setdefault(metric, []).append(math.log(ratio))
    return found


def _spreads(measured: Measured | None) -> dict[str, float]:
    """The spread of each measured metric, as measures of a row."""
    known = asdict(measured.spread) if measured else {}
    return {f"spread_{name}": value for name, value in known.items() if value is not None}


def _measured(row: Evaluation) -> Measured | None:
    if not isinstance(row.cost, Cost):
        return None
    prefix = "spread_"
    spread = {
        name.removeprefix(prefix): value
        for name, value in row.measures.items()
        if name.startswith(prefix)
    }
    return Measured(row.cost, Cost(**spread))


def _tighter(
    objective: Objective, tightened: Objective, tried: Sequence[ShortlistedNetwork]
) -> Objective:
    """Stricter limits on measured metrics, by the largest ratio of measurement to prediction."""
    limits = []
    for limit in tightened.limits:
        ratios = [
            one.measured.cost.metric(limit.metric) / one.predicted.metric(limit.metric)
            for one in tried
            if one.measured and limit.metric in one.measured.spread.metrics
        ]
        bound = limit.bound / max(*ratios, 1.02) if ratios else limit.bound
        limits.append(Limit(limit.metric, bound, limit.text))
    return replace(objective, limits=tuple(limits))


def _why_none(objective: Objective, tried: Sequence[ShortlistedNetwork]) -> str:
    """What was asked of the networks of a front, and what the nearest of them has."""
    start = (
        "a delivered network is within its limits as measured; of the networks of the front none "
        f"is within {', '.join(map(str, objective.limits))}"
    )
    if not tried:
        return f"{start}: the search found none. Relax a limit, or search longer."
    nearest = min(tried, key=lambda one: objective.violation(one.outcome_apart))
    outcome = nearest.outcome_apart
    has = []
    for limit in objective.limits:
        if limit.metric == ACCURACY:
            has.append(f"accuracy={outcome.value:.2%}")
        else:
            value = format_cost(limit.metric, outcome.known_cost.metric(limit.metric))
            has.append(f"{limit.metric}={value}")
    return f"{start}; the nearest has {', '.join(has)}. Relax the limits to that."
