"""What does the chosen network look like? One picture a stage: every layer a box, as wide as it has channels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pliant.errors import EncodingError
from pliant.report.markup import Markup, joined, tag
from pliant.report.quantities import METRICS, quantity, square
from pliant.report.slots import stage_of, within_stage
from pliant.spaces.blocks import (
    BLOCK_TYPES,
    BasicResidual,
    Block,
    Bottleneck,
    Cell,
    ConvBlock,
    Head,
    InvertedResidual,
    Preprocess,
    Reduction,
)
from pliant.workload import Layer

_WIDTH = 300
_LEFT, _BAR, _GAP, _TEXT, _AFTER = 14, 9, 3, 38, 18
"""Pixels of a picture: room for the shortcut, height of a layer, between layers, of the two lines of text, behind a block."""


def drawing(blocks: Sequence[Mapping[str, Any]]) -> Markup:
    """Figures for HTML, one a stage in running order; empty without blocks.

    Args:
        blocks: slot, type and sizes of each block, as the summary has them.
    """
    sketches = [_sketch(block) for block in blocks]
    widest = max((_channels(layer) for sketch in sketches for layer in sketch.layers), default=1)
    stages = groupby(sketches, key=lambda sketch: _group(sketch, sketches))
    return (
        tag(
            "div",
            *(_stage(name, list(members), widest) for name, members in stages),
            class_="stages",
        )
        if sketches
        else Markup()
    )


@dataclass(frozen=True, slots=True)
class _Sketch:
    """A block as it is drawn."""

    slot: str
    title: str
    detail: str
    pixels: str
    layers: tuple[Layer, ...]
    """Those with weights; other layers are not drawn."""
    shortcut: bool
    """Whether the input is added to the output."""
    hint: str


def _sketch(facts: Mapping[str, Any]) -> _Sketch:
    slot, kind = str(facts.get("slot", "")), str(facts.get("type", ""))
    sizes = facts.get("sizes") or {}
    hint = "\n".join([f"{slot}: {kind}", *(f"{name} {value}" for name, value in sizes.items())])
    hint += "".join(
        f"\n{METRICS[metric].label} {quantity(metric, facts.get(metric))}"
        for metric in ("latency_ms", "macs", "parameters")
    )
    block = _block(slot, kind, sizes)
    if block is None:
        return _Sketch(
            slot,
            kind,
            ", ".join(f"{name} {value}" for name, value in sizes.items()),
            "",
            (),
            False,
            hint,
        )
    title, detail = _words(block)
    layers = block.layers()
    into, out = block.size, layers[-1].P
    pixels = square(into) if out in (into, 1) else f"{square(into)} → {square(out)}"
    shortcut = any(layer.name == f"{slot}.add" for layer in layers)
    return _Sketch(
        slot,
        title,
        detail,
        pixels,
        tuple(layer for layer in layers if layer.weighted),
        shortcut,
        hint,
    )


def _block(slot: str, kind: str, sizes: Mapping[str, Any]) -> Block | None:
    """The block that was summarised, None for one that this version does not know."""
    try:
        return BLOCK_TYPES[kind](slot=slot, **sizes) if kind in BLOCK_TYPES else None
    except (TypeError, EncodingError):
        return None


def _words(block: Block) -> tuple[str, str]:
    """What a block is, and its channels and extras."""
    match block:
        case Preprocess():
            channels = f"{block.channels} channel{'' if block.channels == 1 else 's'} at {square(block.resolution)}"
            return "normalise, resize", _listed(channels, "and mirrored" if block.views > 1 else "")
        case ConvBlock():
            extras = (*_stride(block.stride), f"pool {block.pool}" if block.pool > 1 else "")
            return f"{square(block.kernel)} convolution", _listed(
                _flow(block.inputs, block.outputs), *extras
            )
        case InvertedResidual():
            widths = (block.inputs, *((block.hidden,) if block.expand else ()), block.outputs)
            extras = (*_stride(block.stride), "squeeze-excite" if block.squeeze else "")
            return f"{square(block.kernel)} inverted residual", _listed(_flow(*widths), *extras)
        case BasicResidual():
            return f"{square(3)} residual", _listed(
                _flow(block.channels, block.hidden, block.channels)
            )
        case Bottleneck():
            return "bottleneck", _listed(
                _flow(block.inputs, block.hidden, block.outputs), *_stride(block.stride)
            )
        case Cell():
            names = Counter(operation for *_, operation in block.edges)
            return "cell", _listed(
                f"{block.channels} channels",
                *(f"{count} {name}" for name, count in sorted(names.items())),
            )
        case Reduction():
            return "reduction", _listed(_flow(block.inputs, block.outputs), *_stride(2))
        case Head():
            inner = [width for width in (block.expand, block.hidden) if width]
            return "pool, classify", _listed(
                _flow(block.inputs, *inner, block.classes),
                "mean of both views" if block.views > 1 else "",
            )
    weighted = [layer for layer in block.layers() if layer.weighted]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(block).__name__).lower()
    return words, _listed(_flow(block.in_channels, *(_channels(layer) for layer in weighted)))


def _flow(*widths: int) -> str:
    return " → ".join(str(width) for width in widths)


def _stride(stride: int) -> tuple[str, ...]:
    return (f"stride {stride}",) if stride > 1 else ()


def _listed(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _channels(layer: Layer) -> int:
    return layer.G * layer.K


def _group(sketch: _Sketch, all_of_them: Sequence[_Sketch]) -> str:
    """The stage; what stands before the first one is the input, behind the last one the output."""
    stages = [stage_of(other.slot) for other in all_of_them]
    staged = [number for number, name in enumerate(stages) if name.startswith("Stage ")]
    here = all_of_them.index(sketch)
    if not staged:
        return "Network"
    return "Input" if here < staged[0] else "Output" if here > staged[-1] else stages[here]


def _stage(name: str, sketches: Sequence[_Sketch], widest: int) -> Markup:
    drawn: list[Markup] = []
    height = 0
    for sketch in sketches:
        drawn.append(
            tag("g", *_drawn(sketch, widest), transform=f"translate(0 {height})", class_="block")
        )
        height += _height(sketch)
    label = f"{name}: " + "; ".join(f"{sketch.title}, {sketch.detail}" for sketch in sketches)
    svg = tag(
        "svg", *drawn, viewBox=f"0 0 {_WIDTH} {height - _AFTER + 4}", role="img", aria_label=label
    )
    return tag("figure", tag("figcaption", name), svg, class_="stage")


def _height(sketch: _Sketch) -> int:
    return _TEXT + len(sketch.layers) * (_BAR + _GAP) + _AFTER


def _drawn(sketch: _Sketch, widest: int) -> Iterable[Markup]:
    yield tag("title", f"{within_stage(sketch.slot)}\n{sketch.hint}")
    # The whole block answers to the pointer, not its boxes alone.
    yield tag("rect", width=_WIDTH, height=_height(sketch) - _AFTER, class_="area")
    yield tag("text", sketch.title, x=0, y=13, class_="title")
    yield tag("text", sketch.pixels, x=_WIDTH, y=13, class_="pixels")
    yield tag("text", sketch.detail, x=0, y=29, class_="detail")
    for row, layer in enumerate(sketch.layers):
        width = max(2.0, (_WIDTH - _LEFT) * _channels(layer) / widest)
        kind = (
            "squeeze"
            if ".squeeze." in layer.name
            else "depthwise"
            if layer.G > 1
            else "matmul"
            if layer.kind == "matmul"
            else "dense"
        )
        top = _TEXT + row * (_BAR + _GAP)
        yield tag(
            "rect",
            tag("title", _hint(layer)),
            x=_LEFT,
            y=top,
            width=f"{width:.1f}",
            height=_BAR,
            rx=2,
            class_=kind,
        )
    if sketch.shortcut:
        bottom = _TEXT + len(sketch.layers) * (_BAR + _GAP) - _GAP
        bracket = f"M{_LEFT - 3} {_TEXT} H6 Q3 {_TEXT} 3 {_TEXT + 3} V{bottom - 3} Q3 {bottom} 6 {bottom} H{_LEFT - 3}"
        yield tag("path", d=bracket, class_="shortcut")


def _hint(layer: Layer) -> Markup:
    name = layer.name.partition(".")[2]
    kernel = f"{square(layer.R)}, " if layer.kind == "conv" else ""
    inputs = layer.G * layer.C
    return joined(
        f"{name}: {kernel}{inputs} → {_channels(layer)} channels, {square(layer.P)}\n"
        f"{quantity('macs', layer.macs)} MACs, {quantity('parameters', layer.parameters)} parameters"
    )
