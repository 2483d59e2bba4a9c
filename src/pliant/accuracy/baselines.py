"""What images give with little work: guessing, and a linear classifier on frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pliant.accuracy.calibration import fitting_batch, require_calibrated
from pliant.accuracy.evaluation import pixels
from pliant.data.splits import Split
from pliant.errors import EncodingError
from pliant.metrics import Accuracy

PROBE_IMAGES = 5000
"""Training images that a linear classifier is fitted to, at most."""
PROBE_ITERATIONS = 1000


def majority_class(train: NDArray[np.int64], validation: NDArray[np.int64]) -> Accuracy:
    """Of always answering the most frequent class of the training images.

    Args:
        train: labels of the training images.
        validation: labels of the images that are answered.
    """
    answer = np.bincount(train).argmax()
    return Accuracy(float((validation == answer).mean()), len(validation))


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on the features of a network."""

    weight: Tensor
    """(classes, features)."""
    bias: Tensor
    """(classes,)."""


def fit_probe(
    network: nn.Module, classifier: nn.Module, train: Split, classes: int, *, seed: int = 0
) -> LinearProbe:
    """Logistic regression on the features that a network's classifier reads.

    Args:
        network: calibrated.
        classifier: the layer of it whose input the features are; its weights do not matter. The
            regression has a bias where the layer has one.
        train: the regression is fitted to these, or to a random `PROBE_IMAGES` of them.
        classes: number of them.
        seed: of the subset.

    Raises:
        UncalibratedError: a BatchNorm has no statistics.
        EncodingError: the classifier is no linear layer on one vector per image.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:PROBE_IMAGES])
    intercept = getattr(classifier, "bias", None) is not None
    model = LogisticRegression(max_iter=PROBE_ITERATIONS, fit_intercept=intercept)
    model.fit(features(network, classifier, train.subset(rows)), train.labels[rows])
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives the difference of two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    # A class that is not among the fitted images is as likely as the least likely one.
    every = LinearProbe(torch.zeros(classes, weight.shape[1]), torch.full((classes,), min(bias)))
    every.weight[model.classes_] = torch.from_numpy(weight).float()
    every.bias[model.classes_] = torch.from_numpy(bias).float()
    return every


@torch.no_grad()
def features(network: nn.Module, classifier: nn.Module, split: Split) -> NDArray[np.float32]:
    """What the classifier of a network reads, (N, features), images as they are.

    Args:
        network: calibrated.
        classifier: a layer of it, linear or a convolution, that reads one vector per image.
        split: of images.

    Raises:
        UncalibratedError: a BatchNorm has no statistics.
        EncodingError: the classifier is no linear layer on one vector per image.
    """
    require_calibrated(network)
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].flatten(1))
        weight = getattr(classifier, "weight", None)
        if weight is None or found[0][0].numel() != weight[0].numel():
            raise EncodingError(
                "features are what a linear classifier reads, one vector per image; the last layer"
                f" is a {type(classifier).__name__} on {tuple(inputs[0].shape[1:])}. Give the"
                " network a linear layer of its own for the logits."
            )

    hook = classifier.register_forward_pre_hook(keep)
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_size = fitting_batch(split.batch(np.arange(1))[0].shape[-1], 1000)
    try:
        for start in range(0, len(split), batch_size):
            rows = np.arange(start, min(start + batch_size, len(split)))
            network(pixels(split.batch(rows)[0]))
    finally:
        hook.remove()
    return torch.cat(found).numpy()
