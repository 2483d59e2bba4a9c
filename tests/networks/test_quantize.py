"""Integers by hand, every space in int8, and the same graph in ONNX Runtime and in PyTorch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.networks.onnx_module import OnnxModule
from pliant.networks.quantize import (
    Observed,
    affine,
    float_operators,
    least_error_range,
    observe,
    percentile_range,
    quantized_at_random,
    quantized_model,
    weight_scales,
    whole_range,
)
from pliant.spaces.convolutional_blocks import ConvBlock, InvertedResidual
from pliant.spaces.presets import preset


def session(model, level="all", path=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if path:
        options.optimized_model_filepath = str(path)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def model_of(blocks, rng):
    state = {
        f"blocks.{block.slot}.{name}": array
        for block in blocks
        for name, array in random_weights(block, rng).items()
    }
    return network_model(blocks, state, pictures=True)


def test_scales_by_hand():
    assert affine((0.0, 2.55)) == (np.float32(0.01), 0)
    assert affine((-1.0, 1.55)) == (np.float32(0.01), 100)
    scale, zero_point = affine((0.5, 5.1))
    assert (scale, zero_point) == (np.float32(0.02), 0), "0 is always represented"
    assert affine((0.0, 0.0))[0] > 0
    np.testing.assert_allclose(
        weight_scales(np.array([[1.27, -0.5], [0.0, 0.0]])), [0.01, 1], rtol=1e-6
    )


def test_ranges_by_hand():
    values = np.r_[np.linspace(-1, 1, 99_998), -50, 100].astype(np.float32)
    observed = Observed(-50.0, 100.0, values)
    assert whole_range(observed) == (-50, 100)
    np.testing.assert_allclose(percentile_range(observed), (-1, 1), atol=1e-3)
    low, high = least_error_range(observed)
    assert (low, high) == (-50 * high / 100, high)
    assert high < 100, "two outliers are worth less than all the rest"
    uniform = Observed(0.0, 1.0, np.linspace(0, 1, 1000, dtype=np.float32))
    assert least_error_range(uniform) == (0, 1)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("digits", 8),
        ("mobile-32", 32),
        ("plain-32", 32),
        ("wide-32", 32),
        ("vit-32", 32),
        ("nas-bench-201", 32),
        ("ofa-mobilenetv3", 128),
        ("photos", 64),
    ],
)
def test_every_space_in_int8(name, size):
    """ONNX Runtime and PyTorch agree in float to rounding, and in int8 to steps of the integers."""
    rng = np.random.default_rng(1)
    space = preset(name, channels=3, image_size=size, classes=10)
    architecture = space.smallest() if size > 32 else space.sample_choices(rng)
    model = model_of(space.blocks(architecture), rng)
    pictures = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    ranges = {key: whole_range(values) for key, values in observe(model, [pictures]).items()}
    int8 = quantized_model(model, ranges)
    onnx.checker.check_model(int8)
    found = {}
    for kind, graph in (("fp32", model), ("int8", int8)):
        [found[kind]] = session(graph).run(["logits"], {"pictures": pictures})
        with torch.no_grad():
            found[f"{kind} module"] = OnnxModule(graph)(torch.from_numpy(pictures)).numpy()
    largest = np.abs(found["fp32"]).max()
    np.testing.assert_allclose(found["fp32 module"], found["fp32"], atol=1e-5 * largest)
    np.testing.assert_allclose(found["int8 module"], found["int8"], atol=0.1 * largest)
    np.testing.assert_allclose(found["int8"], found["fp32"], atol=0.3 * largest)
    assert not np.array_equal(found["int8"], found["fp32"])


def test_weights_are_integers_and_activations_cost_nothing(tmp_path):
    """An inverted residual with relu6 becomes three integer convolutions and an integer sum."""
    block = InvertedResidual(
        slot="a", size=8, inputs=8, mid_channels=16, outputs=8, kernel=3, activation="relu6"
    )
    int8 = quantized_at_random(
        block_model(block, np.random.default_rng(0)), np.random.default_rng(0), integer_ends=True
    )
    stored = [numpy_helper.to_array(one) for one in int8.graph.initializer]
    assert sorted(one.shape for one in stored if one.dtype == np.int8 and one.ndim == 4) == [
        (8, 16, 1, 1),
        (16, 1, 3, 3),
        (16, 8, 1, 1),
    ]
    assert not [one for one in stored if one.dtype == np.float32 and one.ndim > 1]
    runs = session(int8, path=tmp_path / "optimised.onnx")
    assert runs.get_inputs()[0].type == runs.get_outputs()[0].type == "tensor(uint8)"
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert {kind: count for kind, count in kinds.items() if kind != "Transpose"} == {
        "QLinearConv": 3,
        "QLinearAdd": 1,
    }


FAST = {"relu": True, "relu6": True, "hswish": False, "gelu": False}


@pytest.mark.parametrize(("activation", "fast"), FAST.items())
def test_which_activations_are_fast_in_int8(activation, fast, tmp_path):
    """What the runtime fuses into its integer kernels. Spaces for int8 offer these only."""
    block = ConvBlock(slot="a", size=8, inputs=8, outputs=8, activation=activation)
    rng = np.random.default_rng(0)
    int8 = quantized_at_random(block_model(block, rng), rng, integer_ends=True)
    session(int8, path=tmp_path / "optimised.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "QLinearConv" in kinds
    assert (kinds <= {"QLinearConv", "Transpose"}) == fast
    assert (not float_operators(int8)) == fast


def test_the_space_for_photographs_offers_what_is_fast_in_int8():
    rng = np.random.default_rng(0)
    for name, slow in (
        ("photos", set()),
        ("plain-32", {"BatchNormalization"}),
        ("mobile-32", {"HardSwish"}),
    ):
        size = 64 if name == "photos" else 32
        space = preset(name, channels=3, image_size=size, classes=10)
        int8 = quantized_at_random(model_of(space.blocks(space.largest()), rng), rng)
        assert set(float_operators(int8)) - {"HardSigmoid"} == slow, name


def test_a_module_refuses_what_it_does_not_know():
    from pliant.errors import EncodingError

    node = onnx.helper.make_node("Einsum", ["x"], ["y"], equation="ii")
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("x", 1, [2, 2])], []
    )
    with pytest.raises(EncodingError, match="received 'Einsum'"):
        OnnxModule(onnx.helper.make_model(graph))
