"""From a picture to the pixels that a network takes: the same in training and where it is used.

The source of `preprocess` is part of every delivered network, so it needs Pillow and NumPy only.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def preprocess(picture: Image.Image, size: int, mode: str) -> np.ndarray:
    """Upright, in gray or RGB, the middle square, resized: uint8 (size, size, channels).

    Args:
        picture: as `Image.open` gives it.
        size: height and width of the result, in pixels.
        mode: `L` for gray or `RGB`, in this order.
    """
    if min(picture.size) > size:
        picture.draft(None, (size, size))  # a JPEG decodes at 1/2, 1/4 or 1/8 much faster
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip them to white
        values = np.asarray(picture, np.int64) >> 8
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    picture = picture.convert(mode)
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size, size, -1)
