"""How a layer runs on a chip: tile sizes, spatial unrolling, loop orders, and buffer bypass.

A mapping prints as a loop nest, outermost loop first, and the same text parses back:

    dram     for K in 0..4, P in 0..7     # bypass W
    buffer   for C in 0..8, Q in 0..14
    array    rows R*3 C*4, columns P*14
    register for K in 0..16, S in 0..3
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Chip
from pliant.errors import EncodingError, InfeasibleError
from pliant.workload import Layer

TENSORS: Final = "WIO"
RELEVANT: Final = {"W": "GKCRS", "I": "GNCPQRS", "O": "GNKPQ"}
"""The loops that move over each tensor; the others leave it in place."""
_SHORT: Final = {"K": "K", "C": "C", "R": "R", "S": "S", "Y": "P", "X": "Q"}
_AXES: Final = 3
ENCODED_LENGTH: Final = 3 * 8 + _AXES * 8 + 2 * 8 + 1

Counts8 = tuple[int, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Four factors a loop, two loop orders, and the tensors that skip the global buffer.

    Args:
        register: extent of the tile that one PE keeps, by loop (in the order NGKCPQRS).
        spatial: for each axis of the array, how many PEs each loop is unrolled over.
        buffer: how many array tiles a buffer tile has, by loop.
        dram: how many buffer tiles the layer has, by loop.
        buffer_order: the eight letters, outermost first; loops that run once may be anywhere.
        dram_order: the same for the loops over buffer tiles.
        bypass: letters out of WIO: tensors that go from DRAM straight to the array.

    Raises:
        EncodingError: a factor below 1, an order that is no order of the eight loops, an unknown
        tensor.
    """

    register: Counts8
    spatial: tuple[Counts8, ...]
    buffer: Counts8
    dram: Counts8
    buffer_order: str = DIMS
    dram_order: str = DIMS
    bypass: str = ""

    def __post_init__(self) -> None:
        for factors in (self.register, *self.spatial, self.buffer, self.dram):
            if len(factors) != len(DIMS) or min(factors) < 1:
                raise EncodingError(
                    f"a mapping has eight factors from 1 up a level, received {factors}."
                )
        if not 1 <= len(self.spatial) <= _AXES:
            raise EncodingError(f"a mapping has 1 to {_AXES} axes, received {len(self.spatial)}.")
        for name, factors in (("buffer_order", self.buffer), ("dram_order", self.dram)):
            order = getattr(self, name)
            if sorted(order) != sorted(DIMS):
                raise EncodingError(f"{name} holds each of {DIMS} once, received {order!r}.")
            object.__setattr__(self, name, _canonical(order, factors))
        if set(self.bypass) - set(TENSORS):
            raise EncodingError(f"bypass names tensors out of {TENSORS}, received {self.bypass!r}.")
        object.__setattr__(
            self, "bypass", "".join(tensor for tensor in TENSORS if tensor in self.bypass)
        )

    @property
    def pes(self) -> Counts8:
        """PEs that each loop is unrolled over, on all axes."""
        found = [math.prod(axis[d] for axis in self.spatial) for d in range(8)]
        return tuple(found)  # type: ignore[return-value]

    def __str__(self) -> str:
        return format_mapping(self)

    @staticmethod
    def parse(text: str, chip: Chip) -> Mapping:
        """The mapping that printed as this text; axes are found by their names on the chip."""
        return parse_mapping(text, chip)

    def encode(self) -> NDArray[np.int64]:
        """The mapping as `ENCODED_LENGTH` integers.

        Register, three axes, buffer, dram, two orders, eight numbers each; then the bypass bits.
        """
        axes = list(self.spatial) + [(1,) * 8] * (_AXES - len(self.spatial))
        orders = [
            DIMS.index(letter) for order in (self.buffer_order, self.dram_order) for letter in order
        ]
        bits = sum(1 << TENSORS.index(tensor) for tensor in self.bypass)
        flat = [
            *self.register,
            *(count for axis in axes for count in axis),
            *self.buffer,
            *self.dram,
            *orders,
            bits,
        ]
        return np.array(flat, dtype=np.int64)

    @staticmethod
    def decode(code: Iterable[int], axes: int) -> Mapping:
        """The mapping behind `encode`.

        Args:
            code: `ENCODED_LENGTH` integers.
            axes: how many axes the chip's array has.
        """
        flat = [int(value) for value in code]
        if (
            len(flat) != ENCODED_LENGTH
            or not 0 <= flat[-1] < 8
            or any(not 0 <= letter < 8 for letter in flat[48:64])
        ):
            raise EncodingError(
                f"a mapping is {ENCODED_LENGTH} integers with loops 0 to 7 and bypass 0 to 7, "
                f"received {flat}."
            )
        part: list[Any] = [tuple(flat[start : start + 8]) for start in range(0, 64, 8)]
        buffer_order, dram_order = ("".join(DIMS[d] for d in order) for order in part[6:8])
        bypass = "".join(tensor for bit, tensor in enumerate(TENSORS) if flat[-1] >> bit & 1)
        return Mapping(
            part[0], tuple(part[1 : 1 + axes]), part[4], part[5], buffer_order, dram_order, bypass
        )


def layer_sizes(layer: Layer) -> Counts8:
    """The eight loop bounds of a layer, in the order of `DIMS`."""
    return (layer.N, layer.G, layer.K, layer.C, layer.P, layer.Q, layer.R, layer.S)


def trivial_mapping(layer: Layer, chip: Chip) -> Mapping:
    """One PE does everything, one multiply-accumulate at a time: valid wherever a chip is."""
    ones = (1,) * 8
    return Mapping(ones, (ones,) * len(chip.axes), ones, layer_sizes(layer))


def check_mapping(layer: Layer, chip: Chip, mapping: Mapping) -> None:
    """Refuse a mapping that does not cover the layer, idles, or that the array cannot unroll.

    Raises:
        InfeasibleError: naming the loop or the axis, and by how much it is off.
    """
    pes = mapping.pes
    for d, size in enumerate(layer_sizes(layer)):
        tile, name = 1, DIMS[d]
        for level, count in (
            ("register", mapping.register[d]),
            ("array", pes[d]),
            ("buffer", mapping.buffer[d]),
            ("dram", mapping.dram[d]),
        ):
            if (count - 1) * tile >= size:
                raise InfeasibleError(
                    f"layer {layer.name!r}: every iteration has work; loop {name} runs {count} "
                    f"times over tiles of {tile} at level {level}, but {name} is {size}: "
                    f"{-(-size // tile)} are enough."
                )
            tile *= count
        if tile < size:
            raise InfeasibleError(
                f"layer {layer.name!r}: a mapping covers the layer; {name} is {size}, its factors "
                f"make {tile}."
            )
    if len(mapping.spatial) != len(chip.axes):
        raise InfeasibleError(
            f"chip {chip.name!r} has {len(chip.axes)} axes, the mapping {len(mapping.spatial)}."
        )
    for axis, factors in zip(chip.axes, mapping.spatial, strict=True):
        used = [DIMS[d] for d in range(8) if factors[d] > 1]
        if math.prod(factors) > axis.size:
            raise InfeasibleError(
                f"axis {axis.name!r} has {axis.size} PEs, the mapping takes {math.prod(factors)}."
            )
        if set(used) - set(axis.loops) or len(used) > axis.max_loops:
            raise InfeasibleError(
                f"axis {axis.name!r} unrolls at most {axis.max_loops} of the loops {axis.loops}, "
                f"received {''.join(used)}."
            )


def order_from_short(short: str) -> str:
    """The eight-letter order of the field's six-letter form, as `CRXKYS`.

    Y and X are output rows and columns. Images and groups become outermost.
    """
    if sorted(short) != sorted(_SHORT):
        raise EncodingError(
            f"a short order holds each of {''.join(_SHORT)} once, received {short!r}."
        )
    return "NG" + "".join(_SHORT[letter] for letter in short)


def order_to_short(order: str) -> str:
    """The field's six-letter form of an order (images and groups are dropped)."""
    back = {dim: letter for letter, dim in _SHORT.items()}
    return "".join(back[dim] for dim in order if dim in back)


def stationary_order(tensor: str) -> str:
    """The order that keeps a tensor in place longest: loops that do not move over it inside.

    Where those run once, the order is that of another tensor.
    """
    outer = [dim for dim in "GKNPQCRS" if dim in RELEVANT[tensor]]
    return "".join(outer + [dim for dim in DIMS if dim not in RELEVANT[tensor]])


def format_mapping(mapping: Mapping, axis_names: Sequence[str] = ()) -> str:
    """The loop nest as text, one line a level; unnamed axes print as axis0, axis1, axis2."""
    names = list(axis_names) or [f"axis{index}" for index in range(len(mapping.spatial))]

    def loops(order: str, factors: Counts8) -> str:
        text = ", ".join(
            f"{dim} in 0..{factors[DIMS.index(dim)]}"
            for dim in order
            if factors[DIMS.index(dim)] > 1
        )
        return f"for {text}" if text else "once"

    array = ", ".join(
        name + "".join(f" {DIMS[d]}*{factors[d]}" for d in range(8) if factors[d] > 1)
        for name, factors in zip(names, mapping.spatial, strict=True)
    )
    bypass = f"     # bypass {mapping.bypass}" if mapping.bypass else ""
    return "\n".join(
        (
            f"dram     {loops(mapping.dram_order, mapping.dram)}{bypass}",
            f"buffer   {loops(mapping.buffer_order, mapping.buffer)}",
            f"array    {array}",
            f"register {loops(DIMS, mapping.register)}",
        )
    )


def parse_mapping(text: str, chip: Chip) -> Mapping:
    """A mapping from the text of `format_mapping`.

    Raises:
        EncodingError: a line is missing, or a loop or an axis is unknown.
    """
    lines = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        level, _, rest = line.partition(" ")
        lines[level] = rest
    if missing := [
        level for level in ("dram", "buffer", "array", "register") if level not in lines
    ]:
        raise EncodingError(
            f"a mapping has the lines dram, buffer, array and register; {missing[0]!r} is missing."
        )
    dram_text, _, comment = lines["dram"].partition("#")
    bypass = comment.partition("bypass")[2].strip()
    dram, dram_order = _parse_loops(dram_text)
    buffer, buffer_order = _parse_loops(lines["buffer"])
    register, _ = _parse_loops(lines["register"])
    names = {axis.name: index for index, axis in enumerate(chip.axes)} | {
        f"axis{index}": index for index in range(len(chip.axes))
    }
    spatial = [[1] * 8 for _ in chip.axes]
    for part in lines["array"].split(","):
        name, *factors = part.split()
        if name not in names:
            raise EncodingError(
                f"the array of {chip.name!r} has the axes "
                f"{', '.join(axis.name for axis in chip.axes)}, received {name!r}."
            )
        for factor in factors:
            match = re.fullmatch(rf"([{DIMS}])\*(\d+)", factor)
            if match is None:
                raise EncodingError(f"an axis is spread as loop*count (K*8), received {factor!r}.")
            spatial[names[name]][DIMS.index(match[1])] = int(match[2])
    axes: Any = tuple(tuple(axis) for axis in spatial)
    return Mapping(register, axes, buffer, dram, buffer_order, dram_order, bypass)


def _parse_loops(text: str) -> tuple[Counts8, str]:
    factors, order = [1] * 8, ""
    text = text.strip()
    for part in [] if text == "once" else text.removeprefix("for ").split(","):
        match = re.fullmatch(rf"([{DIMS}]) in 0\.\.(\d+)", part.strip())
        if match is None or match[1] in order:
            raise EncodingError(
                f"loops are written as `for K in 0..4, C in 0..8`, each once, received {text!r}."
            )
        factors[DIMS.index(match[1])], order = int(match[2]), order + match[1]
    order = "".join(dim for dim in DIMS if dim not in order) + order
    return tuple(factors), order  # type: ignore[return-value]


def _canonical(order: str, factors: Counts8) -> str:
    """Loops that run once go outermost, in the order of `DIMS`, so that equal nests are equal."""
    once = [dim for dim in DIMS if factors[DIMS.index(dim)] == 1]
    return "".join(once + [dim for dim in order if dim not in once])
