"""Decodes pictures of any size and kind into pixels of one size.

All sources are processed alike: rotate as EXIF says, convert to gray or RGB, resize the shorter
side (antialiased), center crop. A picture of the right size is not resized.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pliant.data.splits import Rows
from pliant.errors import DataError
from pliant.picture import preprocess

T = TypeVar("T")
Pixels = NDArray[np.uint8]

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's names of pictures without colour."""

_CANNOT_READ = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files."""

_CHUNK, _GROUP = 4096, 16
"""Pictures held encoded at a time, and pictures that a thread takes at a time."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says of itself before it is decoded."""

    width: int
    height: int
    gray: bool


class Pictures(Protocol):
    """Pictures as a source holds them, by row."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def headers(self, rows: Rows) -> list[Header]:
        """Size and kind of these pictures."""
        ...

    def decode(self, rows: Rows, channels: int, size: int) -> Tensor:
        """These pictures as pixels, uint8 (N, channels, size, size)."""
        ...


@dataclass(frozen=True)
class StreamedImages:
    """An `ImageStore` that decodes on demand, for data that does not fit in memory."""

    pictures: Pictures
    channels: int
    size: int

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: Rows) -> Tensor:
        """The images of these rows, decoded now."""
        return self.pictures.decode(rows, self.channels, self.size)


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures that come as one array."""

    pixels: Pixels
    """(N, height, width, 1 or 3)."""

    def __len__(self) -> int:
        return len(self.pixels)

    def headers(self, rows: Rows) -> list[Header]:
        """Size and kind, the same for all."""
        _, height, width, channels = self.pixels.shape
        return [Header(width, height, channels == 1)] * len(rows)

    def decode(self, rows: Rows, channels: int, size: int) -> Tensor:
        """The pictures, resized where needed."""
        chosen = self.pixels[rows]
        if chosen.shape[1:] != (size, size, channels):
            own = chosen[..., 0] if chosen.shape[-1] == 1 else chosen
            chosen = np.stack([_fit(Image.fromarray(picture), channels, size) for picture in own])
        return torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 3, 1, 2)))


@dataclass(frozen=True)
class TablePictures:
    """Pictures in a column of a Hugging Face `datasets` table, as encoded bytes or as paths of files."""

    table: Any
    """A `datasets.Dataset` whose column `column` is a struct of bytes and path."""
    column: str
    source: str
    """Where the table comes from, for messages."""
    owned: object = None
    """What must live as long as the table, such as the folder of its file."""

    def __len__(self) -> int:
        return len(self.table)

    def headers(self, rows: Rows) -> list[Header]:
        """Size and kind, read without decoding."""
        return [header for headers in self._chunks(rows, _header) for header in headers]

    def decode(self, rows: Rows, channels: int, size: int) -> Tensor:
        """The pictures, resized where needed; decoded on all cores.

        Raises:
            DataError: a picture cannot be read; the message names its file.
        """
        result = torch.empty((len(rows), channels, size, size), dtype=torch.uint8)
        start = 0
        for chunk in self._chunks(rows, lambda picture: _fit(picture, channels, size)):
            result[start : start + len(chunk)] = torch.from_numpy(np.stack(chunk)).permute(
                0, 3, 1, 2
            )
            start += len(chunk)
        return result

    def _chunks(self, rows: Rows, read: Callable[[Image.Image], T]) -> Iterator[list[T]]:
        """What `read` makes of each picture, a chunk of rows at a time."""
        for start in range(0, len(rows), _CHUNK):
            wanted = rows[start : start + _CHUNK]
            encoded = self.table[wanted][self.column].to_pylist()
            yield self._read_all(wanted, encoded, read)

    def _read_all(
        self, rows: Rows, encoded: list[dict[str, Any]], read: Callable[[Image.Image], T]
    ) -> list[T]:
        def read_group(first: int) -> list[T]:
            group = slice(first, first + _GROUP)
            return [
                self._read(row, one, read)
                for row, one in zip(rows[group].tolist(), encoded[group], strict=True)
            ]

        firsts = range(0, len(rows), _GROUP)
        # Pillow warns of odd metadata, which does no harm. Filters are set here, once, as threads share them.
        with (
            warnings.catch_warnings(),
            ThreadPoolExecutor(min(len(firsts), os.cpu_count() or 1)) as threads,
        ):
            warnings.simplefilter("ignore")
            return [result for group in threads.map(read_group, firsts) for result in group]

    def _read(self, row: int, encoded: dict[str, Any], read: Callable[[Image.Image], T]) -> T:
        try:
            with Image.open(
                encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"])
            ) as picture:
                return read(picture)
        except _CANNOT_READ as fault:
            where = (
                encoded["path"]
                if encoded["bytes"] is None
                else f"row {row} ({encoded['path'] or 'no file name'}) of {self.source}"
            )
            raise DataError(
                f"every image can be decoded; {where} cannot: {fault}. Replace or remove it."
            ) from fault


def _header(picture: Image.Image) -> Header:
    turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientations from 5 on lie on their side
    width, height = picture.size[::-1] if turned else picture.size
    return Header(width, height, picture.mode in GRAY_MODES)


def _fit(picture: Image.Image, channels: int, size: int) -> Pixels:
    """Pixels of one picture, (size, size, channels), as a delivered network reads it."""
    return preprocess(picture, size, "L" if channels == 1 else "RGB")
