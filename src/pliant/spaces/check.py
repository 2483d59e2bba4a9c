"""Is a space well described? Asked once, before its blocks are used.

Blocks of one slot share weights, and each block reads what the one before it computes. A space that
breaks such a rule would otherwise fail in the middle of a training, or train what no network has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pliant.errors import EncodingError
from pliant.spaces.block import Block

if TYPE_CHECKING:
    from pliant.spaces.space import Space


class Shape(NamedTuple):
    """A tensor between two blocks, for one image."""

    views: int
    channels: int
    size: int
    """Height and width in pixels."""

    def __str__(self) -> str:
        views = f"{self.views} x " if self.views > 1 else ""
        return f"{views}{self.channels} channels of {self.size}x{self.size}"


def check_space(space: Space) -> None:
    """Refuse a space whose networks do not fit together.

    The largest and the smallest network are checked, and both with each choice at each option.

    Raises:
        EncodingError: naming the slot and the architecture, where a slot occurs twice, has blocks
            of two types or is missing in the largest network; where a size is below 1; or where a
            block reads another shape than the one before it computes.
    """
    largest = space.largest()
    types = {block.slot: type(block).__name__ for block in space.layout(largest)}
    for architecture in dict.fromkeys((largest, *space.corners())):
        blocks = space.layout(architecture)
        where = f"in {architecture} of space {space.name!r}"
        _check_slots(blocks, types, where)
        _check_shapes(space, blocks, where)


def _check_slots(blocks: Sequence[Block], types: dict[str, str], where: str) -> None:
    """The slots of a network are different, and those of the largest one, with the same types."""
    slots = [block.slot for block in blocks]
    if twice := [slot for slot in slots if slots.count(slot) > 1]:
        raise EncodingError(f"a slot is one place: {twice[0]!r} occurs twice {where}. Rename one.")
    for block in blocks:
        slot, kind = block.slot, type(block).__name__
        if slot not in types:
            raise EncodingError(
                f"the largest network has every slot: it lacks {slot!r}, which is {where}. Put the"
                " options in the order of their size."
            )
        if kind != types[slot]:
            raise EncodingError(
                f"blocks of one slot share weights: {slot!r} is {kind} {where} and {types[slot]} in"
                " the largest network. Give them two slots."
            )


def _check_shapes(space: Space, blocks: Sequence[Block], where: str) -> None:
    """Each block reads what the one before it computes; the last one has an output per class."""
    if not blocks:
        raise EncodingError(f"a network has blocks, received none {where}.")
    before, shape = "the image", Shape(1, space.channels, space.image_size)
    for block in blocks:
        reads = Shape(block.in_views, block.in_channels, block.size)
        if reads != shape:
            raise EncodingError(
                f"a block reads what comes before it: {before} has {shape} and {block.slot!r} reads"
                f" {reads} {where}. Make them equal."
            )
        before, shape = repr(block.slot), _output(block)
    if shape.channels != space.classes:
        raise EncodingError(
            f"the last block has an output per class: {before} has {shape.channels} for"
            f" {space.classes} classes {where}."
        )


@cache
def _output(block: Block) -> Shape:
    """What a block computes.

    Raises:
        EncodingError: a size of a layer is below 1, or there is no layer.
    """
    layers = block.layers()
    if not layers:
        raise EncodingError(f"a block has layers, received none from {block!r}.")
    last = layers[-1]
    return Shape(last.N, last.G * last.K, last.P)
