"""Is a space well described? Asked when a run, a profile or a supernet is made.

Blocks of one slot share weights, and each block reads what the one before it computes. A space that
breaks such a rule would otherwise fail in the middle of a training, or train what no network has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pliant.errors import EncodingError, PliantError
from pliant.plugins import error_place
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
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
        EncodingError: naming the choice, where two have one name or an architecture does not parse
            back from its text; naming the layout, where it returns something else than blocks;
            naming the slot and the architecture, where a slot occurs twice, has blocks of two types
            or is missing in the largest network; where a size is below 1 or no number; where a
            block reads another shape than the one before it computes; or where the code of the
            space ends in an error.
    """
    try:
        _check_choices(space)
        largest = space.largest()
        blocks = space.layout(largest)
        _check_blocks(space, blocks, f"in {largest} of space {space.name!r}")
        types = {block.slot: type(block).__name__ for block in blocks}
        for architecture in dict.fromkeys((largest, *space.corners())):
            blocks = space.layout(architecture)
            where = f"in {architecture} of space {space.name!r}"
            _check_blocks(space, blocks, where)
            _check_text(space, architecture, where)
            _check_slots(blocks, types, where)
            _check_sizes(blocks, where)
            _check_shapes(space, blocks, where)
    except PliantError:
        raise
    except Exception as error:
        raise EncodingError(
            f"space {space.name!r} ended in an error at {error_place(error)}: {error!r}."
        ) from error


def _check_choices(space: Space) -> None:
    """There are choices, their names differ, and parents come before the choices below them."""
    names = [choice.name for choice in space.choices]
    if not names:
        raise EncodingError(f"a space has choices, {space.name!r} has none.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise EncodingError(
            f"the names of choices differ: {twice[0]!r} occurs twice in space {space.name!r}."
            " Rename one."
        )
    _ = space.size  # refuses a parent that does not come before its children


def _check_text(space: Space, architecture: Architecture, where: str) -> None:
    """The text of an architecture, by which the record knows it, means this architecture."""
    try:
        same = space.parse(str(architecture)) == architecture
    except EncodingError as error:
        raise EncodingError(f"an architecture is read back from its text: {error}") from error
    if not same:
        raise EncodingError(
            f"an architecture is read back from its text; another one is {where}. Rename choices,"
            " or take numbers as options."
        )


def _check_sizes(blocks: Sequence[Block], where: str) -> None:
    """Profiles and summaries hold the sizes of blocks, so they are plain values."""
    for block in blocks:
        for name, value in block.sizes.items():
            if type(value) not in (int, float, bool, str):
                raise EncodingError(
                    f"a size of a block is an int, a float, a bool or a text: {name} of"
                    f" {block.slot!r} is {type(value).__name__} {value!r} {where}. Convert it."
                )


def _check_blocks(space: Space, blocks: object, where: str) -> None:
    """A layout is a tuple of blocks."""
    if isinstance(blocks, Sequence) and not isinstance(blocks, str):
        wrong = [one for one in blocks if not isinstance(one, Block)]
    else:
        wrong = [blocks]
    if wrong:
        raise EncodingError(
            f"a layout is a tuple of blocks; {_place(type(space).layout)} returned"
            f" {wrong[0]!r:.100}, of type {type(wrong[0]).__name__}, {where}. Return the blocks in"
            " the order in which they run."
        )


def _place(function: Callable[..., object]) -> str:
    """A function by its name, file and line."""
    code = getattr(function, "__code__", None)
    place = f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""
    return f"{getattr(function, '__qualname__', 'layout')}{place}"


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
