"""A network of the user's own class with the sizes of a sub-network.

Its layers get smaller tensors and say so (`in_channels` and the like), and modules whose branch is
left out get out of the way. That is all that most classes need. Those that write sizes into their
forward pass compute something else, or fail: so outputs are compared, and such a network is only
delivered as the graph of its operators. `shrink` is delivered as source beside the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from pliant.errors import ForeignError
from pliant.networks.foreign.extraction import LEFT_OUT, PADDING, UNITS, without_preprocessing
from pliant.networks.foreign.graph import evaluation

SIZES = (
    "in_channels",
    "out_channels",
    "groups",
    "kernel_size",
    "padding",
    "in_features",
    "out_features",
    "num_features",
    "normalized_shape",
    "num_groups",
    "num_channels",
)
"""Attributes of layers of `torch.nn` that are sizes."""
HEADS = ("num_heads", "heads", "n_heads", "num_attention_heads")
HEAD_CHANNELS = ("attn_dim", "inner_dim", "all_head_size", "all_head_dim")
"""What classes of attention call their number of heads, and the channels of all of them."""
TOLERANCE = 1e-5
"""Largest difference of the outputs, over the largest output."""


class Nothing(nn.Module):
    """What stands in place of a module that is left out: it returns what it reads."""

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Tensor:
        """(...) as it is."""
        return x


class Zeros(nn.Module):
    """The end of a branch that is left out: zeros, as many as it reads."""

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Tensor:
        """(...) to zeros of the same shape."""
        return torch.zeros_like(x)


def shrink(
    module: nn.Module,
    sizes: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, str],
    tensors: Mapping[str, Tensor],
) -> nn.Module:
    """Give a network the sizes and weights of a smaller one, in place.

    Args:
        module: of the class, at full size.
        sizes: attributes of its layers, by path and name.
        left_out: `identity` or `zeros` by the path of a module.
        tensors: parameters and buffers by name.
    """
    for path, kind in left_out.items():
        parent, _, last = path.rpartition(".")
        replacement = Nothing() if kind == "identity" else Zeros()
        setattr(module.get_submodule(parent), last, replacement)
    for path, attributes in sizes.items():
        for attribute, value in attributes.items():
            setattr(module.get_submodule(path), attribute, value)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for name, tensor in tensors.items():
        path, _, last = name.rpartition(".")
        if name in parameters:
            new = nn.Parameter(tensor.clone(), requires_grad=parameters[name].requires_grad)
            for other, old in list(parameters.items()):  # weights that are shared stay so
                if old is parameters[name]:
                    path, _, last = other.rpartition(".")
                    setattr(module.get_submodule(path), last, new)
        elif name in buffers:
            setattr(module.get_submodule(path), last, tensor.clone())
    return module.eval()


def layer_sizes(module: nn.Module, network: fx.GraphModule) -> dict[str, dict[str, Any]]:
    """The attributes of layers that differ in a sub-network, by path.

    Args:
        module: the user's own network.
        network: the sub-network, as it was extracted.
    """
    own = dict(module.named_modules())
    found: dict[str, dict[str, Any]] = {}
    for path, layer in network.named_modules():
        for attribute in SIZES:
            if path and hasattr(own.get(path), attribute) and hasattr(layer, attribute):
                value = getattr(layer, attribute)
                if getattr(own[path], attribute) not in (value, "same"):
                    found.setdefault(path, {})[attribute] = value
    for path, padding in network.meta[PADDING].items():
        if isinstance(own.get(path), nn.ZeroPad2d | nn.ConstantPad2d):
            found[path] = {"padding": padding}
    for layer, (unit, units, kept) in network.meta[UNITS].items():
        path = layer.rpartition(".")[0]
        for names, size in ((HEADS, 1), (HEAD_CHANNELS, unit)):
            for name in names:
                if getattr(own.get(path), name, None) == units * size:
                    found.setdefault(path, {})[name] = kept * size
    return found


def shrunk(module: nn.Module, network: fx.GraphModule, images: Tensor) -> nn.Module:
    """A copy of the user's network with the sizes and weights of a sub-network.

    Args:
        module: the network of which the supernet was made.
        network: extracted and calibrated.
        images: (N, channels, size, size) as the module takes them, at the sub-network's resolution;
            on which both are compared.

    Raises:
        ForeignError: the class computes something else with these sizes.
    """
    inner, _, _ = without_preprocessing(network)
    own = copy.deepcopy(module).cpu().float()
    sizes, tensors = layer_sizes(own, network), inner.state_dict()
    why = ""
    with torch.no_grad(), evaluation(inner):
        try:
            found = shrink(own, sizes, network.meta[LEFT_OUT], tensors)(images)
            expected = inner(images)
            worst = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
            if not worst <= TOLERANCE:
                why = f"its outputs differ by {worst:.1e} of the largest one"
        except Exception as error:  # whatever the class raises at sizes that it does not know
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    if why:
        raise ForeignError(
            f"{type(module).__name__} does not compute a network of these sizes ({why}), since"
            " sizes are written in its Python. Use the extracted network, or model.py."
        )
    return own
