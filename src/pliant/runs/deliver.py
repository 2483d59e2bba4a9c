"""Deliver a network of a run: write it, verify it, and fill in its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pliant.accuracy.evaluation import top1
from pliant.deploy.card import Card, write_card
from pliant.deploy.package import write_model
from pliant.deploy.verify import Agreement, verify_accuracy, verify_outputs
from pliant.metrics import Accuracy, Cost, Measured
from pliant.runs.search import SearchResult
from pliant.runs.session import Session
from pliant.runs.shortlist import ShortlistedNetwork
from pliant.spaces.architecture import Architecture

ONNX = "model.onnx"
"""The name under which the record keeps the test accuracy of the exported file."""
COMPARED_IMAGES = 64


@dataclass(frozen=True)
class Delivered:
    """A folder with a network, and what was proven about it."""

    folder: Path
    architecture: Architecture
    agreement: Agreement
    test: Accuracy
    onnx_test: Accuracy
    """Of the exported file."""
    predicted: Cost
    measured_apart: Measured | None
    """In a subprocess; None where the target cannot be measured."""
    front_test: dict[str, Accuracy]
    """Of this network and of the others of the front, from the same opening of the test split."""


def deliver(
    session: Session,
    network: ShortlistedNetwork,
    *,
    folder: Path,
    others: Sequence[ShortlistedNetwork] = (),
) -> Delivered:
    """Write model.onnx, model.safetensors, model.py and card.md of one network, verified.

    Args:
        session: of the run.
        network: to deliver.
        folder: made where it does not exist.
        others: networks whose test accuracy is taken in the same opening of the test split.

    Raises:
        VerificationError: the delivered files do not compute what the supernet computes; the folder
            keeps them for inspection.
    """
    run, progress, architecture = session.run, session.progress, network.architecture
    module = session.network(architecture)
    metadata = {"architecture": str(architecture), "run": run.recipe.name}
    blocks = run.space.blocks(architecture)
    write_model(
        folder,
        module,
        blocks,
        classes=run.data.classes,
        metadata=metadata,
        preprocessing=run.data.decoding.options,
    )
    progress("deliver", 1, 4, "written")
    validation = run.data.validation
    indices = np.arange(min(COMPARED_IMAGES, len(validation)))
    images = validation.batch(indices)[0]
    agreement = verify_outputs(folder, session.supernet, module, architecture, images)
    progress("deliver", 2, 4, "outputs agree")
    tested = _tested(session, folder, architecture, others)
    progress("deliver", 3, 4, "tested")
    apart = network.measured_apart
    if apart is None and session.target.can_measure:
        apart = session.target.measure_file(folder / "model.onnx")
    delivered = Delivered(
        folder=folder,
        architecture=architecture,
        agreement=agreement,
        test=tested[str(architecture)],
        onnx_test=tested[ONNX],
        predicted=network.predicted,
        measured_apart=apart,
        front_test={name: accuracy for name, accuracy in tested.items() if name != ONNX},
    )
    write_card(folder / "card.md", _card(session, network, delivered))
    progress("deliver", 4, 4, "measured in a subprocess" if apart else "done")
    return delivered


def deliver_result(session: Session, result: SearchResult) -> Delivered:
    """Deliver the chosen network into `best/`, and test the networks of the front."""
    front = (*result.shortlist, *result.random_shortlist)
    others = [one for one in front if one.architecture != result.chosen.architecture]
    return deliver(session, result.chosen, folder=session.run.best, others=others)


def _tested(
    session: Session,
    folder: Path,
    architecture: Architecture,
    others: Sequence[ShortlistedNetwork],
) -> dict[str, Accuracy]:
    """Test accuracy by architecture, and of the ONNX file; in one opening of the test split.

    None is opened where the record holds all of them.
    """
    run, weights = session.run, session.weights_digest
    names = [ONNX, str(architecture), *(str(one.architecture) for one in others)]
    contexts = {name: f"{weights} {architecture}" if name == ONNX else weights for name in names}
    known: dict[str, Accuracy] = {}
    for name in names:
        row = run.record.evaluation("test", name, contexts[name])
        if row is not None and isinstance(row.quality, Accuracy):
            known[name] = row.quality
    if len(known) == len(set(names)):
        return known
    test = run.data.test.open(f"accuracy of {architecture} and of the front, in {folder.name}")
    ours, theirs = verify_accuracy(folder, session.network(architecture), test)
    found = {ONNX: Accuracy(theirs, len(test)), str(architecture): Accuracy(ours, len(test))}
    for one in others:
        name = str(one.architecture)
        if name not in found:
            found[name] = known.get(name) or top1(session.network(one.architecture), test)
    for name, accuracy in found.items():
        run.record.add_evaluation(
            "test", name, context=contexts[name], split="test", quality=accuracy
        )
    return found


def _card(session: Session, network: ShortlistedNetwork, delivered: Delivered) -> Card:
    run = session.run
    return Card(
        name=run.recipe.name,
        architecture=str(network.architecture),
        space=run.space.name,
        image=(run.space.channels, run.space.image_size, run.space.image_size),
        classes=run.data.classes,
        data=run.data.name,
        limits=tuple(session.limits),
        validated=network.validated,
        test=delivered.test,
        test_openings=len(run.record.events("test split opened")),
        predicted=delivered.predicted,
        measured=delivered.measured_apart,
        target=session.target.name,
        agreement=delivered.agreement,
        preprocessing=run.data.decoding.options,
    )
