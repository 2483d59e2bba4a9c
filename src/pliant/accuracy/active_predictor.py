"""A predictor as an estimator: it learns from another one, and says how well before it is used.

predictor = Predictor(space, SharedWeights(supernet), evaluations=250)
print(predictor.quality)  # error and rank correlation on networks held out of the fit
predictor.require_trusted()  # raises where its ranks are no better than chance
qualities = predictor.estimate(architectures)
predictor.refit(new_architectures, new_top1)  # during a search
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from pliant.accuracy.estimator import AnyEstimator, Estimator, digest_of, evaluate
from pliant.accuracy.predictor import MIN_ROWS, AccuracyPredictor, PredictorQuality
from pliant.errors import DataError, RecipeError
from pliant.metrics import Accuracy, Estimate
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space


class Predictor(Estimator):
    """Top-1 predicted from evaluations by another estimator.

    Args:
        space: of the architectures.
        source: what it learns from: training from scratch, a supernet, a hypernetwork.
        evaluations: random architectures that the source evaluates for the first fit.
        seed: of the draw and of the folds.
        known: rows that are there already, in place of the random evaluations.
    """

    name = "predictor"

    def __init__(
        self,
        space: Space,
        source: AnyEstimator | None,
        *,
        evaluations: int = 100,
        seed: int = 0,
        known: Sequence[tuple[Architecture, float]] = (),
    ) -> None:
        super().__init__()
        self.space, self.source, self.seed = space.trainable_space(), source, seed
        self.evaluations = evaluations
        self.rows = dict(known)
        """Top-1 of the architectures that it learned from, 0 to 1."""
        self._predictor: AccuracyPredictor | None = None
        self._seconds = 0.0

    @property
    def identity(self) -> str:
        """Of the space and of the rows; another one after every refit."""
        self.prepare()
        rows = sorted((str(one), top1) for one, top1 in self.rows.items())
        return digest_of(self.name, self.space.identity, self.seed, rows)

    def prepare(self) -> None:
        """Let the source evaluate random architectures, where there are no rows, and fit.

        Raises:
            DataError: fewer than 10 of them could be evaluated.
        """
        if self._predictor is not None:
            return
        if not self.rows and self.source is not None:
            drawn = training_architectures(self.space, self.evaluations, self.seed)
            for one, found in zip(drawn, evaluate(self.source, drawn), strict=True):
                self._seconds += found.seconds
                if isinstance(found.quality, Accuracy):
                    self.rows[one] = found.quality.top1
        self._fit()

    def _fit(self) -> None:
        if len(self.rows) < MIN_ROWS:
            raise DataError(
                f"a predictor learns from at least {MIN_ROWS} evaluated networks, received "
                f"{len(self.rows)}. Let its source evaluate more."
            )
        began = time.process_time()
        self._predictor = AccuracyPredictor(
            self.space, list(self.rows), list(self.rows.values()), seed=self.seed
        )
        self._known.clear()
        self._seconds += time.process_time() - began

    def refit(self, architectures: Sequence[Architecture], top1: Sequence[float]) -> None:
        """Learn from further evaluations, such as those of a search; its predictions change.

        Args:
            architectures: evaluated by the same source.
            top1: the accuracy of each, 0 to 1.
        """
        self.prepare()
        self.rows |= dict(zip(architectures, top1, strict=True))
        self._fit()

    @property
    def quality(self) -> PredictorQuality:
        """Error and rank correlation on networks held out of the fit (5-fold cross-validation)."""
        self.prepare()
        assert self._predictor is not None
        return self._predictor.quality

    def require_trusted(self) -> PredictorQuality:
        """The held-out quality, if its ranks are better than chance.

        Kendall's tau of two unrelated rankings of n networks has the standard deviation
        sqrt(2 (2n + 5) / (9 n (n - 1))) (Kendall, M. G., Rank correlation methods, 1948).

        Raises:
            RecipeError: tau is within two standard deviations of 0, or undefined.
        """
        found, rows = self.quality, len(self.rows)
        chance = 2 * math.sqrt(2 * (2 * rows + 5) / (9 * rows * (rows - 1)))
        if found.kendall_tau is None or found.kendall_tau <= chance:
            tau = "undefined" if found.kendall_tau is None else f"{found.kendall_tau:.2f}"
            raise RecipeError(
                "a search uses a predictor that ranks held-out networks better than chance; "
                f"Kendall tau of this one is {tau} on {rows} networks, chance reaches "
                f"{chance:.2f}. Raise the number of evaluations it learns from, or choose "
                "another estimator."
            )
        return found

    @property
    def setup_seconds(self) -> float:
        """CPU time of the source's evaluations, of its own setup, and of the fits."""
        source = self.source
        return self._seconds + (source.setup_seconds if isinstance(source, Estimator) else 0.0)

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """A prediction; `images` of the accuracy is 0, since it looked at none."""
        assert self._predictor is not None
        began = time.process_time()
        [accuracy] = self._predictor.estimate([architecture])
        return Estimate(accuracy, time.process_time() - began)


def training_architectures(space: Space, number: int, seed: int) -> list[Architecture]:
    """Different random architectures for a predictor to learn from, the ends of the space first.

    Args:
        space: to draw from, every choice on its own.
        number: how many, or all where the space has fewer.
        seed: of the draw.
    """
    rng = np.random.default_rng((seed, 6))
    found = dict.fromkeys([space.smallest(), space.largest()])
    for _ in range(100 * number):
        if len(found) >= min(number, space.size):
            break
        found[space.sample_choices(rng)] = None
    return list(found)[:number]
