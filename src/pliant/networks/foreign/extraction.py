"""A sub-network as plain PyTorch: layers of its sizes, called in the order of its steps.

The result is a `torch.fx.GraphModule`. Convolutions, linear layers and normalisations are modules
of `torch.nn` at the names that they have in the network; all else is called as the operators that
`torch.export` found. `pliant.deploy.module_source` writes it as a file that runs without Pliant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pliant.networks.foreign.left_out import modules_left_out
from pliant.networks.foreign.operators import Node, argument
from pliant.networks.foreign.plan import Plan, Step, has_batch_size, with_batch

PREPARED = "pliant_prepared"
"""Marks the node whose result the network itself reads: pixels, normalised and resized."""
LEFT_OUT, PADDING, UNITS = "pliant_left_out", "pliant_padding", "pliant_units"
HEAD = "pliant_head"
"""What an extracted network knows of the modules of the user's own: see `modules_left_out`,
`Plan.paddings`, `Plan.units` and `ForeignGraph.head_path`."""
METHODS = ("reshape", "expand")
"""Operators with sizes, which are called as methods of a tensor."""
CREATED = {"zeros": "new_zeros", "ones": "new_ones"}
"""Operators that make a tensor for the batch, such as a recurrent layer's state; of the images."""


def plain_module(
    plan: Plan,
    tensor_of: Callable[[str], Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None,
) -> fx.GraphModule:
    """The network of a plan with weights of its own.

    Args:
        plan: of a sub-network.
        tensor_of: a parameter or buffer of the whole network by its name.
        mean, std: by which pixels are normalised first; empty for not at all.
        resolution: to which images are resized first; None for not at all.
    """
    builder = _Builder(plan, tensor_of)
    builder.read_images(mean, std, resolution)
    for step in plan.steps:
        builder.add(step)
    builder.graph.output(builder.values[plan.result])
    module = fx.GraphModule(builder.root, builder.graph)
    module.recompile()
    module.meta[LEFT_OUT] = modules_left_out(plan.graph, plan.skipped)
    module.meta[PADDING], module.meta[UNITS] = plan.paddings, plan.units
    module.meta[HEAD] = plan.graph.head_path
    return module


def without_preprocessing(network: nn.Module) -> tuple[fx.GraphModule, np.ndarray, np.ndarray]:
    """The network behind its preprocessing, and mean and deviation of the pixels."""
    inner: Any = copy.deepcopy(network).cpu().float().eval()
    inner.to(memory_format=torch.contiguous_format)
    state = dict(inner.named_buffers())
    channels = 1
    none = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    mean, std = (
        state[name].flatten().numpy() if name in state else other
        for name, other in zip(("pixel_mean", "pixel_std"), none, strict=True)
    )
    [image] = [node for node in inner.graph.nodes if node.op == "placeholder"]
    prepared = [node for node in inner.graph.nodes if node.meta.get(PREPARED)]
    for node in prepared:
        node.replace_all_uses_with(image)
    inner.recompile()
    return inner, mean, std


class _Builder:
    """The graph and the modules of a network, step by step."""

    def __init__(self, plan: Plan, tensor_of: Callable[[str], Tensor]) -> None:
        self.plan, self.tensor_of = plan, tensor_of
        self.graph, self.root = fx.Graph(), nn.Module()
        self.values: dict[Node, fx.Node] = {}
        self.images: Any = None
        self._batch: Any = None

    def read_images(
        self, mean: Sequence[float], std: Sequence[float], resolution: int | None
    ) -> None:
        """The network's input, normalised and resized where asked for."""
        images = self.graph.placeholder("images")
        if mean:
            for name, values in (("pixel_mean", mean), ("pixel_std", std)):
                self.root.register_buffer(name, torch.tensor(values)[:, None, None])
            read = self.graph.get_attr
            images = self.graph.call_function(torch.sub, (images, read("pixel_mean")))
            images = self.graph.call_function(torch.div, (images, read("pixel_std")))
        if resolution is not None:
            images = self.graph.call_function(
                torch.nn.functional.interpolate,
                (images,),
                {
                    "size": (resolution, resolution),
                    "mode": "bilinear",
                    "antialias": True,
                    "align_corners": False,
                },
            )
        images.meta[PREPARED] = True
        self.images = self.values[self.plan.graph.inputs[0]] = images

    def add(self, step: Step) -> None:
        """One operator, as a module where it is a layer."""
        made = self._layer(step)
        if made is not None:
            path, layer = made
            if path not in dict(self.root.named_modules()):
                place_module(self.root, path, layer)
            read = self._value(step.args[0])
            self.values[step.node] = self.graph.call_module(path, (read,))
            return
        args = self._value(with_batch(step.args, self._batch_size(step)))
        kwargs = self._value(dict(step.kwargs))
        name = step.name
        if name in METHODS:  # an exporter that traces keeps the batch of a method open
            self.values[step.node] = self.graph.call_method(name, args)
        elif name in CREATED and has_batch_size(step.args):
            kwargs = {key: kwargs[key] for key in ("dtype",) if kwargs.get(key) is not None}
            created = self.graph.call_method(CREATED[name], (self.images, *args), kwargs)
            self.values[step.node] = created
        else:
            self.values[step.node] = self.graph.call_function(step.target, args, kwargs)

    def _batch_size(self, step: Step) -> Any:
        """-1 where a reshape infers it, else the size of the input's first dimension."""
        name = step.name
        if name == "reshape":
            return _Inferred()
        if self._batch is None and has_batch_size(step.args):
            with self.graph.inserting_after(self.images):
                self._batch = self.graph.call_method("size", (self.images, 0))
        return self._batch

    def _value(self, value: Any) -> Any:
        if isinstance(value, fx.Node) and value.graph is self.graph:
            return value
        if isinstance(value, fx.Node):
            if value not in self.values:
                self.values[value] = self._tensor(value)
            return self.values[value]
        if isinstance(value, list | tuple):
            return type(value)(self._value(one) for one in value)
        if isinstance(value, dict):
            return {name: self._value(one) for name, one in value.items()}
        return value

    def _tensor(self, node: Node) -> fx.Node:
        """A parameter or buffer that an operator reads itself."""
        name = self.plan.parameters[node]
        place_copy(self.root, name, self.tensor_of(name), self._own(node))
        return self.graph.get_attr(name)

    def _own(self, node: Node) -> Tensor:
        return self.plan.active(self.plan.parameters[node], self.tensor_of).detach().clone()

    # Layers.

    def _layer(self, step: Step) -> tuple[str, nn.Module] | None:
        """The module of an operator with its path; None where it is none of torch.nn."""
        make = _LAYERS.get(step.name)
        if make is None:
            return None
        positions, build = make
        named: dict[str, Node] = {}
        for position, ending in positions.items():
            node = step.args[position] if len(step.args) > position else None
            if isinstance(node, fx.Node):
                if node not in self.plan.parameters:
                    return None
                named[ending] = node
        paths = {self.plan.parameters[node].rpartition(".")[0] for node in named.values()}
        endings = {
            ending: self.plan.parameters[node].rpartition(".")[2] for ending, node in named.items()
        }
        if len(paths) != 1 or any(ending != name for ending, name in endings.items()):
            return None
        path = paths.pop()
        if not path or any(
            len(self.plan.graph.users_of_weight[self.plan.parameters[node]]) > 1
            for node in named.values()
        ):
            return None
        own = {ending: self._own(node) for ending, node in named.items()}
        layer = build(step, own)
        if layer is None:
            return None
        for ending, tensor in own.items():
            kept = self.tensor_of(self.plan.parameters[named[ending]])
            if isinstance(kept, nn.Parameter):
                setattr(layer, ending, nn.Parameter(tensor))
            else:
                layer.register_buffer(ending, tensor)
        return path, layer


class _Inferred:
    """The size of a batch in a reshape, whatever it is multiplied with."""

    def __new__(cls) -> Any:
        return _InferredInt(-1)


class _InferredInt(int):
    def __mul__(self, other: Any) -> int:
        return -1


def _convolution(step: Step, own: Mapping[str, Tensor]) -> nn.Module | None:
    weight = own["weight"]
    kinds: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
    name = step.name
    dims = weight.ndim - 2
    options = {
        "stride": argument(step, 3, "stride", 1),
        "padding": argument(step, 4, "padding", 0),
        "dilation": argument(step, 5, "dilation", 1),
    }
    options = {
        key: value if isinstance(value, str | int) else tuple(value) * (dims // len(value))
        for key, value in options.items()
    }
    groups = argument(step, 6, "groups", 1)
    layer: nn.Module = kinds[name](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        groups=groups,
        bias="bias" in own,
        device="meta",
        **options,
    )
    return layer


def _linear(step: Step, own: Mapping[str, Tensor]) -> nn.Module:
    outputs, inputs = own["weight"].shape
    return nn.Linear(inputs, outputs, bias="bias" in own, device="meta")


def _batch_norm(step: Step, own: Mapping[str, Tensor]) -> nn.Module | None:
    affine = {"weight", "bias"} <= own.keys()
    if set(own) - ({"weight", "bias"} if affine else set()) != {"running_mean", "running_var"}:
        return None
    dims = step.args[0].meta["val"].ndim
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[dims]
    options = {"eps": step.args[7], "momentum": step.args[6], "affine": affine, "device": "meta"}
    layer = kind(len(own["running_mean"]), **options)
    layer.num_batches_tracked = torch.tensor(0)
    return layer


def _layer_norm(step: Step, own: Mapping[str, Tensor]) -> nn.Module:
    epsilon = argument(step, 4, "eps", 1e-5)
    affine = "weight" in own
    return nn.LayerNorm(
        list(step.args[1]),
        eps=epsilon,
        elementwise_affine=affine,
        bias="bias" in own,
        device="meta",
    )


def _group_norm(step: Step, own: Mapping[str, Tensor]) -> nn.Module | None:
    if set(own) != {"weight", "bias"}:
        return None
    epsilon = argument(step, 4, "eps", 1e-5)
    return nn.GroupNorm(step.args[1], len(own["weight"]), eps=epsilon, device="meta")


Build = Callable[[Step, Mapping[str, Tensor]], nn.Module | None]

_WEIGHT_BIAS = {1: "weight", 2: "bias"}
_LAYERS: Mapping[str, tuple[Mapping[int, str], Build]] = {
    "conv1d": (_WEIGHT_BIAS, _convolution),
    "conv2d": (_WEIGHT_BIAS, _convolution),
    "conv3d": (_WEIGHT_BIAS, _convolution),
    "linear": (_WEIGHT_BIAS, _linear),
    "batch_norm": ({**_WEIGHT_BIAS, 3: "running_mean", 4: "running_var"}, _batch_norm),
    "layer_norm": ({2: "weight", 3: "bias"}, _layer_norm),
    "group_norm": ({2: "weight", 3: "bias"}, _group_norm),
}
"""The operators that are layers: where their tensors are among the arguments, and what builds
them."""


def place_module(root: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a module at its path."""
    *parents, last = path.split(".")
    for step in parents:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    known = root._modules.get(last)
    if known is not None:  # a container that was made for what is inside of it
        for name, child in known.named_children():
            layer.add_module(name, child)
    root.add_module(last, layer)


def place_copy(root: nn.Module, name: str, like: Tensor, tensor: Tensor) -> None:
    """Put a tensor at its name, as a parameter where it was one."""
    path, _, last = name.rpartition(".")
    for step in filter(None, path.split(".")):
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    if isinstance(like, nn.Parameter):
        root.register_parameter(last, nn.Parameter(tensor))
    else:
        root.register_buffer(last, tensor)
