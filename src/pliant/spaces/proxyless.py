"""The space of ProxylessNAS: every block is one of several operations, or left out.

H. Cai, L. Zhu, S. Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware", 2019, arXiv:1812.00332, section 4.2: inverted residuals with kernels 3, 5 and 7 and
expansions 3 and 6. A block that keeps size and channels may also be left out, which lets depth and
width trade off.

One choice picks the operation of a block: `65` is expansion 6 with kernel 5, and `0` leaves the
block out. The operations of a block have weights of their own in a mixed network
(`pliant.networks.mixed`); in a supernet they share the largest one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pliant.errors import EncodingError
from pliant.spaces.architecture import Option
from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.space import Choice

LEFT_OUT = 0
"""The option of a block that is not there."""


@dataclass(frozen=True, slots=True)
class ProxylessStage:
    """One row of the table."""

    width: int
    """Channels of all blocks of the stage."""
    blocks: int
    """At most; the first one changes size or channels and is always there."""
    stride: int = 2
    kernels: tuple[int, ...] = (3, 5, 7)
    """Of one digit."""
    expansions: tuple[int, ...] = (3, 6)
    """Mid channels over input channels; 1 to 9."""


class ProxylessSpace(MobileSpace):
    """Blocks with a choice of operations behind a stem and before a head.

    Args:
        name: of the space.
        stages: the table.
        frame: stem and head; its activation is that of all blocks.
        channels: of an image.
        image_size: height and width of an image, in pixels, at which every network runs.
        classes: number of labels.

    Raises:
        EncodingError: an expansion or a kernel of more than one digit.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[ProxylessStage],
        frame: MobileFrame,
        *,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        sizes = [one for stage in stages for one in (*stage.expansions, *stage.kernels)]
        if wrong := [one for one in sizes if not 1 <= one <= 9]:
            raise EncodingError(
                f"an operation is named by an expansion and a kernel of one digit, received "
                f"{wrong[0]}."
            )
        table = [
            MobileStage(
                stage.width,
                (stage.blocks,),
                stage.kernels,
                stage.expansions,
                stage.stride,
                frame.activation,
            )
            for stage in stages
        ]
        super().__init__(
            name,
            table,
            (image_size,),
            frame,
            channels=channels,
            image_size=image_size,
            classes=classes,
        )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The one resolution; then an operation by block."""
        found = [Choice("r", self.resolutions, "resolution")]
        width = self.frame.first_block or self.frame.stem
        for number, stage in enumerate(self.stages, 1):
            operations = sorted(
                10 * int(expansion) + kernel
                for kernel in stage.kernels
                for expansion in stage.expansions
            )
            for block in range(1, stage.depths[0] + 1):
                keeps_shape = (block > 1 or stage.stride == 1) and width == stage.width
                options = [LEFT_OUT, *operations] if keeps_shape else operations
                found.append(Choice(f"{number}.{block}o", tuple(options)))
                width = stage.width
        return tuple(found)

    def stage_blocks(
        self, number: int, chosen: Mapping[str, Option]
    ) -> Iterator[tuple[int, int, float]]:
        """The blocks of a stage that are there: number, kernel, expansion."""
        for block in range(1, self.stages[number - 1].depths[0] + 1):
            expansion, kernel = divmod(int(chosen[f"{number}.{block}o"]), 10)
            if expansion:
                yield block, kernel, float(expansion)


def proxyless_32(channels: int, image_size: int, classes: int) -> ProxylessSpace:
    """For images of 28 to 32 pixels, to be trained on two cores."""
    stages = (
        ProxylessStage(24, 3),
        ProxylessStage(48, 4),
        ProxylessStage(96, 4),
    )
    frame = MobileFrame(stem=16, stem_stride=1, activation="relu6", expand=288, hidden=0)
    return ProxylessSpace(
        "proxyless-32", stages, frame, channels=channels, image_size=image_size, classes=classes
    )


def proxyless(channels: int, image_size: int, classes: int) -> ProxylessSpace:
    """For images of 224 pixels: the space of the paper, (3 x 2)^6 x (3 x 2 + 1)^15 networks."""
    stages = (
        ProxylessStage(24, 4),
        ProxylessStage(40, 4),
        ProxylessStage(80, 4),
        ProxylessStage(96, 4, stride=1),
        ProxylessStage(192, 4),
        ProxylessStage(320, 1, stride=1),
    )
    frame = MobileFrame(
        stem=32,
        first_block=16,
        first_activation="relu6",
        activation="relu6",
        expand=1280,
        hidden=0,
    )
    return ProxylessSpace(
        "proxyless", stages, frame, channels=channels, image_size=image_size, classes=classes
    )
