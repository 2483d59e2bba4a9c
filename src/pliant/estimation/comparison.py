"""Which estimator to trust on these images: ranks against training from scratch, and seconds.

The ground truth is the mean accuracy over the seeds of training from scratch. How well its own
seeds agree bounds what any estimator can reach, and parameter count is what it has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pliant.accuracy.ranking import (
    BASELINES,
    FEWER,
    MIN_NETWORKS,
    MIN_NETWORKS_FOR_INTERVALS,
    Correlation,
    RankCorrelations,
    rank_correlations,
    tau_difference,
)
from pliant.metrics import Accuracy, Estimate, Failed, Stopped


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one estimator found for all networks, and what it cost."""

    name: str
    estimates: Sequence[Estimate]
    """One per network, in the same order for all estimators."""
    setup_seconds: float = 0.0
    """CPU time that all networks share, such as the training of a supernet."""

    @property
    def scores(self) -> list[float | None]:
        """Accuracies or scores; None where a network failed."""
        return [
            None if isinstance(one.quality, Failed) else one.quality.value for one in self.estimates
        ]

    @property
    def failed(self) -> int:
        """Networks without a result that were not stopped early."""
        missing = [one.quality for one in self.estimates if isinstance(one.quality, Failed)]
        return sum(not isinstance(quality, Stopped) for quality in missing)

    @property
    def seconds(self) -> float:
        """Marginal cost: CPU time of a further network, the median of those not stopped early."""
        whole = [one.seconds for one in self.estimates if not isinstance(one.quality, Stopped)]
        return median(whole) if whole else 0.0

    @property
    def amortised_seconds(self) -> float:
        """CPU time per network with the shared part divided among these networks."""
        number = max(1, len(self.estimates))
        return (self.setup_seconds + sum(one.seconds for one in self.estimates)) / number


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ranks of all estimators against training from scratch."""

    rows: tuple[RankCorrelations, ...]
    """Highest Kendall's tau first; parameters and MACs among them."""
    reliability: Correlation | None
    """Kendall's tau of one seed of the ground truth against another; None with one seed."""
    networks: int
    """Networks of known ground truth."""
    without_truth: int
    """Networks whose training from scratch failed or was stopped."""
    advice: str
    """One sentence."""


def compare(
    truth: Sequence[Evaluated],
    others: Sequence[Evaluated],
    baselines: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
) -> Comparison | None:
    """Rank correlations of estimators with the accuracy after training from scratch.

    Args:
        truth: training from scratch, once per seed.
        others: the estimators, on the same networks.
        baselines: parameters and MACs of the networks.
        seed: of the bootstrap.

    Returns:
        None where fewer than 3 networks were trained.
    """
    by_seed = [one.scores for one in truth]
    rows = [row for row in range(len(by_seed[0])) if _known(truth, row)]
    if len(rows) < MIN_NETWORKS:
        return None
    mean = [fmean(float(scores[row] or 0.0) for scores in by_seed) for row in rows]
    scores: dict[str, list[float | None]] = {
        one.name: [one.scores[row] for row in rows] for one in others
    }
    scores |= {name: [values[row] for row in rows] for name, values in baselines.items()}
    seconds = {one.name: one.seconds for one in others} | dict.fromkeys(baselines, 0.0)
    correlations = rank_correlations(mean, scores, seconds=seconds, seed=seed)
    correlations.sort(key=lambda one: -one.kendall.value if one.kendall else 2.0)
    reliability = _reliability([[scores[row] for row in rows] for scores in by_seed], seed)
    costs = {one.name: one.amortised_seconds for one in others}
    scratch = fmean(one.seconds for one in truth)
    return Comparison(
        rows=tuple(correlations),
        reliability=reliability,
        networks=len(rows),
        without_truth=len(by_seed[0]) - len(rows),
        advice=_advice(correlations, mean, scores, costs, scratch, seed),
    )


def _known(truth: Sequence[Evaluated], row: int) -> bool:
    return all(isinstance(one.estimates[row].quality, Accuracy) for one in truth)


def _reliability(by_seed: Sequence[Sequence[float | None]], seed: int) -> Correlation | None:
    """How well the first two seeds agree."""
    if len(by_seed) < 2:
        return None
    one, other = by_seed[:2]
    [found] = rank_correlations([value or 0.0 for value in one], {"seed": other}, seed=seed)
    return found.kendall


def _advice(
    rows: Sequence[RankCorrelations],
    truth: Sequence[float],
    scores: Mapping[str, Sequence[float | None]],
    costs: Mapping[str, float],
    scratch_seconds: float,
    seed: int,
) -> str:
    """One sentence, which goes by intervals: what cannot be told apart is not told apart.

    Args:
        rows: of estimators and baselines.
        truth: mean accuracy of each network.
        scores: of each estimator and baseline.
        costs: amortised seconds of each estimator.
        scratch_seconds: CPU time of training one network.
        seed: of the bootstrap.
    """
    if len(truth) < MIN_NETWORKS_FOR_INTERVALS:
        return (
            f"{len(truth)} networks are too few to tell estimators apart: compare at least "
            f"{MIN_NETWORKS_FOR_INTERVALS}, and train from scratch until then."
        )
    strongest = next((one.strongest_baseline for one in rows if one.strongest_baseline), "")
    ranked = [one for one in rows if one.name not in BASELINES and one.kendall is not None]
    better = [one for one in ranked if _is_above_zero(one.over_strongest)]
    if not better:
        free = f" than {_with_tau(strongest, rows)}" if strongest else " than their size"
        first = f"; the best is {ranked[0].name}, {ranked[0].kendall}" if ranked else ""
        return (
            f"No estimator ranks these networks better{free} beyond doubt{first}: choose by "
            f"{strongest or 'size'}, which is free, or train from scratch."
        )
    best = better[0]
    tied = [best]
    for one in better[1:]:
        gap = tau_difference(truth, scores[best.name], scores[one.name], seed=seed)
        if not _is_above_zero(gap):
            tied.append(one)
    chosen = min(tied, key=lambda one: costs[one.name])
    others = ", ".join(one.name for one in tied if one is not chosen)
    equal = f", and {others} cannot be told apart from it at a higher cost" if others else ""
    return (
        f"Trust {chosen.name}: Kendall tau {chosen.kendall} with training from scratch, above "
        f"{strongest} beyond doubt, for {costs[chosen.name]:.3g} s of CPU per network in place of "
        f"{scratch_seconds:.3g} s{equal}."
    )


def _with_tau(strongest: str, rows: Sequence[RankCorrelations]) -> str:
    """A baseline as `RankCorrelations` names it, `fewer macs` turned around, with its tau."""
    found = next(one.kendall for one in rows if one.name == strongest.removeprefix(FEWER))
    if found is not None and strongest.startswith(FEWER):
        low, high = (None if end is None else -end for end in (found.high, found.low))
        found = Correlation(-found.value, low, high)
    return f"{strongest} (Kendall tau {found})"


def _is_above_zero(value: Correlation | None) -> bool:
    return value is not None and value.low is not None and value.low > 0
