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


def test_the_most_frequent_class_by_hand():
    train, validation = np.array([2, 0, 2, 1]), np.array([2, 1, 1, 2, 0])
    assert majority_class(train, validation).top1 == 0.4


def test_features_are_what_the_classifier_reads(network, digits):
    some = digits.validation.subset(np.arange(20))
    found = features(network, some)
    logits = network(pixels(some.batch(np.arange(20))[0]))
    torch.testing.assert_close(network.blocks["head"].classifier(torch.from_numpy(found)), logits)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_probe_is_logistic_regression_on_the_features(network, digits, classes):
    train, validation = (
        split.subset(np.flatnonzero(split.labels < classes)[:300])
        for split in (digits.train, digits.validation)
    )
    model = LogisticRegression(max_iter=1000).fit(features(network, train), train.labels)
    read = features(network, validation)
    probe = fit_probe(network, train, 10)
    expected = model.predict_proba(read)
    logits = torch.from_numpy(read) @ probe.weight.T + probe.bias
    if classes == 10:
        np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-4)
    found = (logits.argmax(1).numpy() == validation.labels).mean()
    assert found == pytest.approx(model.score(read, validation.labels), abs=0.02)
    assert found > 0.7, "random features tell digits apart"


def test_uncalibrated_networks_and_other_heads_are_refused(network, digits_space, digits):
    fresh = build(digits_space, digits_space.largest(), mean=digits.mean, std=digits.std)
    with pytest.raises(UncalibratedError):
        features(fresh, digits.validation)
    network.blocks["head"].classifier = None
    network.blocks["last"] = nn.Identity()
    with pytest.raises(EncodingError, match="this one has none"):
        features(network, digits.validation)
