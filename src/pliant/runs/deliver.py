"""Deliver a network of a run: write it, verify it, and fill in its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.fx import GraphModule

from pliant.accuracy.evaluation import top1
from pliant.deploy.card import Card, write_card
from pliant.deploy.int8 import Int8Network, fine_tuned, loses_little, model_answers
from pliant.deploy.own_model import write_own_model
from pliant.deploy.package import INT8_MODEL, MODEL, onnx_bytes, write_int8, write_model
from pliant.deploy.sums import write_sums
from pliant.deploy.verify import Agreement, verify_accuracy, verify_outputs
from pliant.errors import MeasurementError
from pliant.metrics import Accuracy, Cost, DeliveredFile, InferencePrecision, Measured
from pliant.runs.search import SearchResult
from pliant.runs.session import Session
from pliant.runs.shortlist import ShortlistedNetwork
from pliant.spaces.architecture import Architecture
from pliant.spaces.foreign import ForeignNetwork, ForeignSpace

COMPARED_IMAGES = 64


@dataclass(frozen=True)
class Delivered:
    """A folder with a network, and what was proven about it."""

    folder: Path
    architecture: Architecture
    agreement: Agreement
    test: Accuracy
    """Of the file in the run's precision."""
    pytorch_test: Accuracy
    """Of the network before its export, in fp32."""
    files: tuple[DeliveredFile, ...]
    """In fp32, and in int8."""
    predicted: Cost
    measured_apart: Measured | None
    """In a subprocess; None where the target cannot be measured."""
    own_class: str
    """Whether a network of the user's own is delivered as its class, too; a sentence."""
    front_test: dict[str, Accuracy]
    """Of this network and of the others of the front, from the same opening of the test split."""

    def file(self, precision: InferencePrecision) -> DeliveredFile:
        """The network in one precision."""
        [found] = [one for one in self.files if one.precision == precision]
        return found


def deliver(
    session: Session,
    network: ShortlistedNetwork,
    *,
    folder: Path,
    others: Sequence[ShortlistedNetwork] = (),
) -> Delivered:
    """Write and verify the files of one network: in fp32 and in int8, in PyTorch, and its card.

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
    write_model(
        folder,
        module,
        run.space.blocks(architecture),
        classes=run.data.classes,
        metadata={"architecture": str(architecture), "run": run.recipe.name},
        preprocessing=run.data.decoding.options,
        precision=session.precision,
    )
    own_class = _own_class(session, architecture, folder)
    progress("deliver", 1, 5, "written")
    validation = run.data.validation
    indices = np.arange(min(COMPARED_IMAGES, len(validation)))
    images = validation.batch(indices)[0]
    agreement = verify_outputs(folder, session.supernet, module, architecture, images)
    progress("deliver", 2, 5, "outputs agree")
    fp32 = network.validated if session.precision == "fp32" else top1(module, validation)
    int8, int8_validated = _int8(session, architecture, fp32)
    validated: dict[InferencePrecision, Accuracy] = {"fp32": fp32, "int8": int8_validated}
    write_int8(folder, int8.model)
    progress("deliver", 3, 5, "quantized")
    tested = _tested(session, folder, architecture, others)
    progress("deliver", 4, 5, "tested")
    files = (
        _file(session, network, folder / MODEL, "fp32", validated, tested, "exported"),
        _file(session, network, folder / INT8_MODEL, "int8", validated, tested, int8.how),
    )
    delivered = Delivered(
        folder=folder,
        architecture=architecture,
        agreement=agreement,
        test=tested[MODEL if session.precision == "fp32" else INT8_MODEL],
        pytorch_test=tested[str(architecture)],
        files=files,
        predicted=network.predicted,
        measured_apart=files[session.precision == "int8"].measured,
        own_class=own_class,
        front_test=_front_test(session, architecture, others, tested),
    )
    write_card(folder / "card.md", _card(session, network, delivered))
    write_sums(folder)
    apart = delivered.measured_apart
    progress("deliver", 5, 5, "measured in a subprocess" if apart else "done")
    return delivered


def _own_class(session: Session, architecture: Architecture, folder: Path) -> str:
    """Write a network of the user's own as its class, where the class computes it."""
    blocks = session.run.space.blocks(architecture)
    network = session.network(architecture)
    if isinstance(blocks[0], ForeignNetwork) and isinstance(network, GraphModule):
        return write_own_model(folder, network, blocks[0])
    return ""


def _int8(
    session: Session, architecture: Architecture, fp32: Accuracy
) -> tuple[Int8Network, Accuracy]:
    """The network in int8 and its validation accuracy; fine-tuned where that loses a point.

    Those of a network of the user's own are not fine-tuned, since it has operators of its own.
    """
    run = session.run
    found = session.int8(architecture)
    accuracy = model_answers(found.model, run.data.validation).accuracy
    if loses_little(fp32, accuracy) or isinstance(run.space, ForeignSpace):
        return found, accuracy
    float_model = onnx_bytes(session.network(architecture), run.space.blocks(architecture))
    tuned = fine_tuned(float_model, found, run.data.train, seed=run.recipe.seed)
    after = model_answers(tuned.model, run.data.validation).accuracy
    return (tuned, after) if after.top1 > accuracy.top1 else (found, accuracy)


def _file(
    session: Session,
    network: ShortlistedNetwork,
    path: Path,
    precision: InferencePrecision,
    validated: dict[InferencePrecision, Accuracy],
    tested: dict[str, Accuracy],
    how: str,
) -> DeliveredFile:
    """One file of the network, measured where the target measures."""
    measured = network.measured_apart if precision == session.precision else None
    if measured is None and session.target.can_measure:
        try:
            measured = session.target.measure_file(path)
        except MeasurementError:
            if precision == session.precision:
                raise
    return DeliveredFile(
        name=path.name,
        precision=precision,
        size_bytes=path.stat().st_size,
        validated=validated[precision],
        test=tested[path.name],
        measured=measured,
        how=how,
    )


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
    """Test accuracies, in one opening of the test split.

    Of both files by their names, of the network in PyTorch by its architecture, and of the others
    in the session's precision by theirs. None is opened where the record holds all of them.
    """
    run, weights = session.run, session.weights_digest
    own = f"{weights} {architecture}"
    contexts = {MODEL: own, INT8_MODEL: own, str(architecture): weights}
    precision = "" if session.precision == "fp32" else f" {session.precision}"
    for one in others:
        contexts.setdefault(str(one.architecture), weights + precision)
    known: dict[str, Accuracy] = {}
    for name, context in contexts.items():
        row = run.record.evaluation("test", name, context)
        if row is not None and isinstance(row.quality, Accuracy):
            known[name] = row.quality
    if len(known) == len(contexts):
        return known
    test = run.data.test.open(f"accuracy of {architecture} and of the front, in {folder.name}")
    ours, theirs = verify_accuracy(folder, session.network(architecture), test)
    found = {
        MODEL: Accuracy(theirs, len(test)),
        INT8_MODEL: model_answers((folder / INT8_MODEL).read_bytes(), test).accuracy,
        str(architecture): Accuracy(ours, len(test)),
    }
    for one in others:
        name = str(one.architecture)
        if name not in found:
            found[name] = known.get(name) or session.answers_on(one.architecture, test).accuracy
    for name, accuracy in found.items():
        run.record.add_evaluation(
            "test", name, context=contexts[name], split="test", quality=accuracy
        )
    return found


def _front_test(
    session: Session,
    architecture: Architecture,
    others: Sequence[ShortlistedNetwork],
    tested: dict[str, Accuracy],
) -> dict[str, Accuracy]:
    """Test accuracy of each network of the front, in the session's precision."""
    found = {str(one.architecture): tested[str(one.architecture)] for one in others}
    own = str(architecture) if session.precision == "fp32" else INT8_MODEL
    return found | {str(architecture): tested[own]}


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
        files=delivered.files,
        used_file=delivered.file(session.precision).name,
        target=session.target.name,
        agreement=delivered.agreement,
        preprocessing=run.data.decoding.options,
        own_class=delivered.own_class,
    )
