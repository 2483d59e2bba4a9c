"""Do the layers of a user's own block describe what its module computes?

Costs, ONNX files and drawings follow from the layers, accuracies from the module: where the two
differ, another network is delivered than was searched. Asked when a run is made.
"""

from __future__ import annotations

import onnxruntime
import torch
from torch import nn

from pliant.errors import EncodingError
from pliant.networks import plain
from pliant.networks.onnx import network_model
from pliant.networks.supernet import describe, require_described
from pliant.spaces.block import Block
from pliant.spaces.space import Space

LARGEST_DIFFERENCE = 1e-4
"""Of the outputs, relative to the largest of them: rounding is 1e-6, another operation 1e-3."""
_IMAGES = 2


def require_own_described(space: Space) -> None:
    """Compare layers and module of each type of block that is the user's own, once per type.

    Raises:
        EncodingError: naming the block, where the two have other parameters or compute different
            outputs.
    """
    blocks = {type(block): block for block in space.blocks(space.largest())}
    for kind, block in blocks.items():
        if not kind.__module__.startswith("pliant."):
            require_described(block)
            _require_same_outputs(block)


@torch.no_grad()
def _require_same_outputs(block: Block) -> None:
    """Run a block's module and the ONNX graph of its layers with the same random weights."""
    network = plain.Network(describe([block])).eval()
    generator = torch.Generator().manual_seed(0)
    _draw_weights(network, generator)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    model = network_model([block], state).SerializeToString()
    shape = (_IMAGES * block.in_views, block.in_channels, block.size, block.size)
    images = torch.randn(shape, generator=generator)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    described = torch.from_numpy(
        session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    )
    computed = network(images)
    name, module = type(block).__name__, type(network.blocks[block.slot]).__name__
    said = f"the layers of a block describe what its module computes; {name}.layers and {module}"
    if computed.shape != described.shape:
        raise EncodingError(
            f"{said}.forward have outputs of shape {tuple(described.shape)} and"
            f" {tuple(computed.shape)}. Make them equal."
        )
    difference = float((computed - described).abs().max() / computed.abs().max().clamp_min(1e-12))
    if not difference <= LARGEST_DIFFERENCE:
        raise EncodingError(
            f"{said}.forward compute different things: outputs differ by {difference:.2g} of the"
            " largest. Compare their operations and activations."
        )


def _draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Weights that hide no operation: scales near 1, so that no branch is multiplied by 0."""
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + drawn.abs())
        elif tensor.ndim < 2:
            tensor.copy_(1 + drawn / 4)
        else:
            tensor.copy_(drawn / max(1, tensor[0].numel()) ** 0.5)
