"""Zero-shot scores: how good a network promises to become, computed without training it.

One file per paper, next to parameter count and MACs as baselines:

    scores = score(network, ["zen", "gradsign", my_function], images, labels)
"""

from pliant.accuracy.zero_shot.az_nas import COMPONENTS, aggregate_ranks
from pliant.accuracy.zero_shot.copies import copy_own_weights, copy_shared_weights
from pliant.accuracy.zero_shot.initial_weights import default_reset
from pliant.accuracy.zero_shot.methods import Aggregate, Method
from pliant.accuracy.zero_shot.scores import AGGREGATES, SCORES, AnyMethod, find_method, score
from pliant.accuracy.zero_shot.scoring_input import RefusedError, ScoringInput, ZeroShotScore

__all__ = [
    "AGGREGATES",
    "COMPONENTS",
    "SCORES",
    "Aggregate",
    "AnyMethod",
    "Method",
    "RefusedError",
    "ScoringInput",
    "ZeroShotScore",
    "aggregate_ranks",
    "copy_own_weights",
    "copy_shared_weights",
    "default_reset",
    "find_method",
    "score",
]
