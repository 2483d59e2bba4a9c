"""How accurate is an architecture? Calibration, evaluation, estimators, and how well they rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.accuracy.active_predictor import Predictor as Predictor
    from pliant.accuracy.calibration import calibrate as calibrate
    from pliant.accuracy.calibration import require_calibrated as require_calibrated
    from pliant.accuracy.estimator import Estimator as Estimator
    from pliant.accuracy.evaluation import top1 as top1
    from pliant.accuracy.hypernetwork import HyperNetwork as HyperNetwork
    from pliant.accuracy.inherit import InheritWeights as InheritWeights
    from pliant.accuracy.predictor import AccuracyPredictor as AccuracyPredictor
    from pliant.accuracy.predictor import PredictorQuality as PredictorQuality
    from pliant.accuracy.ranking import Correlation as Correlation
    from pliant.accuracy.ranking import RankCorrelations as RankCorrelations
    from pliant.accuracy.ranking import rank_correlations as rank_correlations
    from pliant.accuracy.scratch import TrainFromScratch as TrainFromScratch
    from pliant.accuracy.shared_weights import SharedWeights as SharedWeights
    from pliant.accuracy.shared_weights import TrainedSupernet as TrainedSupernet
    from pliant.accuracy.shared_weights import train_shared_weights as train_shared_weights
    from pliant.accuracy.supernet import SupernetEstimator as SupernetEstimator
    from pliant.accuracy.zero_shot import ScoringInput as ScoringInput
    from pliant.accuracy.zero_shot import ZeroShotScore as ZeroShotScore
    from pliant.accuracy.zero_shot import score as score
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "active_predictor": ["Predictor"],
            "calibration": ["calibrate", "require_calibrated"],
            "estimator": ["Estimator"],
            "evaluation": ["top1"],
            "hypernetwork": ["HyperNetwork"],
            "inherit": ["InheritWeights"],
            "predictor": ["AccuracyPredictor", "PredictorQuality"],
            "ranking": ["Correlation", "RankCorrelations", "rank_correlations"],
            "scratch": ["TrainFromScratch"],
            "shared_weights": ["SharedWeights", "TrainedSupernet", "train_shared_weights"],
            "supernet": ["SupernetEstimator"],
            "zero_shot": ["ScoringInput", "ZeroShotScore", "score"],
        },
    )
