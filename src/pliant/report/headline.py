"""The head of a run's page: what was chosen, for what, and whether it is within its limits."""

from __future__ import annotations

from dataclasses import dataclass

from pliant.metrics import Accuracy
from pliant.objective import ACCURACY, Limit, Objective
from pliant.report.quantities import GAP, percent, quantity, significant, with_unit, words
from pliant.report.shown import ShownNetwork, axis, decided_metrics
from pliant.report.summary import Summary, TargetFacts


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a limit holds, and the limit in words."""

    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that matters, with its name and what there is to say about it."""

    name: str
    value: str
    remark: str = ""
    verdict: Verdict | None = None


def goal(objective: Objective, *, by_probability: bool = False) -> str:
    """What a network was chosen for: the lowest energy among networks of ...

    Args:
        objective: of the run.
        by_probability: whether a search while training chose it.
    """
    best = "its validation accuracy"  # not always the highest: see `Shortlist`
    if by_probability:
        best = "its probability at the end of the search"
    elif objective.minimise is not None:
        best = f"the lowest {words(objective.minimise).label}"
    bounds = []
    for limit in objective.limits:
        side = "at least" if limit.metric == ACCURACY else "at most"
        label = f" {words(limit.metric).label}"
        bounds.append(f"{side} {quantity(limit.metric, limit.bound)}{label}")
    return f"{best} among networks of {' and '.join(bounds)}" if bounds else best


def source_of_costs(target: TargetFacts) -> str:
    """Where the costs of a page are from, as a sentence."""
    if target.measured:
        return f"Costs were measured on {target.name}."
    return f"Costs are predicted by {target.name}; this target is not measured."


def verdict(limit: Limit, value: float) -> Verdict:
    """Whether a value is within a limit."""
    good, bad = ("reaches", "below") if limit.metric == ACCURACY else ("within", "above")
    holds = limit.excess(value) == 0
    bound = quantity(limit.metric, limit.bound)
    return Verdict(holds, f"{good if holds else bad} the limit of {bound}")


def axis_verdict(summary: Summary, chosen: ShownNetwork) -> Verdict | None:
    """Whether the chosen network is within the limit on the chart's cost; None without one."""
    known = chosen.cost(axis(summary))
    for limit in summary.objective.limits:
        if limit.metric == known.metric and known.value is not None:
            return verdict(limit, known.value)
    return None


def tiles(summary: Summary, chosen: ShownNetwork) -> list[Tile]:
    """What the objective is about, then accuracy and size."""
    limits = {limit.metric: limit for limit in summary.objective.limits}
    decided = decided_metrics(summary)
    row = [_cost_tile(metric, chosen, limits.get(metric), summary.target) for metric in decided]
    if ACCURACY in limits:
        accuracy = chosen.result.validated
        held = verdict(limits[ACCURACY], accuracy.top1)
        row.append(Tile("Validation accuracy", percent(accuracy.top1), _error(accuracy), held))
    row.append(_test_tile(chosen.result.test))
    predicted = chosen.result.predicted
    if "parameters" not in decided:
        of = "weights and offsets, normalisation folded in"
        row.append(Tile("Parameters", quantity("parameters", predicted.parameters), of))
    if "macs" not in decided:
        of = "multiply-accumulates"
        if "peak_memory_bytes" not in decided:
            of = f"peak memory {quantity('peak_memory_bytes', predicted.peak_memory_bytes)}"
        row.append(Tile("MACs per image", quantity("macs", predicted.macs), of))
    return row


def _cost_tile(metric: str, chosen: ShownNetwork, limit: Limit | None, target: TargetFacts) -> Tile:
    known = chosen.cost(metric)
    remark = ""
    if known.spread is not None:
        remark = f"±{GAP}{with_unit(significant(known.spread, 2), metric)}"
    if known.how == "predicted":
        remark = "predicted; not measured yet" if target.measured else f"predicted by {target.name}"
    held = None if limit is None or known.value is None else verdict(limit, known.value)
    value = "—" if known.value is None else quantity(metric, known.value)
    return Tile(words(metric).title, value, remark, held)


def _test_tile(test: Accuracy | None) -> Tile:
    if test is None:
        return Tile("Test accuracy", "—", "not tested yet")
    return Tile("Test accuracy", percent(test.top1), _error(test))


def _error(accuracy: Accuracy) -> str:
    """The 95 % interval of a share, and of how many images it is."""
    if not accuracy.images:
        return "predicted"
    low, high = accuracy.interval
    images = significant(accuracy.images)
    return f"95{GAP}% interval {percent(low, 1)} to {percent(high, 1)}, {images} images"
