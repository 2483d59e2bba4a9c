"""Search spaces: what networks there are, and what each of them computes, without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

# Profiles and summaries know blocks by name, so all descriptions are defined with the package.
from pliant.spaces import cell_blocks as cell_blocks
from pliant.spaces import convolutional_blocks as convolutional_blocks
from pliant.spaces import input_output_blocks as input_output_blocks

if TYPE_CHECKING:
    from pliant.spaces.architecture import Architecture as Architecture
    from pliant.spaces.block import Block as Block
    from pliant.spaces.cell import CellSpace as CellSpace
    from pliant.spaces.check import check_space as check_space
    from pliant.spaces.mobile import MobileFrame as MobileFrame
    from pliant.spaces.mobile import MobileSpace as MobileSpace
    from pliant.spaces.mobile import MobileStage as MobileStage
    from pliant.spaces.presets import preset as preset
    from pliant.spaces.resnet import BottleneckSpace as BottleneckSpace
    from pliant.spaces.resnet import PlainSpace as PlainSpace
    from pliant.spaces.resnet import ResidualStage as ResidualStage
    from pliant.spaces.space import Choice as Choice
    from pliant.spaces.space import Space as Space
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "architecture": ["Architecture"],
            "block": ["Block"],
            "cell": ["CellSpace"],
            "check": ["check_space"],
            "mobile": ["MobileFrame", "MobileSpace", "MobileStage"],
            "presets": ["preset"],
            "resnet": ["BottleneckSpace", "PlainSpace", "ResidualStage"],
            "space": ["Choice", "Space"],
        },
    )
