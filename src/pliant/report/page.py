"""What does a run have to show? One HTML page that says it to people, works offline and asks nobody for anything.

The page's own security policy forbids every request, so that it stays self-contained whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from pliant.files import write_atomically
from pliant.report.block_chart import block_chart
from pliant.report.drawing import drawing
from pliant.report.evidence import evidence
from pliant.report.figure import chart
from pliant.report.front import front
from pliant.report.headline import headline
from pliant.report.markup import Markup, joined, tag, text
from pliant.report.pieces import facts, note, section
from pliant.report.quantities import duration, moment, significant
from pliant.report.repeat import repeat
from pliant.report.training_chart import MOST_POINTS, training_chart


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the page of a run, replacing an old one at once.

    Args:
        summary: the content of summary.json. Parts that a run has not come to may be missing or None; the page leaves
            them out or says that they were not measured.
        path: of the page, for instance `report.html`.
    """
    write_atomically(path, page(summary))


def page(summary: Mapping[str, Any]) -> str:
    """The page of a run as HTML."""
    assets = files("pliant.report")
    template = Template(assets.joinpath("page.html").read_text(encoding="utf-8"))
    name = summary.get("name") or "a run"
    sections = [part for part in _sections(summary) if part]
    return template.substitute(
        title=text(f"{name}: Pliant report"),
        style=assets.joinpath("page.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        script=assets.joinpath("page.js").read_text(encoding="utf-8"),
        head=joined(_kicker(summary, str(name)), headline(summary)),
        body=joined(*sections),
        foot=text(f"Written by Pliant {summary.get('pliant') or ''}".rstrip() + "."),
    )


def _kicker(summary: Mapping[str, Any], name: str) -> Markup:
    made = f" · {moment(summary['created'])}" if summary.get("created") else ""
    remark = note(summary["note"]) if summary.get("note") else None
    return joined(tag("p", f"Pliant report{made}", class_="kicker"), tag("h1", name), remark)


def _sections(summary: Mapping[str, Any]) -> Iterator[Markup]:
    yield front(summary)
    yield _latency(summary)
    yield _network(summary)
    yield _training(summary)
    yield evidence(summary)
    yield repeat(summary)


def _latency(summary: Mapping[str, Any]) -> Markup:
    blocks = summary.get("blocks") or []
    figure = block_chart(blocks)
    if figure is None:
        return Markup()
    open_ones = sum(block.get("latency_ms") is None for block in blocks)
    says = "Each block's share of the chosen network, in running order: a bar for latency, marks for MACs and parameters."
    if open_ones:
        whose = "any block" if open_ones == len(blocks) else f"{open_ones} of {len(blocks)} blocks"
        says += f" The latency of {whose} was not measured."
    picture = chart("blocks", figure, "Share of latency, MACs and parameters by block.")
    return section("latency", "Where the latency goes", note(says), picture)


def _network(summary: Mapping[str, Any]) -> Markup:
    picture = drawing(summary.get("blocks") or [])
    if not picture:
        return Markup()
    kinds = (
        ("dense", "convolution"),
        ("depthwise", "depthwise convolution"),
        ("squeeze", "squeeze-and-excitation"),
        ("matmul", "linear"),
    )
    legend = tag(
        "p", *(tag("span", name, class_=f"key {kind}") for kind, name in kinds), class_="legend"
    )
    says = "Every box is a layer, as wide as it has output channels. A bracket is a shortcut that adds the block's input to its output."
    return section("network", "The chosen network", note(says), legend, picture)


def _training(summary: Mapping[str, Any]) -> Markup:
    training = summary.get("training")
    if not training:
        return Markup()
    curve = training.get("curve") or []
    figure = training_chart(curve)
    rows = [
        ("Schedule", training.get("schedule")),
        ("Epochs", significant(training["epochs"]) if training.get("epochs") is not None else None),
        ("Time", duration(training.get("seconds"))),
        ("Precision", training.get("precision")),
    ]
    if figure is None:
        return section("training", "The training", facts(rows), note("No losses were logged."))
    picture = chart(
        "training", figure, "Losses of the sub-networks and learning rate over the training."
    )
    means = (
        note("Every point is the mean of several logged steps.")
        if len(curve) > MOST_POINTS
        else None
    )
    return section("training", "The training", facts(rows), picture, means)
