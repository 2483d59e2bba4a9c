"""Which networks to compare estimators on: random ones, spread over the range of costs."""

from __future__ import annotations

import numpy as np

from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

DRAWS_PER_NETWORK = 50


def spread_over_macs(space: Space, number: int, seed: int) -> list[Architecture]:
    """Different networks at equal distances in log MACs, cheapest first, both ends included.

    A uniform sample would be of middle cost almost everywhere, and an estimator that only tells
    small networks from large ones would look as good as one that does not.

    Args:
        space: to draw from, every choice on its own.
        number: how many; all where the space has fewer.
        seed: of the draw.
    """
    rng = np.random.default_rng((seed, 24))
    drawn = dict.fromkeys([space.smallest(), space.largest()])
    for _ in range(DRAWS_PER_NETWORK * number):
        drawn[space.sample_choices(rng)] = None
    pool = list(drawn)
    log_macs = np.log([space.cost(one).metric("macs") for one in pool])
    left = np.ones(len(pool), dtype=bool)
    chosen = []
    for wanted in np.linspace(log_macs.min(), log_macs.max(), min(number, len(pool))):
        nearest = int(np.argmin(np.where(left, np.abs(log_macs - wanted), np.inf)))
        left[nearest] = False
        chosen.append(nearest)
    return [pool[row] for row in sorted(chosen, key=lambda row: float(log_macs[row]))]
