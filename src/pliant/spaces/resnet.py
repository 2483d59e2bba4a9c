"""Residual spaces: elastic depth, stage width and bottleneck ratio, and elastic resolution.

`BottleneckSpace` is the ResNet-50 space of Once-for-All (1x1, 3x3, 1x1): K. He, X. Zhang, S. Ren,
J. Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385; T. He, Z. Zhang,
H. Zhang, Z. Zhang, J. Xie, M. Li, "Bag of Tricks for Image Classification with Convolutional Neural
Networks", 2018, arXiv:1812.01187 (stem and shortcuts of ResNet-D); H. Cai, C. Gan, T. Wang,
Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
2020, arXiv:1908.09791. `PlainSpace` is for small images on CPUs: wide 3x3 convolutions that pool
early, which train many times faster there than depthwise ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pliant.errors import EncodingError
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import BasicBlock, Bottleneck, ConvBlock, MaxPool
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.rounding import ceil_div, make_divisible
from pliant.spaces.space import Choice, Space
from pliant.workload import Activation


@dataclass(frozen=True, slots=True)
class ResidualStage:
    """One row of the table; the options of each choice smallest first."""

    width: int
    """Channels of the stage at width 1."""
    depths: tuple[int, ...]
    """Numbers of residual blocks."""
    widths: tuple[float, ...]
    """Factors of `width`."""
    ratios: tuple[float, ...]
    """Mid channels of a residual block over the channels of its stage, of each block on its own."""
    stride: int = 2


def _residual_choices(
    stages: Sequence[ResidualStage], resolutions: Sequence[int], stem: Sequence[Choice] = ()
) -> tuple[Choice, ...]:
    found = [Choice("r", tuple(resolutions), "resolution"), *stem]
    for number, stage in enumerate(stages, 1):
        found += [
            Choice(f"{number}w", stage.widths, "width"),
            Choice(f"{number}d", stage.depths, "depth"),
        ]
        found += [
            Choice(f"{number}.{block}e", stage.ratios, "width", (f"{number}d", block))
            for block in range(1, max(stage.depths) + 1)
        ]
    return tuple(found)


def _width(stage: ResidualStage, factor: Option) -> int:
    return make_divisible(stage.width * float(factor))


class PlainSpace(Space):
    """Each stage is a 3x3 convolution that pools by the stride, then residual basic blocks.

    Args:
        stages: the table; depths may be 0.
        resolutions: smallest first; pooling drops rows and columns beyond a multiple of its stride.
        stem: channels of the first convolution, which keeps the size.
        views: options of flip test-time augmentation, of 1 and 2; a network with 2 also runs the
            mirror image and averages the features before its classifier. It has the weights of the
            network with 1, and twice its MACs. No such choice where empty.

    Raises:
        EncodingError: a resolution is below the product of all strides, so nothing would be left of
            the image; views of another number.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[ResidualStage],
        resolutions: Sequence[int],
        *,
        stem: int,
        views: Sequence[int] = (),
        activation: Activation = "relu",
        dropout: float = 0.0,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.stages, self.resolutions, self.views = tuple(stages), tuple(resolutions), tuple(views)
        self.stem, self.activation, self.dropout = stem, activation, dropout
        if not set(self.views) <= {1, 2}:
            raise EncodingError(
                "a network sees an image (1) or its mirror image as well (2), received views"
                f" {self.views}. Use 1, 2 or both."
            )
        least = math.prod(stage.stride for stage in self.stages)
        if min(self.resolutions) < least:
            raise EncodingError(
                f"stages that pool by {least} in all need resolutions of at least {least} pixels,"
                f" received {min(self.resolutions)}. Use larger images or fewer stages."
            )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Resolution and views.

        Then by stage its width and depth, and by residual block a ratio.
        """
        first, *others = _residual_choices(self.stages, self.resolutions)
        return (first, *([Choice("v", self.views, "views")] if self.views else []), *others)

    def trainable_space(self) -> PlainSpace:
        """The same networks with one view each, under the same names."""
        if not self.views:
            return self
        frame = {"stem": self.stem, "activation": self.activation, "dropout": self.dropout}
        images = {"channels": self.channels, "image_size": self.image_size, "classes": self.classes}
        more: dict[str, Any] = {"views": (1,), **frame, **images}
        return PlainSpace(self.name, self.stages, self.resolutions, **more)

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """Preprocess, stem, stages, head."""
        blocks = self._blocks(architecture)
        views = int(architecture.mapping.get("v", 1))
        return (
            blocks
            if views == 1
            else tuple(dataclasses.replace(block, views=views) for block in blocks)
        )

    def _blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks for one view."""
        chosen, act = architecture.mapping, self.activation
        size, width = int(chosen["r"]), self.stem
        blocks: list[Block] = [
            Preprocess(
                slot="preprocess", size=self.image_size, channels=self.channels, resolution=size
            ),
            ConvBlock(slot="stem", size=size, inputs=self.channels, outputs=width, activation=act),
        ]
        for number, stage in enumerate(self.stages, 1):
            outputs = _width(stage, chosen[f"{number}w"])
            blocks.append(
                ConvBlock(
                    slot=f"stage{number}_pool",
                    size=size,
                    inputs=width,
                    outputs=outputs,
                    pool=stage.stride,
                    activation=act,
                )
            )
            size, width = size // stage.stride, outputs
            for block in range(1, int(chosen[f"{number}d"]) + 1):
                mid_channels = make_divisible(width * float(chosen[f"{number}.{block}e"]))
                blocks.append(
                    BasicBlock(
                        slot=f"stage{number}_block{block}",
                        size=size,
                        channels=width,
                        mid_channels=mid_channels,
                        activation=act,
                    )
                )
        return (
            *blocks,
            Head(slot="head", size=size, inputs=width, classes=self.classes, dropout=self.dropout),
        )


class BottleneckSpace(Space):
    """The ResNet-50 space of Once-for-All.

    Bottleneck blocks with elastic depth, width and ratio. Stem and shortcuts are those of ResNet-D,
    but that the second of the stem's three convolutions is a residual block, which may be left out.

    Args:
        stages: the table; depths from 1 up, since the first block changes size and channels.
        resolutions: smallest first.
        stem: channels of the stem at width 1; of its first convolutions half as many.
        stem_widths: factors of the stem's channels.
        stem_depths: numbers of residual blocks in the stem, of 0 and 1.

    Raises:
        EncodingError: a stage may have no block.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[ResidualStage],
        resolutions: Sequence[int],
        *,
        stem: int = 64,
        stem_widths: Sequence[float],
        stem_depths: Sequence[int] = (0, 1),
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.stages, self.resolutions = tuple(stages), tuple(resolutions)
        self.stem, self.stem_widths = stem, tuple(stem_widths)
        self.stem_depths = tuple(stem_depths)
        if any(min(stage.depths) < 1 for stage in self.stages):
            raise EncodingError(
                "every stage keeps at least one block, since its first one changes the channels:"
                " use depths from 1 up."
            )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Resolution, the stem's depth and the widths of its first convolutions and its last one.

        Then by stage its width and depth, and by block a ratio.
        """
        # Factors that round to the same channels are one option.
        narrow = {self._stem_width(factor, 2): factor for factor in self.stem_widths}
        stem = (
            Choice("0d", self.stem_depths, "depth"),
            Choice("0.1w", tuple(narrow.values()), "width"),
            Choice("0.2w", self.stem_widths, "width"),
        )
        return _residual_choices(self.stages, self.resolutions, stem)

    def _stem_width(self, factor: Option, divisor: int = 1) -> int:
        """Channels of the stem, or of its first convolutions, rounded twice as in Once-for-All."""
        return make_divisible(make_divisible(self.stem * float(factor)) // divisor)

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """Preprocess, stem and pooling that halve the size twice, stages, head."""
        chosen = architecture.mapping
        resolution = int(chosen["r"])
        narrow, width = self._stem_width(chosen["0.1w"], 2), self._stem_width(chosen["0.2w"])
        size = ceil_div(resolution, 2)
        blocks: list[Block] = [
            Preprocess(
                slot="preprocess",
                size=self.image_size,
                channels=self.channels,
                resolution=resolution,
            ),
            ConvBlock(
                slot="stem1", size=resolution, inputs=self.channels, outputs=narrow, stride=2
            ),
        ]
        if chosen["0d"]:
            blocks.append(
                ConvBlock(slot="stem2", size=size, inputs=narrow, outputs=narrow, residual=True)
            )
        blocks += [
            ConvBlock(slot="stem3", size=size, inputs=narrow, outputs=width),
            MaxPool(slot="stem_pool", size=size, channels=width),
        ]
        size = ceil_div(size, 2)
        for number, stage in enumerate(self.stages, 1):
            outputs = _width(stage, chosen[f"{number}w"])
            for block in range(1, int(chosen[f"{number}d"]) + 1):
                first = block == 1
                blocks.append(
                    Bottleneck(
                        slot=f"stage{number}_block{block}",
                        size=size,
                        inputs=width,
                        mid_channels=make_divisible(
                            round(outputs * float(chosen[f"{number}.{block}e"]))
                        ),
                        outputs=outputs,
                        stride=stage.stride if first else 1,
                        project=first,
                    )
                )
                size, width = ceil_div(size, stage.stride) if first else size, outputs
        return (*blocks, Head(slot="head", size=size, inputs=width, classes=self.classes))
