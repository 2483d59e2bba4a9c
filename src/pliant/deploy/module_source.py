"""`model.py` and `model.onnx` of any module: plain PyTorch that runs without its own code.

`torch.fx` traces the module into calls of PyTorch's layers, which are written out. A module whose
Python `torch.fx` cannot follow is written as the operators that `torch.export` finds, as they run
in evaluation mode.
"""

from __future__ import annotations

import pprint
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from pliant.files import write_atomically
from pliant.training.checkpoint import save_tensors

_SOURCE = '''"""A network in plain PyTorch; its weights are in model.safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import device, inf, nan, nn, tensor
from torch.nn import *  # the layers below are written as PyTorch prints them
from safetensors.torch import load_file

CLASSES = {classes}


class Model(nn.Module):
    """From pixels, (N, {shape}), to what the network returns."""

    def __init__(self) -> None:
        super().__init__()
        for name, layer in LAYERS.items():
            place(self, name, layer())
        for name, (shape, dtype, trained) in TENSORS.items():
            values = torch.zeros(shape, dtype=dtype)
            place(self, name, nn.Parameter(values) if trained else values)

{forward}


def place(module: nn.Module, name: str, part: object) -> None:
    """Put a layer, a parameter or a buffer at its name, such as stage1.0.conv."""
    *path, last = name.split(".")
    for step in path:
        if not hasattr(module, step):
            module.add_module(step, nn.Module())
        module = getattr(module, step)
    if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
        module.register_buffer(last, part)
    else:
        setattr(module, last, part)


LAYERS = {{
{layers}
}}

TENSORS = {{
{tensors}
}}


def load(weights: str | None = None) -> Model:
    """The network with its weights, in eval mode."""
    model = Model()
    model.load_state_dict(load_file(weights or Path(__file__).with_name("model.safetensors")))
    return model.eval()
'''


def write_module(
    folder: Path, module: nn.Module, images: Tensor, *, classes: Sequence[str]
) -> tuple[str, ...]:
    """Write model.safetensors, model.py and model.onnx of a module.

    Args:
        folder: made where it does not exist.
        module: in evaluation mode.
        images: an example of its input, (N, channels, size, size).
        classes: names of the labels, where they are known.

    Returns:
        What the files cannot do, in sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes = []
    graph = _traced(module)
    if graph is None:
        notes.append(
            "model.py computes as in evaluation mode: torch.fx cannot trace the module, so it is"
            " written as the operators of torch.export."
        )
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(module, (images,), dynamic_shapes=({0: batch},), strict=False)
        graph = _plain_calls(program.module(check_guards=False))
    write_atomically(folder / "model.py", module_source(graph, images, classes))
    save_tensors(folder / "model.safetensors", dict(graph.state_dict()))
    write_atomically(folder / "model.onnx", module_onnx(module, images))
    return tuple(notes)


def _traced(module: nn.Module) -> fx.GraphModule | None:
    try:
        return fx.symbolic_trace(module)
    except Exception:
        return None  # of a dozen types: its Python depends on values


def _plain_calls(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph without the trees of inputs and outputs of `torch.export`."""
    graph.graph.set_codegen(fx.graph.CodeGen())
    [output] = [node for node in graph.graph.nodes if node.op == "output"]
    returned: Any = output.args[0]
    if isinstance(returned, tuple | list) and len(returned) == 1:
        output.args = (returned[0],)
    graph.recompile()
    return graph


def module_source(graph: fx.GraphModule, images: Tensor, classes: Sequence[str]) -> str:
    """The text of model.py."""
    graph.graph.lint()
    code = graph.code.replace("def forward(self,", "    def forward(self,", 1).strip("\n")
    lines = code.splitlines()
    forward = "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])
    leaves = {
        str(node.target): graph.get_submodule(str(node.target))
        for node in graph.graph.nodes
        if node.op == "call_module"
    }
    layers = [f"    {name!r}: lambda: {layer!r}," for name, layer in leaves.items()]
    inside = tuple(f"{name}." for name in leaves)
    tensors = [
        f"    {name!r}: ({tuple(value.shape)}, {value.dtype}, {isinstance(value, nn.Parameter)}),"
        for name, value in _tensors(graph)
        if not name.startswith(inside)
    ]
    return _SOURCE.format(
        classes=pprint.pformat(list(classes), width=96),
        shape=", ".join(map(str, images.shape[1:])),
        forward=forward,
        layers="\n".join(layers),
        tensors="\n".join(tensors),
    )


def _tensors(graph: fx.GraphModule) -> list[tuple[str, Any]]:
    state = graph.state_dict()
    named = [*graph.named_parameters(), *graph.named_buffers()]
    return [(name, tensor) for name, tensor in named if name in state]


def module_onnx(module: nn.Module, images: Tensor) -> bytes:
    """The module as an ONNX model from pixels to logits, with any number of images."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=False,
            opset_version=18,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )
        return path.read_bytes()
