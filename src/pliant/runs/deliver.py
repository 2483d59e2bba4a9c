"""Deliver a network of a run: write it, prove that it is what was searched, and say so on its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pliant.accuracy.evaluation import pixels, top1
from pliant.accuracy.supernet import SupernetEstimator
from pliant.deploy.card import Card, write_card
from pliant.deploy.package import write_model
from pliant.deploy.verify import (
    Agreement,
    measure_in_fresh_process,
    verify_accuracy,
    verify_outputs,
)
from pliant.devices.profile import DeviceProfile
from pliant.metrics import Accuracy, Cost
from pliant.networks.plain import Network
from pliant.networks.supernet import Supernet
from pliant.objective import Limit
from pliant.progress import Progress, silent
from pliant.runs.profile import settings
from pliant.runs.run import Run
from pliant.runs.search import Finalist, Found, is_here, make_estimator, weights_digest
from pliant.spaces.architecture import Architecture

ONNX = "model.onnx"
"""The name under which the record keeps the test accuracy of the exported file."""


@dataclass(frozen=True)
class Delivered:
    """A folder with a network, and what was proven about it."""

    folder: Path
    architecture: Architecture
    agreement: Agreement
    test_top1: float
    onnx_test_top1: float
    test_images: int
    fresh_latency_ms: float | None
    """Measured in a process of its own; None where the device is elsewhere."""
    predicted_ms: float | None
    """From the device's table."""
    front_test_top1: dict[str, float]
    """Test accuracy of this network and of the others of the front, taken in the same opening of the test split."""


def deliver(
    run: Run,
    supernet: Supernet,
    profile: DeviceProfile,
    finalist: Finalist,
    *,
    folder: Path,
    others: Sequence[Finalist] = (),
    limits: Sequence[Limit] = (),
    progress: Progress = silent,
) -> Delivered:
    """Write model.onnx, model.safetensors, model.py and card.md of one network, verified.

    Args:
        others: networks whose test accuracy is taken in the same opening of the test split, for the report.
        limits: for the card.

    Raises:
        VerificationError: the delivered files do not do what the supernet does; the folder keeps them for inspection.
    """
    estimator = make_estimator(run, supernet)
    architecture = finalist.architecture
    network = estimator.network(architecture)
    blocks = run.space.blocks(architecture)
    write_model(
        folder,
        network,
        blocks,
        classes=run.data.classes,
        metadata={"architecture": str(architecture), "run": run.recipe.name},
    )
    progress("deliver", 1, 4, "written")
    images = pixels(
        run.data.validation.batch(np.arange(min(64, len(run.data.validation))))[0]
    ).contiguous()
    agreement = verify_outputs(folder, supernet, network, architecture, images)
    progress("deliver", 2, 4, "outputs agree")
    tested = _tested(run, estimator, folder, network, architecture, others)
    progress("deliver", 3, 4, "tested")
    fresh_ms = finalist.fresh_ms
    if fresh_ms is None and is_here(profile):
        fresh_ms = measure_in_fresh_process(folder / "model.onnx", settings(run))
    ours = tested[str(architecture)]
    delivered = Delivered(
        folder=folder,
        architecture=architecture,
        agreement=agreement,
        test_top1=ours.top1,
        onnx_test_top1=tested[ONNX].top1,
        test_images=ours.images,
        fresh_latency_ms=fresh_ms,
        predicted_ms=finalist.predicted.latency_ms,
        front_test_top1={name: accuracy.top1 for name, accuracy in tested.items() if name != ONNX},
    )
    write_card(folder / "card.md", _card(run, profile, finalist, delivered, limits))
    progress("deliver", 4, 4, "measured in a fresh process")
    return delivered


def _tested(
    run: Run,
    estimator: SupernetEstimator,
    folder: Path,
    network: Network,
    architecture: Architecture,
    others: Sequence[Finalist],
) -> dict[str, Accuracy]:
    """Test accuracy by architecture, and of the ONNX file: from the record where it stands, else in one opening of the test split."""
    weights = weights_digest(run)
    names = [ONNX, str(architecture), *(str(one.architecture) for one in others)]
    contexts = {name: f"{weights} {architecture}" if name == ONNX else weights for name in names}
    rows = {name: run.record.evaluation("test", name, contexts[name]) for name in names}
    known = {
        name: row.quality
        for name, row in rows.items()
        if row is not None and isinstance(row.quality, Accuracy)
    }
    if len(known) == len(rows):
        return known
    test = run.data.test.open(f"accuracy of {architecture} and of the front, in {folder.name}")
    ours, theirs = verify_accuracy(folder, network, test)
    found = {ONNX: Accuracy(theirs, len(test)), str(architecture): Accuracy(ours, len(test))}
    for one in others:
        name = str(one.architecture)
        if name not in found:
            found[name] = known.get(name) or top1(estimator.network(one.architecture), test)
    for name, accuracy in found.items():
        run.record.add_evaluation(
            "test", name, context=contexts[name], split="test", quality=accuracy
        )
    return found


def deliver_found(
    run: Run,
    supernet: Supernet,
    profile: DeviceProfile,
    found: Found,
    *,
    limits: Sequence[Limit],
    progress: Progress = silent,
) -> Delivered:
    """Deliver the chosen network into `best/` and test the front beside it."""
    others = [
        one
        for one in (*found.finalists, *found.random_finalists)
        if one.architecture != found.chosen.architecture
    ]
    return deliver(
        run,
        supernet,
        profile,
        found.chosen,
        folder=run.best,
        others=others,
        limits=limits,
        progress=progress,
    )


def single_finalist(
    run: Run, estimator: SupernetEstimator, profile: DeviceProfile, architecture: Architecture
) -> Finalist:
    """A network that the user names, with its predicted cost and validated accuracy."""
    [cost] = profile.table(run.space)([architecture])
    accuracy = estimator.validate(architecture)
    return Finalist(architecture, accuracy, cost, accuracy, None, None)


def _card(
    run: Run,
    profile: DeviceProfile,
    finalist: Finalist,
    delivered: Delivered,
    limits: Sequence[Limit],
) -> Card:
    cost: Cost = run.space.cost(finalist.architecture)
    measured_ms = delivered.fresh_latency_ms
    return Card(
        name=run.recipe.name,
        architecture=str(finalist.architecture),
        space=run.space.name,
        image=(run.space.channels, run.space.image_size, run.space.image_size),
        classes=run.data.classes,
        data=run.data.name,
        parameters=cost.parameters or 0,
        macs=cost.macs or 0,
        peak_memory_bytes=cost.peak_memory_bytes or 0,
        limits=tuple(str(limit) for limit in limits),
        validation_top1=finalist.validated.top1,
        test_top1=delivered.test_top1,
        test_images=delivered.test_images,
        test_openings=len(run.record.events("test split opened")),
        predicted_ms=finalist.predicted.latency_ms,
        measured_ms=measured_ms,
        device=f"{profile.machine}, {profile.runtime} {profile.runtime_version}, {profile.threads} thread(s), batch {profile.batch}",
        agreement=delivered.agreement,
    )
