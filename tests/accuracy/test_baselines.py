"""Guessing and a linear classifier, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from pliant.accuracy.baselines import features, fit_probe, majority_class
from pliant.accuracy.calibration import calibrate
from pliant.accuracy.evaluation import pixels
from pliant.errors import EncodingError, UncalibratedError
from pliant.networks.supernet import build


@pytest.fixture
def network(digits_space, digits):
    torch.manual_seed(0)
    made = build(digits_space, digits_space.largest(), mean=digits.mean, std=digits.std)
    return calibrate(made, pixels(digits.train.batch(np.arange(500))[0]))


@pytest.fixture
def classifier(network):
    return network.blocks["head"].classifier


def test_the_most_frequent_class_by_hand():
    train, validation = np.array([2, 0, 2, 1]), np.array([2, 1, 1, 2, 0])
    assert majority_class(train, validation).top1 == 0.4


def test_features_are_what_the_classifier_reads(network, classifier, digits):
    some = digits.validation.subset(np.arange(20))
    found = features(network, classifier, some)
    logits = network(pixels(some.batch(np.arange(20))[0]))
    torch.testing.assert_close(classifier(torch.from_numpy(found)), logits)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_probe_is_logistic_regression_on_the_features(network, classifier, digits, classes):
    train, validation = (
        split.subset(np.flatnonzero(split.labels < classes)[:300])
        for split in (digits.train, digits.validation)
    )
    if classes == 2:
        classifier.bias = None
    model = LogisticRegression(max_iter=1000, fit_intercept=classes > 2)
    model.fit(features(network, classifier, train), train.labels)
    read = features(network, classifier, validation)
    probe = fit_probe(network, classifier, train, 10)
    expected = model.predict_proba(read)
    logits = torch.from_numpy(read) @ probe.weight.T + probe.bias
    if classes == 10:
        np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-4)
    found = (logits.argmax(1).numpy() == validation.labels).mean()
    assert found == pytest.approx(model.score(read, validation.labels), abs=0.02)
    assert found > 0.7, "random features tell digits apart"
    assert classes > 2 or not probe.bias.any(), "a layer without a bias gets none"


def test_uncalibrated_networks_and_other_heads_are_refused(
    network, classifier, digits_space, digits
):
    fresh = build(digits_space, digits_space.largest(), mean=digits.mean, std=digits.std)
    with pytest.raises(UncalibratedError):
        features(fresh, fresh.blocks["head"].classifier, digits.validation)
    convolution = next(one for one in network.modules() if isinstance(one, nn.Conv2d))
    for other in (network.blocks["head"], convolution):
        with pytest.raises(EncodingError, match="one vector per image"):
            features(network, other, digits.validation)
