"""How far can an accuracy estimator be trusted? Rank correlations with known accuracies.

The same figures for every estimator, be it a zero-shot score, a predictor or a supernet, next to
those of parameter count and MACs. All correlations are signed: a score that ranks backwards gets a
negative one. A network that failed, or whose score is infinite, ranks last and is counted.

Kendall, M. G., The treatment of ties in ranking problems, 1945, DOI 10.1093/biomet/33.3.239
(tau-b). Efron, B., Bootstrap methods: another look at the jackknife, 1979,
DOI 10.1214/aos/1176344552.

Kendall's tau-b of a bootstrap sample is a quadratic form of how often each network was drawn. With
x and y the signs of all pairs in score and ground truth, and w the counts,

    tau-b = w'(x y)w / sqrt(w'|x|w  w'|y|w).

So one matrix product answers all samples, the pairs can be restricted to networks of equal size,
and two estimators are compared on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pliant.errors import DataError

BASELINES = ("parameters", "macs")
"""Known without running a network: an estimator that ranks no better is not worth its time."""
FEWER = "fewer "
"""Before the name of a baseline that is turned around."""
MIN_NETWORKS_FOR_INTERVALS = 20
"""With fewer networks no interval is given."""
MIN_NETWORKS = 3
EQUAL_SIZE = 0.05
"""Two networks are of equal size if the larger one has at most this share more parameters."""
TOP_SHARE = 0.1
"""Default share of the networks that count as the top."""
CONFIDENCE = 0.95
_MAX_RESAMPLES, _MIN_RESAMPLES = 1000, 200
_PAIRS_PER_CHUNK = 1 << 23


@dataclass(frozen=True, slots=True)
class Correlation:
    """A rank correlation, or a difference of two, and its 95 % bootstrap interval over networks."""

    value: float
    low: float | None = None
    """None where there are too few networks for an interval."""
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:+.3f}{interval}"


@dataclass(frozen=True, slots=True)
class RankCorrelations:
    """How well one estimator ranks networks; None where undefined, as for a constant score."""

    name: str
    networks: int
    failed: int
    """Networks that failed or whose score is infinite; they rank last."""
    kendall: Correlation | None
    """Kendall's tau-b of score and ground truth, -1 to 1."""
    spearman: Correlation | None
    equal_size: Correlation | None
    """Kendall's tau-b over pairs of networks with parameter counts within 5 % of each other."""
    equal_pairs: int
    """Number of such pairs."""
    over_parameters: Correlation | None
    """Kendall's tau minus that of the parameter count, on the same bootstrap samples; significant
    where the interval excludes 0."""
    top: int
    """Number of networks that count as the top."""
    top_overlap: float
    """Share of the truly best `top` networks among the `top` of the highest score, 0 to 1; ties
    share the last places."""
    regret: float
    """Accuracy of the best network minus that of the one with the highest score, in the unit of the
    ground truth; the mean over ties."""
    seconds: float | None
    """Typical time for one network on one thread."""
    strongest_baseline: str = ""
    """Of the baselines, and of each turned around (the smaller network is better), the one with the
    highest Kendall's tau."""
    over_strongest: Correlation | None = None
    """Kendall's tau minus that of the strongest baseline, on the same bootstrap samples."""

    @property
    def too_few(self) -> bool:
        """Whether the networks are too few for intervals."""
        return self.networks < MIN_NETWORKS_FOR_INTERVALS


def rank_correlations(
    truth: Sequence[float],
    scores: Mapping[str, Sequence[float | None]],
    *,
    seconds: Mapping[str, float] | None = None,
    top: int | None = None,
    seed: int = 0,
) -> list[RankCorrelations]:
    """Rank correlations of several estimators on the same networks, in the order of `scores`.

    Args:
        truth: known accuracy of each network in any unit, higher is better; shape (networks,).
        scores: of each estimator one per network, higher is better, None where it failed. The
            others are compared with the one named `parameters`.
        seconds: typical time of each estimator for one network.
        top: networks that count as the top; None for a tenth of them.
        seed: of the bootstrap.

    Raises:
        DataError: fewer than 3 networks, an accuracy that is no finite number, or an estimator
            without one score per network.
    """
    true = np.asarray(truth, dtype=float)
    _require_sound(true, scores)
    ranks = {name: _ranks(found) for name, found in scores.items()}
    draws = _draws(len(true), seed)
    sizes = (
        np.array([np.nan if value is None else value for value in scores["parameters"]])
        if "parameters" in scores
        else None
    )
    taus = {name: _taus(found, true, draws, None) for name, found in ranks.items()}
    strongest, highest = _strongest_baseline(taus)
    k = min(len(true), top or max(1, round(TOP_SHARE * len(true))))
    return [
        RankCorrelations(
            name=name,
            networks=len(true),
            failed=sum(not _is_score(value) for value in scores[name]),
            kendall=_correlation(taus[name]),
            spearman=_correlation(_spearmans(found, true, draws)),
            equal_size=None if sizes is None else _correlation(_taus(found, true, draws, sizes)),
            equal_pairs=0 if sizes is None else _equal_pairs(sizes),
            over_parameters=None
            if sizes is None
            else _correlation(taus[name] - taus["parameters"]),
            top=k,
            top_overlap=float(_members(found, k) @ _members(true, k)) / k,
            regret=float(true.max() - true[found == found.max()].mean()),
            seconds=(seconds or {}).get(name),
            strongest_baseline=strongest,
            over_strongest=None if highest is None else _correlation(taus[name] - highest),
        )
        for name, found in ranks.items()
    ]


def tau_difference(
    truth: Sequence[float],
    one: Sequence[float | None],
    other: Sequence[float | None],
    *,
    seed: int = 0,
) -> Correlation | None:
    """Kendall's tau of one estimator minus that of another, on the same bootstrap samples.

    Args:
        truth: known accuracy of each network, higher is better; shape (networks,).
        one: of an estimator one score per network, None where it failed.
        other: of the other estimator.
        seed: of the bootstrap.

    Raises:
        DataError: as of `rank_correlations`.
    """
    true = np.asarray(truth, dtype=float)
    _require_sound(true, {"one": one, "other": other})
    draws = _draws(len(true), seed)
    found, against = (_taus(_ranks(scores), true, draws, None) for scores in (one, other))
    return _correlation(found - against)


def _strongest_baseline(taus: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray | None]:
    """The name and Kendall's taus, one per draw, of the baseline that ranks best, either way."""
    signed = {name: taus[name] for name in BASELINES if name in taus}
    signed |= {f"{FEWER}{name}": -values for name, values in signed.items()}
    known = [name for name, values in signed.items() if np.isfinite(values[0])]
    if not known:
        return "", None
    strongest = max(known, key=lambda name: signed[name][0])
    return strongest, signed[strongest]


def _require_sound(true: np.ndarray, scores: Mapping[str, Sequence[float | None]]) -> None:
    if len(true) < MIN_NETWORKS or not np.isfinite(true).all():
        raise DataError(
            f"rank correlations take at least {MIN_NETWORKS} networks of known accuracy, received "
            f"{len(true)} of which {int(np.isfinite(true).sum())} have a finite one. Score more of "
            "the networks whose accuracy is known."
        )
    if wrong := [name for name, found in scores.items() if len(found) != len(true)]:
        raise DataError(
            f"an estimator returns one score per network, {wrong[0]!r} returned "
            f"{len(scores[wrong[0]])} for {len(true)}."
        )


def _ranks(scores: Sequence[float | None]) -> np.ndarray:
    """Scores as ranks from 1 up; all that failed share the lowest one, and so does infinity."""
    values = np.array([value if _is_score(value) else -np.inf for value in scores], dtype=float)
    return stats.rankdata(values)


def _is_score(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _draws(networks: int, seed: int) -> np.ndarray:
    """How often each network is drawn: row 0 once each, the others by bootstrap.

    Returns:
        Shape (1 + samples, networks).
    """
    once = np.ones((1, networks), dtype=np.float32)
    if networks < MIN_NETWORKS_FOR_INTERVALS:
        return once
    samples = int(np.clip(3e9 / networks**2, _MIN_RESAMPLES, _MAX_RESAMPLES))
    rng = np.random.default_rng(seed)
    drawn = [
        np.bincount(rng.integers(networks, size=networks), minlength=networks)
        for _ in range(samples)
    ]
    return np.vstack([once, np.array(drawn, dtype=np.float32)])


def _taus(
    ranks: np.ndarray, truth: np.ndarray, draws: np.ndarray, sizes: np.ndarray | None
) -> np.ndarray:
    """Kendall's tau-b of every draw; shape (draws,), NaN where undefined.

    Args:
        ranks: shape (networks,).
        truth: shape (networks,).
        draws: shape (draws, networks).
        sizes: parameter counts; where given, only pairs of equal size count.
    """
    # Rows: concordant minus discordant pairs, pairs not tied in the score, not tied in the truth.
    sums = np.zeros((3, len(draws)))
    step = max(1, _PAIRS_PER_CHUNK // len(ranks))
    for start in range(0, len(ranks), step):
        rows = slice(start, start + step)
        one, other = np.sign(ranks[rows, None] - ranks), np.sign(truth[rows, None] - truth)
        if sizes is not None:
            apart = ~_equal(sizes, rows)
            one[apart] = other[apart] = 0
        for row, signs in enumerate((one * other, np.abs(one), np.abs(other))):
            sums[row] += ((draws[:, rows] @ signs.astype(np.float32)) * draws).sum(
                axis=1, dtype=float
            )
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[0] / np.sqrt(sums[1] * sums[2])


def _equal(sizes: np.ndarray, rows: slice) -> np.ndarray:
    """Which networks are of the same size as those of the rows; shape (rows, networks)."""
    return np.maximum(sizes[rows, None], sizes) <= (1 + EQUAL_SIZE) * np.minimum(
        sizes[rows, None], sizes
    )


def _equal_pairs(sizes: np.ndarray) -> int:
    step = max(1, _PAIRS_PER_CHUNK // len(sizes))
    known = int(np.isfinite(sizes).sum())
    return (
        sum(
            int(_equal(sizes, slice(start, start + step)).sum())
            for start in range(0, len(sizes), step)
        )
        - known
    ) // 2


def _spearmans(ranks: np.ndarray, truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Spearman's rho of every draw; NaN where undefined."""
    networks = np.broadcast_to(np.arange(len(ranks)), draws.shape)
    # Every draw has as many networks, so all of them are ranked at once.
    drawn = np.repeat(networks.ravel(), draws.astype(int).ravel()).reshape(draws.shape)
    middle = (len(ranks) + 1) / 2
    one, other = (stats.rankdata(values[drawn], axis=1) - middle for values in (ranks, truth))
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))


def _correlation(values: np.ndarray) -> Correlation | None:
    """The correlation of row 0, with the interval of the others."""
    if not np.isfinite(values[0]):
        return None
    sampled = values[1:][np.isfinite(values[1:])]
    if not len(sampled):
        return Correlation(float(values[0]))
    low, high = np.quantile(sampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Correlation(float(values[0]), float(low), float(high))


def _members(values: np.ndarray, k: int) -> np.ndarray:
    """Weight of each network among the `k` highest, 0 to 1; ties share the last places."""
    border = np.sort(values)[-k]
    above, tied = values > border, values == border
    return above + tied * ((k - above.sum()) / tied.sum())
