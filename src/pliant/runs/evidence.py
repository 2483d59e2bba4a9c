"""Why can a result be believed? Claims with their value, their bound, whether it holds, and how it was found out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.accuracy.ranking import BASELINES, MIN_NETWORKS, RankCorrelations, rank_correlations
from pliant.deploy.verify import ONNX_TOLERANCE, SUPERNET_TOLERANCE
from pliant.devices.profile import DeviceProfile
from pliant.metrics import Accuracy, Cost
from pliant.objective import Candidate, Limit
from pliant.pareto import hypervolume
from pliant.runs.deliver import Delivered
from pliant.runs.run import Run
from pliant.runs.search import Found

Claim = dict[str, Any]
"""claim, value, bound, holds, how; as JSON values. `holds` is None where there is nothing to hold."""


def evidence(
    run: Run,
    profile: DeviceProfile,
    found: Found,
    delivered: Delivered | None,
    limits: Sequence[Limit],
    ranking: Sequence[RankCorrelations],
) -> list[Claim]:
    """All claims of a run, those about the delivered network first.

    Args:
        ranking: as `predictor_fidelity`.
    """
    claims = [*_delivery(delivered), *_limits(found, delivered, limits)] if delivered else []
    claims += [_latency(profile), _search(run, found, limits)]
    claims.append(
        _claim(
            "Random networks within the limits",
            f"{found.share_within:.0%}",
            "256 draws, predicted cost",
        )
    )
    return [*claims, *_ranking(ranking)]


def fitted_predictor(run: Run, found: Found) -> AccuracyPredictor:
    """As the search had it at its end."""
    sound = [one for one in found.history if isinstance(one.quality, Accuracy)]
    return AccuracyPredictor(
        run.space,
        [one.architecture for one in sound],
        np.array([one.value for one in sound]),
        seed=run.recipe.seed,
    )


def predictor_fidelity(
    run: Run, found: Found, predictor: AccuracyPredictor
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


def points(history: Sequence[Candidate], by: str) -> list[dict[str, Any]]:
    """The candidates that did not fail, as a report draws them."""
    return [
        {
            "architecture": str(one.architecture),
            "top1": one.value,
            "predicted_latency_ms": one.cost.latency_ms,
            "by": by,
        }
        for one in history
        if isinstance(one.quality, Accuracy) and isinstance(one.cost, Cost)
    ]


def hypervolumes(found: Found, limits: Sequence[Limit]) -> tuple[float, float]:
    """Of the search and of random search, on estimated accuracy and predicted latency: each axis from 0, at the worst seen, to 1.

    The reference is the lowest accuracy of both and the latency limit, or the slowest where there is none.
    """
    parts = [points(history, "") for history in (found.history, found.random_history)]
    everything = [point for part in parts for point in part]
    lowest = min(point["top1"] for point in everything)
    slowest = next(
        (limit.bound for limit in limits if limit.metric == "latency_ms"),
        max(p["predicted_latency_ms"] for p in everything),
    )
    span = max(1.0 - lowest, 1e-9)

    def volume(part: list[dict[str, Any]]) -> float:
        values = np.array(
            [[(1.0 - p["top1"]) / span, p["predicted_latency_ms"] / slowest] for p in part]
        )
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
        f"{delivered.onnx_test_top1:.2%} against {delivered.test_top1:.2%}",
        f"{delivered.test_images} test images",
        bound="0.2 points apart",
        holds=abs(delivered.onnx_test_top1 - delivered.test_top1) <= 2e-3,
    )


def _limits(found: Found, delivered: Delivered, limits: Sequence[Limit]) -> Iterator[Claim]:
    for limit in limits:
        value, how = getattr(found.chosen.cost, limit.metric), "by arithmetic"
        if limit.metric == "latency_ms" and delivered.fresh_latency_ms is not None:
            value, how = delivered.fresh_latency_ms, "measured in a fresh process"
        elif limit.metric == "latency_ms":
            how = "predicted only: the device is elsewhere"
        yield _claim(
            f"Limit {limit}",
            f"{value:.4g}",
            how,
            bound=f"{limit.bound:g}",
            holds=value <= limit.bound,
        )


def _latency(profile: DeviceProfile) -> Claim:
    return _claim(
        "Latency table foresees networks that it has not seen",
        f"{profile.fit_mape_percent:.1f} % mean error, rank correlation {profile.fit_spearman:.3f}",
        f"{profile.fit_networks} random networks; a straight line over MACs: {profile.fit_macs_mape_percent:.1f} %",
        bound="5 %",
        holds=profile.fit_mape_percent <= 5,
    )


def _search(run: Run, found: Found, limits: Sequence[Limit]) -> Claim:
    ours, random = hypervolumes(found, limits)
    return _claim(
        "Search beats random search at equal cost",
        f"{ours:.4f} against {random:.4f}",
        f"hypervolume after {len(found.history)} and {len(found.random_history)} estimates, seed {run.recipe.seed}, one run",
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
