"""Which values of a picture are black and white: one rule for each kind of file.

| values | black | white |
|---|---|---|
| bytes: 8 bits, palettes, two levels | 0 | 255 |
| whole numbers beyond a byte, all from 0 to 255 | 0 | 255 |
| other whole numbers and fractions in files | 0, or the least where it is negative | the largest |
| fractions in arrays (.npz, Python) | 0 | 1 |

"Least" and "largest" are those of all training pictures, so that a picture does not depend on what
it is shown with. Arrays of other ranges are refused, as they may be normalised already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pliant.errors import DataError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PixelRange:
    """The values that become 0 and 255; those between are rounded to the nearest byte."""

    black: float
    white: float

    def to_bytes(self, values: NDArray) -> Pixels:
        """Values of any shape as bytes; those outside of the range become black or white."""
        extent = self.white - self.black
        scale = 255 / extent if extent > 0 else 0.0
        return np.rint((values - self.black) * scale).clip(0, 255).astype(np.uint8)

    def __str__(self) -> str:
        return f"{self.black:g} to {self.white:g}"


def range_of_integers(least: float, largest: float) -> PixelRange:
    """The range of pictures with whole numbers beyond a byte, from their extremes."""
    if least >= 0 and largest <= 255:
        return PixelRange(0, 255)
    return PixelRange(min(0, least), largest)


def range_of_floats(least: float, largest: float) -> PixelRange:
    """The range of pictures with fractions, from their extremes."""
    return PixelRange(min(0, least), largest)


def array_to_bytes(values: NDArray, where: str) -> Pixels:
    """An array of images as bytes.

    Args:
        values: bytes, whole numbers from 0 to 255, or fractions from 0 to 1.
        where: names the array in the error.

    Raises:
        DataError: other types or values.
    """
    if values.dtype == np.uint8:
        return values
    white = {"f": 1, "i": 255, "u": 255}.get(values.dtype.kind)
    if white is None or not bool(((values >= 0) & (values <= white)).all()):
        raise DataError(
            f"pixels are whole numbers from 0 to 255 or fractions from 0 to 1; {where}, has "
            f"{values.dtype} beyond. Rescale or convert them."
        )
    return PixelRange(0, white).to_bytes(values)
