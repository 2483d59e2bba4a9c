"""The result of a run for programs (summary.json) and for people (report.html), written from the record and what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np

import pliant
from pliant.accuracy.fidelity import BARS, FEWEST, Fidelity, judge
from pliant.accuracy.predictor import AccuracyPredictor
from pliant.deploy.verify import ONNX_TOLERANCE, SUPERNET_TOLERANCE
from pliant.devices.profile import DeviceProfile
from pliant.errors import DamagedFileError
from pliant.files import write_atomically
from pliant.metrics import Accuracy, Cost
from pliant.objective import Candidate, Limit, hypervolume_2d
from pliant.pipeline.deliver import Delivered
from pliant.pipeline.run import Run, machine
from pliant.pipeline.search import Finalist, Found
from pliant.report.page import write_report


def write_summary(run: Run, profile: DeviceProfile, found: Found, delivered: Delivered | None, limits: Sequence[Limit]) -> dict[str, Any]:
    """Write summary.json and return it."""
    summary = summarise(run, profile, found, delivered, limits)
    write_atomically(run.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def write_page(run: Run) -> None:
    """Write report.html from summary.json.

    Raises:
        DamagedFileError: there is no summary yet, or it cannot be read.
    """
    path = run.folder / "summary.json"
    try:
        summary = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"a report is written from {path}, which cannot be read: {error}. Run pliant search and pliant deploy first."
        ) from error
    write_report(summary, run.folder / "report.html")


def summarise(run: Run, profile: DeviceProfile, found: Found, delivered: Delivered | None, limits: Sequence[Limit]) -> dict[str, Any]:
    """All that a report says, as JSON values."""
    tested = delivered.front_test_top1 if delivered else {}
    table = profile.table(run.space)
    blocks = run.space.blocks(found.chosen.architecture)
    predictor = _predictor(run, found)
    return {
        "pliant": pliant.__version__,
        "name": run.recipe.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"pliant run {run.folder / 'recipe.toml'} --into NEW_DIRECTORY",
        "recipe_toml": run.recipe.to_toml(),
        "seed": run.recipe.seed,
        "machine": machine(),
        "space": {
            "name": run.space.name,
            "size": str(run.space.size),
            "channels": run.space.channels,
            "image_size": run.space.image_size,
            "classes": list(run.data.classes),
        },
        "data": {"name": run.data.name, "train": len(run.data.train), "validation": len(run.data.validation), "test": len(run.data.test)},
        "limits": [asdict(limit) for limit in limits],
        "minimise": "latency_ms",
        "chosen": _network(run, found.chosen, tested),
        "front": [_network(run, one, tested) for one in found.finalists],
        "random_front": [_network(run, one, tested) for one in found.random_finalists],
        "blocks": [
            {"slot": block.slot, "type": type(block).__name__, "sizes": block.sizes, "latency_ms": milliseconds}
            | {"macs": block.cost.macs, "parameters": block.cost.parameters}
            for block, milliseconds in zip(blocks, table.block_ms(blocks), strict=True)
        ],
        "evidence": evidence(run, profile, found, delivered, limits),
        "predictor": asdict(predictor.quality),
        "fidelity": [asdict(one) for one in _fidelity(run, found, predictor)],
        "latency_model": {
            "kind": profile.correction,
            "mape_percent": profile.fit_mape_percent,
            "spearman": profile.fit_spearman,
            "networks": profile.fit_networks,
        },
        "search": _search(run, found, limits),
        "training": _training(run),
        "test_openings": [
            {"purpose": event.details["purpose"], "created": event.created} for event in run.record.events("test split opened")
        ],
    }


def _network(run: Run, finalist: Finalist, tested: dict[str, float]) -> dict[str, Any]:
    cost = run.space.cost(finalist.architecture)
    name = str(finalist.architecture)
    measured = finalist.measured
    return {
        "architecture": name,
        "top1_estimate": finalist.estimate.top1,
        "top1_validation": finalist.validated.top1,
        "top1_test": tested.get(name),
        "predicted": {"latency_ms": finalist.predicted.latency_ms},
        "measured": None if measured is None else {"latency_ms": measured.latency_ms, "spread_ms": finalist.spread_ms},
        "parameters": cost.parameters,
        "macs": cost.macs,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "command": f"pliant deploy {run.folder} --architecture {name}",
    }


def _points(history: Sequence[Candidate], by: str) -> list[dict[str, Any]]:
    return [
        {"architecture": str(one.architecture), "top1": one.top1, "predicted_latency_ms": one.cost.latency_ms, "by": by}
        for one in history
        if isinstance(one.accuracy, Accuracy) and isinstance(one.cost, Cost)
    ]


def hypervolumes(found: Found, limits: Sequence[Limit]) -> tuple[float, float]:
    """Of the search and of random search, on estimated accuracy and predicted latency: each axis from 0, at the worst seen, to 1.

    The reference is the lowest accuracy of both and the latency limit, or the slowest where there is none.
    """
    points = [_points(history, "") for history in (found.history, found.random_history)]
    everything = [point for part in points for point in part]
    lowest = min(point["top1"] for point in everything)
    slowest = next((limit.at_most for limit in limits if limit.metric == "latency_ms"), max(p["predicted_latency_ms"] for p in everything))
    span = max(1.0 - lowest, 1e-9)

    def volume(part: list[dict[str, Any]]) -> float:
        values = np.array([[(1.0 - p["top1"]) / span, p["predicted_latency_ms"] / slowest] for p in part])
        return hypervolume_2d(values, (1.0, 1.0))

    return volume(points[0]), volume(points[1])


def _search(run: Run, found: Found, limits: Sequence[Limit]) -> dict[str, Any]:
    ours, random = hypervolumes(found, limits)
    return {
        "estimates": len(found.history),
        "random_estimates": len(found.random_history),
        "seconds": run.record.fact("search_seconds"),
        "hypervolume": ours,
        "random_hypervolume": random,
        "points": _points(found.history, "search") + _points(found.random_history, "random"),
    }


def _training(run: Run) -> dict[str, Any]:
    names = ("largest", "random", "smallest") if run.recipe.train.schedule == "sandwich" else ()
    curve = []
    for step in run.record.steps():
        losses = step.values["losses"]
        labels = names if len(names) == len(losses) else tuple(f"sub-network {index + 1}" for index in range(len(losses)))
        curve.append(
            {"step": step.step, "epoch": step.epoch, "phase": step.values["phase"], "learning_rate": step.values["learning_rate"]}
            | {"losses": dict(zip(labels, losses, strict=True))}
        )
    table = run.recipe.train
    return {
        "schedule": table.schedule,
        "epochs": table.epochs,
        "seconds": run.record.fact("training_seconds"),
        "precision": run.record.fact("precision"),
        "curve": curve,
    }


def evidence(run: Run, profile: DeviceProfile, found: Found, delivered: Delivered | None, limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """Claims with their value, their bound, whether it holds, and how it was found out."""
    rows: list[dict[str, Any]] = []

    def claim(text: str, value: str, how: str, *, bound: str | None = None, holds: bool | None = None) -> None:
        rows.append({"claim": text, "value": value, "bound": bound, "holds": holds, "how": how})

    if delivered:
        agreement = delivered.agreement
        claim(
            "Extracted network computes what the supernet computes",
            f"{agreement.supernet:.1e}",
            "largest difference of logits over the largest logit, 64 validation images",
            bound=f"{SUPERNET_TOLERANCE:g}",
            holds=agreement.supernet <= SUPERNET_TOLERANCE,
        )
        claim(
            "model.onnx computes what PyTorch computes",
            f"{agreement.onnx:.1e}",
            "the same, in ONNX Runtime",
            bound=f"{ONNX_TOLERANCE:g}",
            holds=agreement.onnx <= ONNX_TOLERANCE,
        )
        claim(
            "Exported network is as accurate as its source",
            f"{delivered.onnx_test_top1:.2%} against {delivered.test_top1:.2%}",
            f"{delivered.test_images} test images",
            bound="0.2 points apart",
            holds=abs(delivered.onnx_test_top1 - delivered.test_top1) <= 2e-3,
        )
        for limit in limits:
            value, how = getattr(found.chosen.cost, limit.metric), "by arithmetic"
            if limit.metric == "latency_ms" and delivered.fresh_latency_ms is not None:
                value, how = delivered.fresh_latency_ms, "measured in a fresh process"
            elif limit.metric == "latency_ms":
                how = "predicted only: the device is elsewhere"
            claim(f"Limit {limit}", f"{value:.4g}", how, bound=f"{limit.at_most:g}", holds=value <= limit.at_most)
    claim(
        "Latency table foresees networks that it has not seen",
        f"{profile.fit_mape_percent:.1f} % mean error, rank correlation {profile.fit_spearman:.3f}",
        f"{profile.fit_networks} random networks; a straight line over MACs: {profile.fit_macs_mape_percent:.1f} %",
        bound="5 %",
        holds=profile.fit_mape_percent <= 5,
    )
    ours, random = hypervolumes(found, limits)
    claim(
        "Search beats random search at equal cost",
        f"{ours:.4f} against {random:.4f}",
        f"hypervolume after {len(found.history)} and {len(found.random_history)} estimates, seed {run.recipe.seed}, one run",
        bound=f"{random:.4f}",
        holds=ours >= random,
    )
    claim("Random networks within the limits", f"{found.share_within:.0%}", "256 draws, predicted cost")
    ranked = {one.name: one for one in _fidelity(run, found, _predictor(run, found))}
    if ranked and ranked["predictor"].kendall:
        bars = {name: ranked[name].kendall for name in BARS}
        highest = max(bar.value for bar in bars.values() if bar)
        claim(
            "Accuracy predictor ranks networks better than their size does",
            f"Kendall tau {ranked['predictor'].kendall}; " + ", ".join(f"{name} {bar}" for name, bar in bars.items()),
            f"{ranked['predictor'].networks} random networks that the search did not evaluate, estimated with supernet weights",
            bound=f"{highest:.3f}",
            holds=ranked["predictor"].kendall.value >= highest,
        )
    return rows


def _predictor(run: Run, found: Found) -> AccuracyPredictor:
    """As the search had it at its end."""
    sound = [one for one in found.history if isinstance(one.accuracy, Accuracy)]
    return AccuracyPredictor(run.space, [one.architecture for one in sound], np.array([one.top1 for one in sound]), seed=run.recipe.seed)


def _fidelity(run: Run, found: Found, predictor: AccuracyPredictor) -> list[Fidelity]:
    """How the predictor ranks the random networks that the search did not evaluate, beside the bars to beat."""
    seen = {one.architecture for one in found.history}
    fresh = {one.architecture: one.top1 for one in found.random_history if isinstance(one.accuracy, Accuracy)}
    architectures = [one for one in fresh if one not in seen]
    if len(architectures) < FEWEST:
        return []
    costs = [run.space.cost(one) for one in architectures]
    scores = {
        "predictor": [float(value) for value in predictor.predict(architectures)],
        **{bar: [float(getattr(cost, bar)) for cost in costs] for bar in BARS},
    }
    return judge([fresh[one] for one in architectures], scores, seed=run.recipe.seed)
