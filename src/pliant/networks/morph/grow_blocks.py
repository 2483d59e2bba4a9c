"""Larger descriptions of Pliant's networks: the blocks of a child, which then inherits the weights.

A slot (`stage2_block1`) or a stage, which is all slots that begin with its name (`stage2`), is
named. Channels between blocks are one width as far as residual sums reach.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pliant.errors import MorphError, nearest
from pliant.networks.morph.amount import Amount
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import (
    BasicBlock,
    Bottleneck,
    ConvBlock,
    InvertedResidual,
)
from pliant.spaces.rounding import make_divisible


def widened(blocks: Sequence[Block], amount: Amount) -> tuple[Block, ...]:
    """The blocks with more channels in a stage or slot.

    A stage has more channels at its output and within its blocks, a single block of a stage has
    more within. A head has more in its hidden layers.

    Raises:
        MorphError: no such slot, or nothing of it can be wider.
    """
    chosen = _matching(blocks, amount.layer)
    found: list[Any] = list(blocks)
    is_stage = not (len(chosen) == 1 and hasattr(blocks[chosen[0]], "mid_channels"))
    for place in chosen:
        found[place] = _wider_inside(found[place], amount, within=is_stage)
    for boundary in sorted(_boundaries(blocks, chosen)) if is_stage else []:
        before = _output_width(blocks[boundary])
        after = amount.of(before, make_divisible)
        _require_wider(amount, before, after)
        found[boundary] = _with_output(found[boundary], after)
        found[boundary + 1] = _with_input(found[boundary + 1], after)
    if found == list(blocks):
        raise MorphError(
            f"{amount.layer} has no channels of its own to widen. Name a stage with convolutions."
        )
    return tuple(found)


def deepened(blocks: Sequence[Block], amount: Amount) -> tuple[Block, ...]:
    """The blocks with more residual blocks at the end of a stage.

    Raises:
        MorphError: no such stage, or its last block has no residual form.
    """
    if amount.is_factor:
        raise MorphError(
            f"depth grows by a number of blocks, as {amount.layer}=+1, received {amount.value:g}x."
        )
    last = _matching(blocks, amount.layer)[-1]
    if last == len(blocks) - 1:
        raise MorphError(
            f"a network is deepened before its {blocks[last].slot}, received {amount.layer}. Name a"
            " stage."
        )
    found = list(blocks)
    taken = {block.slot for block in blocks}
    for _ in range(int(amount.value)):
        slot = _next_slot(found[last].slot, taken)
        taken.add(slot)
        found.insert(last + 1, _residual(found[last], slot, found[last + 1].size))
        last += 1
    return tuple(found)


def with_kernel(blocks: Sequence[Block], amount: Amount) -> tuple[Block, ...]:
    """The blocks with larger kernels in a stage or slot.

    Raises:
        MorphError: no such slot, or none of its kernels can be of this size.
    """
    kernel, found = int(amount.value), list(blocks)
    for place in _matching(blocks, amount.layer):
        before = getattr(blocks[place], "kernel", None)
        if before is None or amount.is_factor or kernel <= before or (kernel - before) % 2:
            raise MorphError(
                f"a kernel grows by an even number of pixels; {blocks[place].slot} has"
                f" {before or 'none that grows'}, received {amount.value:g}."
            )
        found[place] = dataclasses.replace(blocks[place], kernel=kernel)  # type: ignore[call-arg]
    return tuple(found)


def with_squeeze_excite(blocks: Sequence[Block], layer: str) -> tuple[Block, ...]:
    """The blocks with squeeze-and-excitation in a stage or slot.

    Raises:
        MorphError: no such slot, or a block of it takes none.
    """
    found = list(blocks)
    for place in _matching(blocks, layer):
        block = blocks[place]
        if not isinstance(block, InvertedResidual) or block.squeeze_excite:
            why = "has one" if isinstance(block, InvertedResidual) else "is none"
            raise MorphError(
                "squeeze-and-excitation is added to inverted residuals without; "
                f"{block.slot} {why}. Name another stage or slot."
            )
        found[place] = dataclasses.replace(block, squeeze_excite=True)
    return tuple(found)


def _matching(blocks: Sequence[Block], name: str) -> list[int]:
    found = [
        place
        for place, block in enumerate(blocks)
        if block.slot == name or block.slot.startswith(f"{name}_")
    ]
    if not found:
        slots = [block.slot for block in blocks[1:]]
        stages = {slot.partition("_")[0] for slot in slots}
        raise MorphError(
            f"a morph names a stage or a slot of the network, received {name!r}. "
            f"{nearest(name, stages | set(slots))}"
        )
    return found


def _wider_inside(block: Any, amount: Amount, *, within: bool) -> Any:
    """The channels that only the block itself sees; a number is that of a stage's output."""
    changes = {}
    for name in ("mid_channels", "expand", "hidden"):
        before = getattr(block, name, 0)
        if isinstance(before, bool) or not before:
            continue
        if name == "mid_channels" and not getattr(block, "expand", True):
            continue
        if within and not amount.is_factor and name == "mid_channels":
            # In proportion to the output.
            factor = amount.value / _output_width(block)
            changes[name] = max(before, make_divisible(before * factor))
            continue
        changes[name] = amount.of(before, make_divisible)
        _require_wider(amount, before, changes[name])
    return dataclasses.replace(block, **changes)


def _require_wider(amount: Amount, before: int, after: int) -> None:
    if after <= before:
        raise MorphError(
            f"a wider {amount.layer} has more than {before} channels, received {after}. Use a"
            f" larger number, such as {amount.layer}={before + 8}."
        )


def _output_width(block: Block) -> int:
    last = block.layers()[-1]
    return last.G * last.K


def _ties(block: Block) -> bool:
    """Whether a block's output has the channels of its input."""
    adds = bool(getattr(block, "residual", False))
    if isinstance(block, Bottleneck):
        adds = not block.project
    return adds or hasattr(block, "channels")


def _boundaries(blocks: Sequence[Block], chosen: Sequence[int]) -> set[int]:
    """Places of the blocks whose output has the width of the chosen ones' outputs."""
    found = {place for place in chosen if place < len(blocks) - 1}
    for place in sorted(found):
        earlier, later = place, place + 1
        while _ties(blocks[earlier]):
            earlier -= 1
            found.add(earlier)
        while later < len(blocks) - 1 and _ties(blocks[later]):
            found.add(later)
            later += 1
    if any(hasattr(blocks[place], "resolution") for place in found):
        raise MorphError("the channels of the images keep their number. Name a stage behind them.")
    return found


def _with_output(block: Any, width: int) -> Any:
    if hasattr(block, "outputs"):
        return dataclasses.replace(block, outputs=width)
    return dataclasses.replace(block, channels=width)


def _with_input(block: Any, width: int) -> Any:
    if not hasattr(block, "inputs"):
        return dataclasses.replace(block, channels=width)
    if isinstance(block, InvertedResidual) and not block.expand:
        return dataclasses.replace(block, inputs=width, mid_channels=width)
    return dataclasses.replace(block, inputs=width)


def _next_slot(slot: str, taken: set[str]) -> str:
    stage, number = slot.partition("_")[0], 1
    while f"{stage}_block{number}" in taken:
        number += 1
    return f"{stage}_block{number}"


def _residual(block: Block, slot: str, size: int) -> Block:
    """A block behind another one, which is the identity while its last BatchNorm has scale 0."""
    width = _output_width(block)
    if isinstance(block, InvertedResidual):
        mid = block.mid_channels if block.expand else width
        changes: dict[str, Any] = {"inputs": width, "stride": 1, "mid_channels": mid}
        return dataclasses.replace(block, slot=slot, size=size, **changes)
    if isinstance(block, Bottleneck):
        return dataclasses.replace(
            block, slot=slot, size=size, inputs=width, stride=1, project=False
        )
    if isinstance(block, BasicBlock):
        return dataclasses.replace(block, slot=slot, size=size)
    if isinstance(block, ConvBlock):
        return BasicBlock(
            slot=slot,
            size=size,
            views=block.views,
            norm_epsilon=block.norm_epsilon,
            channels=width,
            mid_channels=width,
            activation=block.activation,
        )
    raise MorphError(
        f"a stage is deepened by a copy of its last residual block; {block.slot} is a"
        f" {type(block).__name__}. Name a stage of convolutions."
    )
