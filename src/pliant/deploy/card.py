"""The card of a delivered network: what it is, how good, how that was found, how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pliant.deploy.package import preprocess_arguments, preprocess_source, templates
from pliant.deploy.verify import Agreement
from pliant.files import write_atomically
from pliant.metrics import ARITHMETIC_METRICS, Accuracy, Cost, DeliveredFile, Measured
from pliant.objective import Limit
from pliant.units import QUANTITIES, UNITS

_LABELS = {metric: name.replace("_", " ") for name, metric in QUANTITIES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card reports."""

    name: str
    """Of the run."""
    architecture: str
    """Text form."""
    space: str
    image: tuple[int, int, int]
    """Channels, height and width of an input."""
    classes: tuple[str, ...]
    """In the order of the logits."""
    data: str
    """Where the training images are from."""
    limits: tuple[Limit, ...]
    validated: Accuracy
    test: Accuracy
    test_openings: int
    """How often the run opened the test split."""
    predicted: Cost
    files: tuple[DeliveredFile, ...]
    """The network in each precision, fp32 first."""
    used_file: str
    """The one in the run's precision."""
    measured: Measured | None
    """In a subprocess; None where the target is not measured."""
    target: str
    """Name of what the network runs on."""
    agreement: Agreement
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    """Options of `pliant.picture.preprocess` that are not its defaults."""
    own_class: str = ""
    """Whether a network of the user's own is delivered as its class, too; a sentence."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the card's table."""

    what: str
    value: str
    how: str


def write_card(path: Path, card: Card) -> None:
    """Write the card as Markdown, replacing an old one at once."""
    channels, size, _ = card.image
    environment = templates()
    environment.filters["text"] = as_text
    environment.filters["latency"] = _latency
    text = environment.get_template("card.md.jinja").render(
        card=card,
        costs=cost_rows(card),
        arguments=preprocess_arguments(channels, size, card.preprocessing),
        preprocess=preprocess_source(),
    )
    write_atomically(path, text)


def _latency(file: DeliveredFile) -> str:
    """As measured; a dash where it was not."""
    latency_ms = None if file.measured is None else file.measured.cost.latency_ms
    return "-" if latency_ms is None else _with_unit("latency_ms", latency_ms)


_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|~#"} | {"<": "&lt;", "&": "&amp;"})


def as_text(value: object) -> str:
    """A name of a user's as it is written in Markdown: on one line, and never markup or a link."""
    line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(value))
    return line.translate(_MARKUP).replace("://", ":\\//")


def cost_rows(card: Card) -> list[Row]:
    """Every cost that the target reports; as measured where it was, and as predicted."""
    rows = []
    for metric in card.predicted.metrics:
        label = _LABELS.get(metric, metric)
        predicted = _with_unit(metric, card.predicted.metric(metric))
        if metric in ARITHMETIC_METRICS:
            rows.append(Row(label, predicted, "computed from the layers"))
        elif card.measured is not None and metric in card.measured.cost.metrics:
            measured = _with_unit(metric, card.measured.cost.metric(metric))
            how = f"in a subprocess, on {card.target}"
            rows.append(Row(f"{label}, measured", measured, how))
            how = "by the target's model, before any measurement"
            rows.append(Row(f"{label}, predicted", predicted, how))
        else:
            how = f"predicted by {card.target}; this target is not measured"
            rows.append(Row(f"{label}, predicted", predicted, how))
    return rows


def _with_unit(metric: str, value: float) -> str:
    """A value with the unit that the metric's name holds."""
    unit = next(unit for unit, factor in UNITS[metric].items() if factor == 1)
    number = f"{value:,.0f}" if metric in ARITHMETIC_METRICS else f"{value:.4g}"
    return f"{number} {unit}".strip()
