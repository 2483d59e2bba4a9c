"""The space for photographs: EfficientNet-Lite0 with elastic resolution, depth, width and kernel.

Its largest network is EfficientNet-Lite0 (Liu, R., Higher accuracy on vision models with
EfficientNet-Lite, TensorFlow blog, 2020; Tan, M., Le, Q. V., EfficientNet: Rethinking Model Scaling
for Convolutional Neural Networks, 2019, arXiv:1905.11946), so its published weights are a start.
Inverted residuals with relu6 and no squeeze-and-excite are what int8 runtimes run fast.

Resolution is the cheapest way to fewer MACs: it loses the least accuracy. So its range is wide, and
the others are not: a stage keeps a residual block where it has two, and a block keeps two thirds of
its mid channels. Channels between blocks stay as they are, since pretrained residual sums lose
most when they are cut.
"""

from __future__ import annotations

from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage

EXPANSIONS = (4, 5, 6)

RESOLUTIONS = (64, 80, 96, 112, 128, 160, 192, 224)
"""Of the networks, in pixels; those up to the size of the images."""

STAGES = tuple(
    MobileStage(width, depths, kernels, EXPANSIONS, stride, activation="relu6")
    for width, depths, kernels, stride in (
        (24, (1, 2), (3,), 2),
        (40, (1, 2), (3, 5), 2),
        (80, (2, 3), (3,), 2),
        (112, (2, 3), (3, 5), 1),
        (192, (2, 3, 4), (3, 5), 2),
        (320, (1,), (3,), 1),
    )
)
"""Published blocks and kernels are the largest option of each."""

FRAME = MobileFrame(
    stem=32,
    first_block=16,
    first_activation="relu6",
    activation="relu6",
    expand=1280,
    hidden=0,
    dropout=0.2,
    padding="same",
    norm_epsilon=1e-3,
)


def photos(channels: int, image_size: int, classes: int) -> MobileSpace:
    """For photographs of 64 to 224 pixels.

    EfficientNet-Lite0 made elastic; starts from its published weights.
    """
    return MobileSpace(
        "photos",
        STAGES,
        tuple(size for size in RESOLUTIONS if size <= image_size),
        FRAME,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )
