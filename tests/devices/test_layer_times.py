"""Times of layers, from the profile of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pliant.devices import layer_times as module
from pliant.devices.data_sheet import DataSheet, PeakGops
from pliant.devices.layer_times import layer_times, timed_roofline
from pliant.devices.profile import random_network_model
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError
from pliant.metrics import InferencePrecision
from pliant.spaces.space import Space
from pliant.workload import onnx_workload
from pliant.workload.roofline import NetworkRoofline, Roofline


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_layer_with_weights_has_its_time(
    digits_space: Space, precision: InferencePrecision, tmp_path: Path
) -> None:
    blocks = digits_space.blocks(digits_space.largest())
    model = random_network_model(blocks, np.random.default_rng(0), precision)
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    workload = onnx_workload(path, sizes={"N": 1})
    times = layer_times(model, [layer.name for layer in workload.layers], Settings())
    for layer in workload.layers:
        if layer.macs:
            assert times.layers[layer.name] > 0, layer.name
    assert set(times.layers) <= {layer.name for layer in workload.layers}
    # What the runtime adds and what prepares the image belong to no layer.
    assert "Conv" not in times.runtime
    assert {"Cast", "Reshape"} <= set(times.runtime)


def _model(*nodes: onnx.NodeProto) -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [weight],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def test_nodes_without_names_and_fused_activations_belong_to_their_layer() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    relu = helper.make_node("Relu", ["y"], ["z"])
    times = layer_times(_model(conv, relu), ["y"], Settings(batch=2), sizes={"H": 6})
    assert times.layers["y"] > 0
    assert "Conv" not in times.runtime
    assert "Relu" not in times.runtime


def test_kernels_named_by_the_tensor_they_write_belong_to_the_layer_that_it_comes_from() -> None:
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    w = numpy_helper.from_array(np.full((16, 16, 3, 3), 0.1, np.float32), "w")
    v = numpy_helper.from_array(np.full((16, 4), 0.1, np.float32), "v")
    b = numpy_helper.from_array(np.zeros(4, np.float32), "b")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        helper.make_node("Relu", ["y"], ["a"], name="relu"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v", "b"], ["g"], name="fc"),
        helper.make_node("Relu", ["g"], ["z"], name="last"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])
    graph = helper.make_graph(nodes, "net", [x], [output], [w, v, b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    times = layer_times(model.SerializeToString(), ["conv", "pool", "fc"], Settings(threads=1))
    assert set(times.layers) == {"conv", "pool", "fc"}
    assert not {"Conv", "GlobalAveragePool", "FusedGemm", "Gemm"} & set(times.runtime)


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_the_first_row_of_a_recurrent_layer_has_the_time_of_its_kernel(
    operator: str, gates: int, tmp_path: Path
) -> None:
    stored = [
        numpy_helper.from_array(np.full((2, gates * 5, width), 0.1, np.float32), name)
        for name, width in (("W", 3), ("R", 5))
    ]
    node = helper.make_node(
        operator, ["x", "W", "R"], ["z"], name="r", hidden_size=5, direction="bidirectional"
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1, 3])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    network, _ = _placed(helper.make_graph([node], "net", [x], [z], stored), tmp_path)
    first, *others = network.layers
    assert first.name == "r.l0.input"
    assert network.row_of == {layer.name: first.name for layer in others}
    assert len(others) == 5
    assert network.achieved[0] is not None
    assert network.achieved[1:] == (None,) * 5
    assert network.runtime_seconds == ()


def test_layers_are_under_the_roofs_of_what_the_runtime_computes(tmp_path: Path) -> None:
    """Half-precision products are 32-bit ones in ONNX Runtime on x86; elsewhere they may be 16."""
    half = TensorProto.FLOAT16
    node = helper.make_node("MatMul", ["x", "w"], ["z"], name="mm")
    x = helper.make_tensor_value_info("x", half, [8, 16])
    z = helper.make_tensor_value_info("z", half, [8, 4])
    weight = numpy_helper.from_array(np.ones((16, 4), np.float16), "w")
    network, roofline = _placed(helper.make_graph([node], "net", [x], [z], [weight]), tmp_path)
    casts = "Cast" in dict(network.runtime_seconds)
    assert network.widened == casts
    numbers = 16 * 4 + 8 * 16 + 8 * 4
    assert network.layers[0].traffic_bytes == (4 if casts else 2) * numbers
    assert roofline.peak_macs_per_s == (50e9 if casts else 200e9)
    assert len(network.notes) >= casts


def _placed(graph: onnx.GraphProto, folder: Path) -> tuple[NetworkRoofline, Roofline]:
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(model)
    sheet = DataSheet("here", "a test", 20.0, PeakGops(fp32=100.0, bf16=400.0))
    return timed_roofline("net", onnx_workload(path), sheet, model, Settings())


def test_a_model_that_cannot_run_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """When it is opened or when it runs; the runtime itself prints nothing."""
    unknown = helper.make_node("Unknown", ["x"], ["z"], domain="none")
    reshaped = helper.make_node("Reshape", ["x", "shape"], ["z"])
    shape = helper.make_node("Constant", [], ["shape"], value_ints=[5, 7])
    for nodes in ([unknown], [shape, reshaped]):
        with pytest.raises(MeasurementError, match="cannot run the model"):
            layer_times(_model(*nodes), ["z"], Settings(), sizes={"H": 3})
    assert capfd.readouterr() == ("", "")


def test_kernels_take_no_longer_than_the_network_without_a_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernels of less than a microsecond are counted as whole ones; the latency is the truth."""
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"], name=f"r{n}") for n in range(40)]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("t0", "t40")
    ]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    runs = iter([np.full(20, 4e-5), np.full(20, 1e-5)])  # with the profile, and without
    real = module._run

    def run(*arguments: Any) -> np.ndarray:
        real(*arguments)
        return next(runs)

    monkeypatch.setattr(module, "_run", run)
    times = layer_times(model.SerializeToString(), [node.name for node in nodes], Settings())
    assert sum(times.layers.values()) + sum(times.runtime.values()) <= 1e-5 * (1 + 1e-9)
