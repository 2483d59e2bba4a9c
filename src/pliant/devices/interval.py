"""Intervals of predictions with a stated coverage, from errors on held-out networks.

Conformal prediction makes no assumption about the errors but that a new network is drawn like the
measured ones. The errors are those of cross-validation, pooled, on the logarithm of latency, so
that an interval is a factor: a prediction times and divided by it.

V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005,
doi:10.1007/b106715 (the quantile of n + 1 errors). V. Vovk, "Cross-conformal predictors", 2015,
arXiv:1208.0806 (pooled errors of cross-validation). R. Barber, E. Candes, A. Ramdas, R. Tibshirani,
"Predictive inference with the jackknife+", 2021, arXiv:1905.02928 (what such intervals guarantee).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pliant.errors import MeasurementError, RecipeError


def require_confidence(confidence: float) -> float:
    """A confidence, which is a share.

    Raises:
        RecipeError: it is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise RecipeError(
            f"a confidence is above 0 and below 1, received {confidence:g}. Write 0.95 for 95 %."
        )
    return confidence


@dataclass(frozen=True)
class Interval:
    """The errors of a predictor on networks that it was not fitted on.

    Args:
        log_errors: logarithm of measured over predicted, by network.
    """

    log_errors: tuple[float, ...]

    @property
    def networks(self) -> int:
        """How many errors there are."""
        return len(self.log_errors)

    def factor(self, confidence: float) -> float:
        """A network's cost is within prediction / factor and prediction * factor.

        Args:
            confidence: with which both hold at once, 0 to 1.

        Raises:
            MeasurementError: too few networks for this confidence.
            RecipeError: the confidence is not between 0 and 1.
        """
        return math.exp(self._quantile(np.abs(self.log_errors), confidence))

    def upper_factor(self, confidence: float) -> float:
        """A network's cost is at most prediction * factor.

        Below 1 where predictions are mostly too high.

        Args:
            confidence: with which it holds, 0 to 1.

        Raises:
            MeasurementError: too few networks for this confidence.
            RecipeError: the confidence is not between 0 and 1.
        """
        return math.exp(self._quantile(np.array(self.log_errors), confidence))

    def is_enough_for(self, confidence: float) -> bool:
        """Whether there are enough networks for a confidence."""
        return _rank(self.networks, confidence) <= self.networks

    def coverage(self, confidence: float) -> float:
        """Share of the networks that are within the interval from the errors of the others.

        Raises:
            MeasurementError: too few networks for this confidence.
            RecipeError: the confidence is not between 0 and 1.
        """
        within = []
        for number, error in enumerate(self.log_errors):
            others = Interval(self.log_errors[:number] + self.log_errors[number + 1 :])
            within.append(abs(error) <= math.log(others.factor(confidence)))
        return float(np.mean(within))

    def recalibrated(self, log_errors: Sequence[float]) -> Interval:
        """The interval for networks that a search selected, of which some were measured.

        A search selects networks whose cost is predicted too low. The median error of those that
        were measured is what selection added, and is added to the errors of random networks; the
        errors of the selected ones join them. Where selected networks are cheaper than predicted,
        nothing is taken away.

        Args:
            log_errors: logarithm of measured over predicted, of selected networks.
        """
        if not len(log_errors):
            return self
        shift = max(0.0, float(np.median(log_errors)) - float(np.median(self.log_errors)))
        shifted = [error + shift for error in self.log_errors]
        return Interval((*shifted, *map(float, log_errors)))

    def _quantile(self, errors: np.ndarray, confidence: float) -> float:
        """The smallest error that is at least as large as a share of n + 1 errors.

        Vovk et al. 2005, section 2.2: with the new network's error there are n + 1, each as likely
        to be the k-th.
        """
        rank = _rank(len(errors), require_confidence(confidence))
        if rank > len(errors):
            least = math.ceil(round(confidence / (1 - confidence), 9))
            raise MeasurementError(
                f"an interval of confidence {confidence:g} takes the errors of at least {least} "
                f"networks, there are {len(errors)}. Measure more networks, or ask for less "
                "confidence."
            )
        return float(np.sort(errors)[rank - 1])


def _rank(networks: int, confidence: float) -> int:
    """Of the error that is the quantile, from 1 up."""
    return math.ceil(round((networks + 1) * confidence, 9))


def log_errors(
    measured: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray
) -> tuple[float, ...]:
    """Logarithm of measured over predicted, by network."""
    return tuple(float(one) for one in np.log(np.asarray(measured) / np.asarray(predicted)))
