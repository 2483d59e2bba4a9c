"""A delivered folder that does not hold the searched network is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from pliant import Run
from pliant.accuracy.evaluation import pixels
from pliant.deploy.classifier import Classifier
from pliant.deploy.package import write_model
from pliant.deploy.verify import (
    equally_accurate,
    onnx_top1,
    relative_difference,
    run_model_py,
    run_onnx,
    verify_accuracy,
    verify_outputs,
)
from pliant.devices.measure import measure_in_subprocess
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError, UncalibratedError, VerificationError
from pliant.runs.session import Session
from pliant.runs.train import train_supernet


@pytest.fixture
def delivered(copied, finished):
    """The delivered folder with all that it is verified against."""
    with Run.reopen(copied) as run:
        supernet = train_supernet(run)
        estimator = Session(run).estimator
        architecture = finished.result.found.chosen.architecture
        images = run.data.validation.batch(np.arange(16))[0]
        yield run, supernet, estimator.network(architecture), architecture, images


def test_whole_folder_is_verified(delivered):
    run, supernet, network, architecture, images = delivered
    agreement = verify_outputs(run.best, supernet, network, architecture, images)
    assert agreement.supernet <= 1e-12, (
        "compared in double precision, so no kernel's rounding is in it"
    )
    assert agreement.model_py <= 1e-5
    assert agreement.onnx <= 1e-4
    ours, theirs = verify_accuracy(run.best, network, run.data.validation)
    assert ours == theirs == onnx_top1(run.best / "model.onnx", run.data.validation, batch_size=50)


@pytest.mark.parametrize("amount", [1e-2, float("nan")])
def test_tampered_safetensors(delivered, amount):
    run, supernet, network, architecture, images = delivered
    tensors = load_file(run.best / "model.safetensors")
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] = tensors[name] + amount
    save_file(tensors, run.best / "model.safetensors")
    with pytest.raises(VerificationError, match=r"model\.py differs by"):
        verify_outputs(run.best, supernet, network, architecture, images)


def test_tampered_onnx(delivered):
    run, supernet, network, architecture, images = delivered
    model = onnx.load(run.best / "model.onnx")
    largest = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
    largest.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(largest) * np.float32(1.01), largest.name)
    )
    onnx.save(model, run.best / "model.onnx")
    with pytest.raises(VerificationError, match="ONNX Runtime differs by"):
        verify_outputs(run.best, supernet, network, architecture, images)


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "model.py"])
def test_half_a_file(delivered, name):
    run, supernet, network, architecture, images = delivered
    whole = (run.best / name).read_bytes()
    (run.best / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        VerificationError, match=name.replace(".safetensors", ".py").replace(".", r"\.")
    ):
        verify_outputs(run.best, supernet, network, architecture, images)


def test_another_networks_folder(delivered):
    run, supernet, _, architecture, images = delivered
    smallest = run.space.smallest()
    assert smallest != architecture
    other = Session(run).network(smallest)
    with pytest.raises(VerificationError, match="differs by"):
        verify_outputs(run.best, supernet, other, smallest, images)
    with pytest.raises(VerificationError, match="as accurate as its source"):
        verify_accuracy(run.best, other, run.data.validation)


@pytest.mark.parametrize(
    ("one", "other", "images", "equal"),
    [
        (0.9, 14 / 15, 30, True),
        (0.9, 29 / 30, 30, False),
        (0.9, 0.902, 10_000, True),
        (0.9, 0.9021, 10_000, False),
        (0.3, 0.2, 10, True),
    ],
)
def test_rounding_may_change_one_answer(one, other, images, equal):
    assert equally_accurate(one, other, images) is equal


def test_network_without_statistics_is_not_written(delivered, tmp_path):
    run, supernet, _, architecture, _ = delivered
    with pytest.raises(UncalibratedError):
        write_model(
            tmp_path / "new",
            supernet.extract(architecture),
            run.space.blocks(architecture),
            classes=run.data.classes,
        )
    assert not (tmp_path / "new").exists()


def test_delivering_twice_writes_the_same_files(delivered, tmp_path):
    run, _, network, architecture, _ = delivered
    metadata = {"architecture": str(architecture), "run": "tiny"}
    write_model(
        tmp_path,
        network,
        run.space.blocks(architecture),
        classes=run.data.classes,
        metadata=metadata,
    )
    for name in ("model.onnx", "model.safetensors", "model.py", "predict.py"):
        assert (tmp_path / name).read_bytes() == (run.best / name).read_bytes()


def test_onnx_carries_classes_and_takes_any_batch(delivered):
    run, _, _, architecture, images = delivered
    metadata = {
        entry.key: entry.value for entry in onnx.load(run.best / "model.onnx").metadata_props
    }
    assert metadata["architecture"] == str(architecture)
    assert json.loads(metadata["classes"]) == list(run.data.classes)
    whole = run_onnx(run.best / "model.onnx", images.numpy())
    parts = run_onnx(run.best / "model.onnx", images.numpy(), batch_size=5)
    np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-4)


def test_any_class_names_come_back(delivered, tmp_path):
    run, _, network, architecture, _ = delivered
    classes = ["a\nb", '"', "", "é", "<b>", *map(str, range(5))]
    write_model(tmp_path, network, run.space.blocks(architecture), classes=classes)
    assert Classifier(tmp_path).classes == tuple(classes)


def test_model_py_states_what_it_is(delivered):
    run, *_, images = delivered
    text = (run.best / "model.py").read_text()
    assert "import pliant" not in text
    assert "from pliant" not in text
    assert run_model_py(run.best, pixels(images)).shape == (16, 10)


def test_relative_difference_by_hand():
    assert relative_difference(torch.tensor([2.0, -4.0]), torch.tensor([2.0, -3.0])) == 0.25
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0


def test_measuring_what_is_no_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(MeasurementError, match="measured in a subprocess, which failed"):
        measure_in_subprocess(tmp_path / "model.onnx", Settings())


def test_model_py_refuses_other_images(delivered):
    run, *_ = delivered
    size, range_ = r"images are \(N, 1, 8, 8\)", "pixels are fractions from 0 to 1"
    for images, said in (
        (torch.rand(2, 1, 16, 16), size),
        (torch.rand(2, 3, 8, 8), size),
        (torch.rand(2, 1, 8, 8) * 255, range_),
        (torch.full((2, 1, 8, 8), torch.nan), range_),
    ):
        with pytest.raises(VerificationError, match=said):
            run_model_py(run.best, images)
