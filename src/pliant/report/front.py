"""The part of the page about the trade-off: the chart, what is known of the network picked in it, and the same as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pliant.report.candidates import Candidate, candidates, minimised
from pliant.report.figure import chart
from pliant.report.front_chart import MOST_POINTS, front_chart
from pliant.report.markup import Markup, joined, tag
from pliant.report.pieces import breakable, command, copy_button, facts, note, section, table
from pliant.report.quantities import GAP, percent, quantity, significant, with_unit, words

_SAYS = "Accuracy of networks against their {label}. The table below has the same numbers."


def front(summary: Mapping[str, Any]) -> Markup:
    """The section; empty where nothing was searched."""
    networks, figure, metric = candidates(summary), front_chart(summary), minimised(summary)
    if figure is None and not networks:
        return Markup()
    picture = (
        chart("front", figure, _SAYS.format(label=words(metric).label))
        if figure
        else note("No estimates yet.")
    )
    start = next(
        (network for network in networks if network.chosen), networks[0] if networks else None
    )
    panels = [_panel(network, metric, shown=network is start) for network in networks]
    panel = (
        tag("aside", *panels, class_="panel", aria_live="polite", aria_label="The network picked")
        if panels
        else None
    )
    return section(
        "front",
        "The trade-off",
        note(_explained(summary)),
        tag("div", tag("div", picture, class_="wide"), panel, class_="beside" if panel else None),
        *_tables(networks, metric),
    )


def _explained(summary: Mapping[str, Any]) -> str:
    text = (
        "Hollow marks are what the search counted on, filled marks what was measured; a thin line joins the two of one network. "
        "Point at a mark for its numbers, click a mark of a front for the command that delivers its network."
    )
    points = (summary.get("search") or {}).get("points") or []
    if (
        max(
            (sum(point.get("by") == by for point in points) for by in ("search", "random")),
            default=0,
        )
        > MOST_POINTS
    ):
        text += f" Of more than {significant(MOST_POINTS)} estimates of a search, evenly spaced ones are drawn."
    return text


def _panel(network: Candidate, metric: str, *, shown: bool) -> Markup:
    """Everything about one network; the script shows the panel of the one that was picked."""
    title = (
        "The chosen network"
        if network.chosen
        else "A network of the front"
        if network.by == "search"
        else "Found by random search"
    )
    deliver = (
        joined(
            tag("p", "Deliver it with", class_="name"),
            command(network.command, f"the command for {network.architecture}"),
        )
        if network.command
        else note("No command delivers it yet.")
    )
    rows = [*_accuracies(network), *_costs(network, metric)]
    return tag(
        "article",
        tag("h3", title),
        breakable(network.architecture),
        facts(rows),
        deliver,
        id=network.key,
        hidden=not shown,
    )


def _accuracies(network: Candidate) -> Iterator[tuple[str, str]]:
    for name, key in (
        ("estimated", "top1_estimate"),
        ("validation", "top1_validation"),
        ("test", "top1_test"),
    ):
        yield f"Accuracy, {name}", percent(network.facts.get(key))


def _costs(network: Candidate, metric: str) -> Iterator[tuple[str, str]]:
    if metric not in ("parameters", "macs", "peak_memory_bytes"):
        label = words(metric).title
        yield f"{label}, predicted", quantity(metric, network.predicted(metric))
        yield f"{label}, measured", _measured(network, metric)
    yield "Parameters", quantity("parameters", network.facts.get("parameters"))
    yield "MACs", quantity("macs", network.facts.get("macs"))
    yield "Peak memory", quantity("peak_memory_bytes", network.facts.get("peak_memory_bytes"))


def _measured(network: Candidate, metric: str) -> str:
    value = network.measured(metric)
    if metric != "latency_ms" or value is None or network.spread_ms is None:
        return quantity(metric, value)
    return with_unit(f"{significant(value)}{GAP}±{GAP}{significant(network.spread_ms, 2)}", metric)


def _tables(networks: Sequence[Candidate], metric: str) -> Iterator[Markup]:
    front_rows = [network for network in networks if network.by == "search"]
    random_rows = [network for network in networks if network.by == "random"]
    if front_rows:
        yield _table("Networks of the front", front_rows, metric)
    if random_rows:
        inner = _table("The best that random search found", random_rows, metric)
        yield tag("details", tag("summary", "The front of random search, as a table"), inner)


def _table(caption: str, networks: Sequence[Candidate], metric: str) -> Markup:
    label = words(metric).title
    heads = (
        "Network",
        "Estimated",
        "Validation",
        "Test",
        f"{label}, predicted",
        f"{label}, measured",
        "Parameters",
        "Deliver",
    )
    rows = [
        (
            joined(
                breakable(network.architecture),
                tag("span", "chosen", class_="badge") if network.chosen else None,
            ),
            *(value for _, value in _accuracies(network)),
            quantity(metric, network.predicted(metric)),
            _measured(network, metric),
            quantity("parameters", network.facts.get("parameters")),
            _buttons(network),
        )
        for network in networks
    ]
    return table(caption, heads, rows, numbers=range(1, 7), class_="front")


def _buttons(network: Candidate) -> Markup:
    name = network.architecture
    show = tag(
        "button",
        "Show",
        type="button",
        class_="show",
        data_show=network.key,
        aria_label=f"Show {name}",
        aria_controls=network.key,
    )
    return joined(
        show, copy_button(f"the command for {name}", network.command) if network.command else None
    )
