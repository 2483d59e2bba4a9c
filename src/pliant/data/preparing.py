"""From pictures of any size to arrays of one size: which size, which colours, and the arrays.

The result depends on the content of the pictures and on the request alone, so it is kept in a cache
by their digest; see `pliant.data.cache`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from pliant.data.decoding import FRACTIONS, SIXTEEN_BITS, Colour, Decoding, Fit, Header
from pliant.data.pictures import Pictures, Survey
from pliant.data.pixel_range import PixelRange, Pixels, range_of_floats, range_of_integers
from pliant.data.split_names import SplitName
from pliant.errors import DataError
from pliant.progress import Progress, silent

LARGEST_DEFAULT_SIZE = 224
LARGEST_SIZE = 4096
"""Largest height and width that may be asked for, in pixels."""

AUTOMATIC = "auto"
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_BRIGHT = 224
"""Transparent pictures whose visible part is brighter than this, of 255, are shown on black."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks of the images."""

    size: int | None = None
    """Height and width, in pixels; None to follow the pictures."""
    largest_size: int = LARGEST_DEFAULT_SIZE
    """Largest size that is chosen where none is asked for."""
    fit: Fit = "crop"
    background: str = AUTOMATIC
    """A colour such as `white` or `#ff8800`."""
    channels: int | None = None
    """1 for gray, 3 for RGB; None to follow the pictures."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= LARGEST_SIZE:
            raise DataError(
                f"images have a size from 1 to {LARGEST_SIZE} pixels; received {self.size}."
            )
        if self.fit not in ("crop", "pad"):
            raise DataError(
                f"a picture becomes a square by crop or pad; received {self.fit!r}. Use one of "
                "these."
            )
        _ = self.colour

    @property
    def colour(self) -> Colour | None:
        """The background; None where it follows from the pictures."""
        if self.background == AUTOMATIC:
            return None
        try:
            return ImageColor.getrgb(self.background)[:3]
        except ValueError as fault:
            raise DataError(
                f"a background is {AUTOMATIC} or a colour such as white, black or #ff8800; "
                f"received {self.background!r}."
            ) from fault


@dataclass(frozen=True)
class Prepared:
    """All images of a source as arrays of one size."""

    decoding: Decoding
    picture_size: int
    """Median of the shorter sides of the training pictures, in pixels."""
    notes: tuple[str, ...]
    """What was decided for the user, and what is odd."""
    broken: Mapping[SplitName, Mapping[int, str]]
    """Of each split, the rows that cannot be decoded and why."""
    pixels: Mapping[SplitName, Tensor]
    """uint8 (N, channels, size, size); black where a picture is broken. May be a mapped file."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How to decode the pictures of a source, and what to say of it."""

    decoding: Decoding
    picture_size: int
    """Median of the shorter sides of the training pictures, in pixels."""
    notes: tuple[str, ...]


def decide(survey: Survey, request: Request) -> Decision:
    """Choose channels, size, value ranges and background from the training pictures.

    Args:
        survey: of the training pictures.
        request: of the user, which goes first.
    """
    headers = survey.headers
    size = request.size or default_size(headers, request.largest_size)
    integers = None if survey.integers is None else range_of_integers(*survey.integers)
    floats = None if survey.floats is None else range_of_floats(*survey.floats)
    decoding = Decoding(
        channels=request.channels or (1 if _all_gray(headers) else 3),
        size=size,
        fit=request.fit,
        background=_background(survey, request),
        integers=integers or SIXTEEN_BITS,
        floats=floats or FRACTIONS,
    )
    notes = [
        *_size_notes(headers, request, size),
        *([] if integers is None else [_range_note("integers beyond 8 bits", integers)]),
        *([] if floats is None else [_range_note("floating-point pixels", floats)]),
        *_kind_notes(headers, decoding),
    ]
    sides = [min(header.width, header.height) for header in headers] or [size]
    return Decision(decoding, round(float(np.median(sides))), tuple(notes))


def _all_gray(headers: Sequence[Header]) -> bool:
    return bool(headers) and all(header.gray for header in headers)


def default_size(headers: Sequence[Header], largest: int) -> int:
    """The size that follows from the pictures.

    Their own where all are the same square of at most `largest` pixels, else the median of their
    shorter sides rounded to a multiple of 8, from 8 to `largest`.
    """
    sides = {(header.width, header.height) for header in headers}
    if not sides:
        return min(8, largest)
    width, height = min(sides)
    if len(sides) == 1 and width == height <= largest:
        return width
    median = float(np.median([min(header.width, header.height) for header in headers]))
    return int(np.clip(math.floor(median / 8 + 0.5) * 8, min(8, largest), largest))


def _background(survey: Survey, request: Request) -> Colour:
    """White, or black where the visible parts of transparent pictures are almost white."""
    if request.colour is not None:
        return request.colour
    return _BLACK if (survey.brightness or 0) > _BRIGHT else _WHITE


def _size_notes(headers: Sequence[Header], request: Request, size: int) -> list[str]:
    sides = [min(header.width, header.height) for header in headers]
    smaller = sum(side < size for side in sides)
    notes = []
    if request.size is None and sides and np.median(sides) > size + 4:
        notes.append(
            f"Pictures of {np.median(sides):.0f} pixels (median of the shorter sides) are reduced "
            f"to {size}. Another size: image_size."
        )
    if smaller:
        notes.append(f"{_count(smaller, headers)} smaller than {size} pixels and enlarged.")
    return notes


def _range_note(kind: str, found: PixelRange) -> str:
    return f"Pictures with {kind} are scaled from {found} to 0 to 255."


def _kind_notes(headers: Sequence[Header], decoding: Decoding) -> list[str]:
    notes = []
    transparent = sum(header.transparent for header in headers)
    if transparent:
        red, green, blue = decoding.background
        notes.append(
            f"{_count(transparent, headers)} transparent and shown on #{red:02x}{green:02x}"
            f"{blue:02x}. Another colour: background."
        )
    animated = sum(header.animated for header in headers)
    if animated:
        notes.append(f"{_count(animated, headers)} of several frames, of which the first is used.")
    gray = sum(header.gray for header in headers)
    if _all_gray(headers) and decoding.channels == 3:
        notes.append("All training pictures are gray, and read as RGB.")
    elif gray and decoding.channels == 3:
        notes.append(f"{_count(gray, headers)} gray, others have colour: all become RGB.")
    return notes


def _count(part: int, headers: Sequence[Header]) -> str:
    return f"{part:,} of {len(headers):,} training pictures {'is' if part == 1 else 'are'}"


class Sink(Protocol):
    """Where decoded images go, split by split and in order."""

    def begin(self, split: SplitName, shape: tuple[int, int, int, int]) -> None:
        """The images of a split follow, (N, channels, size, size) in all."""
        ...

    def append(self, pixels: Pixels) -> None:
        """The next images of the split."""
        ...


def decode_all(
    pictures: Mapping[SplitName, Pictures],
    decoding: Decoding,
    sink: Sink,
    progress: Progress = silent,
) -> dict[SplitName, dict[int, str]]:
    """Decode the pictures of all splits.

    Args:
        pictures: of each split.
        decoding: the same for all.
        sink: takes the images.
        progress: told how many are done.

    Returns:
        The broken rows of each split, and why.
    """
    broken: dict[SplitName, dict[int, str]] = {}
    for split, part in pictures.items():
        sink.begin(split, (len(part), decoding.channels, decoding.size, decoding.size))
        start, reasons = 0, {}
        for decoded in part.decode(decoding, progress):
            sink.append(decoded.pixels)
            reasons.update({start + place: why for place, why in decoded.broken.items()})
            start += len(decoded.pixels)
        broken[split] = reasons
    return broken


class MemorySink:
    """Keeps the images in memory."""

    def __init__(self) -> None:
        self.arrays: dict[SplitName, Pixels] = {}
        self._rest: Pixels = np.empty(0, np.uint8)

    def begin(self, split: SplitName, shape: tuple[int, int, int, int]) -> None:
        """Reserve room for a split.

        Raises:
            DataError: there is not enough memory.
        """
        try:
            self.arrays[split] = self._rest = np.empty(shape, np.uint8)
        except (MemoryError, ValueError) as fault:
            raise DataError(
                f"decoded images fit in memory; {shape[0]:,} of {shape[1]}x{shape[2]}x{shape[3]} "
                f"take {math.prod(shape) / 1e9:.3g} GB, which there is not. Choose a smaller "
                "image_size."
            ) from fault

    def append(self, pixels: Pixels) -> None:
        """Keep the next images."""
        self._rest[: len(pixels)] = pixels
        self._rest = self._rest[len(pixels) :]


def prepare_in_memory(
    pictures: Mapping[SplitName, Pictures], request: Request, progress: Progress = silent
) -> Prepared:
    """The images of all splits, decoded now and kept in memory.

    Args:
        pictures: with train.
        request: of the user.
        progress: told how many are done.

    Raises:
        DataError: there is not enough memory.
    """
    decision = decide(pictures["train"].survey(progress), request)
    sink = MemorySink()
    broken = decode_all(pictures, decision.decoding, sink, progress)
    pixels = {split: torch.from_numpy(array) for split, array in sink.arrays.items()}
    return Prepared(decision.decoding, decision.picture_size, decision.notes, broken, pixels)
