"""Where do the blocks of any module end? AZ-NAS compares the feature maps between them.

The root, and every plain `Sequential` in it, is a list of parts. A part with children is a block (a
residual block, a cell), which ends at its output. Layers without children form a block together: it
begins at a convolution and ends before the next one or the next part. So a stem of convolution,
BatchNorm and ReLU is a block; a BatchNorm and ReLU between the last cell and the pooling are none.
A part that returns no feature map, such as a head, is searched in turn, and so is every part where
fewer than two blocks would be found.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot.activations import is_feature_map
from pliant.accuracy.zero_shot.average_pooling import forward_pass
from pliant.accuracy.zero_shot.scoring_input import RefusedError, WeightLayer


def block_ends(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """The modules whose output ends a block, in running order; asked with two of the images.

    Raises:
        RefusedError: fewer than two blocks.
    """
    calls = _calls(network, images[:2])
    depth, ends = 0, _ends(network, calls, 0)
    deepest = max(name.count(".") for name, _ in network.named_modules()) + 1
    while len(ends) < 2 and depth < deepest:
        depth += 1
        ends = _ends(network, calls, depth)
    if len(ends) < 2:
        raise RefusedError(
            f"this score compares the feature maps of blocks, {type(network).__name__} has "
            f"{len(ends)}."
        )
    return ends


@torch.no_grad()
def _calls(network: nn.Module, images: Tensor) -> list[tuple[nn.Module, bool]]:
    """Every call in running order, and whether it returned a feature map."""
    calls: list[tuple[nn.Module, bool]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _, made: calls.append((module, is_feature_map(made, len(images))))
        )
        for module in network.modules()
        if module is not network
    ]
    forward_pass(network, images)
    for hook in hooks:
        hook.remove()
    return calls


def _ends(network: nn.Module, calls: list[tuple[nn.Module, bool]], depth: int) -> list[nn.Module]:
    maps = {id(module) for module, returns_map in calls if returns_map}
    parts = {id(part) for part in _parts(network, maps, depth)}
    ends: list[nn.Module] = []
    open_run = False
    for module, returns_map in calls:
        if id(module) not in parts or not returns_map:
            continue
        if any(True for _ in module.children()):
            ends.append(module)
            open_run = False
        elif isinstance(module, WeightLayer):
            ends.append(module)
            open_run = True
        elif open_run:
            ends[-1] = module
    if len({id(end) for end in ends}) < len(ends):
        raise RefusedError(
            "this score needs blocks that run once per forward pass, one of them runs twice."
        )
    return ends


def _parts(module: nn.Module, maps: set[int], depth: int) -> Iterator[nn.Module]:
    for child in module.children():
        inside = any(True for _ in child.children())
        if inside and (type(child) is nn.Sequential or id(child) not in maps):
            yield from _parts(child, maps, depth)
        elif inside and depth > 0:
            yield from _parts(child, maps, depth - 1)
        else:
            yield child
