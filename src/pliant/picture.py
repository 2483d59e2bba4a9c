"""From a picture to the pixels that a network takes: the same in training and where it is used.

The source of `preprocess` is part of every delivered network, so it needs Pillow and NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps


def preprocess(
    picture: Image.Image,
    size: int,
    mode: str,
    *,
    fit: str = "crop",
    background: Sequence[int] = (255, 255, 255),
    integers: Sequence[float] = (0, 65535),
    floats: Sequence[float] = (0, 1),
) -> np.ndarray:
    """Upright, in gray or RGB, as a square of one size: uint8 (size, size, channels).

    Args:
        picture: as `Image.open` returns it.
        size: height and width of the result, in pixels.
        mode: `L` for gray or `RGB`, in this order.
        fit: `crop` takes the middle square, `pad` fills the rest with mid gray.
        background: red, green and blue behind what is transparent.
        integers: the values that become 0 and 255 in pictures of 16 or 32 bits.
        floats: likewise in pictures of fractions.
    """
    least = [size, size]
    if fit == "pad":
        least = [max(1, round(size * side / max(picture.size))) for side in picture.size]
    picture.draft(None, (least[0], least[1]))  # a JPEG decodes at 1/2, 1/4 or 1/8 much faster
    picture = ImageOps.exif_transpose(picture)
    if picture.mode[0] in "IF":  # Pillow would clip them to white
        black, white = floats if picture.mode == "F" else integers
        values = np.asarray(picture, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are no finite numbers")
        values = (values - black) * (255 / max(white - black, 1e-300))
        picture = Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))
    if picture.mode == "LAB":
        from PIL import ImageCms

        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB") or picture
    if picture.has_transparency_data:
        gray = picture.mode in ("1", "L", "LA", "La")
        layer = picture.convert("LA" if gray else "RGBA")
        colour = round(sum(background) / 3) if gray else tuple(background)
        picture = Image.new("L" if gray else "RGB", picture.size, colour)
        picture.paste(layer.convert(picture.mode), mask=layer.getchannel("A"))
    picture = picture.convert(mode)
    if picture.size != (size, size) and fit == "pad":
        rest = (127,) * len(mode)  # about 0 once pixels are normalised
        picture = ImageOps.pad(picture, (size, size), Image.Resampling.BILINEAR, rest)
    elif picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size, size, -1)
