"""The head of the page: what was chosen, and whether it meets its limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pliant.report.candidates import Candidate, candidates, minimised
from pliant.report.markup import Markup, joined, tag
from pliant.report.pieces import note
from pliant.report.quantities import (
    GAP,
    NOT_MEASURED,
    networks,
    percent,
    quantity,
    significant,
    with_unit,
    words,
)


def headline(summary: Mapping[str, Any]) -> Markup:
    """One sentence and a row of the numbers that matter."""
    chosen = next((network for network in candidates(summary) if network.chosen), None)
    if chosen is None:
        return joined(
            tag("p", "No network is chosen yet.", class_="lead"),
            note("This page shows what the run has done so far."),
        )
    return joined(
        tag("p", *_sentence(summary, chosen), class_="lead"),
        tag("div", *_tiles(summary, chosen), class_="tiles"),
    )


def _sentence(summary: Mapping[str, Any], chosen: Candidate) -> Iterator[object]:
    metric = minimised(summary)
    size = (summary.get("space") or {}).get("size")
    yield f"Of {networks(size)} networks, " if size is not None else "Of the networks searched, "
    value = chosen.measured(metric)
    device = (summary.get("machine") or {}).get("cpu")
    if value is None:
        yield f"the chosen one has a {words(metric).label} that was not measured yet"
    elif metric == "latency_ms":
        yield joined(
            "the chosen one answers in ",
            tag("strong", quantity(metric, value)),
            f" on {device}" if device else "",
        )
    else:
        yield joined(
            "the chosen one has a ",
            words(metric).label,
            " of ",
            tag("strong", quantity(metric, value)),
        )
    limit = next(
        (limit for limit in summary.get("limits") or [] if limit.get("metric") == metric), None
    )
    if limit and value is not None:
        yield f", {'within' if value <= limit['bound'] else 'above'} the limit of {quantity(metric, limit['bound'])},"
    accuracy = chosen.facts.get("top1_test")
    images = (summary.get("data") or {}).get("test")
    if accuracy is None:
        yield " and was not tested on the test images yet"
    else:
        of_them = f" of {significant(images)} test images" if images else " of the test images"
        yield joined(" and is right on ", tag("strong", percent(accuracy)), of_them)
    yield f". It has {quantity('parameters', chosen.facts.get('parameters'))} parameters."


def _tiles(summary: Mapping[str, Any], chosen: Candidate) -> Iterator[Markup]:
    limits = {limit["metric"]: limit["bound"] for limit in summary.get("limits") or []}
    for metric in dict.fromkeys([minimised(summary), *limits]):
        yield _cost_tile(metric, chosen, limits.get(metric))
    yield _accuracy_tile(chosen.facts.get("top1_test"), (summary.get("data") or {}).get("test"))
    if "parameters" not in limits:
        yield _tile(
            "Parameters",
            quantity("parameters", chosen.facts.get("parameters")),
            "weights and offsets, normalisation folded in",
        )
    if "macs" not in limits:
        memory = quantity("peak_memory_bytes", chosen.facts.get("peak_memory_bytes"))
        below = "multiply-accumulates" if "peak_memory_bytes" in limits else f"peak memory {memory}"
        yield _tile("MACs per image", quantity("macs", chosen.facts.get("macs")), below)


def _accuracy_tile(accuracy: float | None, images: int | None) -> Markup:
    if accuracy is None:
        return _tile("Test accuracy", "—", NOT_MEASURED)
    if not images:
        return _tile("Test accuracy", percent(accuracy), "")
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return _tile(
        "Test accuracy",
        percent(accuracy),
        f"±{GAP}{percent(error)} standard error, {significant(images)} images",
    )


def _cost_tile(metric: str, chosen: Candidate, limit: float | None) -> Markup:
    value = chosen.measured(metric)
    spread = chosen.spread_ms if metric == "latency_ms" else None
    title = words(metric).title
    if value is None:
        return _tile(
            title, "—", f"{NOT_MEASURED}; predicted {quantity(metric, chosen.predicted(metric))}"
        )
    around = "" if spread is None else f"±{GAP}{with_unit(significant(spread, 2), metric)}"
    if limit is None:
        return _tile(title, quantity(metric, value), around)
    held = value <= limit
    verdict = tag("span", "✓ within" if held else "✗ above", class_="holds" if held else "fails")
    below = joined(
        verdict, f" the limit of {quantity(metric, limit)}", f"; {around}" if around else ""
    )
    return _tile(title, quantity(metric, value), below)


def _tile(title: str, value: str, below: object) -> Markup:
    return tag(
        "div",
        tag("p", title, class_="name"),
        tag("p", value, class_="value"),
        tag("p", below, class_="below"),
        class_="tile",
    )
