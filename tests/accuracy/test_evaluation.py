"""Which of two networks the same images can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.accuracy.evaluation import Answers, indistinct


def _answers(right: list[int], images: int = 30) -> Answers:
    """Of a network that is right on some images."""
    labels = np.ones(images, dtype=np.int64)
    found = np.zeros(images, dtype=np.int64)
    found[right] = 1
    return Answers(labels, found, np.ones(images, dtype=np.float32))


@pytest.mark.parametrize(
    ("one", "other", "open_"),
    [
        # One image apart: mean 1/30, deviation sqrt(1/30 - 1/900), error 0.0328 < 0.0333.
        (range(24), range(23), False),
        # Two against one: mean 1/30, deviation sqrt(3/30 - 1/900), error 0.0574 > 0.0333.
        (range(24), [*range(22), 29], True),
        # Four against none: mean 0.1333, deviation sqrt(0.1333 - 0.0178), error 0.0621.
        (range(24), range(20), False),
        # As many right, on other images, and on the same ones.
        (range(24), range(1, 25), True),
        (range(24), range(24), False),
    ],
)
def test_one_standard_error_of_the_difference(one, other, open_):
    first, second = _answers(list(one)), _answers(list(other))
    assert indistinct(first, second) is open_
    assert indistinct(second, first) is open_
