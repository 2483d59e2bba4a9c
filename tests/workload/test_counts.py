"""MACs and parameters by hand, of files and of modules; what a count would leave out is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from pliant.accelerator.chip import load_chip
from pliant.accelerator.network_mapping import map_workload
from pliant.cli.accelerator import app
from pliant.errors import DamagedFileError, EncodingError
from pliant.networks.trace import module_workload
from pliant.report.mapping_page import write_mapping_report
from pliant.workload import Workload
from pliant.workload.onnx_reader import onnx_workload

Shapes = dict[str, list[int | str]]


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Shapes,
    weights: dict[str, np.ndarray] | None = None,
    *,
    kind: int = TensorProto.FLOAT,
    domains: tuple[str, ...] = (),
) -> Path:
    """A file whose output is that of the last node."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def reals(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def exported(module: nn.Module, example: tuple[Tensor, ...], path: Path, opset: int = 17) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), example, str(path), dynamo=False, opset_version=opset)
    return path


def sources(module: nn.Module, example: tuple[Tensor, ...], folder: Path) -> list[Workload]:
    """The same network as a module that is exported or watched, and as a file."""
    found = [module_workload(module, *example, way=way) for way in ("export", "watch")]
    return [*found, onnx_workload(exported(module, example, folder / "net.onnx"))]


# Nothing is left out without a word.


def branches(x: str) -> dict[str, onnx.GraphProto]:
    made = {}
    for side, operator in (("then", "Squeeze"), ("else", "Identity")):
        node = helper.make_node(operator, [x, "axis"] if operator == "Squeeze" else [x], [side])
        outputs = [onnx.ValueInfoProto(name=side)]
        made[f"{side}_branch"] = helper.make_graph([node], side, [], outputs)
    return made


def test_what_follows_a_branch_that_a_shape_chooses_is_counted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Shape", ["y"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"]),
        helper.make_node("Equal", ["channels", "one"], ["single"]),
        helper.make_node("If", ["single"], ["z"], **branches("y")),
        helper.make_node("MatMul", ["z", "v"], ["out"]),
    ]
    one = np.array(1, np.int64)
    weights = {"w": reals(1, 64, 1, 1), "v": reals(56, 1000), "one": one, "axis": one.reshape(1)}
    path = saved(tmp_path / "net.onnx", nodes, {"x": [1, 64, 56, 56]}, weights)
    assert onnx_workload(path).macs == 3_336_704
    nodes[3] = helper.make_node("ReduceMax", ["y"], ["any"], keepdims=0)
    nodes.insert(4, helper.make_node("Cast", ["any"], ["single"], to=TensorProto.BOOL))
    saved(path, nodes, {"x": [1, 64, 56, 56]}, weights)
    with pytest.raises(EncodingError, match=r"operator 'If' \(node 'z'\) has no cost"):
        onnx_workload(path)


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(30, 1000)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.shape[0] == 1:
            y = y * 2
        return self.linear(y)


@pytest.mark.parametrize("opset", [13, 17])
def test_a_scripted_branch_on_the_batch(opset: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Doubling())
    path = exported(scripted, (torch.zeros(1, 3, 32, 32),), tmp_path / "net.onnx", opset)
    assert onnx_workload(path).macs == 7_394_400


def test_a_loop_that_reads_a_computed_tensor_is_refused(tmp_path: Path) -> None:
    step = helper.make_node("Add", ["state", "y"], ["next"])
    keep = helper.make_node("Identity", ["going"], ["still"])
    body = helper.make_graph(
        [step, keep],
        "body",
        [onnx.ValueInfoProto(name=name) for name in ("number", "going", "state")],
        [onnx.ValueInfoProto(name=name) for name in ("still", "next")],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Loop", ["times", "", "w"], ["z"], body=body),
        helper.make_node("MatMul", ["z", "w"], ["out"]),
    ]
    weights = {"w": reals(4, 4), "times": np.array(3, np.int64)}
    path = saved(tmp_path / "net.onnx", nodes, {"x": [4, 4]}, weights)
    with pytest.raises(EncodingError, match="operator 'Loop'"):
        onnx_workload(path)


class Queries(nn.Module):
    """Learned queries, projected at every inference, that attend to the image's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.project = nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.project(self.queries) @ x.transpose(-1, -2), -1) @ x


def test_products_of_stored_numbers_run_at_every_inference(tmp_path: Path) -> None:
    for workload in sources(Queries(), (torch.randn(6, 8),), tmp_path):
        assert workload.macs == 5 * 8 * 8 + 2 * 5 * 6 * 8
        assert workload.parameters == 5 * 8 + 8 * 8 + 8
        assert workload.layers[0].inputs == ()
    cell = nn.RNNCell(3, 4)  # Its state is zeros, and is multiplied all the same.
    assert module_workload(cell, torch.zeros(1, 3)).macs == 4 * 3 + 4 * 4


def test_sizes_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    shape = helper.make_node("Cast", ["sizes"], ["as_sizes"], to=TensorProto.INT64)
    nodes = [
        shape,
        helper.make_node("Reshape", ["x", "as_sizes"], ["y"]),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
        helper.make_node("Conv", ["z", "v"], ["out"]),
    ]
    for inner in (["Conv"], ["MatMul", "Conv"]):
        kept = [node for node in nodes if node.op_type not in {"MatMul", "Conv"} - {*inner}]
        kept[-1].input[0] = kept[-2].output[0]
        weights = {"w": reals(8, 8), "v": reals(4, 4, 1, 1)}
        inputs: Shapes = {"x": [1, 4, 7, 8], "sizes": [4]}
        path = saved(tmp_path / "net.onnx", kept, inputs, weights)
        with pytest.raises(EncodingError, match="every size is a number"):
            onnx_workload(path)


def test_what_is_skipped_is_said_and_nothing_is_proven(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Det", ["y"], ["d"], "odd"),
        helper.make_node("MatMul", ["d", "w"], ["out"]),
    ]
    path = saved(tmp_path / "net.onnx", nodes, {"x": [4, 4]}, {"w": reals(4, 4)})
    skipped = onnx_workload(path, skip={"Det"})
    assert skipped.left_out == ("Det",)
    arguments = ["map", str(path), "--chip", "nvdla-256", "--skip", "Det"]
    text = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    said = "without Det, so nothing is proven of the network"
    assert said in text
    page = tmp_path / "report.html"
    write_mapping_report(map_workload(skipped, load_chip("nvdla-256")), page)
    assert said in page.read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, [*arguments, "--time-limit-s", "-1"])
    assert refused.exit_code == 2


# What is asked wrongly.


def test_open_sizes_are_stated_by_name_or_by_place(tmp_path: Path) -> None:
    product = helper.make_node("MatMul", ["x", "y"], ["out"])
    path = tmp_path / "net.onnx"
    saved(path, [product], {"x": ["batch", "?", 8], "y": ["batch", 8, "?"]})
    stated = {"batch": 2, "x:1": 3, "y:2": 5}
    assert onnx_workload(path, sizes=stated).macs == 2 * 3 * 8 * 5
    assert onnx_workload(path, sizes={"batch": 2, "?": 3, "y:2": 5}).macs == 2 * 3 * 8 * 5
    for sizes, said in (
        ({"batsch": 2}, "Did you mean 'batch'"),
        ({"batch": 0}, "from 1 up"),
        ({"batch": 2}, r"'\?' is open"),
    ):
        with pytest.raises(EncodingError, match=said):
            onnx_workload(path, sizes=sizes)
    unnamed = onnx.load(str(path))
    for value in unnamed.graph.input:
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    onnx.save(unnamed, str(path))
    with pytest.raises(EncodingError, match='--size "dimension 0=1"'):
        onnx_workload(path, sizes={"?": 3})
    arguments = ["map", str(path), "--chip", "nvdla-256", "--size", "?=3", "--size"]
    text = CliRunner().invoke(app, [*arguments, "dimension 0=1"], catch_exceptions=False).output
    assert "every mapping proven best" in text


def test_an_input_of_size_0_is_refused_by_name(tmp_path: Path) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["out"])
    path = saved(tmp_path / "net.onnx", [product], {"x": [0, 4]}, {"w": reals(4, 4)})
    with pytest.raises(EncodingError, match=r"dimension 0 of input 'x' is 0.*Export"):
        onnx_workload(path)
    cut = [helper.make_node("Slice", ["x", "from", "from"], ["y"]), product]
    product.input[0] = "y"
    path = saved(path, cut, {"x": [4, 4]}, {"w": reals(4, 4), "from": np.array([1])})
    with pytest.raises(EncodingError, match=r"tensor 'y'.*received \(0, 4\)"):
        onnx_workload(path)


def test_a_name_to_skip_is_an_operator_of_the_network(tmp_path: Path) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["out"])
    path = saved(tmp_path / "net.onnx", [product], {"x": [4, 4]}, {"w": reals(4, 4)})
    with pytest.raises(EncodingError, match="Did you mean 'MatMul'"):
        onnx_workload(path, skip={"MatMull"})
    with pytest.raises(EncodingError, match="no 'selu'"):
        module_workload(nn.Linear(2, 2), torch.zeros(1, 2), skip={"selu"})


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(DamagedFileError, match="holds no graph"):
        onnx_workload(tmp_path / "empty.onnx")


def test_two_vectors_are_a_product(tmp_path: Path) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["out"])
    path = saved(tmp_path / "net.onnx", [product], {"x": [7]}, {"w": reals(7)})
    assert onnx_workload(path).macs == 7


# Operators with a loop nest.


class Upsampling(nn.Module):
    """Transposed convolutions with overlap and without, and strides that differ by axis."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, (3, 5), (2, 1), (1, 2), bias=False)
        self.up, self.norm = nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2), nn.BatchNorm2d(6)
        self.twice = nn.ConvTranspose2d(6, 5, 2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(torch.relu(self.norm(self.up(self.down(x)))))


def test_transposed_convolutions_and_strides_by_axis(tmp_path: Path) -> None:
    down = 8 * 3 * 15 * 4 * 8  # 8x8 pixels to 4 rows of 8.
    up, twice = 4 * 8 * 8 * 3 * 16, 8 * 16 * 6 * 5 * 4
    for workload in sources(Upsampling(), (torch.randn(1, 3, 8, 8),), tmp_path):
        assert workload.macs == down + up + twice
        assert workload.parameters == 8 * 3 * 15 + (8 * 3 * 16 + 6) + 6 * 5 * 4
        assert workload.layers[0].strides == (2, 1)
        kinds = [layer.kind for layer in workload.layers]
        assert kinds == ["conv", "conv", "elementwise", "conv", "elementwise"]
        assert workload.layers[-1].output_elements == 5 * 16 * 32


def test_quantised_operators_count_as_the_real_ones(tmp_path: Path) -> None:
    scale, zero = np.array(0.1, np.float32), np.array(3, np.uint8)
    weights = {
        "s": scale,
        "z": zero,
        "w": np.arange(8 * 3 * 9, dtype=np.uint8).reshape(8, 3, 3, 3),
        "b": np.arange(8, dtype=np.int32),
        "v": np.arange(6 * 10, dtype=np.uint8).reshape(6, 10),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z", "b"], ["c"]),
        helper.make_node("QLinearMatMul", ["c", "s", "z", "v", "s", "z", "s", "z"], ["m"]),
        helper.make_node("DequantizeLinear", ["m", "s", "z"], ["d"]),
        helper.make_node("DynamicQuantizeLinear", ["d"], ["e", "es", "ez"]),
        helper.make_node("MatMulInteger", ["e", "e2", "ez", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "es"], ["out"]),
    ]
    weights["e2"] = np.arange(10 * 4, dtype=np.uint8).reshape(10, 4)
    workload = onnx_workload(saved(tmp_path / "net.onnx", nodes, {"x": [1, 3, 8, 8]}, weights))
    conv, product, last = workload.layers
    assert (conv.macs, product.macs, last.macs) == (36 * 8 * 27, 48 * 60, 48 * 40)
    assert (conv.parameters, product.parameters, last.parameters) == (8 * 27 + 8, 60, 40)
    assert {layer.bits for layer in workload.layers} == {8}


def test_fused_operators_of_onnx_runtime(tmp_path: Path) -> None:
    """Attention on packed weights, and a normalisation that adds a skip connection."""
    nodes = [
        helper.make_node("Attention", ["x", "w", "b"], ["a"], domain="com.microsoft", num_heads=3),
        helper.make_node(
            "SkipLayerNormalization", ["a", "x", "g", "h"], ["n"], domain="com.microsoft"
        ),
        helper.make_node("FusedMatMul", ["n", "v"], ["m"], domain="com.microsoft", transB=1),
        helper.make_node("BiasGelu", ["m", "c"], ["out"], domain="com.microsoft"),
    ]
    weights = {"w": reals(12, 36), "b": reals(36), "g": reals(12), "h": reals(12)}
    weights |= {"v": reals(24, 12), "c": reals(24)}
    path = saved(
        tmp_path / "net.onnx", nodes, {"x": [2, 16, 12]}, weights, domains=("com.microsoft",)
    )
    workload = onnx_workload(path)
    assert workload.macs == 2 * (3 * 16 * 12 * 12 + 2 * 16 * 16 * 12 + 16 * 12 * 24)
    assert workload.parameters == sum(value.size for value in weights.values())


# Parameters.


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2), -1) @ self.v(x)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x, x, x)[0])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.linear(x)))


class Left(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(20, 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x


class Tokens(nn.Module):
    """A class token, positions, an embedding and a layer scale: stored, and no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.token = nn.Embedding(11, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.positions, self.scale = nn.Parameter(torch.randn(1, 6, 8)), nn.Parameter(torch.ones(8))
        self.act, self.head = nn.PReLU(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.table(x)], 1) + self.positions
        x = self.act((x * self.scale).transpose(1, 2))
        return self.head(x.transpose(1, 2))


@pytest.mark.parametrize(
    ("module", "example", "parameters"),
    [
        (Attention(), torch.randn(1, 50, 64), 12_288),
        (Normalised(), torch.randn(1, 50, 64), 16_768),
        (Twice(), torch.randn(1, 50, 64), 4_096),
        (Left(), torch.randn(64, 7), 1_280),
        (Tokens(), torch.zeros(2, 5, dtype=torch.long), 11 * 8 + 8 + 48 + 8 + 8 + 27),
        (nn.InstanceNorm2d(4, affine=True), torch.randn(2, 4, 3, 3), 8),
        (nn.GroupNorm(2, 4), torch.randn(2, 4, 3, 3), 8),
        (nn.LSTM(3, 4, 2, bidirectional=True), torch.randn(5, 2, 3), 736),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_stored_numbers_count_once_and_products_of_data_store_nothing(
    module: nn.Module, example: Tensor, parameters: int, tmp_path: Path
) -> None:
    for workload in sources(module, (example,), tmp_path):
        assert workload.parameters == parameters


def test_a_computed_weight_counts_as_the_plain_one_that_it_is() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    expected = module_workload(plain, torch.zeros(1, 3, 3, 3))
    wrapped = nn.Sequential(
        *(
            nn.utils.parametrizations.spectral_norm(one) if hasattr(one, "weight") else one
            for one in plain
        )
    )
    before = list(wrapped.state_dict())
    for way in ("export", "watch"):
        assert module_workload(wrapped, torch.zeros(1, 3, 3, 3), way=way) == expected
    assert list(wrapped.state_dict()) == before


def test_a_mask_is_no_parameter(tmp_path: Path) -> None:
    mask = np.where(np.tri(6, dtype=bool), 0, -np.inf).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "mask"], ["out"]),
    ]
    path = saved(tmp_path / "net.onnx", nodes, {"x": [6, 6]}, {"w": reals(6, 6), "mask": mask})
    assert onnx_workload(path).parameters == 36


class Dense(nn.Module):
    """A block of DenseNet: a BatchNorm that reads two layers as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(F.relu(self.norm(torch.cat([x, self.second(F.relu(x))], 1))))


def test_all_parts_of_a_concatenation_are_alive(tmp_path: Path) -> None:
    # Before the last layer: both parts of 8 channels, and the normalised 16, of 64 pixels.
    for workload in sources(Dense(), (torch.randn(1, 3, 8, 8),), tmp_path):
        assert len(workload.layers[2].inputs) == 1  # One stream.
        assert len(workload.layers[2].concatenated) == 1
        assert workload.peak_activation_bytes == 4 * 64 * (8 + 8 + 16)


# An activation is one operation however a file spells it.


class TanhGelu(nn.Module):
    """As many networks write it out."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    "activation",
    [nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.GELU("tanh"), nn.Mish(), TanhGelu(), nn.SELU()],
    ids=str,
)
def test_activations_are_free_in_every_spelling(
    activation: nn.Module, opset: int, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Conv2d(8, 32, 1), activation, nn.Conv2d(32, 8, 1))
    image = torch.randn(1, 8, 56, 56)
    plain = module_workload(nn.Sequential(network[0], network[2]), image)
    file = onnx_workload(exported(network, (image,), tmp_path / "net.onnx", opset))
    chip = load_chip("nvdla-256")
    for workload in (module_workload(network, image), file):
        assert len(workload.layers) == 2
        assert map_workload(workload, chip).cycles == map_workload(plain, chip).cycles
        assert workload.macs == plain.macs
        assert workload.peak_activation_bytes == plain.peak_activation_bytes
