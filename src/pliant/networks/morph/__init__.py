"""Networks that grow and keep what they compute: morphs of Pliant's networks and of any module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.networks.morph.attach import add_skip as add_skip
    from pliant.networks.morph.attach import add_squeeze_excite as add_squeeze_excite
    from pliant.networks.morph.check import change as change
    from pliant.networks.morph.check import require_same_function as require_same_function
    from pliant.networks.morph.deepening import deepen as deepen
    from pliant.networks.morph.deepening import deepen_by_block as deepen_by_block
    from pliant.networks.morph.deepening import deepen_by_identity as deepen_by_identity
    from pliant.networks.morph.deepening import deepen_by_residual as deepen_by_residual
    from pliant.networks.morph.inheritance import inherit as inherit
    from pliant.networks.morph.kernel import grow_kernel as grow_kernel
    from pliant.networks.morph.widening import widen as widen
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "attach": ["add_skip", "add_squeeze_excite"],
            "check": ["change", "require_same_function"],
            "deepening": ["deepen", "deepen_by_block", "deepen_by_identity", "deepen_by_residual"],
            "inheritance": ["inherit"],
            "kernel": ["grow_kernel"],
            "widening": ["widen"],
        },
    )
