"""Decodes one picture of any size and kind into pixels of one size.

All pictures are processed alike, by `pliant.picture.preprocess`:

1. JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where that is still large enough.
2. EXIF says which side is up.
3. Whole numbers beyond a byte and fractions are mapped to 0 to 255 by the data set's own range.
4. What is transparent shows a background of one colour; then colours become gray or RGB.
5. The picture becomes a square: by default the shorter side is resized (antialiased) and the middle
   is cropped; with `pad`, the longer side is resized and the rest is mid gray.

A picture of the right size is not resized. Of animations and files with several pages the first
picture is used.
"""

from __future__ import annotations

import inspect
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

from pliant.data.pixel_range import PixelRange, Pixels
from pliant.files import is_device
from pliant.picture import preprocess

Fit = Literal["crop", "pad"]
"""How a picture that is no square becomes one."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_USUAL = {name: one.default for name, one in inspect.signature(preprocess).parameters.items()}
"""Options of `preprocess`, read once: every picture is decoded with them."""

SIXTEEN_BITS, FRACTIONS = PixelRange(0, 65535), PixelRange(0, 1)
"""Ranges of new pictures of kinds that no training picture is of."""

_NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MCIDAS", "MPEG", "WMF"})
"""Formats that Pillow recognises but does not decode, or decodes by starting another program."""

Image.init()
FORMATS = tuple(sorted(set(Image.OPEN) - _NOT_PICTURES))
"""Formats of picture files that are read, as Pillow names them."""

ENDINGS = frozenset(
    ending
    for ending, kind in Image.registered_extensions().items()
    if kind in FORMATS or kind == "MPO"
)
"""Endings of picture files, in lower case, with the dot."""

GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's names of pictures without colour."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)
"""What Pillow raises on damaged files."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself before it is decoded."""

    width: int
    height: int
    mode: str
    """As Pillow names it."""
    transparent: bool = False
    animated: bool = False

    @property
    def gray(self) -> bool:
        """Whether it has no colour."""
        return self.mode in GRAY_MODES


@dataclass(frozen=True, slots=True)
class Decoding:
    """How every picture of a data set becomes pixels; the same for new pictures of a network."""

    channels: int
    """1 for gray, 3 for RGB."""
    size: int
    """Height and width, in pixels."""
    fit: Fit = "crop"
    background: Colour = (255, 255, 255)
    """Behind what is transparent."""
    integers: PixelRange = SIXTEEN_BITS
    """Of pictures with whole numbers beyond a byte (Pillow's modes `I` and `I;16`)."""
    floats: PixelRange = FRACTIONS
    """Of pictures with fractions (Pillow's mode `F`)."""

    @property
    def options(self) -> dict[str, Any]:
        """What `preprocess` is told beside the size; empty where its defaults hold."""
        own = {
            "fit": self.fit,
            "background": tuple(self.background),
            "integers": (self.integers.black, self.integers.white),
            "floats": (self.floats.black, self.floats.white),
        }
        return {name: value for name, value in own.items() if value != _USUAL[name]}


def open_picture(content: bytes | Path) -> Image.Image:
    """A picture file, opened and not yet decoded.

    Args:
        content: the file's bytes, or its path.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    if isinstance(content, Path) and is_device(content):
        raise OSError("it is a link to a pipe or a device")
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return Image.open(source, formats=FORMATS)


def read_header(content: bytes | Path) -> Header:
    """Size and kind of a picture file, without decoding it. Raises as `open_picture`."""
    with open_picture(content) as picture:
        width, height = picture.size
        animated = bool(getattr(picture, "is_animated", False))
        return Header(width, height, picture.mode, picture.has_transparency_data, animated)


def decode_picture(content: bytes | Path, decoding: Decoding) -> Pixels:
    """Pixels of a picture file, (channels, size, size). Raises as `open_picture`."""
    with open_picture(content) as picture:
        return fit_picture(picture, decoding).transpose(2, 0, 1)


def fit_picture(picture: Image.Image, decoding: Decoding) -> Pixels:
    """Pixels of an open picture, (size, size, channels), as a delivered network reads it."""
    mode = "L" if decoding.channels == 1 else "RGB"
    return preprocess(picture, decoding.size, mode, **decoding.options)


def deep_extremes(picture: Image.Image) -> tuple[float, float]:
    """Least and largest value of a picture of more than 8 bits, or of fractions.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    values = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are no finite numbers")
    return float(values.min()), float(values.max())


def visible_brightness(picture: Image.Image) -> float | None:
    """Mean gray of a transparent picture weighted by opacity, 0 to 255; None where none shows."""
    layered = picture.convert("RGBA")
    alpha = np.asarray(layered.getchannel("A"), dtype=np.float64)
    gray = np.asarray(layered.convert("RGB").convert("L"), dtype=np.float64)
    return float((gray * alpha).sum() / alpha.sum()) if alpha.any() else None
