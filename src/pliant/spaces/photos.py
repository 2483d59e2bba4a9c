"""Spaces for photographs: EfficientNet-Lite with elastic resolution, depth, width and kernel.

The largest network is EfficientNet-Lite0, Lite1 or Lite2 (Liu, R., Higher accuracy on vision models
with EfficientNet-Lite, TensorFlow blog, 2020; Tan, M., Le, Q. V., EfficientNet: Rethinking Model
Scaling for Convolutional Neural Networks, 2019, arXiv:1905.11946), so its published weights are a
start. Inverted residuals with relu6 and no squeeze-and-excite are what int8 runtimes run fast.

Resolution is the cheapest way to fewer MACs: it loses the least accuracy. So its range is wide, and
the others are not: at most two residual blocks of a stage are left out, and a block keeps two
thirds of its mid channels. Channels between blocks stay as they are, since pretrained residual sums
lose most when they are cut.
"""

from __future__ import annotations

import math

from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.rounding import make_divisible

RESOLUTIONS = (64, 80, 96, 112, 128, 160, 192, 224, 240, 256)
"""Of the networks, in pixels; those up to the size of the images and of the published network."""

EXPANSIONS = (4, 5, 6)

STAGES = (
    # width, blocks, kernel, stride: EfficientNet-Lite0
    (24, 2, 3, 2),
    (40, 2, 5, 2),
    (80, 3, 3, 2),
    (112, 3, 5, 1),
    (192, 4, 5, 2),
    (320, 1, 3, 1),
)


def photos(channels: int, image_size: int, classes: int) -> MobileSpace:
    """For photographs of 64 to 224 pixels: EfficientNet-Lite0 made elastic."""
    return _lite("photos", 1.0, 1.0, 224, 0.2, channels, image_size, classes)


def photos_lite1(channels: int, image_size: int, classes: int) -> MobileSpace:
    """For photographs of 64 to 240 pixels: EfficientNet-Lite1, a block deeper by stage."""
    return _lite("photos-lite1", 1.0, 1.1, 240, 0.2, channels, image_size, classes)


def photos_lite2(channels: int, image_size: int, classes: int) -> MobileSpace:
    """For photographs of 64 to 256 pixels: EfficientNet-Lite2, which was trained at 260."""
    return _lite("photos-lite2", 1.1, 1.2, 260, 0.3, channels, image_size, classes)


def _lite(
    name: str,
    width: float,
    depth: float,
    largest: int,
    dropout: float,
    channels: int,
    image_size: int,
    classes: int,
) -> MobileSpace:
    """An EfficientNet-Lite made elastic.

    Args:
        name: of the space.
        width, depth: factors of channels and blocks; those of stem, first block and head stay, and
            so does the number of blocks of the last stage.
        largest: resolution of the published network.
        dropout: of the published network.
        channels, image_size, classes: of the images.
    """
    *scaled, last = STAGES
    rows = [(outputs, math.ceil(depth * blocks), *more) for outputs, blocks, *more in scaled]
    frame = MobileFrame(
        stem=32,
        first_block=16,
        first_activation="relu6",
        activation="relu6",
        expand=1280,
        hidden=0,
        dropout=dropout,
        padding="same",
        norm_epsilon=1e-3,
    )
    return MobileSpace(
        name,
        [_stage(make_divisible(width * row[0]), *row[1:]) for row in (*rows, last)],
        [size for size in RESOLUTIONS if size <= min(image_size, largest)],
        frame,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def _stage(outputs: int, blocks: int, kernel: int, stride: int) -> MobileStage:
    """A stage whose largest options are the published block."""
    least = max(2, blocks - 2) if blocks > 2 else 1
    return MobileStage(
        outputs,
        tuple(range(least, blocks + 1)),
        (3, 5) if kernel == 5 else (3,),
        EXPANSIONS,
        stride,
        activation="relu6",
    )
