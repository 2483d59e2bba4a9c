"""MobileNetV3-style space.

Stages of inverted residuals with elastic kernel, depth, expansion and resolution.

The space is a table with one row per stage, like the tables of the papers: A. Howard et al.,
"Searching for MobileNetV3", 2019, arXiv:1905.02244 (Tables 1 and 2); H. Cai, C. Gan, T. Wang,
Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
2020, arXiv:1908.09791, whose space is the preset `ofa-mobilenetv3`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pliant.errors import EncodingError
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.block import NORM_EPSILON, Block
from pliant.spaces.convolutional_blocks import ConvBlock, InvertedResidual
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.padding import Padding
from pliant.spaces.rounding import ceil_div, make_divisible
from pliant.spaces.space import Choice, Space
from pliant.workload import Activation


@dataclass(frozen=True, slots=True)
class MobileStage:
    """One row of the table; the options of each choice smallest first."""

    width: int
    """Channels of all blocks of the stage."""
    depths: tuple[int, ...]
    """Numbers of blocks.

    The smallest is at least 1, since the first block changes size and channels.
    """
    kernels: tuple[int, ...] = (3, 5, 7)
    """Of each block on its own; no choice where there is one."""
    expansions: tuple[float, ...] = (3, 4, 6)
    """Mid channels over input channels, of each block on its own."""
    stride: int = 2
    activation: Activation = "relu"
    squeeze_excite: bool = False


@dataclass(frozen=True, slots=True)
class MobileFrame:
    """What surrounds the elastic stages and is the same in every network."""

    stem: int = 16
    """Channels of the first convolution."""
    stem_stride: int = 2
    first_block: int = 0
    """Channels of a fixed 3x3 block without expansion after the stem (MobileNetV3); 0 for none."""
    first_activation: Activation = "relu"
    """Of the fixed block."""
    activation: Activation = "hswish"
    """Of stem and head."""
    expand: int = 960
    """Channels of the last 1x1 convolution."""
    hidden: int = 1280
    """Width of the linear layer before the classifier; 0 for none."""
    dropout: float = 0.0
    padding: Padding = "symmetric"
    """Of all convolutions of the network."""
    norm_epsilon: float = NORM_EPSILON
    """Added to the variance by all BatchNorms of the network."""


class MobileSpace(Space):
    """Inverted residual stages behind a stem and before a head.

    Args:
        stages: the table.
        resolutions: input sizes of the network, smallest first; images are resized inside it.
        frame: stem and head.

    Raises:
        EncodingError: a stage may have no block, or a kernel that has no centre or no neighbours.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[MobileStage],
        resolutions: Sequence[int],
        frame: MobileFrame,
        *,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.stages = tuple(stages)
        self.resolutions = tuple(resolutions)
        self.frame = frame
        if any(min(stage.depths) < 1 for stage in self.stages):
            raise EncodingError(
                "every stage keeps at least one block, since its first one changes the channels:"
                " use depths from 1 up."
            )
        if wrong := [
            kernel
            for stage in self.stages
            for kernel in stage.kernels
            if kernel < 3 or kernel % 2 == 0
        ]:
            raise EncodingError(
                f"depthwise kernels are odd numbers from 3 up, received {wrong[0]}."
            )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Resolution; then by stage its depth, and by block a kernel and an expansion."""
        found = [Choice("r", self.resolutions, "resolution")]
        for number, stage in enumerate(self.stages, 1):
            found.append(Choice(f"{number}d", stage.depths, "depth"))
            for block in range(1, max(stage.depths) + 1):
                condition = (f"{number}d", block)
                if len(stage.kernels) > 1:
                    kernel = Choice(f"{number}.{block}k", stage.kernels, "kernel", condition)
                    found.append(kernel)
                found.append(Choice(f"{number}.{block}e", stage.expansions, "width", condition))
        return tuple(found)

    def stage_blocks(
        self, number: int, chosen: Mapping[str, Option]
    ) -> Iterator[tuple[int, int, float]]:
        """The blocks of a stage, both counted from 1: number, kernel, expansion."""
        kernels = self.stages[number - 1].kernels
        for block in range(1, int(chosen[f"{number}d"]) + 1):
            kernel = int(chosen.get(f"{number}.{block}k", kernels[0]))
            yield block, kernel, float(chosen[f"{number}.{block}e"])

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """Preprocess, stem, stages, head."""
        chosen, frame = architecture.mapping, self.frame
        size, padding, epsilon = int(chosen["r"]), frame.padding, frame.norm_epsilon
        blocks: list[Block] = [
            Preprocess(
                slot="preprocess", size=self.image_size, channels=self.channels, resolution=size
            ),
            ConvBlock(
                slot="stem",
                size=size,
                inputs=self.channels,
                outputs=frame.stem,
                kernel=3,
                stride=frame.stem_stride,
                activation=frame.activation,
                padding=padding,
                norm_epsilon=epsilon,
            ),
        ]
        size = ceil_div(size, frame.stem_stride)
        if frame.first_block:
            blocks.append(
                InvertedResidual(
                    slot="first",
                    size=size,
                    inputs=frame.stem,
                    mid_channels=frame.stem,
                    outputs=frame.first_block,
                    kernel=3,
                    expand=False,
                    activation=frame.first_activation,
                    padding=padding,
                    norm_epsilon=epsilon,
                )
            )
        width = frame.first_block or frame.stem
        for number, stage in enumerate(self.stages, 1):
            for block, kernel, expansion in self.stage_blocks(number, chosen):
                stride = stage.stride if block == 1 else 1
                blocks.append(
                    InvertedResidual(
                        slot=f"stage{number}_block{block}",
                        size=size,
                        inputs=width,
                        mid_channels=make_divisible(round(width * expansion)),
                        outputs=stage.width,
                        kernel=kernel,
                        stride=stride,
                        squeeze_excite=stage.squeeze_excite,
                        activation=stage.activation,
                        padding=padding,
                        norm_epsilon=epsilon,
                    )
                )
                size, width = ceil_div(size, stride), stage.width
        return (
            *blocks,
            Head(
                slot="head",
                size=size,
                inputs=width,
                classes=self.classes,
                expand=frame.expand,
                hidden=frame.hidden,
                activation=frame.activation,
                dropout=frame.dropout,
                norm_epsilon=epsilon,
            ),
        )
