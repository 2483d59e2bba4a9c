"""How accurate would the supernet find an architecture, without running it? Learned from a few hundred evaluations.

The prediction blends a ridge regression with a support-vector regression (RBF kernel) on the features of the space:
simple models beat multi-layer perceptrons at such budgets (Cummings et al. 2022, LINAS: 1,000 samples, Kendall tau
at least 0.83 on all their supernets). It is refitted from recorded rows whenever it is needed and never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from pliant.errors import DataError
from pliant.metrics import Accuracy
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

FEWEST_ROWS = 10
FOLDS = 5
RIDGE_PENALTIES = tuple(10.0**power for power in range(-2, 5))
SVR_COSTS = (1.0, 10.0, 100.0)
SVR_TUBE = 0.05
"""Errors below this share of a standard deviation cost nothing."""


@dataclass(frozen=True, slots=True)
class PredictorQuality:
    """How well architectures held out from the fit were predicted (5-fold cross-validation).

    The support-vector cost and the blend were chosen on the same folds: two numbers, so the bias is small.
    """

    kendall_tau: float | None
    """Rank correlation of predicted and true top-1, -1 to 1; None where either is constant."""
    spearman: float | None
    mean_absolute_error: float
    """Of top-1, 0 to 1."""
    rows: int
    """Architectures behind the fit."""


class AccuracyPredictor:
    """Top-1 of architectures from their features; an accuracy estimator that looks at no image.

    Args:
        architectures: evaluated ones, at least 10.
        top1: what each was found to be, 0 to 1; shape (architectures,).
        seed: of the folds.

    Raises:
        DataError: too few rows, or an accuracy that is no finite number.
    """

    def __init__(
        self,
        space: Space,
        architectures: Sequence[Architecture],
        top1: Sequence[float] | np.ndarray,
        *,
        seed: int = 0,
    ) -> None:
        self.space = space
        truth = np.asarray(top1, dtype=float)
        if (
            len(architectures) < FEWEST_ROWS
            or truth.shape != (len(architectures),)
            or not np.isfinite(truth).all()
        ):
            raise DataError(
                f"a predictor is fitted on at least {FEWEST_ROWS} architectures with one finite top-1 each, received {len(architectures)} "
                f"and {truth.shape} of which {int(np.isfinite(truth).sum())} finite. Evaluate more architectures."
            )
        features = space.features(architectures)
        folds = list(KFold(min(FOLDS, len(truth)), shuffle=True, random_state=seed).split(features))
        ridge = _held_out(features, truth, folds, _fit_ridge)
        by_cost = {
            cost: _held_out(features, truth, folds, partial(_fit_svr, cost=cost))
            for cost in SVR_COSTS
        }
        cost = min(by_cost, key=lambda tried: float(np.square(by_cost[tried] - truth).sum()))
        self.svr_share = _best_share(ridge, by_cost[cost], truth)
        """Weight of the support-vector regression in the blend, 0 to 1; the rest is the ridge's."""
        self.quality = _quality(
            (1 - self.svr_share) * ridge + self.svr_share * by_cost[cost], truth
        )
        self._ridge = _fit_ridge(features, truth)
        self._svr = _fit_svr(features, truth, cost)

    def predict(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Predicted top-1, which may lie outside 0 to 1; shape (architectures,)."""
        if not architectures:
            return np.empty(0)
        features = self.space.features(architectures)
        return (1 - self.svr_share) * self._ridge(features) + self.svr_share * self._svr(features)

    def estimate(self, architectures: Sequence[Architecture]) -> list[Accuracy]:
        """Predicted accuracies, kept within 0 to 1; `images` is 0, since no image was looked at."""
        return [
            Accuracy(float(top1), images=0)
            for top1 in np.clip(self.predict(architectures), 0.0, 1.0)
        ]


_Fitted = Callable[[np.ndarray], np.ndarray]
"""Features of shape (rows, features) to top-1 of shape (rows,)."""


def _fit_ridge(features: np.ndarray, truth: np.ndarray) -> _Fitted:
    """Ridge with the penalty of least leave-one-out error, which has a closed form."""
    scaler = StandardScaler().fit(features)
    ridge = RidgeCV(RIDGE_PENALTIES).fit(scaler.transform(features), truth)
    return lambda rows: ridge.predict(scaler.transform(rows))


def _fit_svr(features: np.ndarray, truth: np.ndarray, cost: float) -> _Fitted:
    """RBF support-vector regression on standardised features and truth."""
    scaler = StandardScaler().fit(features)
    mean, deviation = float(truth.mean()), float(truth.std()) or 1.0
    scaled = scaler.transform(features)
    gamma = 1.0 / max(1, int((features.std(axis=0) > 0).sum()))
    svr = SVR(C=cost, epsilon=SVR_TUBE, gamma=gamma).fit(scaled, (truth - mean) / deviation)

    def predict(rows: np.ndarray) -> np.ndarray:
        if not len(svr.support_):  # A constant truth lies within the tube.
            return np.full(len(rows), mean + deviation * float(svr.intercept_[0]))
        # As svr.predict, by one matrix product instead of a loop over the rows.
        kernel = rbf_kernel(scaler.transform(rows), scaled[svr.support_], gamma=gamma)
        return mean + deviation * (kernel @ svr.dual_coef_[0] + svr.intercept_)

    return predict


def _held_out(
    features: np.ndarray,
    truth: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    fit: Callable[[np.ndarray, np.ndarray], _Fitted],
) -> np.ndarray:
    """Each row's prediction by the model that was fitted without its fold."""
    predicted = np.empty_like(truth)
    for kept, left_out in folds:
        predicted[left_out] = fit(features[kept], truth[kept])(features[left_out])
    return predicted


def _best_share(one: np.ndarray, other: np.ndarray, truth: np.ndarray) -> float:
    """The share of `other` in a blend with least squared error, 0 to 1."""
    apart = other - one
    length = float(apart @ apart)
    return float(np.clip((truth - one) @ apart / length, 0.0, 1.0)) if length > 0 else 0.0


def _quality(predicted: np.ndarray, truth: np.ndarray) -> PredictorQuality:
    ranked = np.ptp(predicted) > 0 and np.ptp(truth) > 0
    return PredictorQuality(
        kendall_tau=float(stats.kendalltau(predicted, truth).statistic) if ranked else None,
        spearman=float(stats.spearmanr(predicted, truth).statistic) if ranked else None,
        mean_absolute_error=float(np.abs(predicted - truth).mean()),
        rows=len(truth),
    )
