"""Successive halving: who is trained on, whatever the number of workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.accuracy.halving import SuccessiveHalving, rung_epochs
from pliant.errors import RecipeError


def trained(values, rungs, factor, workers=1, fails_at=()):
    """The highest rung that each candidate reached; workers finish in the order of starting."""
    halving = SuccessiveHalving(range(len(values)), rungs, factor)
    reached, running = {}, []
    while True:
        while len(running) < workers and (step := halving.next()) is not None:
            running.append(step)
        if not running:
            return reached
        candidate, rung = running.pop(0)
        assert rung == reached.get(candidate, -1) + 1  # no rung is left out or trained twice
        reached[candidate] = rung
        value = None if (candidate, rung) in fails_at else values[candidate]
        halving.tell(candidate, rung, value)


def test_rungs_end_with_the_whole_schedule():
    assert rung_epochs(9, 3) == (1, 3, 9)
    assert rung_epochs(8, 3) == (1, 3, 8)
    assert rung_epochs(2, 4) == (1, 2)
    for epochs, factor in ((1, 3), (8, 1)):
        with pytest.raises(RecipeError, match="at least 2"):
            rung_epochs(epochs, factor)


def test_by_hand():
    """Each of 4 networks that are better than those before is promoted when it is in the half."""
    # 0 starts; 1 is the better of two, goes to rung 1; 2 is worse; 3 is the second of four.
    assert trained([0.1, 0.4, 0.2, 0.3], 3, 2) == {0: 0, 1: 2, 2: 0, 3: 1}


def test_where_the_best_fails_later_another_one_is_trained_to_the_end():
    found = trained([0.1, 0.4, 0.2, 0.3], 3, 4, fails_at={(1, 1)})
    assert found == {0: 0, 1: 1, 2: 0, 3: 2}


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=30),
    st.integers(2, 4),
    st.integers(2, 4),
    st.integers(1, 4),
)
def test_the_best_is_never_stopped_and_few_are_trained_on(values, rungs, factor, workers):
    reached = trained(values, rungs, factor, workers)
    assert set(reached) == set(range(len(values)))
    sound = [value for value in values if value is not None]
    if not sound:
        assert set(reached.values()) == {0}
        return
    assert max(reached.values()) == rungs - 1
    if workers == 1:
        best = [one for one, value in enumerate(values) if value == max(sound)]
        assert max(reached[one] for one in best) == rungs - 1
    for rung in range(rungs - 1):  # 1/factor of a rung at any time, or one
        here = sum(value >= rung for value in reached.values())
        promoted = sum(value > rung for value in reached.values())
        assert promoted <= here
    assert all(reached[one] == 0 for one, value in enumerate(values) if value is None)
