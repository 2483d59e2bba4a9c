"""Which sub-networks of a pretrained supernet a step draws, from the full one down.

Evenly drawn options give networks of middle size only: a sum of many choices varies little. Here a
network has one level from 0 to 1, and each of its choices is drawn around it, so that small and
large networks come up, too. Resolutions are drawn evenly.
"""

from __future__ import annotations

import math

import numpy as np

from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.space import Choice, Space

SMALLEST_SHARE = 0.1
"""How often the smallest level allowed is drawn in place of a random one."""


def resolutions(space: Space, least: float = 0.0) -> tuple[Choice, tuple[Option, ...]] | None:
    """The choice of the resolution and its options from a share of the largest on, if any."""
    for choice in space.choices:
        if choice.dimension == "resolution":
            largest = float(choice.options[-1])
            return choice, tuple(one for one in choice.options if float(one) >= least * largest)
    return None


def full_width(space: Space, rng: np.random.Generator, *, least_resolution: float) -> Architecture:
    """The largest network at a random resolution.

    Args:
        space: to draw from.
        rng: of the draw.
        least_resolution: over the largest, 0 to 1.
    """
    options = dict(space.largest().options)
    found = resolutions(space, least_resolution)
    if found is not None:
        choice, allowed = found
        options[choice.name] = allowed[int(rng.integers(len(allowed)))]
    return space.architecture(options)


def smaller(space: Space, rng: np.random.Generator, *, least_level: float) -> Architecture:
    """A network between the full one and what the level allows; middle levels are more frequent.

    A choice takes its k-th option of n with the binomial probability of k-1 in n-1 at the level.
    Depths take the root of the level: blocks are kept longer than channels.

    Args:
        space: to draw from.
        rng: of the draw.
        least_level: 1 for the full network only, 0 for the whole space.
    """
    level = least_level
    if rng.random() >= SMALLEST_SHARE:
        level += (1 - least_level) * rng.beta(2, 2)
    options: dict[str, Option] = {}
    for choice in space.choices:
        last = len(choice.options) - 1
        if choice.dimension == "resolution":
            index = int(rng.integers(last + 1))
        else:
            kept = math.sqrt(level) if choice.dimension == "depth" else level
            index = int(rng.binomial(last, kept))
        options[choice.name] = choice.options[index]
    return space.architecture(options)
