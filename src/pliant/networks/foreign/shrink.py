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
from torch.nn import functional as F

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


class Skipped(nn.Module):
    """What stands in place of a module that is left out: it has no parameters.

    Its attributes stay for classes that read them, as PyTorch's encoder does.

    Args:
        module: that is left out.
        kind: `identity` returns what it reads; `zeros`, the end of a branch, as many zeros.
    """

    def __init__(self, module: nn.Module, kind: str) -> None:
        super().__init__()
        for name, value in vars(module).items():
            vars(self).setdefault(name, value)
        for name in (*module._parameters, *module._buffers):
            self.register_parameter(name, None)
        for name, child in module.named_children():
            self.add_module(name, Skipped(child, kind))
        self.zeros, self.attends = kind == "zeros", isinstance(module, nn.MultiheadAttention)

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        """(...), the first input, to the same shape; with None for the weights of an attention."""
        x = (*inputs, *named_inputs.values())[0]
        y = torch.zeros_like(x) if self.zeros else x
        return (y, None) if self.attends else y


class SlicedAttention(nn.MultiheadAttention):
    """PyTorch's attention, where all heads together are not as wide as what they read.

    PyTorch's own needs `num_heads * head_dim == embed_dim`.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(N, tokens, channels) to the same shape, and the weights (N, tokens, tokens); else as
        PyTorch's."""
        if self.bias_k is not None or self.add_zero_attn or query.dim() != 3:
            raise NotImplementedError("no bias_k, no add_zero_attn, and queries in a batch only")
        if is_causal and attn_mask is None:
            raise NotImplementedError("is_causal needs attn_mask, as in PyTorch's")
        inputs = [x if self.batch_first else x.transpose(0, 1) for x in (query, key, value)]
        weights: list[Tensor] = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        if self.in_proj_weight is not None:
            weights = list(self.in_proj_weight.chunk(3))
        biases = [None] * 3 if self.in_proj_bias is None else list(self.in_proj_bias.chunk(3))
        query, key, value = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )  # (N, heads, tokens, head_dim)
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask[:, None, None]
        added = query.new_zeros((1, 1))  # to the scores
        for mask in (attn_mask, key_padding_mask):
            if mask is not None and mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, -torch.inf)
            added = added if mask is None else added + mask
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = query @ key.transpose(-2, -1) / self.head_dim**0.5 + added
            attention = F.dropout(scores.softmax(-1), dropout)
            y = attention @ value
        else:
            y = F.scaled_dot_product_attention(query, key, value, added, dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        y = y if self.batch_first else y.transpose(0, 1)
        if not need_weights:
            return y, None
        return y, attention.mean(1) if average_attn_weights else attention


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
        setattr(module.get_submodule(parent), last, Skipped(module.get_submodule(path), kind))
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
    for layer in module.modules():
        if type(layer) is nn.MultiheadAttention:  # and not a class of the user's own
            whole = layer.num_heads * layer.head_dim == layer.embed_dim
            layer.__class__ = nn.MultiheadAttention if whole else SlicedAttention
    for layer in module.modules():
        changed = {SlicedAttention, Skipped} & {type(child) for child in layer.children()}
        if changed and isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0  # it calls its modules; its fused kernel would not
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
    tensors = network.state_dict()
    for path, layer in own.items():
        if isinstance(layer, nn.MultiheadAttention) and f"{path}.out_proj.weight" in tensors:
            sizes = _attention_sizes(path, layer.head_dim, tensors)
            changed = {name: size for name, size in sizes.items() if getattr(layer, name) != size}
            found |= {path: changed} if changed else {}
    return found


def _attention_sizes(path: str, head_dim: int, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The attributes of PyTorch's attention that are sizes, by the weights of a smaller one."""
    shared = tensors.get(f"{path}.in_proj_weight")
    read = {
        name: (tensors[f"{path}.{one}_proj_weight"] if shared is None else shared).shape[1]
        for name, one in (("embed_dim", "q"), ("kdim", "k"), ("vdim", "v"))
    }
    return read | {"num_heads": tensors[f"{path}.out_proj.weight"].shape[1] // head_dim}


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
    with torch.no_grad():
        try:
            with evaluation(inner):
                found = [shrink(own, sizes, network.meta[LEFT_OUT], tensors)(images)]
                expected = inner(images)
            found.append(own(images))  # by PyTorch's fused kernels for attention
            differences = (torch.stack(found) - expected).abs()
            worst = float(differences.max() / expected.abs().max().clamp_min(1e-12))
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
