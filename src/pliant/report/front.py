"""The trade-off of a run: texts of its chart, of each network, and of its tables."""

from __future__ import annotations

from collections.abc import Callable

from pliant.metrics import ARITHMETIC_METRICS
from pliant.report.front_chart import MAX_POINTS, is_thinned
from pliant.report.headline import source_of_costs
from pliant.report.quantities import percent, quantity, significant, words
from pliant.report.shown import ShownNetwork, decided_metrics, reported_metrics
from pliant.report.summary import Summary

Column = tuple[str, Callable[[ShownNetwork], str]]
"""Head of a column, and its cell for a network."""


def explanation(summary: Summary) -> str:
    """How to read the chart."""
    if summary.target.measured:
        text = (
            "Hollow marks are what the search expected, filled marks what was measured; a thin "
            "line joins the two of one network. "
        )
    else:
        text = (
            "Hollow marks have the accuracy that the search estimated, filled marks that on all "
            f"validation images. {source_of_costs(summary.target)} "
        )
    text += (
        "Point at a mark for its numbers, click a mark of a front for the command that delivers "
        "its network."
    )
    if is_thinned(summary):
        text += (
            f" Of more than {significant(MAX_POINTS)} estimates of a search, evenly spaced ones "
            "are drawn."
        )
    return text


def network_facts(network: ShownNetwork, *, measured: bool) -> list[tuple[str, str]]:
    """Names and values: every accuracy and every cost that is known of a network.

    Args:
        network: of either front.
        measured: whether the target is one that is measured.
    """
    rows = []
    for name, accuracy in network.accuracies:
        value = "not tested yet" if accuracy is None else percent(accuracy.top1)
        rows.append((f"Accuracy, {name}", value))
    for metric in reported_metrics(network):
        title = words(metric).title
        if metric in ARITHMETIC_METRICS:
            rows.append((title, quantity(metric, network.predicted(metric))))
            continue
        rows.append((f"{title}, predicted", quantity(metric, network.predicted(metric))))
        if measured:
            rows.append((f"{title}, measured", measured_text(network, metric)))
        apart = network.result.measured_apart
        if apart is not None and getattr(apart.cost, metric) is not None:
            value = quantity(metric, getattr(apart.cost, metric), getattr(apart.spread, metric))
            rows.append((f"{title}, in its own process", value))
    return rows


def measured_text(network: ShownNetwork, metric: str) -> str:
    """A measured cost with its spread, or that there is none."""
    return quantity(metric, network.measured(metric), network.spread(metric))


def columns(summary: Summary) -> list[Column]:
    """The number columns of a table of networks: accuracies, then the costs that decide."""
    found: list[Column] = [
        ("Estimated", lambda one: percent(one.result.estimate.top1)),
        ("Validation", lambda one: percent(one.result.validated.top1)),
        ("Test", lambda one: percent(one.result.test.top1) if one.result.test else "—"),
    ]
    # Parameters are the baseline to beat, so they are always told.
    for metric in dict.fromkeys((*decided_metrics(summary), "parameters")):
        found += _cost_columns(metric, measured=summary.target.measured)
    return found


def _cost_columns(metric: str, *, measured: bool) -> list[Column]:
    title = words(metric).title

    def predicted(one: ShownNetwork) -> str:
        return quantity(metric, one.predicted(metric))

    if metric in ARITHMETIC_METRICS:
        return [(title, predicted)]
    found: list[Column] = [(f"{title}, predicted", predicted)]
    if measured:
        found.append((f"{title}, measured", lambda one: measured_text(one, metric)))
    return found
