"""What a search by an estimator found: finalists with estimates and from scratch, and advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from pliant.accuracy.predictor import PredictorQuality
from pliant.metrics import Accuracy, Cost, Failed, Quality
from pliant.objective import Candidate
from pliant.search.feasible import FeasibleRange
from pliant.spaces.architecture import Architecture

EVOLUTION, RANDOM, LARGEST = "evolution", "random search", "parameter count"


@dataclass(frozen=True, slots=True)
class Finalist:
    """A network that one of the searches put first."""

    by: str
    """What found it: `evolution`, `random search` or `parameter count`."""
    architecture: Architecture
    estimated: Quality | None
    """By the estimator of the search; None for the most parameters, which it is not asked about."""
    cost: Cost
    retrained: Quality | None = None
    """After training from scratch with another seed; None where the budget was spent."""
    lineage_epochs: int | None = None
    """Behind the estimate, with those of all ancestors; None where it has none."""

    @classmethod
    def of(cls, by: str, candidate: Candidate) -> Finalist:
        """A candidate whose cost is known."""
        return cls(by, candidate.architecture, candidate.quality, candidate.known_cost)

    @property
    def gap_points(self) -> float | None:
        """Estimated minus from scratch, in percentage points; None where one of them is missing."""
        ours, theirs = self.estimated, self.retrained
        if not isinstance(ours, Accuracy) or not isinstance(theirs, Accuracy):
            return None
        return 100 * (ours.top1 - theirs.top1)


@dataclass(frozen=True)
class EstimatorSearchResult:
    """What evolution and random search found at equal cost."""

    estimator: str
    finalists: tuple[Finalist, ...]
    """The best of each search first."""
    evaluated: int
    """Networks that evolution evaluated."""
    random_evaluated: int
    spent: float
    """By evolution."""
    random_spent: float
    unit: str
    """Of both."""
    setup_seconds: float
    """CPU time of what all networks share."""
    failures: tuple[str, ...]
    """Why networks failed, in both searches."""
    feasible: FeasibleRange
    predictor: PredictorQuality | None
    """Of the predictor, on networks held out of its fit."""
    metrics: tuple[str, ...]
    """Of the costs: those of the limits and of the front."""

    @property
    def chosen(self) -> Finalist | None:
        """The most accurate one after training from scratch; None where all of them failed."""
        trained = [one for one in self.finalists if isinstance(one.retrained, Accuracy)]
        return max(trained, key=lambda one: _top1(one.retrained), default=None)

    @property
    def gap_points(self) -> float | None:
        """By how much estimates of evolution's finalists exceed training from scratch; the mean."""
        gaps = [one.gap_points for one in self.finalists if one.by == EVOLUTION]
        known = [gap for gap in gaps if gap is not None]
        return fmean(known) if known else None

    @property
    def advice(self) -> str:
        """One sentence: is what evolution puts first better than what chance does, beyond doubt?

        The first network of each search is compared, whatever the others turned out to be.
        """
        ours, theirs = self._first(EVOLUTION), self._first(RANDOM)
        if not isinstance(ours, Accuracy) or not isinstance(theirs, Accuracy):
            return "The first network of one of the searches was not trained from scratch."
        best, other = f"{ours.top1:.2%}", f"{theirs.top1:.2%}"
        if ours.interval[0] > theirs.interval[1]:
            return f"Evolution found a better network than random search: {best} against {other}."
        if ours.interval[1] < theirs.interval[0]:
            return f"Random search found a better network than evolution: {other} against {best}."
        return (
            f"No evidence of a gain over random search: {best} against {other} after training from "
            "scratch, within the error of their validation images."
        )

    def _first(self, by: str) -> Quality | None:
        return next((one.retrained for one in self.finalists if one.by == by), None)


def _top1(quality: Quality | None) -> float:
    return quality.top1 if isinstance(quality, Accuracy) else 0.0


def result_json(result: EstimatorSearchResult) -> dict[str, object]:
    """The result for programs: networks by the text of the architecture."""
    chosen = result.chosen
    return {
        "evaluated": result.evaluated,
        "random_evaluated": result.random_evaluated,
        "spent": result.spent,
        "random_spent": result.random_spent,
        "unit": result.unit,
        "setup_seconds": result.setup_seconds,
        "failed": len(result.failures),
        "share_within_limits": result.feasible.share,
        "chosen": chosen and str(chosen.architecture),
        "gap_points": result.gap_points,
        "finalists": _rows(result.finalists),
        "advice": result.advice,
    }


def _rows(finalists: Sequence[Finalist]) -> list[dict[str, object]]:
    return [
        {
            "by": one.by,
            "architecture": str(one.architecture),
            "estimated": _value(one.estimated),
            "retrained": _value(one.retrained),
            "gap_points": one.gap_points,
            "lineage_epochs": one.lineage_epochs,
            "cost": asdict(one.cost),
        }
        for one in finalists
    ]


def _value(quality: Quality | None) -> float | str | None:
    if isinstance(quality, Failed):
        return quality.reason
    return None if quality is None else quality.value
