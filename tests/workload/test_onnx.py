"""Transformers and recurrent networks in ONNX files, with the shape arithmetic that exporters
write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pliant.errors import EncodingError
from pliant.networks.onnx import Graph
from pliant.networks.trace import module_workload
from pliant.workload import Layer, Workload
from pliant.workload.onnx_reader import onnx_workload
from pliant.workload.roofline import least_traffic_bytes


class Writer(Graph):
    """Nodes by operator, named by number; constants by value."""

    def __call__(self, operator: str, *inputs: str, **attributes: object) -> str:
        return self.node(operator, inputs, f"{operator}_{len(self.nodes)}", **attributes)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(f"ints_{len(self.constants)}", np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        return self.constant(f"weight_{len(self.constants)}", np.zeros(shape, np.float32))

    def size(self, tensor: str, axis: int) -> str:
        """One size of a tensor as a vector, taken at run time as PyTorch's exporter does."""
        index = self.constant(f"index_{len(self.constants)}", np.array(axis, np.int64))
        return self("Unsqueeze", self("Gather", self("Shape", tensor), index), self.ints(0))

    def reshape(self, tensor: str, *sizes: str) -> str:
        return self("Reshape", tensor, self("Concat", *sizes, axis=0))

    def linear(self, tensor: str, inputs: int, outputs: int) -> str:
        product = self("MatMul", tensor, self.weight(inputs, outputs))
        return self("Add", self.weight(outputs), product)

    def save(self, path: Path, shape: list[int | str], output: str) -> Path:
        out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "net", [image], [out], self.constants)
        opsets = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
        return path


def attention(write: Writer, x: str, width: int, heads: int) -> str:
    """Self-attention whose every shape is computed from the shape of its input."""
    batch, tokens = write.size(x, 0), write.size(x, 1)
    packed = write.linear(x, width, 3 * width)
    each = write("Div", write.size(packed, 2), write.ints(3 * heads))
    packed = write.reshape(packed, batch, tokens, write.ints(3), write.ints(heads), each)
    packed = write("Transpose", packed, perm=[2, 0, 3, 1, 4])
    q, k, v = (
        write("Gather", packed, write.constant(f"part_{part}_{x}", np.array(part)), axis=0)
        for part in range(3)
    )
    root = write("Sqrt", write("Cast", each, to=TensorProto.FLOAT))
    scores = write("MatMul", write("Div", q, root), write("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = write("Transpose", write("MatMul", write("Softmax", scores), v), perm=[0, 2, 1, 3])
    flat = write("Mul", write.ints(heads), each)
    return write.linear(write.reshape(mixed, batch, tokens, flat), width, width)


def encoder_layer(write: Writer, x: str, width: int, heads: int, hidden: int) -> str:
    def normalized(tensor: str) -> str:
        scale, shift = write.weight(width), write.weight(width)
        return write("LayerNormalization", tensor, scale, shift)

    x = normalized(write("Add", x, attention(write, x, width, heads)))
    wide = write("Relu", write.linear(x, width, hidden))
    return normalized(write("Add", x, write.linear(wide, hidden, width)))


def lstm(write: Writer, x: str, width: int) -> str:
    steps_first = write("Transpose", x, perm=[1, 0, 2])
    weights = write.weight(1, 4 * width, width), write.weight(1, 4 * width, width)
    output = write("LSTM", steps_first, *weights, write.weight(1, 8 * width), hidden_size=width)
    return write("Transpose", write("Squeeze", output, write.ints(1)), perm=[1, 0, 2])


def patches(write: Writer) -> str:
    """A 3x8x8 image as 16 tokens of width 12."""
    weights = write.weight(12, 3, 2, 2), write.weight(12)
    y = write("Conv", "x", *weights, kernel_shape=[2, 2], strides=[2, 2])
    y = write.reshape(y, write.size(y, 0), write.size(y, 1), write.ints(-1))
    return write("Transpose", y, perm=[0, 2, 1])


def head(write: Writer, x: str) -> str:
    mean = write("ReduceMean", x, write.ints(1), keepdims=0)
    return write("Gemm", mean, write.weight(10, 12), write.weight(10), transB=1)


def body(write: Writer, name: str, x: str) -> str:
    if name == "lstm":
        return lstm(write, x, 12)
    if name == "attention":
        return attention(write, x, 12, 3)
    return encoder_layer(write, encoder_layer(write, x, 12, 3, 24), 12, 3, 24)


@pytest.mark.parametrize(
    ("name", "macs"), [("attention", 17_784), ("encoder", 51_576), ("lstm", 20_856)]
)
def test_transformers_and_recurrent_networks_load(name: str, macs: int, tmp_path: Path) -> None:
    write = Writer()
    output = head(write, body(write, name, patches(write)))
    path = write.save(tmp_path / "net.onnx", ["batch", 3, 8, 8], output)
    assert onnx_workload(path, sizes={"batch": 1}).macs == macs
    assert onnx_workload(path, sizes={"batch": 4}).macs == 4 * macs


def nests(workload: Workload) -> list[Layer]:
    return [
        Layer("", layer.kind, (), *(getattr(layer, size) for size in "NGKCPQRS"), bias=layer.bias)
        for layer in workload.layers
    ]


def test_a_transformer_and_its_module_have_the_same_layers(tmp_path: Path) -> None:
    write = Writer()
    path = write.save(tmp_path / "net.onnx", [2, 16, 12], encoder_layer(write, "x", 12, 3, 24))
    module = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)
    assert nests(onnx_workload(path)) == nests(module_workload(module, torch.zeros(2, 16, 12)))


def test_a_class_token_is_expanded_and_positions_are_counted(tmp_path: Path) -> None:
    """What exporters write for `expand`, `arange` and a mask: all of it follows from shapes."""
    write = Writer()
    x = patches(write)
    batch = write.size(x, 0)
    sizes = write("Concat", batch, write.ints(-1), write.ints(-1), axis=0)
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    ones = write("ConstantOfShape", write("Shape", sizes), value=one)
    kept = write("Equal", sizes, write("Mul", ones, write.ints(-1)))
    token = write("Expand", write.weight(1, 1, 12), write("Where", kept, ones, sizes))
    x = write("Concat", token, x, axis=1)
    start, step = (write.constant(f"scalar_{n}", np.array(n, np.int64)) for n in (0, 1))
    count = write("Squeeze", write.size(x, 1), write.ints(0))
    positions = write("Gather", write.weight(17, 12), write("Range", start, count, step))
    x = attention(write, write("Add", x, positions), 12, 3)
    first = write("Slice", x, write.ints(0), write.ints(1), write.ints(1))
    first = write("Squeeze", first, write.ints(1))
    output = write("Gemm", first, write.weight(10, 12), transB=1)
    layers = onnx_workload(write.save(tmp_path / "net.onnx", [2, 3, 8, 8], output)).layers
    assert [layer.kind for layer in layers] == [
        "conv", "matmul", "matmul", "elementwise", "matmul", "matmul", "matmul"
    ]  # fmt: skip
    scores, last = layers[2], layers[-1]
    assert (scores.N, scores.G, scores.K, scores.C, last.N) == (17, 6, 17, 4, 2)


def test_weights_beside_the_file_are_not_read(tmp_path: Path) -> None:
    write = Writer()
    path = write.save(tmp_path / "net.onnx", [2, 16, 12], attention(write, "x", 12, 3))
    here = onnx_workload(path)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="weights", size_threshold=256)
    (tmp_path / "weights").unlink()
    assert onnx_workload(path) == here


def test_functions_of_a_file_are_opened(tmp_path: Path) -> None:
    write = Writer()
    output = write("Wide", write.linear("x", 12, 8), domain="mine")
    path = write.save(tmp_path / "net.onnx", [2, 12], output)
    model = onnx.load(str(path))
    body = [helper.make_node("Sigmoid", ["a"], ["b"]), helper.make_node("Mul", ["a", "b"], ["c"])]
    ours = helper.make_opsetid("", 20)
    model.functions.append(helper.make_function("mine", "Wide", ["a"], ["c"], body, [ours]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, str(path))
    assert len(onnx_workload(path).layers) == 1


def test_a_branch_chosen_by_a_shape_is_taken(tmp_path: Path) -> None:
    """As exporters write `squeeze` of an axis whose size they do not know."""
    write = Writer()
    x = write.linear("x", 12, 8)
    single = write("Equal", write.size(x, 1), write.ints(1))
    branches = {
        f"{side}_branch": helper.make_graph(
            [helper.make_node(operator, [x], [side])],
            side,
            [],
            [helper.make_tensor_value_info(side, TensorProto.FLOAT, None)],
        )
        for side, operator in (("then", "Det"), ("else", "Relu"))
    }
    output = write.linear(write("If", single, **branches), 8, 4)
    path = write.save(tmp_path / "net.onnx", [2, 16, 12], output)
    assert [layer.K for layer in onnx_workload(path).layers] == [8, 4]
    assert onnx_workload(path).layers[1].inputs == (onnx_workload(path).layers[0].name,)


def test_operators_of_other_domains_are_refused_by_name(tmp_path: Path) -> None:
    write = Writer()
    fused = write("Relu", write.linear("x", 12, 8), domain="com.microsoft")
    path = write.save(tmp_path / "net.onnx", [2, 12], write.linear(fused, 8, 4))
    with pytest.raises(EncodingError, match=r"'com.microsoft.Relu' \(node 'Relu_2'\) has no cost"):
        onnx_workload(path)
    assert [layer.C for layer in onnx_workload(path, skip={"com.microsoft.Relu"}).layers] == [12, 8]


def test_sizes_that_depend_on_values_are_refused(tmp_path: Path) -> None:
    write = Writer()
    found = write("Compress", "x", write("Cast", "x", to=TensorProto.BOOL))
    path = write.save(tmp_path / "net.onnx", [4], write("Softmax", found))
    with pytest.raises(EncodingError, match="'Compress'"):
        onnx_workload(path)
    write = Writer()
    wide = write("Reshape", "x", write("Cast", "x", to=TensorProto.INT64))
    write.save(path, [2], write("Softmax", wide))
    with pytest.raises(EncodingError, match="every size is a number"):
        onnx_workload(path)


def test_products_of_a_constant_with_data_hold_the_constant_as_weights(tmp_path: Path) -> None:
    write = Writer()
    path = write.save(tmp_path / "net.onnx", [2, 5, 7], write("MatMul", write.weight(3, 5), "x"))
    (layer,) = onnx_workload(path).layers
    assert (layer.N, layer.G, layer.K, layer.C, layer.parameters) == (14, 1, 3, 5, 15)


@pytest.mark.parametrize(
    ("equation", "right", "sizes"),
    [
        ("bic,ck->bik", [12, 5], (2 * 16, 1, 5, 12)),
        ("bic, bjc -> bij", [2, 7, 12], (16, 2, 7, 12)),
        ("bic,ck->bk", [12, 5], (2, 1, 5, 12)),  # 120 multiply-accumulates, not 1,920
        ("bic,ckj->bik", [12, 5, 3], (2 * 16, 1, 5, 12)),
    ],
)
def test_sums_of_products(
    equation: str, right: list[int], sizes: tuple[int, ...], tmp_path: Path
) -> None:
    write = Writer()
    result = write("Einsum", "x", write.weight(*right), equation=equation)
    *sums, layer = onnx_workload(write.save(tmp_path / "net.onnx", [2, 16, 12], result)).layers
    assert sizes == (layer.N, layer.G, layer.K, layer.C)
    if "i" not in equation.partition("->")[2]:  # what only one operand has is summed first
        assert [(one.kind, one.G, one.R) for one in sums] == [("pool", 2 * 12, 16)]


def test_shared_keys_of_an_attention_operator(tmp_path: Path) -> None:
    """Four query heads, two of keys and values: each pair of heads is the rows of one product."""
    write = Writer()
    q, k, v = (write.linear("x", 12, width) for width in (32, 16, 16))
    output = write("Attention", q, k, v, q_num_heads=4, kv_num_heads=2)
    path = write.save(tmp_path / "net.onnx", [2, 16, 12], output)
    model = onnx.load(str(path))
    model.opset_import[0].version = 23
    onnx.save(model, str(path))
    scores, softmax, values = onnx_workload(path).layers[3:]
    assert (scores.N, scores.G, scores.K, scores.C) == (32, 4, 16, 8)
    assert (softmax.output_elements, values.macs) == (2 * 4 * 16 * 16, 2 * 4 * 16 * 16 * 8)


@pytest.mark.parametrize(("kind", "size"), [(np.float16, 2), (np.float32, 4), (np.float64, 8)])
def test_floats_have_the_bytes_of_their_type(kind: type, size: int, tmp_path: Path) -> None:
    """A product of 4 rows of 8 with 8 x 16 weights and a bias, by hand."""
    weight = numpy_helper.from_array(np.ones((8, 16), dtype=kind), "w")
    bias = numpy_helper.from_array(np.arange(16).astype(kind), "b")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="mm")],
        "product",
        [helper.make_tensor_value_info("x", element, [4, 8])],
        [helper.make_tensor_value_info("y", element, [4, 16])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "product.onnx")
    workload = onnx_workload(tmp_path / "product.onnx")
    [layer] = workload.layers
    assert (layer.bits, layer.parameter_bytes) == (8 * size, (8 * 16 + 16) * size)
    assert least_traffic_bytes(workload) == ((8 * 16 + 16 + 4 * 8 + 4 * 16) * size,)
    assert workload.peak_activation_bytes == (4 * 8 + 4 * 16) * size


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_the_gates_of_recurrent_layers_by_hand(operator: str, gates: int, tmp_path: Path) -> None:
    """2 steps of 3 features into 5 states; each gate has weights, two biases and a sum of its own.

    Of an LSTM: 2 x 20 x 3 and 2 x 20 x 5 MACs, and the sums read 2 x 20 and 2 x 20 numbers.
    """
    write, wide = Writer(), gates * 5
    weights = write.weight(1, wide, 3), write.weight(1, wide, 5), write.weight(1, 2 * wide)
    output = write(operator, "x", *weights, hidden_size=5)
    workload = onnx_workload(write.save(tmp_path / "net.onnx", [2, 1, 3], output))
    assert [layer.macs for layer in workload.layers] == [2 * wide * 3, 2 * wide * 5, 0]
    assert workload.parameters == wide * (3 + 5 + 2)
    assert least_traffic_bytes(workload) == (
        4 * (wide * 3 + wide + 2 * 3 + 2 * wide),
        4 * (wide * 5 + wide + 2 * 5 + 2 * wide),
        4 * (2 * wide + 2 * wide + 2 * 5),
    )
