"""Accuracies of a supernet's networks, predicted from a few hundred evaluations.

The prediction blends a ridge regression with a support-vector regression (RBF kernel) on the
features of the space. At such budgets simple models beat multi-layer perceptrons: Cummings, D. et
al., A hardware-aware framework for accelerating neural architecture search across modalities, 2022,
arXiv:2205.10358 (1,000 samples, Kendall tau at least 0.83 on all their supernets). The predictor is
refitted from recorded rows whenever it is needed and never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn import config_context
from sklearn.base import RegressorMixin
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from pliant.errors import DataError
from pliant.metrics import Accuracy
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

MIN_ROWS = 10
FOLDS = 5
RIDGE_PENALTIES = tuple(10.0**power for power in range(-2, 5))
SVR_COSTS = (1.0, 10.0, 100.0)
SVR_EPSILON = 0.05
"""Errors below this share of a standard deviation cost nothing."""


@dataclass(frozen=True, slots=True)
class PredictorQuality:
    """How well architectures held out from the fit were predicted (5-fold cross-validation).

    The support-vector cost and the blend were chosen on the same folds: two numbers, so the bias is
    small.
    """

    kendall_tau: float | None
    """Rank correlation of predicted and true top-1, -1 to 1; None where either is constant."""
    spearman: float | None
    mean_absolute_error: float
    """Of top-1, 0 to 1."""
    rows: int
    """Architectures behind the fit."""


class AccuracyPredictor:
    """Top-1 of architectures from their features; an accuracy estimator that uses no image.

    Args:
        space: of the architectures; gives their features.
        architectures: evaluated ones, at least 10.
        top1: the accuracy of each, 0 to 1; shape (architectures,).
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
        truth = _checked(top1, len(architectures))
        features = space.features(architectures)
        folds = KFold(min(FOLDS, len(truth)), shuffle=True, random_state=seed)
        # The parameters are ours; checking them would take a quarter of the time.
        with config_context(skip_parameter_validation=True):
            # Each row's prediction by the model that was fitted without its fold.
            ridge = cross_val_predict(_ridge(), features, truth, cv=folds)
            by_cost = {
                cost: cross_val_predict(_svr(cost), features, truth, cv=folds) for cost in SVR_COSTS
            }
            cost = min(by_cost, key=lambda tried: float(np.square(by_cost[tried] - truth).sum()))
            self._ridge = _ridge().fit(features, truth)
            self._svr = _svr(cost).fit(features, truth)
        self.svr_share = _best_share(ridge, by_cost[cost], truth)
        """Weight of the support-vector regression in the blend, 0 to 1; the rest is the ridge's."""
        self.quality = _quality(self._blend(ridge, by_cost[cost]), truth)

    def predict(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Predicted top-1, which may lie outside 0 to 1; shape (architectures,)."""
        if not architectures:
            return np.empty(0)
        features = self.space.features(architectures)
        return self._blend(self._ridge.predict(features), self._svr.predict(features))

    def estimate(self, architectures: Sequence[Architecture]) -> list[Accuracy]:
        """Predicted accuracies, kept within 0 to 1; `images` is 0, since no image was used."""
        predicted = np.clip(self.predict(architectures), 0.0, 1.0)
        return [Accuracy(top1, images=0) for top1 in predicted.tolist()]

    def _blend(self, ridge: np.ndarray, svr: np.ndarray) -> np.ndarray:
        return (1 - self.svr_share) * ridge + self.svr_share * svr


def _checked(top1: Sequence[float] | np.ndarray, rows: int) -> np.ndarray:
    """The accuracies as an array of shape (rows,)."""
    truth = np.asarray(top1, dtype=float)
    if rows < MIN_ROWS or truth.shape != (rows,) or not np.isfinite(truth).all():
        raise DataError(
            f"a predictor is fitted on at least {MIN_ROWS} architectures with one finite top-1 "
            f"each, received {rows} and {truth.shape} of which {int(np.isfinite(truth).sum())} "
            "finite. Evaluate more architectures."
        )
    return truth


def _ridge() -> RegressorMixin:
    """Ridge with the penalty of least leave-one-out error, which has a closed form."""
    return make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES))


def _svr(cost: float) -> RegressorMixin:
    """RBF support-vector regression on standardised features and a standardised truth."""
    # gamma="scale" is 1 / (number of features that vary), since these have variance 1.
    return make_pipeline(
        StandardScaler(), _StandardisedSVR(C=cost, epsilon=SVR_EPSILON, gamma="scale")
    )


class _StandardisedSVR(SVR):
    """Standardises the truth; predicts by one matrix product instead of a loop over the rows."""

    # As TransformedTargetRegressor does, whose checks would take as long as the fit itself.
    def fit(self, features: np.ndarray, truth: np.ndarray) -> _StandardisedSVR:
        """Fit features of shape (rows, features) to a truth of shape (rows,)."""
        self.mean_, self.deviation_ = float(truth.mean()), float(truth.std()) or 1.0
        super().fit(features, (truth - self.mean_) / self.deviation_)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predictions of shape (rows,)."""
        scaled = np.full(len(features), float(self.intercept_[0]))
        if len(self.support_):  # none where a constant truth is within epsilon everywhere
            kernel = rbf_kernel(features, self.support_vectors_, gamma=self._gamma)
            scaled = kernel @ self.dual_coef_[0] + self.intercept_
        return self.mean_ + self.deviation_ * scaled


def _best_share(one: np.ndarray, other: np.ndarray, truth: np.ndarray) -> float:
    """The share of `other` in the blend of least squared error, 0 to 1.

    Args:
        one: first predictions, shape (rows,).
        other: second predictions, shape (rows,).
        truth: shape (rows,).
    """
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
