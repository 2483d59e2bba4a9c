"""What a run's images give with little work, and the linear classifier where fine-tuning begins.

The classifier is fitted once and kept beside the weights; the figures are kept in the record.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from pliant.accuracy.baselines import LinearProbe, fit_probe, majority_class
from pliant.accuracy.calibration import calibrate, calibration_images, require_calibrated
from pliant.accuracy.evaluation import pixels, top1
from pliant.errors import UncalibratedError
from pliant.metrics import Accuracy
from pliant.networks.backbones.published import PublishedWeights
from pliant.networks.foreign.template import (
    foreign_supernet,
    has_linear_head,
    replaced_classifier,
)
from pliant.networks.plain import Network
from pliant.networks.statistics import absorb_statistics
from pliant.networks.supernet import Supernet, build
from pliant.progress import Progress
from pliant.report.summary import Baselines
from pliant.runs.run import Run
from pliant.spaces.foreign import ForeignSpace
from pliant.training.checkpoint import load_tensors, save_tensors
from pliant.training.finetune import classifier
from pliant.training.start import make_start, start_file


def baselines(run: Run, progress: Progress) -> Baselines:
    """Chance, the majority class, and a linear classifier on the start, on validation images.

    The linear classifier reads the largest network with the start's weights, at its resolution. It
    is left out where the start is neither published weights nor a user's own network, and where
    that network has no linear layer of its own for the logits.

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
    found: dict[str, object] = {"linear": None, "features": None}
    found["majority"] = majority_class(data.train.labels, data.validation.labels).top1
    network = linear_start(run)
    if network is not None:
        found["linear"] = top1(network, data.validation).top1
        size = dict(run.space.largest().options).get("r", data.image_size)
        start = run.space.name if isinstance(run.space, ForeignSpace) else run.recipe.train.start
        found["features"] = f"{start} at {size} pixels"
    return found


@torch.no_grad()
def linear_start(run: Run) -> Network | None:
    """The linear classifier on the frozen start, as a network; None where there is none.

    It is the largest network with the weights of the start and their statistics, at its resolution,
    but with the classifier fitted to the run's training images.

    Args:
        run: whose images and start it is about.
    """
    network = _frozen_start(run)
    if network is None:
        return None
    probe, layer = _probe(run, network), classifier(network)
    weight = layer.get_parameter("weight")
    weight.copy_(probe.weight.view_as(weight))
    if getattr(layer, "bias", None) is not None:
        layer.get_parameter("bias").copy_(probe.bias)
    return network


def published_start(run: Run) -> PublishedWeights | None:
    """The start of a run where it is published weights, whose file is still there."""
    name = run.recipe.train.start
    file = start_file(name)
    if file is not None and not file.is_file():
        return None
    start = make_start(name)
    return start if isinstance(start, PublishedWeights) else None


@torch.no_grad()
def adapt_start(run: Run, supernet: Supernet) -> None:
    """Fit the weights of a pretrained network to the run's images, before any training.

    The supernet gets the linear classifier of the images, and computes on them by batch statistics
    what the pretrained network computes by its own.

    Args:
        run: whose images and start it is about; nothing is changed where there is no linear
            classifier on the frozen start, or where a user's own network keeps its classifier,
            which knows the classes of the images.
        supernet: with the weights of the start; changed in place.
    """
    if isinstance(run.space, ForeignSpace) and not replaced_classifier(run.space):
        return
    network = linear_start(run)
    if network is None:
        return
    absorb_statistics(supernet, network, _calibration_images(run))
    classifier(supernet).load_state_dict(classifier(network).state_dict())


def _probe_file(run: Run) -> Path:
    return run.folder / "supernet" / "linear_classifier.safetensors"


def _probe(run: Run, network: Network) -> LinearProbe:
    """The classifier of the file, or fitted to a network and kept there."""
    path = _probe_file(run)
    if path.is_file():
        return LinearProbe(**load_tensors(path)[0])
    images, classes = run.data.train, len(run.data.classes)
    probe = fit_probe(network, classifier(network), images, classes, seed=run.recipe.seed)
    if int(os.environ.get("RANK", "0")) == 0:
        path.parent.mkdir(exist_ok=True)
        save_tensors(path, {"weight": probe.weight, "bias": probe.bias})
    return probe


def _frozen_start(run: Run) -> Network | None:
    """The largest network with the weights of the start, and their statistics if it has any.

    None where the start is no pretrained network with a linear classifier.
    """
    space, data = run.space.trainable_space(), run.data
    if isinstance(space, ForeignSpace):
        if not has_linear_head(space):
            return None
        network = foreign_supernet(space, mean=data.mean, std=data.std).frozen()
    else:
        start = published_start(run)
        if start is None:
            return None
        network = build(space, space.largest(), mean=data.mean, std=data.std)
        start.apply(network, lambda: _calibration_images(run))
    try:
        require_calibrated(network)
    except UncalibratedError:
        calibrate(network, _calibration_images(run))
    return network.eval()


def _calibration_images(run: Run) -> Tensor:
    """Random training images, the same at every start of the run."""
    train = run.data.train
    rows = run.rng(2).permutation(len(train))[: calibration_images(run.data.image_size)]
    return pixels(train.batch(rows)[0])
