"""What a run's images give with little work, computed once and kept in the record."""

from __future__ import annotations

from pliant.accuracy.baselines import linear_probe, majority_class
from pliant.accuracy.calibration import calibrate, calibration_images, require_calibrated
from pliant.accuracy.evaluation import pixels
from pliant.errors import UncalibratedError
from pliant.metrics import Accuracy
from pliant.networks.backbones.published import PublishedWeights
from pliant.networks.plain import Network
from pliant.networks.supernet import build
from pliant.progress import Progress
from pliant.report.summary import Baselines
from pliant.runs.run import Run
from pliant.training.start import Fresh, Start, make_start, start_file


def baselines(run: Run, progress: Progress) -> Baselines:
    """Chance, the majority class, and a linear classifier on the start, on validation images.

    The linear classifier reads the largest network with the start's weights, at its resolution. It
    is left out where the start is no published weights.

    Args:
        run: whose images and start it is about.
        progress: told when it is done.
    """
    known = run.record.metadata("baselines")
    if known is None:
        progress("baselines", 0, 1, "a linear classifier on the start")
        known = _computed(run)
        run.record.set_metadata("baselines", known)
        progress("baselines", 1, 1, "done")
    linear = known["linear"]
    images = len(run.data.validation)
    return Baselines(
        chance=1 / len(run.data.classes),
        majority=Accuracy(known["majority"], images),
        linear=None if linear is None else Accuracy(linear, images),
        features=known["features"],
    )


def _computed(run: Run) -> dict[str, object]:
    data = run.data
    majority = majority_class(data.train.labels, data.validation.labels)
    file = start_file(run.recipe.train.start)
    is_gone = file is not None and not file.is_file()  # which a run that began does not need
    start = Fresh() if is_gone else make_start(run.recipe.train.start)
    if not isinstance(start, PublishedWeights):
        return {"majority": majority.top1, "linear": None, "features": None}
    linear = linear_probe(_started(run, start), data.train, data.validation, seed=run.recipe.seed)
    what = f"{run.recipe.train.start} at {dict(run.space.largest().options).get('r')} pixels"
    return {"majority": majority.top1, "linear": linear.top1, "features": what}


def _started(run: Run, start: Start) -> Network:
    """The largest network with published weights, and their statistics where they have any."""
    space, data = run.space.trainable_space(), run.data
    network = build(space, space.largest(), mean=data.mean, std=data.std)
    rows = run.rng(2).permutation(len(data.train))[: calibration_images(data.image_size)]
    start.apply(network, lambda: pixels(data.train.batch(rows)[0]))
    try:
        require_calibrated(network)
    except UncalibratedError:
        calibrate(network, pixels(data.train.batch(rows)[0]))
    return network.eval()
