"""Which classes a network knows and which it confuses, as a table, a chart and pictures."""

from __future__ import annotations

import plotly.graph_objects as go

from pliant.metrics import Accuracy
from pliant.report.figure import CARD, SEARCH, apply_theme, hover
from pliant.report.quantities import percent, significant
from pliant.report.summary import Classification, ClassResult

MAX_DRAWN = 40
"""Classes of a matrix that can still be read."""
HEADS = ("Class", "Images", "Recognised", "95 % interval", "Most often taken for")
_ROW_PX, _AROUND_PX = 30, 150


def class_rows(found: Classification) -> list[tuple[str, ...]]:
    """A row for each class, the least recognised first."""
    order = sorted(range(len(found.classes)), key=lambda index: _share(found.classes[index]))
    return [_row(found, index) for index in order]


def _row(found: Classification, index: int) -> tuple[str, ...]:
    one = found.classes[index]
    if not one.images:
        return (one.name, "0", "no validation image", "—", "—")
    low, high = Accuracy(one.right / one.images, one.images).interval
    mistaken = [pair for pair in found.confusions if pair.label == index]
    taken_for = "—"
    if mistaken:
        taken_for = f"{found.classes[mistaken[0].answer].name} ({mistaken[0].images})"
    return (
        one.name,
        significant(one.images),
        percent(one.right / one.images, 1),
        f"{percent(low, 0)} to {percent(high, 0)}",
        taken_for,
    )


def _share(one: ClassResult) -> float:
    return one.right / one.images if one.images else 2.0


def balanced_accuracy(found: Classification) -> float | None:
    """Mean share of recognised images over the classes that have any; None without images."""
    shares = [one.right / one.images for one in found.classes if one.images]
    return sum(shares) / len(shares) if shares else None


def confusion_pairs(found: Classification, most: int = 10) -> list[str]:
    """The confusions with the most images, in words."""
    rows = []
    for pair in found.confusions[:most]:
        label, answer = found.classes[pair.label].name, found.classes[pair.answer].name
        rows.append(f"{label} taken for {answer}: {significant(pair.images)}")
    return rows


def confusion_chart(found: Classification) -> go.Figure | None:
    """The confusion matrix, labels by row; None where there are too many classes to read."""
    names = [one.name for one in found.classes]
    if len(names) > MAX_DRAWN:
        return None
    counts = [[0] * len(names) for _ in names]
    for index, one in enumerate(found.classes):
        counts[index][index] = one.right
    for pair in found.confusions:
        counts[pair.label][pair.answer] = pair.images
    shares, texts, cells = [], [], []
    for row, one in enumerate(found.classes):
        shares.append([count / max(1, one.images) for count in counts[row]])
        cells.append([str(count) if count else "" for count in counts[row]])
        texts.append(
            [
                hover(f"{one.name}, answered {answer}", f"{counts[row][column]} of {one.images}")
                for column, answer in enumerate(names)
            ]
        )
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            text=cells,
            texttemplate="%{text}",
            hovertext=texts,
            hoverinfo="text",
            colorscale=[[0, CARD], [1, SEARCH]],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1,
            ygap=1,
        )
    )
    apply_theme(figure, _ROW_PX * len(names) + _AROUND_PX)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [hover(name) for name in names]}
    figure.update_xaxes(title_text="Answer", showgrid=False, tickangle=-45, **ticks)
    figure.update_yaxes(title_text="Label", showgrid=False, autorange="reversed", **ticks)
    return figure
