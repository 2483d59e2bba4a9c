"""Pictures as a source holds them: arrays, or encoded files that are read on all cores.

A source is read in whole passes, in order: one for the digests, and where its images are not in the
cache one for headers and value ranges, and one to decode them. Threads share the work, as Pillow
decodes outside the interpreter's lock and threads start at once.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pliant.data.decoding import (
    UNREADABLE,
    Decoding,
    Header,
    decode_picture,
    deep_extremes,
    fit_picture,
    open_picture,
    read_header,
    visible_brightness,
)
from pliant.data.pixel_range import Pixels
from pliant.files import is_device
from pliant.progress import Progress

T = TypeVar("T")
Digests = NDArray[np.uint8]
"""SHA-256 of every picture, (N, 32)."""

_CHUNK, _GROUP = 512, 16
"""Pictures held encoded at a time, and pictures that a thread takes at a time."""

_BRIGHTNESS_PIXELS = 256
"""Transparent pictures are reduced to this size before their brightness is computed."""


@dataclass(frozen=True)
class Survey:
    """What the training pictures are like, before any is decoded for good."""

    headers: tuple[Header, ...]
    """Of the pictures that can be read."""
    integers: tuple[float, float] | None = None
    """Least and largest value of those with whole numbers beyond a byte; None where there are
    none."""
    floats: tuple[float, float] | None = None
    """Likewise of those with fractions."""
    brightness: float | None = None
    """Mean gray of what is visible of transparent pictures, 0 to 255."""


@dataclass(frozen=True)
class Decoded:
    """Some consecutive pictures, decoded."""

    pixels: Pixels
    """(n, channels, size, size); black where a picture is broken."""
    broken: dict[int, str]
    """Position within these pictures to the reason."""


class Pictures(Protocol):
    """Pictures by row, in the order of their labels."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def names(self, rows: Sequence[int]) -> list[str]:
        """What a person finds these pictures by."""
        ...

    def digests(self, progress: Progress) -> Digests:
        """What names each picture by its content."""
        ...

    def survey(self, progress: Progress) -> Survey:
        """Sizes, kinds and value ranges."""
        ...

    def decode(self, decoding: Decoding, progress: Progress) -> Iterator[Decoded]:
        """All pictures as pixels, in order."""
        ...


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures that come as one array."""

    pixels: Pixels
    """(N, height, width, 1 or 3)."""

    def __len__(self) -> int:
        return len(self.pixels)

    def names(self, rows: Sequence[int]) -> list[str]:
        """Their positions."""
        return [f"image {row}" for row in rows]

    def digests(self, progress: Progress) -> Digests:
        """Of the pixels of each picture and their shape."""
        shape = repr(self.pixels.shape[1:]).encode()
        found = [hashlib.sha256(shape + picture.tobytes()).digest() for picture in self.pixels]
        return _stacked(found)

    def survey(self, progress: Progress) -> Survey:
        """The same size and kind for all."""
        _, height, width, channels = self.pixels.shape
        return Survey((Header(width, height, "L" if channels == 1 else "RGB"),) * len(self))

    def decode(self, decoding: Decoding, progress: Progress) -> Iterator[Decoded]:
        """The pictures, resized where needed."""
        wanted = (decoding.size, decoding.size, decoding.channels)
        for start in range(0, len(self), _CHUNK):
            chosen = self.pixels[start : start + _CHUNK]
            if chosen.shape[1:] != wanted:
                own = chosen[..., 0] if chosen.shape[-1] == 1 else chosen
                fitted = [fit_picture(Image.fromarray(picture), decoding) for picture in own]
                chosen = np.stack(fitted)
            yield Decoded(np.ascontiguousarray(chosen.transpose(0, 3, 1, 2)), {})


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One picture file, not yet read."""

    name: str
    content: bytes | Path | None
    """Its bytes or where it lies; None where there is nothing to read, for the reason."""
    reason: str = ""

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            OSError: it cannot be read.
        """
        if self.content is None:
            raise OSError(self.reason)
        if isinstance(self.content, Path) and is_device(self.content):
            raise OSError("it is a link to a pipe or a device")
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures as files, alone or in the rows of tables."""

    count: int
    items: Callable[[], Iterator[EncodedPicture]]
    """All of them, in order, anew for every pass."""

    def __len__(self) -> int:
        return self.count

    def names(self, rows: Sequence[int]) -> list[str]:
        """Their paths, or rows and names in the table."""
        wanted = set(rows)
        found = {row: item.name for row, item in enumerate(self.items()) if row in wanted}
        return [found[row] for row in rows]

    def digests(self, progress: Progress) -> Digests:
        """Of the bytes of each file."""
        found = [one for chunk in self._chunks(_digest, "read images", progress) for one in chunk]
        return _stacked(found)

    def survey(self, progress: Progress) -> Survey:
        """Read all headers, and the values of pictures that are transparent or beyond a byte."""
        headers: list[Header] = []
        extremes: dict[str, list[tuple[float, float]]] = {"integers": [], "floats": []}
        brightness: list[float] = []
        for look in chain.from_iterable(self._chunks(_look, "read headers", progress)):
            if look is None:
                continue
            headers.append(look.header)
            if look.extremes is not None:
                kind = "floats" if look.header.mode == "F" else "integers"
                extremes[kind].append(look.extremes)
            if look.brightness is not None:
                brightness.append(look.brightness)
        return Survey(
            tuple(headers),
            _overall(extremes["integers"]),
            _overall(extremes["floats"]),
            float(np.mean(brightness)) if brightness else None,
        )

    def decode(self, decoding: Decoding, progress: Progress) -> Iterator[Decoded]:
        """Decode the files on all cores."""
        black = np.zeros((decoding.channels, decoding.size, decoding.size), np.uint8)

        def decoded(item: EncodedPicture) -> Pixels | str:
            try:
                return decode_picture(item.read(), decoding)
            except UNREADABLE as fault:
                return reason(fault)

        for chunk in self._chunks(decoded, "decode images", progress):
            broken = {place: one for place, one in enumerate(chunk) if isinstance(one, str)}
            yield Decoded(
                np.stack([black if isinstance(one, str) else one for one in chunk]), broken
            )

    def _chunks(
        self, work: Callable[[EncodedPicture], T], step: str, progress: Progress
    ) -> Iterator[list[T]]:
        """What `work` makes of each picture, a chunk of consecutive pictures at a time."""
        items, done, cores = self.items(), 0, available_cores()
        with ThreadPoolExecutor(cores) as threads:
            while chunk := list(islice(items, _CHUNK)):
                groups = [chunk[start : start + _GROUP] for start in range(0, len(chunk), _GROUP)]
                # Pillow warns of odd metadata, which does no harm. Threads share these filters.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    results = threads.map(lambda group: [work(item) for item in group], groups)
                    found = [result for group in results for result in group]
                yield found
                done += len(chunk)
                progress(step, done, self.count, f"on {cores} cores")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reason(fault: BaseException) -> str:
    """Why a picture cannot be read, in one line and without its name."""
    if isinstance(fault, FileNotFoundError):
        return "there is no such file"
    if isinstance(fault, Image.UnidentifiedImageError):
        return "it is no picture that can be read"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return " ".join(str(fault).split()) or type(fault).__name__


def _stacked(digests: list[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _digest(item: EncodedPicture) -> bytes:
    """Of a file that cannot be read, zeros; decoding it says why."""
    try:
        return hashlib.sha256(item.read()).digest()
    except OSError:
        return bytes(32)


@dataclass(frozen=True, slots=True)
class _Look:
    header: Header
    extremes: tuple[float, float] | None = None
    brightness: float | None = None


def _look(item: EncodedPicture) -> _Look | None:
    """What is known of a picture before it is decoded for good; None where it is broken."""
    try:
        content = item.read()
        header = read_header(content)
        deep = header.mode.startswith(("I", "F"))
        if not deep and not header.transparent:
            return _Look(header)
        with open_picture(content) as picture:
            if not deep:
                picture.thumbnail((_BRIGHTNESS_PIXELS, _BRIGHTNESS_PIXELS))
                return _Look(header, brightness=visible_brightness(picture))
            return _Look(header, deep_extremes(picture))
    except UNREADABLE:
        return None


def _overall(extremes: list[tuple[float, float]]) -> tuple[float, float] | None:
    if not extremes:
        return None
    return min(least for least, _ in extremes), max(largest for _, largest in extremes)
