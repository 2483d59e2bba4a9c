"""Resizing as matrix products gives the pixels of ONNX Runtime's antialiased operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pliant.devices.runtimes.resizing import resize_by_products


def _model(size: int, to: int, *, antialias: int, mode: str = "linear") -> onnx.ModelProto:
    options = {"antialias": antialias, "mode": mode, "axes": [2, 3]}
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], coordinate_transformation_mode="half_pixel",
        **options,
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, size, size])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 3, to, to])]
    sizes = numpy_helper.from_array(np.array([to, to], np.int64), "sizes")
    last = helper.make_node("Identity", ["y"], ["z"])
    graph = helper.make_graph([node, last], "resize", inputs, outputs, [sizes])
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(("size", "to"), [(16, 12), (16, 5), (9, 9), (8, 13), (31, 2)])
def test_the_pixels_are_those_of_the_operator(size: int, to: int, mode: str) -> None:
    model = _model(size, to, antialias=1, mode=mode)
    changed = resize_by_products(model)
    assert [node.op_type for node in changed.graph.node] == ["MatMul", "MatMul", "Identity"]
    assert model.graph.node[0].op_type == "Resize", "the model that was given stays"
    x = np.random.default_rng(0).random((2, 3, size, size), dtype=np.float32)
    np.testing.assert_allclose(_run(changed, x), _run(model, x), atol=2e-6)


def test_what_needs_no_antialiasing_stays_an_operator() -> None:
    model = _model(8, 4, antialias=0)
    assert resize_by_products(model).SerializeToString() == model.SerializeToString()
