"""Why can a result be believed? Claims with their value, their bound, whether it holds, and how it was found out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.accuracy.ranking import BASELINES, MIN_NETWORKS, RankCorrelations, rank_correlations
from pliant.deploy.verify import ONNX_TOLERANCE, SUPERNET_TOLERANCE
from pliant.metrics import ARITHMETIC_METRICS, Accuracy
from pliant.objective import ACCURACY, Candidate, Objective
from pliant.pareto import hypervolume
from pliant.runs.deliver import Delivered
from pliant.runs.run import Run
from pliant.runs.search import SearchResult
from pliant.runs.session import Session

Claim = dict[str, Any]
"""claim, value, bound, holds, how; as JSON values. `holds` is None where there is nothing to hold."""


def evidence(
    session: Session,
    found: SearchResult,
    delivered: Delivered | None,
    ranking: Sequence[RankCorrelations],
) -> list[Claim]:
    """All claims of a run, those about the delivered network first.

    Args:
        session: of the run.
        found: by the search.
        delivered: None where nothing was delivered yet.
        ranking: as `predictor_fidelity`.
    """
    claims: list[Claim] = []
    if delivered is not None:
        claims += [*_delivery(delivered), *_limits(session, found, delivered)]
    claims += [asdict(claim) for claim in session.target.evidence()]
    claims.append(_search(session, found))
    claims.append(
        _claim(
            "Random networks within the limits",
            f"{found.share_within:.0%}",
            "256 draws, predicted cost",
        )
    )
    return [*claims, *_ranking(ranking)]


def fitted_predictor(run: Run, found: SearchResult) -> AccuracyPredictor:
    """As the search had it at its end."""
    sound = [one for one in found.history if isinstance(one.quality, Accuracy)]
    return AccuracyPredictor(
        run.space,
        [one.architecture for one in sound],
        np.array([one.value for one in sound]),
        seed=run.recipe.seed,
    )


def predictor_fidelity(
    run: Run, found: SearchResult, predictor: AccuracyPredictor
) -> list[RankCorrelations]:
    """How the predictor ranks the random networks that the search did not evaluate, beside the bars; empty where they are too few."""
    seen = {one.architecture for one in found.history}
    fresh = {
        one.architecture: one.value
        for one in found.random_history
        if isinstance(one.quality, Accuracy)
    }
    architectures = [one for one in fresh if one not in seen]
    if len(architectures) < MIN_NETWORKS:
        return []
    costs = [run.space.cost(one) for one in architectures]
    scores = {
        "predictor": [float(value) for value in predictor.predict(architectures)],
        **{name: [float(getattr(cost, name)) for cost in costs] for name in BASELINES},
    }
    return rank_correlations([fresh[one] for one in architectures], scores, seed=run.recipe.seed)


def points(
    history: Sequence[Candidate], by: str, metric: str = "latency_ms"
) -> list[dict[str, Any]]:
    """The candidates that did not fail, as a report draws them."""
    return [
        {
            "architecture": str(one.architecture),
            "top1": one.value,
            f"predicted_{metric}": one.known_cost.metric(metric),
            "by": by,
        }
        for one in history
        if one.failure is None
    ]


def hypervolumes(found: SearchResult, objective: Objective) -> tuple[float, float]:
    """Of the search and of random search, on estimated accuracy and the front's predicted cost.

    Each axis is 0 to 1 at the worst seen. The reference is the lowest accuracy of both searches
    and the limit on the cost, or the highest cost where there is none.
    """
    metric = objective.costs[0]
    parts = [
        np.array([(one.value, one.known_cost.metric(metric)) for one in history if not one.failure])
        for history in (found.history, found.random_history)
    ]
    everything = np.vstack([part.reshape(-1, 2) for part in parts])
    lowest, highest = everything[:, 0].min(), everything[:, 1].max()
    bounds = [limit.bound for limit in objective.limits if limit.metric == metric]
    scale = np.array([max(1.0 - lowest, 1e-9), bounds[0] if bounds else highest])

    def volume(part: np.ndarray) -> float:
        values = np.column_stack([1.0 - part[:, 0], part[:, 1]]) / scale
        return hypervolume(values, (1.0, 1.0))

    return volume(parts[0]), volume(parts[1])


def _claim(
    text: str, value: str, how: str, *, bound: str | None = None, holds: bool | None = None
) -> Claim:
    return {"claim": text, "value": value, "bound": bound, "holds": holds, "how": how}


def _delivery(delivered: Delivered) -> Iterator[Claim]:
    agreement = delivered.agreement
    yield _claim(
        "Extracted network computes what the supernet computes",
        f"{agreement.supernet:.1e}",
        "largest difference of logits over the largest logit, 64 validation images, in double precision",
        bound=f"{SUPERNET_TOLERANCE:g}",
        holds=agreement.supernet <= SUPERNET_TOLERANCE,
    )
    yield _claim(
        "model.onnx computes what PyTorch computes",
        f"{agreement.onnx:.1e}",
        "the same in single precision, in ONNX Runtime",
        bound=f"{ONNX_TOLERANCE:g}",
        holds=agreement.onnx <= ONNX_TOLERANCE,
    )
    yield _claim(
        "Exported network is as accurate as its source",
        f"{delivered.onnx_test.top1:.2%} against {delivered.test.top1:.2%}",
        f"{delivered.test.images} test images",
        bound="0.2 points apart",
        holds=abs(delivered.onnx_test.top1 - delivered.test.top1) <= 2e-3,
    )


def _limits(session: Session, found: SearchResult, delivered: Delivered) -> Iterator[Claim]:
    """Each limit, with the best known value of its metric and how that is known."""
    chosen, apart = found.chosen, delivered.measured_apart
    for limit in session.limits:
        if limit.metric == ACCURACY:
            value, how = chosen.validated.top1, f"{chosen.validated.images} validation images"
        elif apart is not None and limit.metric in apart.cost.metrics:
            value, how = apart.cost.metric(limit.metric), "measured in a process of its own"
        else:
            value = chosen.cost.metric(limit.metric)
            how = "by arithmetic"
            if limit.metric not in ARITHMETIC_METRICS:
                how = f"predicted only: {session.target.name} is not measured"
        yield _claim(
            f"Limit {limit}",
            f"{value:.4g}",
            how,
            bound=f"{limit.bound:g}",
            holds=limit.excess(value) == 0,
        )


def _search(session: Session, found: SearchResult) -> Claim:
    ours, random = hypervolumes(found, session.objective)
    return _claim(
        "Search beats random search at equal cost",
        f"{ours:.4f} against {random:.4f}",
        f"hypervolume after {len(found.history)} and {len(found.random_history)} estimates, "
        f"seed {session.run.recipe.seed}, one run",
        bound=f"{random:.4f}",
        holds=ours >= random,
    )


def _ranking(ranking: Sequence[RankCorrelations]) -> Iterator[Claim]:
    taus = {one.name: one.kendall for one in ranking}
    highest = max((taus[name].value for name in BASELINES if taus.get(name)), default=0.0)  # type: ignore[union-attr]
    if predictor := taus.get("predictor"):
        yield _claim(
            "Accuracy predictor ranks networks better than their size does",
            f"Kendall tau {predictor}; " + ", ".join(f"{name} {taus[name]}" for name in BASELINES),
            f"{ranking[0].networks} random networks that the search did not evaluate, estimated with supernet weights",
            bound=f"{highest:.3f}",
            holds=predictor.value >= highest,
        )
