"""The regressions behind latency predictors: each takes columns and latencies, and predicts.

All are deterministic, and refitted from measured rows whenever they are needed: nothing is stored.

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2
and 5, www.gaussianprocess.org/gpml (marginal likelihood, equation 5.8).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

Predict = Callable[[np.ndarray], np.ndarray]
"""Columns of shape (networks, columns) in; one number per network out."""
Fit = Callable[[np.ndarray, np.ndarray], Predict]
"""Columns and values of the measured networks in, a prediction out."""

ROBUST_ROUNDS = 10
MIN_ABSOLUTE_ERROR = 0.01
"""Relative errors below this weigh alike, so that a robust fit ends."""
TUNED_ROWS = 300
"""Of more networks these many decide the kernel of a Gaussian process."""
KERNEL_ROWS = 4096
"""Networks that are predicted at once, to bound memory."""


def weighted_sum(columns: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The product of a matrix and a vector, the same for a row whatever other rows there are.

    The order in which a BLAS library adds up depends on the number of rows.
    """
    total = np.zeros(len(columns))
    for column, coefficient in zip(columns.T, coefficients, strict=True):
        if coefficient:
            total += coefficient * column
    return total


def fit_non_negative(columns: np.ndarray, latency_ms: np.ndarray) -> Predict:
    """Least absolute relative error with coefficients of at least 0: no work takes negative time.

    By iteratively reweighted least squares: a few disturbed measurements hardly move it.
    """
    weights = np.ones(len(latency_ms))
    relative = columns / latency_ms[:, None]
    coefficients = nnls(relative, weights)[0]
    for _ in range(ROBUST_ROUNDS):
        error = np.abs(relative @ coefficients - 1)
        weights = 1 / np.sqrt(np.maximum(error, MIN_ABSOLUTE_ERROR))
        coefficients = nnls(relative * weights[:, None], weights)[0]
    return lambda other: weighted_sum(other, coefficients)


def fit_least_squares(columns: np.ndarray, latency_ms: np.ndarray) -> Predict:
    """Least squares of the relative error, with coefficients of either sign."""
    relative = columns / latency_ms[:, None]
    coefficients = np.linalg.lstsq(relative, np.ones(len(latency_ms)), rcond=None)[0]
    return lambda other: weighted_sum(other, coefficients)


def fit_ridge(columns: np.ndarray, values: np.ndarray) -> Predict:
    """Linear regression whose penalty has the least leave-one-out error."""
    scaled, scale = standardised(columns)
    mean = values.mean()
    left, singular, right = np.linalg.svd(scaled, full_matrices=False)
    projected = left.T @ (values - mean)
    best: tuple[float, np.ndarray] | None = None
    for penalty in np.geomspace(1e-3, 1e4, 15):
        shrunk = singular**2 / (singular**2 + penalty)
        residual = values - mean - left @ (shrunk * projected)
        leverage = (left**2) @ shrunk + 1 / len(values)
        error = float(np.mean((residual / (1 - leverage).clip(1e-3)) ** 2))
        if best is None or error < best[0]:
            factors = singular / (singular**2 + penalty)
            best = (error, right.T @ (factors * projected))
    assert best is not None
    coefficients = best[1]
    return lambda other: mean + weighted_sum(scale(other), coefficients)


def fit_gaussian_process(columns: np.ndarray, values: np.ndarray) -> Predict:
    """The mean of a Gaussian process with a squared-exponential kernel and noise.

    Length and noise have the highest marginal likelihood on a grid.
    """
    scaled, scale = standardised(columns)
    length, noise = _kernel(scaled[:TUNED_ROWS], values[:TUNED_ROWS])
    kernel = np.exp(-_distances(scaled, scaled) / length)
    weights = np.linalg.solve(kernel + noise * np.eye(len(kernel)), values)

    def predict(other: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(other), KERNEL_ROWS):
            rows = scale(other[start : start + KERNEL_ROWS])
            parts.append(np.exp(-_distances(rows, scaled) / length) @ weights)
        return np.concatenate(parts) if parts else np.empty(0)

    return predict


def _kernel(scaled: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The squared length (times 2) and the noise over signal of the highest likelihood."""
    distances = _distances(scaled, scaled)
    apart = distances[distances > 1e-9]
    middle = float(np.median(apart)) if len(apart) else 1.0
    best = (-np.inf, middle, 1.0)
    for length in middle * np.array([0.5, 1.0, 2.0, 4.0, 16.0, 64.0]):
        eigenvalues, vectors = np.linalg.eigh(np.exp(-distances / length))
        rotated = vectors.T @ values
        for noise in (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
            total = eigenvalues.clip(0) + noise
            # Equation 5.8 with the signal's variance at its best value.
            signal = np.mean(rotated**2 / total) + 1e-300
            likelihood = -0.5 * (len(values) * np.log(signal) + np.log(total).sum())
            if likelihood > best[0]:
                best = (float(likelihood), float(length), noise)
    return best[1], best[2]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances; shape (rows of one, rows of other)."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None]
    found: np.ndarray = np.maximum(squares - 2 * one @ other.T, 0)
    return found


def fit_boosted_trees(columns: np.ndarray, values: np.ndarray) -> Predict:
    """Gradient-boosted trees, of few leaves and strongly shrunk."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    least = 5 if len(values) < 500 else 20
    trees = HistGradientBoostingRegressor(
        max_iter=100 if len(values) < 500 else 300,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=least,
        early_stopping=False,
        random_state=0,
    )
    trees.fit(columns, values)
    return lambda other: np.asarray(trees.predict(other))


def standardised(columns: np.ndarray) -> tuple[np.ndarray, Predict]:
    """The columns with mean 0 and deviation 1, and how others become like them."""
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    deviation = np.where(deviation > 1e-9 * np.abs(mean).clip(1e-300), deviation, np.inf)

    def scale(other: np.ndarray) -> np.ndarray:
        return np.asarray((other - mean) / deviation)

    return scale(columns), scale
