"""Fine-tuning with quantization in place recovers what bad ranges lose."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pliant import Run
from pliant.deploy.int8 import logits
from pliant.deploy.package import onnx_bytes
from pliant.networks.quantize import quantized_model
from pliant.runs.session import Session
from pliant.training import quantization_aware
from pliant.training.quantization_aware import fine_tune_quantized


@pytest.fixture(scope="module")
def trained(finished):
    """A delivered network in float, and the images of its run."""
    with Run.reopen(finished.folder) as run:
        architecture = finished.result.found.chosen.architecture
        network = Session(run).network(architecture)
        yield onnx_bytes(network, run.space.blocks(architecture)), run.data


def _error(found, expected):
    return float(np.abs(found - expected).mean())


def test_fine_tuning_recovers_what_narrow_ranges_lose(trained):
    from pliant.networks.quantize import observe

    model, data = trained
    images, _ = data.train.batch(np.arange(200))
    network = onnx.load_from_string(model)
    observed = observe(network, [images.permute(0, 2, 3, 1).numpy()])
    ranges = {
        name: tuple(float(end) for end in np.percentile(values.sample, [3, 97]))
        for name, values in observed.items()
    }
    expected = logits(model, data.validation)
    before = logits(quantized_model(network, ranges).SerializeToString(), data.validation)
    tuned = fine_tune_quantized(network, ranges, data.train, seed=0)
    after = logits(quantized_model(tuned, ranges).SerializeToString(), data.validation)
    assert _error(after, expected) < 0.9 * _error(before, expected)
    assert [one.name for one in tuned.graph.initializer] == [
        one.name for one in network.graph.initializer
    ]


def test_the_same_seed_trains_the_same_weights(trained, monkeypatch):
    monkeypatch.setattr(quantization_aware, "MAX_STEPS", 2)
    model, data = trained
    network = onnx.load_from_string(model)
    ranges = {name: (-3.0, 3.0) for node in network.graph.node for name in node.output}
    one, two = (fine_tune_quantized(network, ranges, data.train, seed=3) for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()
