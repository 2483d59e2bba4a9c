"""The result of a run for programs (summary.json) and for people (report.html), written from the record and what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import pliant
from pliant.devices.profile import DeviceProfile
from pliant.errors import DamagedFileError
from pliant.files import write_atomically
from pliant.objective import Limit
from pliant.report.page import write_report
from pliant.runs.deliver import Delivered
from pliant.runs.evidence import (
    evidence,
    fitted_predictor,
    hypervolumes,
    points,
    predictor_fidelity,
)
from pliant.runs.run import Run, machine
from pliant.runs.search import Finalist, Found


def write_summary(
    run: Run,
    profile: DeviceProfile,
    found: Found,
    delivered: Delivered | None,
    limits: Sequence[Limit],
) -> dict[str, Any]:
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


def summarise(
    run: Run,
    profile: DeviceProfile,
    found: Found,
    delivered: Delivered | None,
    limits: Sequence[Limit],
) -> dict[str, Any]:
    """All that a report says, as JSON values."""
    tested = delivered.front_test_top1 if delivered else {}
    table = profile.table(run.space)
    blocks = run.space.blocks(found.chosen.architecture)
    predictor = fitted_predictor(run, found)
    ranking = predictor_fidelity(run, found, predictor)
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
        "data": {
            "name": run.data.name,
            "train": len(run.data.train),
            "validation": len(run.data.validation),
            "test": len(run.data.test),
        },
        "limits": [asdict(limit) for limit in limits],
        "minimise": "latency_ms",
        "chosen": _network(run, found.chosen, tested),
        "front": [_network(run, one, tested) for one in found.finalists],
        "random_front": [_network(run, one, tested) for one in found.random_finalists],
        "blocks": [
            {
                "slot": block.slot,
                "type": type(block).__name__,
                "sizes": block.sizes,
                "latency_ms": milliseconds,
            }
            | {"macs": block.cost.macs, "parameters": block.cost.parameters}
            for block, milliseconds in zip(blocks, table.block_ms(blocks), strict=True)
        ],
        "evidence": evidence(run, profile, found, delivered, limits, ranking),
        "predictor": asdict(predictor.quality),
        "fidelity": [asdict(one) for one in ranking],
        "latency_model": {
            "kind": profile.correction,
            "mape_percent": profile.fit_mape_percent,
            "spearman": profile.fit_spearman,
            "networks": profile.fit_networks,
        },
        "search": _search(run, found, limits),
        "training": _training(run),
        "test_openings": [
            {"purpose": event.details["purpose"], "created": event.created}
            for event in run.record.events("test split opened")
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
        "measured": None
        if measured is None
        else {"latency_ms": measured.latency_ms, "spread_ms": finalist.spread_ms},
        "parameters": cost.parameters,
        "macs": cost.macs,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "command": f"pliant deploy {run.folder} --architecture {name}",
    }


def _search(run: Run, found: Found, limits: Sequence[Limit]) -> dict[str, Any]:
    ours, random = hypervolumes(found, limits)
    return {
        "estimates": len(found.history),
        "random_estimates": len(found.random_history),
        "seconds": run.record.metadata("search_seconds"),
        "hypervolume": ours,
        "random_hypervolume": random,
        "points": points(found.history, "search") + points(found.random_history, "random"),
    }


def _training(run: Run) -> dict[str, Any]:
    names = ("largest", "random", "smallest") if run.recipe.train.schedule == "sandwich" else ()
    curve = []
    for step in run.record.steps():
        losses = step.values["losses"]
        labels = (
            names
            if len(names) == len(losses)
            else tuple(f"sub-network {index + 1}" for index in range(len(losses)))
        )
        curve.append(
            {
                "step": step.step,
                "epoch": step.epoch,
                "phase": step.values["phase"],
                "learning_rate": step.values["learning_rate"],
            }
            | {"losses": dict(zip(labels, losses, strict=True))}
        )
    table = run.recipe.train
    return {
        "schedule": table.schedule,
        "epochs": table.epochs,
        "seconds": run.record.metadata("training_seconds"),
        "precision": run.record.metadata("precision"),
        "curve": curve,
    }
