"""How good would a network become? Answered without training it: scores of the paper's definitions, beside plain size."""

from pliant.accuracy.zero_shot.az_nas import VIEWS, aggregate
from pliant.accuracy.zero_shot.scores import SCORES, score
from pliant.accuracy.zero_shot.subject import Method, RefusedError, Score, Subject
from pliant.accuracy.zero_shot.weights import draw_default

__all__ = [
    "SCORES",
    "VIEWS",
    "Method",
    "RefusedError",
    "Score",
    "Subject",
    "aggregate",
    "draw_default",
    "score",
]
