"""The result of a run for programs (summary.json) and for people (report.html), written from the record and what was found."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pliant
from pliant.errors import DamagedFileError
from pliant.files import write_atomically
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
from pliant.runs.search import SearchResult
from pliant.runs.session import Session
from pliant.runs.shortlist import ShortlistedNetwork


def write_summary(
    session: Session, found: SearchResult, delivered: Delivered | None
) -> dict[str, Any]:
    """Write summary.json and return it."""
    run = session.run
    summary = summarise(session, found, delivered)
    write_atomically(run.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def write_page(folder: Path) -> None:
    """Write report.html from summary.json.

    Raises:
        DamagedFileError: there is no summary yet, or it cannot be read.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"a report is written from {path}, which cannot be read: {error}. Run pliant search and pliant deploy first."
        ) from error
    write_report(summary, folder / "report.html")


def summarise(session: Session, found: SearchResult, delivered: Delivered | None) -> dict[str, Any]:
    """All that a report says, as JSON values."""
    run = session.run
    front_test = delivered.front_test if delivered else {}
    tested = {name: accuracy.top1 for name, accuracy in front_test.items()}
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
        "target": {"name": session.target.name, "identity": session.target.identity},
        "limits": [asdict(limit) for limit in session.limits],
        "minimise": session.objective.costs[0],
        "chosen": _network(run, found.chosen, tested),
        "front": [_network(run, one, tested) for one in found.shortlist],
        "random_front": [_network(run, one, tested) for one in found.random_shortlist],
        "blocks": [
            {"slot": block.slot, "type": type(block).__name__, "sizes": block.sizes}
            | {name: value for name, value in asdict(cost).items() if value is not None}
            for block, cost in zip(
                blocks, session.target.block_costs(found.chosen.architecture), strict=True
            )
        ],
        "evidence": evidence(session, found, delivered, ranking),
        "predictor": asdict(predictor.quality),
        "fidelity": [asdict(one) for one in ranking],
        "search": _search(session, found),
        "training": _training(run),
        "test_openings": [
            {"purpose": event.details["purpose"], "created": event.created}
            for event in run.record.events("test split opened")
        ],
    }


def _network(run: Run, one: ShortlistedNetwork, tested: dict[str, float]) -> dict[str, Any]:
    cost = run.space.cost(one.architecture)
    name = str(one.architecture)
    predicted = {metric: one.predicted.metric(metric) for metric in one.predicted.metrics}
    measured: dict[str, float | None] | None = None
    if one.measured is not None:
        measured = {
            metric: one.measured.cost.metric(metric) for metric in one.measured.cost.metrics
        }
        measured |= {"spread_ms": one.measured.spread.latency_ms}
    return {
        "architecture": name,
        "top1_estimate": one.estimate.top1,
        "top1_validation": one.validated.top1,
        "top1_test": tested.get(name),
        "predicted": predicted,
        "measured": measured,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "command": f"pliant deploy {run.folder} --architecture {name}",
    }


def _search(session: Session, found: SearchResult) -> dict[str, Any]:
    ours, random = hypervolumes(found, session.objective)
    metric = session.objective.costs[0]
    return {
        "estimates": len(found.history),
        "random_estimates": len(found.random_history),
        "seconds": session.run.record.metadata("search_seconds"),
        "hypervolume": ours,
        "random_hypervolume": random,
        "points": points(found.history, "search", metric)
        + points(found.random_history, "random", metric),
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
