"""What does a run have to show? One page for people, made from the summary; it works offline."""

from __future__ import annotations

from pathlib import Path

from pliant.report import (
    classes,
    delivered_files,
    evidence_cards,
    front,
    headline,
    pages,
    reproduce,
)
from pliant.report.architecture_chart import architecture_chart
from pliant.report.block_chart import block_chart, drawn_metric
from pliant.report.drawing import StagePicture, drawing
from pliant.report.figure import Chart, chart
from pliant.report.front_chart import front_chart
from pliant.report.quantities import words
from pliant.report.roofline_page import HEADS, layer_table, roofline_charts
from pliant.report.shown import axis, shown_networks
from pliant.report.summary import Summary
from pliant.report.training_chart import MAX_POINTS, training_chart


def write_report(summary: Summary, path: Path) -> None:
    """Write the page of a run, replacing an old one at once.

    Args:
        summary: of the run.
        path: of the page, for instance `report.html`.
    """
    pages.write_page(path, "run.html", **_values(summary))


def run_page(summary: Summary) -> str:
    """The page of a run as HTML."""
    return pages.render("run.html", **_values(summary))


def _values(summary: Summary) -> dict[str, object]:
    networks = shown_networks(summary)
    chosen = next(one for one in networks if one.chosen)
    return {
        "summary": summary,
        "networks": networks,
        "chosen": chosen,
        "axis": axis(summary),
        "goal": headline.goal(
            summary.objective,
            by_probability=summary.training is not None
            and summary.training.architecture is not None,
        ),
        "source_of_costs": headline.source_of_costs(summary.target),
        "axis_verdict": headline.axis_verdict(summary, chosen),
        "tiles": headline.tiles(summary, chosen),
        "explanation": front.explanation(summary),
        "network_facts": front.network_facts,
        "columns": front.columns(summary),
        "front_chart": _front_chart(summary),
        "classes": classes,
        "classification": summary.classification,
        "confusion_chart": _confusion_chart(summary),
        "block_metric": drawn_metric(summary.blocks, summary.objective.costs),
        "block_chart": _block_chart(summary),
        "drawing": _drawing(summary),
        "roofline": summary.roofline,
        "roofline_charts": _roofline_charts(summary),
        "layer_heads": HEADS,
        "layer_table": layer_table,
        "training_chart": _training_chart(summary),
        "architecture_chart": _architecture_chart(summary),
        "steps_are_averaged": _steps_are_averaged(summary),
        "files": delivered_files,
        "evidence_cards": evidence_cards,
        "metadata": reproduce.metadata(summary),
    }


def _front_chart(summary: Summary) -> Chart:
    label = words(axis(summary)).label
    alt = f"Accuracy of networks against their {label}. The table below has the same numbers."
    return chart("front", front_chart(summary), alt)


def _confusion_chart(summary: Summary) -> Chart | None:
    if summary.classification is None:
        return None
    figure = classes.confusion_chart(summary.classification)
    alt = "Validation images by label and answer. The table below names the worst classes."
    return None if figure is None else chart("confusion", figure, alt)


def _block_chart(summary: Summary) -> Chart | None:
    metric = drawn_metric(summary.blocks, summary.objective.costs)
    if metric is None:
        return None
    alt = f"Share of {words(metric).label}, MACs and parameters by block."
    return chart("blocks", block_chart(summary.blocks, metric), alt)


def _drawing(summary: Summary) -> tuple[StagePicture, ...]:
    blocks = []
    for block in summary.blocks:
        costs = {name: getattr(block.cost, name) for name in block.cost.metrics}
        blocks.append({"slot": block.slot, "type": block.type, "sizes": block.sizes, **costs})
    return drawing(blocks)


def _roofline_charts(summary: Summary) -> list[tuple[str, Chart]]:
    """Charts under their titles; none without roofs."""
    if summary.roofline is None:
        return []
    return roofline_charts([summary.roofline.network], summary.roofline.roofs)


def _training_chart(summary: Summary) -> Chart | None:
    if summary.training is None or not summary.training.curve:
        return None
    alt = "Losses of the sub-networks and learning rate over the training."
    return chart("training", training_chart(summary.training.curve), alt)


def _architecture_chart(summary: Summary) -> Chart | None:
    search = None if summary.training is None else summary.training.architecture
    if search is None or not search.steps:
        return None
    figure = architecture_chart(search, summary.objective.limits)
    alt = "Probability of each operation of each block, and expected costs over their limits."
    return chart("architecture", figure, alt)


def _steps_are_averaged(summary: Summary) -> bool:
    return summary.training is not None and len(summary.training.curve) > MAX_POINTS
