"""How accurate is an architecture? Calibration, evaluation, estimators, and how well they rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.accuracy.calibration import calibrate as calibrate
    from pliant.accuracy.calibration import require_calibrated as require_calibrated
    from pliant.accuracy.evaluation import top1 as top1
    from pliant.accuracy.predictor import AccuracyPredictor as AccuracyPredictor
    from pliant.accuracy.predictor import PredictorQuality as PredictorQuality
    from pliant.accuracy.ranking import Correlation as Correlation
    from pliant.accuracy.ranking import RankCorrelations as RankCorrelations
    from pliant.accuracy.ranking import rank_correlations as rank_correlations
    from pliant.accuracy.supernet import SupernetEstimator as SupernetEstimator
    from pliant.accuracy.zero_shot import ScoringInput as ScoringInput
    from pliant.accuracy.zero_shot import ZeroShotScore as ZeroShotScore
    from pliant.accuracy.zero_shot import score as score
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "calibration": ["calibrate", "require_calibrated"],
            "evaluation": ["top1"],
            "predictor": ["AccuracyPredictor", "PredictorQuality"],
            "ranking": ["Correlation", "RankCorrelations", "rank_correlations"],
            "supernet": ["SupernetEstimator"],
            "zero_shot": ["ScoringInput", "ZeroShotScore", "score"],
        },
    )
