"""Predicts latency from measured whole networks only: what a phone or a board sends back.

Latency is additive: non-negative times per MAC, per element moved and per layer, fitted for the
relative error. Its error is cross-validated, so every measured network also counts for the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pliant.devices.table import LookupTable, fit_additive, held_out_error, macs_line
from pliant.errors import MeasurementError
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

MIN_NETWORKS = 5
"""Fewer say nothing of the error of three coefficients."""
FOLDS = 10


def fit(
    space: Space, networks: Sequence[Architecture], latencies_ms: Sequence[float]
) -> LookupTable:
    """A predictor for the networks of a space.

    Args:
        space: the one that the networks are of.
        networks: in random order.
        latencies_ms: measured, of each network.

    Raises:
        MeasurementError: too few networks.
    """
    if len(networks) < MIN_NETWORKS:
        raise MeasurementError(
            f"latency is predicted from at least {MIN_NETWORKS} measured networks, received "
            f"{len(networks)}. Measure more of them."
        )
    measured = np.array(latencies_ms)
    predicted, line = np.empty(len(networks)), np.empty(len(networks))
    for fold in range(min(FOLDS, len(networks))):
        tested = np.arange(len(networks)) % FOLDS == fold
        known = [one for one, held_out in zip(networks, tested, strict=True) if not held_out]
        unseen = [one for one, held_out in zip(networks, tested, strict=True) if held_out]
        table = fit_additive(space, known, measured[~tested])
        predicted[tested] = [cost.latency_ms for cost in table(unseen)]
        line[tested] = macs_line(space, known, measured[~tested], unseen)
    error = held_out_error(predicted, line, measured)
    return fit_additive(space, networks, measured, error)
