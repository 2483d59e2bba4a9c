"""A new device from ten measurements: which to take, and what known devices say about them.

Latencies of one space on several devices are alike, so the predictions for known devices are good
features for a new one. Whether they are better than a fit without them is decided by
cross-validation in `ladder`: a device whose runtime differs from all known ones gains nothing.

H. Lee et al., "HELP: hardware-adaptive efficient latency prediction for NAS via meta-learning",
2021, arXiv:2106.08630 (ten samples of a new device). C. Feng et al., "LitePred: transferable and
scalable latency prediction for hardware-aware neural architecture search", 2024, NSDI (similar
devices as the start). Y. Akhauri, M. Abdelfattah, "Multi-Predict: few shot predictors for
efficient neural architecture search", 2023, arXiv:2306.02459.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pliant.devices.regression import Predict, fit_ridge, standardised
from pliant.spaces.architecture import Architecture

DESIGN_RIDGE = 1e-3
"""Variance of the noise over that of the coefficients; small, so that the first picks differ."""


def fit_transfer(log_sources: np.ndarray, latency_ms: np.ndarray) -> Predict:
    """The mean of known devices, scaled, plus a ridge regression on how each differs from it.

    With few samples the ridge is strong, and what remains is the mean of the known devices.

    Args:
        log_sources: logarithm of the latency predicted for each known device; shape (networks,
            devices).
        latency_ms: measured on the new device.
    """
    mean = log_sources.mean(axis=1)
    line = np.stack([np.ones(len(mean)), mean], axis=1)
    target = np.log(latency_ms)
    coefficients = np.linalg.lstsq(line, target, rcond=None)[0]
    missed = fit_ridge(log_sources - mean[:, None], target - line @ coefficients)

    def predict(other: np.ndarray) -> np.ndarray:
        level = other.mean(axis=1)
        found = coefficients[0] + coefficients[1] * level + missed(other - level[:, None])
        return np.asarray(np.exp(found))

    return predict


def choose_networks(
    candidates: Sequence[Architecture], models: Sequence[np.ndarray], count: int
) -> list[Architecture]:
    """The networks whose measurements say most about several linear models at once.

    Greedy D-optimal design: each pick raises the sum over models of the logarithm of the
    determinant of the information the most (V. V. Fedorov, "Theory of optimal experiments", 1972,
    chapter 3).

    Args:
        candidates: to choose from, such as random networks of the space.
        models: columns of each candidate by model; each of shape (candidates, columns).
        count: how many to choose; all candidates where there are fewer.

    Returns:
        Different networks, the most informative first.
    """
    rows = [np.hstack([np.ones((len(one), 1)), standardised(one)[0]]) for one in models]
    inverses = [np.eye(one.shape[1]) / DESIGN_RIDGE for one in rows]
    picked: dict[Architecture, None] = {}
    while len(picked) < min(count, len(set(candidates))):
        gain = np.zeros(len(candidates))
        for row, inverse in zip(rows, inverses, strict=True):
            gain += np.log1p(np.einsum("ij,jk,ik->i", row, inverse, row))
        for number, one in enumerate(candidates):
            if one in picked:
                gain[number] = -np.inf
        best = int(np.argmax(gain))
        picked[candidates[best]] = None
        for number, row in enumerate(rows):
            # Sherman-Morrison: the inverse of the information with one more row.
            seen = inverses[number] @ row[best]
            inverses[number] = inverses[number] - np.outer(seen, seen) / (1 + row[best] @ seen)
    return list(picked)
