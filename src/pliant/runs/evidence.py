"""Why can a result be believed? Claims with their value, their bound, and how they were found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pliant.accuracy.evaluation import indistinct
from pliant.accuracy.predictor import MIN_ROWS, AccuracyPredictor
from pliant.accuracy.ranking import (
    BASELINES,
    CONFIDENCE,
    MIN_NETWORKS,
    MIN_NETWORKS_FOR_INTERVALS,
    Correlation,
    RankCorrelations,
    rank_correlations,
)
from pliant.deploy.int8 import MAX_INT8_LOSS, loses_little
from pliant.deploy.verify import (
    ONNX_TOLERANCE,
    SUPERNET_TOLERANCE,
    Agreement,
    accuracy_tolerance,
    equally_accurate,
)
from pliant.metrics import ARITHMETIC_METRICS, Accuracy, Claim, DeliveredFile
from pliant.objective import ACCURACY, Candidate, Objective, Target
from pliant.pareto import hypervolume
from pliant.report.summary import Baselines, NetworkResult, TargetFacts
from pliant.runs.session import Session
from pliant.runs.shortlist import ShortlistedNetwork
from pliant.search.confidence import LogErrors, known_interval, predicted_limits
from pliant.spaces.space import Space

_RESAMPLES = 400


def fitted_predictor(
    space: Space, history: Sequence[Candidate], seed: int
) -> AccuracyPredictor | None:
    """The accuracy predictor as the search had it at its end; None of too few networks for one.

    Args:
        space: of the candidates.
        history: what the search evaluated.
        seed: of the folds.
    """
    sound = [one for one in history if isinstance(one.quality, Accuracy)]
    if len(sound) < MIN_ROWS:
        return None
    top1 = np.array([one.value for one in sound])
    return AccuracyPredictor(space, [one.architecture for one in sound], top1, seed=seed)


def predictor_ranking(
    space: Space,
    predictor: AccuracyPredictor | None,
    history: Sequence[Candidate],
    random_history: Sequence[Candidate],
    seed: int,
) -> tuple[RankCorrelations, ...]:
    """Rank correlations of the predictor and of the baselines, on networks new to the predictor.

    Args:
        space: of the candidates.
        predictor: fitted on `history`; nothing is ranked without one.
        history: what the search evaluated.
        random_history: what random search evaluated; those that the search did not are ranked.
        seed: of the bootstrap.

    Returns:
        One per estimator; none where there are too few networks.
    """
    seen = {one.architecture for one in history}
    truth = {}
    for one in random_history:
        if isinstance(one.quality, Accuracy) and one.architecture not in seen:
            truth[one.architecture] = one.value
    if predictor is None or len(truth) < MIN_NETWORKS:
        return ()
    costs = [space.cost(architecture) for architecture in truth]
    scores = {"predictor": [float(value) for value in predictor.predict(list(truth))]}
    for baseline in BASELINES:
        scores[baseline] = [cost.metric(baseline) for cost in costs]
    return tuple(rank_correlations(list(truth.values()), scores, seed=seed))


def hypervolumes(
    history: Sequence[Candidate], random_history: Sequence[Candidate], objective: Objective
) -> tuple[float, float]:
    """Of the search and of random search, over estimated accuracy and the predicted costs.

    Each axis is scaled to 0 to 1 at the reference: the lowest accuracy of both searches, and for
    each cost of the objective its limit, or the highest cost where there is none.

    Args:
        history: what the search evaluated; failed candidates do not count.
        random_history: what random search evaluated.
        objective: its costs and their limits.
    """
    ours, random, reference = _scaled(history, random_history, objective)
    return hypervolume(ours, reference), hypervolume(random, reference)


def _hypervolume_gain(
    history: Sequence[Candidate],
    random_history: Sequence[Candidate],
    objective: Objective,
    seed: int,
) -> Correlation:
    """Hypervolume of the search minus that of random search.

    The interval is that of both searches' evaluations resampled (a percentile bootstrap).
    """
    ours, random, reference = _scaled(history, random_history, objective)
    gain = hypervolume(ours, reference) - hypervolume(random, reference)
    if min(len(ours), len(random)) < MIN_NETWORKS_FOR_INTERVALS:
        return Correlation(gain)
    rng, resampled = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        drawn = (values[rng.integers(len(values), size=len(values))] for values in (ours, random))
        one, other = (hypervolume(values, reference) for values in drawn)
        resampled.append(one - other)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Correlation(gain, float(low), float(high))


def _scaled(
    history: Sequence[Candidate], random_history: Sequence[Candidate], objective: Objective
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The points of both searches, scaled as `hypervolumes` says, and the reference."""
    parts = []
    for candidates in (history, random_history):
        values = objective.values([one for one in candidates if one.failure is None])
        values[:, 0] += 1  # minus the accuracy becomes the share of errors
        parts.append(values)
    reference = np.vstack(parts).max(axis=0)
    reference[0] = max(reference[0], 1e-9)
    for limit in objective.limits:
        if limit.metric in objective.costs:
            reference[1 + objective.costs.index(limit.metric)] = limit.bound
    ours, random = (values / reference for values in parts)
    return ours, random, [1.0] * len(reference)


def delivery_claims(
    agreement: Agreement, test: Accuracy, files: Sequence[DeliveredFile]
) -> Iterator[Claim]:
    """The delivered files compute what was searched.

    Args:
        agreement: of outputs.
        test: accuracy of the network in PyTorch.
        files: the exported ones, in fp32 and in int8.
    """
    fp32, int8 = files
    yield Claim(
        "Extracted network computes what the supernet computes",
        f"{agreement.supernet:.1e}",
        "largest difference of logits over the largest logit, 64 validation images, in double "
        "precision",
        bound=f"{SUPERNET_TOLERANCE:g}",
        holds=agreement.supernet <= SUPERNET_TOLERANCE,
    )
    yield Claim(
        "model.onnx computes what PyTorch computes",
        f"{agreement.onnx:.1e}",
        "the same in single precision, in ONNX Runtime",
        bound=f"{ONNX_TOLERANCE:g}",
        holds=agreement.onnx <= ONNX_TOLERANCE,
    )
    yield Claim(
        "Exported network is as accurate as its source",
        f"{fp32.test.top1:.2%} against {test.top1:.2%}",
        f"{test.images} test images",
        bound=f"{100 * accuracy_tolerance(test.images):.2g} points apart",
        holds=equally_accurate(fp32.test.top1, test.top1, test.images),
    )
    yield Claim(
        "int8 is as accurate as fp32",
        f"{int8.test.top1:.2%} against {fp32.test.top1:.2%}",
        f"{test.images} test images; {int8.how}",
        bound=f"{100 * MAX_INT8_LOSS:g} point less",
        holds=loses_little(fp32.test, int8.test),
    )


def baseline_claims(chosen: NetworkResult, known: Baselines) -> Iterator[Claim]:
    """The network is better than guessing, and than a linear classifier on the frozen start.

    Args:
        chosen: the network.
        known: what the images give with little work.
    """
    ours, images = chosen.validated.top1, chosen.validated.images
    guess = max(known.chance, known.majority.top1)
    yield Claim(
        "Network is more accurate than guessing",
        f"{ours:.2%} against {guess:.2%}",
        f"{images} validation images; chance {known.chance:.1%}, the most frequent class "
        f"{known.majority.top1:.1%}",
        bound=f"{guess:.2%}",
        holds=ours > guess,
    )
    if known.linear is not None:
        yield Claim(
            "Network is more accurate than a linear classifier on the frozen start",
            f"{ours:.2%} against {known.linear.top1:.2%}",
            f"{images} validation images; logistic regression on features of {known.features}",
            bound=f"{known.linear.top1:.2%}",
            holds=ours > known.linear.top1,
        )


def choice_claims(
    session: Session, chosen: ShortlistedNetwork, shortlist: Sequence[ShortlistedNetwork]
) -> Iterator[Claim]:
    """Why a network is delivered that is not the most accurate one on the validation images.

    Args:
        session: of the search.
        chosen: the network.
        shortlist: that it was chosen from.
    """
    within = [one for one in shortlist if session.objective.satisfied(one.outcome)]
    best = max(within, key=lambda one: one.validated.top1, default=chosen)
    ours, images = chosen.validated.top1, chosen.validated.images
    if session.objective.minimise is not None or ours >= best.validated.top1:
        return
    if indistinct(session.answers(chosen.architecture), session.answers(best.architecture)):
        yield Claim(
            "Delivered network cannot be told from the most accurate one of the front",
            f"{ours:.2%} against {best.validated.top1:.2%}",
            f"{images} validation images; the difference is below its standard error. Of such "
            "networks the one with most MACs is delivered, since larger networks of a supernet "
            "are the more accurate ones on average",
        )


def limit_claims(
    objective: Objective, chosen: NetworkResult, target: TargetFacts
) -> Iterator[Claim]:
    """Each limit, with the best known value of its metric.

    Args:
        objective: with the limits.
        chosen: the network that has to be within them.
        target: that predicted, and maybe measured.
    """
    for limit in objective.limits:
        if limit.metric == ACCURACY:
            value, how = chosen.validated.top1, f"{chosen.validated.images} validation images"
        else:
            value, how = _known_cost(chosen, limit.metric, target)
        yield Claim(
            f"Limit {limit}",
            f"{value:.4g}",
            how,
            bound=f"{limit.bound:g}",
            holds=limit.excess(value) == 0,
        )


def _known_cost(network: NetworkResult, metric: str, target: TargetFacts) -> tuple[float, str]:
    """The value of a cost metric that counts, and how it is known."""
    if metric in ARITHMETIC_METRICS:
        return network.predicted.metric(metric), "computed from the layers"
    for measured, how in (
        (network.measured_apart, "measured in a subprocess"),
        (network.measured, "measured together with the other networks of the front"),
    ):
        if measured is not None and metric in measured.cost.metrics:
            return measured.cost.metric(metric), how
    why = "" if target.measured else "; this target is not measured"
    return network.predicted.metric(metric), f"predicted by {target.name}{why}"


def confidence_claims(
    objective: Objective, target: Target, confidence: float | None, selected: LogErrors
) -> Iterator[Claim]:
    """How often the bounds of a search at a confidence held when its shortlist was measured.

    Args:
        objective: with the limits.
        target: that predicted.
        confidence: of the search; None where it compared predictions with limits as they are.
        selected: errors of the shortlist.
    """
    if confidence is None:
        return
    for limit in predicted_limits(objective):
        interval = known_interval(target, limit.metric)
        errors = selected.get(limit.metric, ())
        if interval is None or not len(errors):
            continue
        factor = interval.upper_factor(confidence)
        held = sum(math.exp(error) <= factor for error in errors)
        recalibrated = interval.recalibrated(errors).upper_factor(confidence)
        yield Claim(
            f"Measured {limit.metric} is within its bound at confidence {confidence:g}",
            f"{held} of {len(errors)} networks of the shortlist",
            f"bound: {factor:.3f} times the prediction, from errors on {interval.networks} "
            f"networks that the predictor was not fitted on; {recalibrated:.3f} times after "
            "recalibration on the shortlist",
        )


def search_claims(
    history: Sequence[Candidate],
    random_history: Sequence[Candidate],
    objective: Objective,
    seed: int,
) -> Iterator[Claim]:
    """The search found a better front than random search at equal cost.

    Args:
        history: what the search evaluated.
        random_history: what random search evaluated.
        objective: of both.
        seed: of the run.
    """
    ours, random = hypervolumes(history, random_history, objective)
    gain = _hypervolume_gain(history, random_history, objective, seed)
    holds, undecided = _verdict(gain)
    yield Claim(
        "Search beats random search at equal cost",
        f"{ours:.4f} against {random:.4f}",
        f"hypervolume of accuracy and {', '.join(objective.costs)} after {len(history)} and "
        f"{len(random_history)} evaluations, seed {seed}, one run; difference {_interval(gain)}, "
        "by resampling the evaluations of both",
        bound=f"{random:.4f}",
        holds=holds,
        undecided=undecided,
        advice=""
        if holds
        else "Compare over several seeds, or raise the number of evaluations; until then random "
        "search is as good a choice.",
    )


def _verdict(difference: Correlation | None) -> tuple[bool | None, bool]:
    """Whether a difference is above 0 (None where that is open), and whether it is undecided."""
    if difference is None or difference.low is None or difference.high is None:
        return None, True
    if difference.low > 0:
        return True, False
    return (False, False) if difference.high < 0 else (None, True)


def _interval(difference: Correlation) -> str:
    if difference.low is None:
        return f"{difference.value:+.4f}, too few networks for an interval"
    return f"{difference.value:+.4f} [{difference.low:.4f}, {difference.high:.4f}]"


def share_claim(share_within: float) -> Claim:
    """How hard the limits are: the share of random networks that are within them."""
    return Claim(
        "Random networks within the limits", f"{share_within:.0%}", "256 draws, predicted cost"
    )


def ranking_claims(ranking: Sequence[RankCorrelations]) -> Iterator[Claim]:
    """The predictor ranks networks better than their size does, be larger or smaller better."""
    taus = {one.name: one.kendall for one in ranking}
    predictor = next((one for one in ranking if one.name == "predictor"), None)
    if predictor is None or predictor.kendall is None:
        return
    over, strongest = predictor.over_strongest, predictor.strongest_baseline
    holds, undecided = _verdict(over)
    yield Claim(
        "Accuracy predictor ranks networks better than their size does",
        f"Kendall tau {predictor.kendall}; "
        + ", ".join(f"{name} {taus[name]}" for name in BASELINES),
        f"{predictor.networks} random networks that the search did not evaluate, estimated with "
        f"supernet weights; over {strongest or 'size'}, in its better direction: "
        f"{over or 'undefined'}",
        bound="-" if over is None else f"{predictor.kendall.value - over.value:.3f}",
        holds=holds,
        undecided=undecided,
        advice=""
        if holds
        else "Raise the number of evaluations: the predictor learns from them, and the interval "
        f"narrows. Until then choose by estimated accuracy, or by {strongest or 'size'}.",
    )
