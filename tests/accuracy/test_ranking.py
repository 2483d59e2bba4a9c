"""The figures equal SciPy's and counts by hand; what fails ranks last; signs are kept."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pliant.accuracy import ranking
from pliant.accuracy.ranking import MIN_NETWORKS_FOR_INTERVALS, rank_correlations
from pliant.errors import DataError

BENCHMARK = Path(__file__).parents[2].parent / "shared" / "data" / "nas_bench_201_cifar10.csv"


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 12, 60).astype(float)
    return truth, np.round(truth + 4 * rng.standard_normal(60))


def test_correlations_are_those_of_scipy_with_ties(tied):
    truth, scores = tied
    [one] = rank_correlations(truth, {"score": list(scores)})
    assert one.kendall.value == pytest.approx(stats.kendalltau(truth, scores).statistic)
    assert one.spearman.value == pytest.approx(stats.spearmanr(truth, scores).statistic)


def test_every_bootstrap_sample_has_the_tau_of_scipy(tied, monkeypatch):
    truth, scores = tied
    draws = ranking._draws(60, seed=3)[:20]
    monkeypatch.setattr(ranking, "_PAIRS_PER_CHUNK", 60 * 7)  # several chunks, the last one short
    found = ranking._taus(scores, truth, draws, None)
    rhos = ranking._spearmans(scores, truth, draws)
    for counts, tau, rho in zip(draws, found, rhos, strict=True):
        rows = np.repeat(np.arange(60), counts.astype(int))
        assert tau == pytest.approx(stats.kendalltau(truth[rows], scores[rows]).statistic)
        assert rho == pytest.approx(stats.spearmanr(truth[rows], scores[rows]).statistic)


def test_interval_agrees_with_scipys_bootstrap(tied):
    truth, scores = tied
    [one] = rank_correlations(truth, {"score": list(scores)})
    theirs = stats.bootstrap(
        (truth, scores),
        lambda x, y: stats.kendalltau(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=300,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert one.kendall.low == pytest.approx(theirs.low, abs=0.04)
    assert one.kendall.high == pytest.approx(theirs.high, abs=0.04)


def test_tau_at_equal_size_counts_pairs_within_five_percent_only():
    sizes = [100.0, 104.0, 200.0, 201.0, 400.0]
    truth = [1.0, 2.0, 3.0, 4.0, 5.0]
    by_size, backwards = rank_correlations(
        truth, {"parameters": sizes, "within": [2.0, 1.0, 4.0, 3.0, 9.0]}
    )
    assert backwards.equal_pairs == 2
    assert backwards.equal_size.value == -1
    assert backwards.kendall.value == pytest.approx(0.6)
    assert by_size.equal_size.value == 1
    assert backwards.over_parameters.value == pytest.approx(-0.4)


def test_size_alone_says_nothing_at_equal_size():
    rng = np.random.default_rng(2)
    sizes = rng.choice([1e5, 2e5, 4e5, 8e5], 400)
    truth = np.log(sizes) + rng.standard_normal(400)
    by_size, shuffled_within = rank_correlations(
        truth,
        {"parameters": list(sizes), "size and noise": list(np.log(sizes) + 0.01 * rng.random(400))},
    )
    assert by_size.equal_size is None  # every pair of equal size ties
    assert shuffled_within.kendall.low > 0.3
    assert shuffled_within.equal_size.low < 0 < shuffled_within.equal_size.high


def test_backwards_is_negative():
    truth = np.arange(30.0)
    forwards, backwards, constant = rank_correlations(
        truth, {"parameters": list(truth), "backwards": list(-truth), "constant": [1.0] * 30}
    )
    assert (forwards.kendall.value, backwards.kendall.value, backwards.spearman.value) == (
        1,
        -1,
        -1,
    )
    assert constant.kendall is None
    assert constant.spearman is None
    assert backwards.over_parameters.high < 0
    assert forwards.over_parameters.value == 0


def test_failed_and_minus_infinity_rank_last_and_are_counted():
    truth = [0.0, 1.0, 2.0, 3.0]
    [one] = rank_correlations(truth, {"score": [None, float("-inf"), -1e300, 5.0]})
    assert one.failed == 2
    assert one.kendall.value == pytest.approx(stats.kendalltau(truth, [0, 0, 1, 2]).statistic)


def test_regret_and_overlap_share_ties_out():
    truth = [10.0, 20.0, 30.0, 40.0]
    [one] = rank_correlations(truth, {"score": [7.0, 7.0, 1.0, 7.0]}, top=2)
    assert one.regret == pytest.approx(40 - np.mean([10, 20, 40]))
    # By brute force over all orders of the tied networks.
    picks = [set(pair) for pair in itertools.combinations([0, 1, 3], 2)]
    assert one.top_overlap == pytest.approx(np.mean([len(pick & {2, 3}) / 2 for pick in picks]))


def test_paired_difference_is_sharper_than_its_parts():
    rng = np.random.default_rng(5)
    truth = rng.standard_normal(200)
    sizes = np.exp(truth + rng.standard_normal(200))
    _, close = rank_correlations(
        truth, {"parameters": list(sizes), "close": list(np.log(sizes) + 0.1 * truth)}
    )
    assert close.over_parameters.low > 0
    assert close.over_parameters.high - close.over_parameters.low < 0.5 * (
        close.kendall.high - close.kendall.low
    )


def test_few_networks_get_no_interval():
    [one] = rank_correlations(
        range(MIN_NETWORKS_FOR_INTERVALS - 1),
        {"score": list(range(MIN_NETWORKS_FOR_INTERVALS - 1))},
    )
    assert one.too_few
    assert one.kendall.low is None
    [enough] = rank_correlations(
        range(MIN_NETWORKS_FOR_INTERVALS), {"score": list(range(MIN_NETWORKS_FOR_INTERVALS))}
    )
    assert not enough.too_few
    assert enough.kendall.low is not None


@pytest.mark.parametrize("truth", [[1.0, 2.0], [1.0, 2.0, float("nan")]])
def test_too_little_truth(truth):
    with pytest.raises(DataError, match="at least 3 networks"):
        rank_correlations(truth, {"score": truth})


def test_parameter_count_on_nas_bench_201():
    if not BENCHMARK.is_file():
        pytest.skip(f"needs {BENCHMARK}")
    with BENCHMARK.open() as file:
        rows = list(csv.DictReader(file))
    [one] = rank_correlations(
        [float(row["cifar10_test_pct"]) for row in rows],
        {"parameters": [float(row["params_millions"]) for row in rows]},
    )
    assert one.spearman.value == pytest.approx(0.753, abs=1e-3)
    assert one.kendall.value == pytest.approx(0.579, abs=1e-3)
    assert one.kendall.low < 0.579 < one.kendall.high
