"""The int8 file beside the other: made from training images alone, delivered, measured, used."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from pliant import Run
from pliant.deploy import int8
from pliant.deploy.classifier import Classifier
from pliant.deploy.int8 import logits, model_answers, to_int8
from pliant.deploy.package import onnx_bytes
from pliant.errors import ProfileMismatchError, RecipeError
from pliant.report.summary import read_summary_file
from pliant.runs import deliver
from pliant.runs.session import Session
from pliant.spaces.presets import preset


def test_both_files_are_delivered_and_measured(finished):
    fp32, whole = read_summary_file(finished.folder / "summary.json").files
    assert (fp32.name, whole.name) == ("model.onnx", "model.int8.onnx")
    for one in (fp32, whole):
        path = finished.folder / "best" / one.name
        assert one.size_bytes == path.stat().st_size
        assert one.measured.cost.latency_ms > 0
        assert one.test.images == 179
    metadata = [
        {
            entry.key: entry.value
            for entry in onnx.load(finished.folder / "best" / name).metadata_props
        }
        for name in (fp32.name, whole.name)
    ]
    assert metadata[0] == metadata[1]
    assert abs(fp32.test.top1 - whole.test.top1) < 0.05
    claims = {claim.claim: claim for claim in finished.result.summary.evidence}
    assert claims["int8 is as accurate as fp32"].bound == "1 point less"


def test_quantization_sees_training_images_only(finished, monkeypatch):
    """Calibration and choice read the training split and nothing else; seeds repeat it."""
    with Run.reopen(finished.folder) as run:
        architecture = finished.result.found.chosen.architecture
        model = onnx_bytes(Session(run).network(architecture), run.space.blocks(architecture))
        train, validation = run.data.train, run.data.validation
        for split in (validation, run.data.test._split):
            monkeypatch.setattr(split, "batch", None)
        found = to_int8(model, train, seed=0)
        assert found.model == to_int8(model, train, seed=0).model
    assert found.rule in int8.RANGE_RULES
    answered = model_answers(found.model, train)
    values = logits(found.model, train)
    np.testing.assert_array_equal(answered.answers, values.argmax(1))
    surest = np.exp(values).max(1) / np.exp(values).sum(1)
    np.testing.assert_allclose(answered.probabilities, surest, rtol=1e-4)


def test_a_loss_above_a_point_is_fine_tuned(copied, finished, monkeypatch):
    """With a rule that gives bad ranges, delivery trains the network and says so."""

    def narrow(values):
        low, high = np.percentile(values.sample, [8, 92])
        return min(0.0, float(low)), max(0.0, float(high))

    monkeypatch.setattr(int8, "RANGE_RULES", {"narrow": narrow})
    with Run.reopen(copied) as run:
        session = Session(run)
        [chosen] = [
            one
            for one in finished.result.found.shortlist
            if one.architecture == finished.result.found.chosen.architecture
        ]
        before = model_answers(session.int8(chosen.architecture).model, run.data.validation)
        assert chosen.validated.top1 - before.accuracy.top1 > int8.MAX_INT8_LOSS
        _, file = deliver.deliver(session, chosen, folder=copied / "front" / "tuned").files
    assert file.how.startswith("ranges by narrow; fine-tuned; in float: ")
    assert file.validated.top1 > before.accuracy.top1
    assert file.how in (copied / "front" / "tuned" / "card.md").read_text()


@pytest.fixture(scope="module")
def int8_run(tmp_path_factory, tiny):
    """The whole job in int8."""
    from pliant import run_all

    folder = tmp_path_factory.mktemp("runs") / "int8"
    with Run.create(
        str(tiny), folder=folder, target__precision="int8", limits=["model_size=60kB"]
    ) as run:
        return folder, run_all(run)


def test_a_run_in_int8_is_searched_limited_and_measured_in_int8(int8_run, finished):
    folder, result = int8_run
    assert (folder / "device-int8.json").is_file()
    assert not (folder / "device.json").exists()
    assert json.loads((folder / "device-int8.json").read_text())["precision"] == "int8"
    assert result.summary.target.name.endswith("int8")
    chosen = result.found.chosen
    with Run.reopen(folder) as run:
        by_layers = run.space.with_bits(8).cost(chosen.architecture)
        in_float = run.space.cost(chosen.architecture)
        assert chosen.predicted.model_size_bytes == by_layers.model_size_bytes < 60_000
        assert by_layers.model_size_bytes < 0.4 * in_float.model_size_bytes
        session = Session(run)
        found = model_answers(session.int8(chosen.architecture).model, run.data.validation)
        assert chosen.validated == found.accuracy
    fp32, whole = result.delivered.files
    assert result.delivered.test == whole.test
    assert result.delivered.measured_apart == whole.measured
    card = (folder / "best" / "card.md").read_text()
    assert 'InferenceSession("model.int8.onnx")' in card
    assert Classifier(folder).path.name == "model.int8.onnx"
    assert Classifier(folder / "best" / "model.onnx").path.name == fp32.name
    assert "model.int8.onnx" in (folder / "best" / "predict.py").read_text()


def test_another_precision_of_a_trained_run(int8_run, command, finished, copied):
    """A run in fp32 delivers for int8, with a profile of its own; a profile is of one precision."""
    code, _, error = command("deploy", copied, "--target", "this-cpu", "--precision", "int8")
    assert (code, error) == (0, "")
    assert "int8" in (copied / "device-int8.json").read_text()
    [folder] = (copied / "front").iterdir()
    assert Classifier(folder).path.name == "model.int8.onnx"
    with Run.reopen(copied) as run, pytest.raises(ProfileMismatchError, match="precision"):
        _ = Session(run, target=str(int8_run[0] / "device-int8.json")).target
    code, _, error = command("deploy", copied, "--precision", "int4")
    assert code == 2
    assert "fp32 or int8" in error
    with pytest.raises(RecipeError, match="precision"):
        Run.create("digits", folder=copied / "x", target__precision="int4")


def test_costs_with_eight_bits_by_hand():
    """Weights take a byte, addends four; activations a byte, but pixels before normalisation."""
    space = preset("digits", channels=1, image_size=8, classes=10)
    architecture = space.largest()
    layers = space.lower(architecture).layers
    weights = sum(layer.parameters - layer.G * layer.K for layer in layers if layer.weighted)
    addends = sum(layer.G * layer.K for layer in layers if layer.weighted)
    whole, byte = space.cost(architecture), space.with_bits(8).cost(architecture)
    peak = max(one.cost.peak_activation_bytes for one in space.blocks(architecture)[1:])
    assert (whole.model_size_bytes, whole.peak_memory_bytes) == (4 * (weights + addends), peak)
    assert (byte.model_size_bytes, byte.peak_memory_bytes) == (weights + 4 * addends, peak // 4)
    assert (byte.macs, byte.parameters) == (whole.macs, whole.parameters)
    assert space.with_bits(8).largest() == architecture
