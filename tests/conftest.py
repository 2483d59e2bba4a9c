"""What several rooms need for their tests."""

from __future__ import annotations

from functools import cached_property

import pytest

from pliant.spaces.architecture import Architecture
from pliant.spaces.blocks import BasicResidual, Block, ConvBlock, Head, Preprocess
from pliant.spaces.space import Choice, Space


class ToySpace(Space):
    """306 networks with every rule that a space may have: free choices, depths that open blocks, and a choice below a block."""

    def __init__(self) -> None:
        super().__init__("toy", channels=3, image_size=8, classes=5)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("r", (4, 6, 8), "resolution"),
            Choice("w", (0.5, 1.0), "width"),
            Choice("1d", (0, 1, 2), "depth"),
            Choice("1.1h", (4, 8), "width", needs=("1d", 1)),
            Choice("1.2h", (4, 8, 16), "width", needs=("1d", 2)),
            Choice("1.2k", (1, 3, 5), "kernel", needs=("1.2h", 8)),
            Choice("2.1h", (8, 16, 24), "width"),
        )

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        chosen = architecture.mapping
        size, width = int(chosen["r"]), int(16 * float(chosen["w"]))
        blocks: list[Block] = [
            Preprocess(slot="preprocess", size=self.image_size, channels=self.channels, resolution=size),
            ConvBlock(slot="stem", size=size, inputs=self.channels, outputs=width),
        ]
        if "1.1h" in chosen:
            blocks.append(BasicResidual(slot="one", size=size, channels=width, hidden=int(chosen["1.1h"])))
        if "1.2h" in chosen:
            outputs = int(chosen["1.2h"])
            blocks.append(ConvBlock(slot="two", size=size, inputs=width, outputs=outputs, kernel=int(chosen.get("1.2k", 1))))
            width = outputs
        blocks.append(ConvBlock(slot="last", size=size, inputs=width, outputs=int(chosen["2.1h"]), stride=2))
        return (*blocks, Head(slot="head", size=-(-size // 2), inputs=int(chosen["2.1h"]), classes=self.classes))


@pytest.fixture(scope="session")
def toy_space() -> Space:
    return ToySpace()
