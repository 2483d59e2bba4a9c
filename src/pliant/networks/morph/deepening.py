"""Deeper networks that compute the same, for any module that `torch.export` can trace.

Chen, T., Goodfellow, I., Shlens, J., Net2Net, 2015, arXiv:1511.05641, section 2.3: an inserted
layer begins as the identity. With an activation f behind it that is exact only where
f(f(x)) = f(x), as for ReLU; swish, h-swish and GELU are not. For them, and wherever a network has
residual blocks, the new layers are a residual block whose last BatchNorm has scale 0, the identity
whatever is in it. Wei, T., Wang, C., Rui, Y., Chen, C. W., Network Morphism, 2016,
arXiv:1603.01670, has a third way, an activation that changes from the identity to f while it is
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pliant.errors import MorphError
from pliant.networks.morph.channel_graph import Node, exported, operator_name
from pliant.networks.morph.check import copied, require_same_function
from pliant.networks.morph.insert import (
    channels_of_output,
    layer_of,
    layer_tensors,
    mixing_layer,
    norm_layer,
    replaced,
    set_statistics,
)

IDEMPOTENT: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.ReLU6,
}
"""Activations f with f(f(x)) = f(x), as `torch.export` names them; ReLU6 is a hardtanh."""

_OTHERS = (
    "hardswish silu gelu mish sigmoid hardsigmoid tanh elu celu selu leaky_relu softplus prelu"
)
_ACTIVATIONS = (*IDEMPOTENT, *_OTHERS.split())


class ResidualBlock(nn.Module):
    """x + BN(layer(relu(BN(layer(x))))); the identity at first, as the last scale is 0.

    Args:
        output: of the layer in front, for the shapes.
    """

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.layer1, self.norm1 = mixing_layer(output), norm_layer(output)
        self.layer2, self.norm2 = mixing_layer(output), norm_layer(output)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.layer1(x)))
        return x + self.norm2(self.layer2(y))


def deepen(
    module: nn.Module, layer: str, images: Tensor, rng: np.random.Generator
) -> tuple[nn.Module, str]:
    """A copy of a module with more layers behind one, in the way that fits; and which way.

    A stage of residual blocks gets one more of them, an activation that is idempotent an identity
    convolution, and all else a residual block.

    Args:
        module: with its trained weights; not changed.
        layer: name of a layer, or of a sequence of blocks.
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.
        rng: of new weights.

    Raises:
        MorphError: no layer of this name, or none of the ways keeps what the module computes.
    """
    if isinstance(layer_of(module, layer), nn.Sequential):
        try:
            return deepen_by_block(module, layer, images), "one more of its residual blocks"
        except MorphError:
            pass  # its last part is no residual block
    activation = _activation(module, layer, images)
    if activation is not None and activation[0] in IDEMPOTENT:
        return deepen_by_identity(module, layer, images), "a convolution that is the identity"
    return deepen_by_residual(module, layer, images, rng), "a residual block of scale 0"


def deepen_by_identity(module: nn.Module, layer: str, images: Tensor) -> nn.Module:
    """A copy with an identity convolution, BatchNorm and activation behind a layer (Net2DeeperNet).

    Args:
        module: not changed; without any BatchNorm, the new layer has none.
        layer: ends in an activation, or is read by one.
        images: on which BatchNorm takes its statistics and the child is checked.

    Raises:
        MorphError: no activation ends or follows the layer, or one that is not idempotent.
    """
    found = _activation(module, layer, images)
    if found is None:
        raise MorphError(
            f"an identity layer is put behind an activation; none ends {layer} or is all that reads"
            " it. Name the layer in front of one, or deepen by a residual block."
        )
    name, inside = found
    if name not in IDEMPOTENT:
        raise MorphError(
            f"an identity layer needs an activation that changes nothing the second time, such as"
            f" ReLU; behind {layer} is {name}. Deepen by a residual block whose last BatchNorm has"
            " scale 0, which is exact behind any activation."
        )
    activation = IDEMPOTENT[name]()
    _, output = layer_tensors(module, layer, images, training=True)
    channels_of_output(layer, output)
    has_norm = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in module.modules())
    new = mixing_layer(output, bias=not has_norm)
    assert isinstance(new, nn.Conv2d | nn.Linear)
    with torch.no_grad():
        nn.init.dirac_(new.weight) if isinstance(new, nn.Conv2d) else nn.init.eye_(new.weight)
        if new.bias is not None:
            nn.init.zeros_(new.bias)
    layers: list[nn.Module] = [new]
    if has_norm:
        norm = norm_layer(output)
        set_statistics(norm, activation(output))
        layers.append(norm)
    layers = [*layers, activation] if inside else [activation, *layers]
    child = replaced(module, layer, lambda old: nn.Sequential(old, *layers))
    require_same_function(module, child, images, what=f"an identity layer behind {layer}")
    return child


def deepen_by_residual(
    module: nn.Module, layer: str, images: Tensor, rng: np.random.Generator
) -> nn.Module:
    """A copy with a residual block behind a layer, whose last BatchNorm has scale 0.

    Raises:
        MorphError: the layer's output is of another shape than pictures or features.
    """
    _, output = layer_tensors(module, layer, images)
    channels_of_output(layer, output)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        block = ResidualBlock(output)
    with torch.no_grad():
        # Statistics for evaluation; the block is the identity whatever they are.
        for norm in (block.norm1, block.norm2):
            norm.momentum = None
        block.train()(output)
        for norm in (block.norm1, block.norm2):
            norm.momentum = 0.1
    child = replaced(module, layer, lambda old: nn.Sequential(old, block))
    require_same_function(module, child, images, what=f"a residual block behind {layer}")
    return child


def deepen_by_block(module: nn.Module, layer: str, images: Tensor) -> nn.Module:
    """A copy with one more residual block at the end of a sequence: its last one, of scale 0.

    The new block has the other weights of the last one.

    Raises:
        MorphError: the last part of the sequence has no BatchNorm, or its scale of 0 does not make
            it the identity.
    """
    blocks = layer_of(module, layer)
    parts = list(blocks.children())
    norms = [] if not parts else _norms(parts[-1])
    if not isinstance(blocks, nn.Sequential) or not norms:
        raise MorphError(
            f"a stage is a torch.nn.Sequential of residual blocks with BatchNorm; {layer} is not."
            " Deepen behind one of its layers."
        )
    block = copied(parts[-1])
    last = _norms(block)[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    child = replaced(module, layer, lambda old: nn.Sequential(*old.children(), block))
    require_same_function(module, child, images, what=f"one more block in {layer}")
    return child


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kind = nn.modules.batchnorm._BatchNorm
    return [one for one in module.modules() if isinstance(one, kind) and one.affine]


def _activation(module: nn.Module, layer: str, images: Tensor) -> tuple[str, bool] | None:
    """The activation that ends a layer, or that alone reads it; and whether it is inside.

    Its name is that of the operator; None where there is no such activation.
    """
    layer_of(module, layer)
    nodes = list(exported(module, images).graph.nodes)
    inside = [node for node in nodes if _runs_in(node, layer)]
    if not inside:
        return None
    last = inside[-1]
    if _plain_name(last) in _ACTIVATIONS:
        return _checked_name(last), True
    users = list(last.users)
    if len(users) == 1 and _plain_name(users[0]) in _ACTIVATIONS:
        return _checked_name(users[0]), False
    return None


def _runs_in(node: Node, layer: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(path == layer for path, _ in stack.values())


def _plain_name(node: Node) -> str:
    return operator_name(node).rstrip("_")


def _checked_name(node: Node) -> str:
    """The operator's name; a hardtanh of other bounds is not ReLU6."""
    name = _plain_name(node)
    if name == "hardtanh" and tuple(node.args[1:3]) not in ((0, 6), (0.0, 6.0)):
        return f"hardtanh{tuple(node.args[1:3])}"
    return name
