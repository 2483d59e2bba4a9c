"""Rank correlations by loops over all pairs, and what no change of scale may move."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.accuracy.baselines import majority_class
from pliant.accuracy.ranking import (
    EQUAL_SIZE,
    MIN_NETWORKS_FOR_INTERVALS,
    Correlation,
    RankCorrelations,
    rank_correlations,
)
from pliant.errors import DataError

SCORES = st.one_of(st.none(), st.integers(0, 4).map(float), st.sampled_from([math.inf, -math.inf]))
TABLES = st.lists(st.tuples(st.integers(0, 5).map(float), SCORES), min_size=3, max_size=9)


def ranked(table: list[tuple[float, float | None]], **options: int) -> RankCorrelations:
    [found] = rank_correlations([t for t, _ in table], {"x": [s for _, s in table]}, **options)
    return found


def known(table: list[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """What failed or is infinite ranks last."""
    return [
        (truth, -1.0 if score is None or math.isinf(score) else score) for truth, score in table
    ]


def tau_b(pairs: list[tuple[float, float]]) -> float | None:
    """Kendall 1945, by counting pairs."""
    concordant = discordant = one = other = 0
    for (a, x), (b, y) in itertools.combinations(pairs, 2):
        concordant += (a - b) * (x - y) > 0
        discordant += (a - b) * (x - y) < 0
        one += a != b
        other += x != y
    return (concordant - discordant) / math.sqrt(one * other) if one and other else None


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_tau_is_a_count_of_pairs(table: list[tuple[float, float | None]]) -> None:
    found, expected = ranked(table), tau_b(known(table))
    if expected is None:
        assert found.kendall is None
    else:
        assert found.kendall is not None
        assert found.kendall.value == pytest.approx(expected)
    assert found.failed == sum(score is None or math.isinf(score) for _, score in table)
    assert found.too_few == (len(table) < MIN_NETWORKS_FOR_INTERVALS)


@settings(max_examples=60, deadline=None)
@given(TABLES, st.integers(1, 9))
def test_the_top_and_the_regret_are_means_over_all_ways_to_break_ties(
    table: list[tuple[float, float | None]], top: int
) -> None:
    found, pairs = ranked(table, top=top), known(table)
    number = min(top, len(pairs))
    rows = range(len(pairs))

    def tops(column: int) -> list[set[int]]:
        """Every set of the best rows that some order of equal values gives."""
        border = sorted((pairs[row][column] for row in rows), reverse=True)[number - 1]
        above = {row for row in rows if pairs[row][column] > border}
        tied = [row for row in rows if pairs[row][column] == border]
        return [above | set(some) for some in itertools.combinations(tied, number - len(above))]

    overlaps = [len(a & b) / number for a in tops(0) for b in tops(1)]
    assert found.top == number
    assert found.top_overlap == pytest.approx(np.mean(overlaps))
    best = max(score for _, score in pairs)
    chosen = [truth for truth, score in pairs if score == best]
    assert found.regret == pytest.approx(max(t for t, _ in pairs) - np.mean(chosen))
    assert 0 <= found.top_overlap <= 1
    assert found.regret >= 0


@settings(max_examples=40, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_only_the_order_of_scores_matters(
    table: list[tuple[float, float | None]], random: object
) -> None:
    def stretched(score: float | None) -> float | None:
        return None if score is None or math.isinf(score) else math.exp(score) - 1e3

    found = ranked(table)
    assert ranked([(truth, stretched(score)) for truth, score in table]) == found
    shuffled = random.sample(table, len(table))  # type: ignore[attr-defined]
    again = ranked(shuffled)
    for name in ("failed", "top", "networks", "kendall", "spearman"):
        one, other = getattr(found, name), getattr(again, name)
        if isinstance(one, Correlation):
            one, other = one.value, other.value
        assert one == pytest.approx(other)
    assert again.regret == pytest.approx(found.regret)
    assert again.top_overlap == pytest.approx(found.top_overlap)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=9))
def test_turning_scores_around_turns_the_sign(table: list[tuple[int, int]]) -> None:
    forwards = ranked([(float(t), float(s)) for t, s in table])
    backwards = ranked([(float(t), -float(s)) for t, s in table])
    for name in ("kendall", "spearman"):
        one, other = getattr(forwards, name), getattr(backwards, name)
        assert (one is None) == (other is None)
        assert one is None or one.value == pytest.approx(-other.value)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([100, 104, 105, 106, 300])),
        min_size=3,
        max_size=9,
    )
)
def test_pairs_of_equal_size_by_counting(table: list[tuple[int, int, int]]) -> None:
    truth, scores, sizes = (list(map(float, column)) for column in zip(*table, strict=True))
    by_size, found = rank_correlations(truth, {"parameters": sizes, "x": scores})
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(table)), 2)
        if max(sizes[a], sizes[b]) <= (1 + EQUAL_SIZE) * min(sizes[a], sizes[b])
    ]
    assert by_size.equal_pairs == found.equal_pairs == len(pairs)
    signs = [(np.sign(truth[a] - truth[b]), np.sign(scores[a] - scores[b])) for a, b in pairs]
    one, other = (sum(abs(pair[column]) for pair in signs) for column in (0, 1))
    if not one or not other:
        assert found.equal_size is None
    else:
        assert found.equal_size is not None
        assert found.equal_size.value == pytest.approx(
            sum(a * b for a, b in signs) / math.sqrt(one * other)
        )


def test_the_strongest_baseline_may_be_fewer_of_something() -> None:
    truth = list(map(float, range(8)))
    rows = rank_correlations(
        truth,
        {"parameters": [1.0, 0, 3, 2, 5, 4, 7, 6], "macs": [-value for value in truth], "x": truth},
    )
    assert {row.strongest_baseline for row in rows} == {"fewer macs"}
    by_name = {row.name: row for row in rows}
    assert by_name["x"].over_strongest == Correlation(0.0)
    assert by_name["macs"].over_strongest == Correlation(-2.0)
    assert by_name["x"].over_parameters is not None
    assert by_name["x"].over_parameters.value > 0
    [alone] = rank_correlations(truth, {"x": truth})
    assert (alone.strongest_baseline, alone.over_strongest) == ("", None)
    assert (alone.over_parameters, alone.equal_size, alone.equal_pairs) == (None, None, 0)


def test_intervals_narrow_with_more_networks_and_repeat_under_a_seed() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for number in (MIN_NETWORKS_FOR_INTERVALS, 80, 320):
        truth = rng.standard_normal(number)
        scores = {"x": list(truth + rng.standard_normal(number))}
        [one], [again] = (rank_correlations(truth, scores, seed=3) for _ in range(2))
        assert one == again
        assert one.kendall is not None
        assert one.kendall.low is not None
        assert one.kendall.high is not None
        assert one.kendall.low < one.kendall.value < one.kendall.high
        widths.append(one.kendall.high - one.kendall.low)
    assert widths == sorted(widths, reverse=True)


def test_scores_that_are_not_one_per_network() -> None:
    with pytest.raises(DataError, match=r"'x' returned 2 for 3"):
        rank_correlations([1, 2, 3], {"y": [1, 2, 3], "x": [1, 2]})


def test_correlations_in_words() -> None:
    assert str(Correlation(0.5)) == "+0.500"
    assert str(Correlation(-0.25, -0.5, 0.125)) == "-0.250 [-0.50, 0.12]"


@given(st.lists(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3), min_size=1))
def test_the_most_frequent_class_by_counting(train: list[int], validation: list[int]) -> None:
    found = majority_class(np.array(train), np.array(validation))
    answer = min(set(train), key=lambda label: (-train.count(label), label))
    assert found.top1 == pytest.approx(validation.count(answer) / len(validation))
    assert found.images == len(validation)
