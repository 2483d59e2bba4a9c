"""What does the chosen network look like?

One picture per stage; each layer is a box as wide as it has channels.

Here are the sizes and words, which follow from the layers; `templates/drawing.html` draws them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pliant.errors import EncodingError
from pliant.report.quantities import METRICS, quantity, square
from pliant.report.slots import stage_of, within_stage
from pliant.spaces.block import BLOCK_TYPES, Block
from pliant.workload import NETWORK_INPUT, Layer, gates

WIDTH_PX = 300
"""Width of a picture."""
LEFT_PX = 14
"""Room for the shortcut."""
BAR_PX, GAP_PX = 9, 3
"""Height of a layer, and the distance to the next one."""
TEXT_PX, AFTER_PX = 38, 18
"""Height of the two lines of text above the layers, and the distance to the next block."""


@dataclass(frozen=True, slots=True)
class Box:
    """A layer with weights."""

    kind: str
    """Its class in the stylesheet: dense, depthwise, squeeze or matmul."""
    top_px: int
    width_px: float
    hint: str


@dataclass(frozen=True, slots=True)
class BlockPicture:
    """A block: its words, and its layers as boxes."""

    top_px: int
    """Within the picture of its stage."""
    title: str
    detail: str
    """Channels and extras."""
    pixels: str
    """Size of the input and output."""
    hint: str
    boxes: tuple[Box, ...]
    shortcut: bool
    """Whether the input is added to the output."""

    @property
    def height_px(self) -> int:
        """Without the distance to the next block."""
        return TEXT_PX + len(self.boxes) * (BAR_PX + GAP_PX)


@dataclass(frozen=True, slots=True)
class StagePicture:
    """The blocks of a stage, one below the other."""

    name: str
    blocks: tuple[BlockPicture, ...]

    @property
    def height_px(self) -> int:
        """Up to below the last block."""
        return self.blocks[-1].top_px + self.blocks[-1].height_px + 4

    @property
    def label(self) -> str:
        """The picture in words."""
        return f"{self.name}: " + "; ".join(f"{one.title}, {one.detail}" for one in self.blocks)


def drawing(blocks: Sequence[Mapping[str, Any]]) -> tuple[StagePicture, ...]:
    """The pictures of a network in running order.

    Args:
        blocks: slot, type, sizes and costs of each block, as the summary has them.
    """
    described = [_block(facts) for facts in blocks]
    layers = [block.layers() if block else () for block in described]
    widest = max((_channels(one) for some in layers for one in some if one.weighted), default=1)
    groups = _groups([str(facts.get("slot", "")) for facts in blocks])
    pictures = []
    for name, members in groupby(range(len(blocks)), key=lambda index: groups[index]):
        stage: list[BlockPicture] = []
        top = 0
        for index in members:
            stage.append(_picture(blocks[index], described[index], top, widest))
            top += stage[-1].height_px + AFTER_PX
        pictures.append(StagePicture(name, tuple(stage)))
    return tuple(pictures)


def _block(facts: Mapping[str, Any]) -> Block | None:
    """The block that was summarised, None for one that this version does not know."""
    slot, kind, sizes = facts.get("slot", ""), facts.get("type", ""), facts.get("sizes") or {}
    if kind not in BLOCK_TYPES:
        return None
    try:
        block = BLOCK_TYPES[kind](slot=slot, **sizes)
        block.layers()
    except (TypeError, ValueError, EncodingError):
        return None
    return block


def _groups(slots: Sequence[str]) -> list[str]:
    """The stage of each slot.

    Those before the first stage are the input, behind the last the output.
    """
    stages = [stage_of(slot) for slot in slots]
    staged = [number for number, name in enumerate(stages) if name.startswith("Stage ")]
    if not staged:
        return ["Network"] * len(slots)
    before, after = ["Input"] * staged[0], ["Output"] * (len(slots) - staged[-1] - 1)
    return [*before, *stages[staged[0] : staged[-1] + 1], *after]


def _picture(
    facts: Mapping[str, Any], block: Block | None, top_px: int, widest: int
) -> BlockPicture:
    slot, kind = str(facts.get("slot", "")), str(facts.get("type", ""))
    sizes = [f"{name} {value}" for name, value in (facts.get("sizes") or {}).items()]
    costs = [
        f"{METRICS[metric].label} {quantity(metric, facts.get(metric))}"
        for metric in ("latency_ms", "macs", "parameters")
    ]
    hint = "\n".join([within_stage(slot), f"{slot}: {kind}", *sizes, *costs])
    if block is None:
        return BlockPicture(top_px, kind, ", ".join(sizes), "", hint, (), False)
    layers = block.layers()
    into, out = block.size, layers[-1].P
    return BlockPicture(
        top_px,
        _title(block, layers),
        _detail(block, layers),
        square(into) if out in (into, 1) else f"{square(into)} → {square(out)}",
        hint,
        tuple(_boxes(layers, widest)),
        _has_shortcut(layers),
    )


def _title(block: Block, layers: Sequence[Layer]) -> str:
    """The block's name in words, behind its largest kernel."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(block).__name__).lower()
    kernel = max((layer.R for layer in layers if layer.kind == "conv"), default=1)
    return f"{square(kernel)} {name}" if kernel > 1 else name


def _detail(block: Block, layers: Sequence[Layer]) -> str:
    """How channels change along the longest path, then what else there is."""
    path = _longest_path(layers)
    dense = [layer for layer in path if layer.weighted and layer.G == 1]
    widths = [block.in_channels, *(_channels(layer) for layer in dense)]
    flow = " → ".join(str(width) for width in widths)
    if len(set(widths)) == 1:
        flow = f"{widths[0]} channel{'' if widths[0] == 1 else 's'}"
    strides = [layer.strides[0] for layer in path if layer.weighted and layer.strides[0] > 1]
    extras = [f"stride {stride}" for stride in strides]
    extras += [words for layer in layers if (words := _extra(layer))]
    return " · ".join(dict.fromkeys([flow, *extras]))


def _extra(layer: Layer) -> str:
    """Words for a layer without weights; empty where a block is understood without them."""
    operator = layer.operation.operator if layer.operation else ""
    if operator == "max_pool":
        return f"pool {layer.R}"
    if operator == "average_pool" and layer.strides[0] < layer.R:
        return f"{square(layer.R)} average pooling"
    if operator == "mul":
        return "squeeze-and-excite"
    if operator == "mean_over_flips":
        return "mean of both views"
    if operator == "softmax":
        return f"{layer.G} heads over {layer.Q} tokens"
    return "and mirrored" if operator == "preprocess" and layer.N > 1 else ""


def _longest_path(layers: Sequence[Layer]) -> list[Layer]:
    """The layers from the input to the last one.

    A branch that computes factors of channels is no part of it.
    """
    paths: dict[str, list[Layer]] = {NETWORK_INPUT: []}
    factors = gates(layers)
    for layer in layers:
        read = [name for name in layer.inputs if name not in factors or layer.name in factors]
        paths[layer.name] = [*max((paths[name] for name in read), key=len), layer]
    return paths[layers[-1].name]


def _has_shortcut(layers: Sequence[Layer]) -> bool:
    """Whether the last layer adds a term that at most one layer with weights has changed."""
    weighted = {NETWORK_INPUT: 0}
    for layer in layers:
        weighted[layer.name] = max(weighted[name] for name in layer.inputs) + layer.weighted
    last = layers[-1]
    adds = last.operation is not None and last.operation.operator == "add"
    return adds and min(weighted[name] for name in last.inputs) <= 1


def _boxes(layers: Sequence[Layer], widest: int) -> Iterable[Box]:
    factors = gates(layers)
    top = TEXT_PX
    for layer in layers:
        if not layer.weighted:
            continue
        kind = "matmul" if layer.kind == "matmul" else "dense"
        if layer.G > 1 and layer.kind == "conv":
            kind = "depthwise"
        if layer.name in factors:
            kind = "squeeze"
        width = max(2.0, (WIDTH_PX - LEFT_PX) * _channels(layer) / widest)
        yield Box(kind, top, width, _hint(layer))
        top += BAR_PX + GAP_PX


def _hint(layer: Layer) -> str:
    name = layer.name.partition(".")[2]
    kernel = f"{square(layer.R)}, " if layer.kind == "conv" else ""
    channels = f"{layer.G * layer.C} → {_channels(layer)} channels, {square(layer.P)}"
    macs, parameters = (
        quantity("macs", layer.macs),
        quantity("parameters", layer.parameters),
    )
    return f"{name}: {kernel}{channels}\n{macs} MACs, {parameters} parameters"


def _channels(layer: Layer) -> int:
    return layer.G * layer.K
