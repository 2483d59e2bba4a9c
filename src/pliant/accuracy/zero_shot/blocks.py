"""Where do the blocks of a network end? Found for any module, as AZ-NAS compares the feature maps between them.

The root, and every plain `Sequential` in it, is a list of parts. A part with parts of its own is a block (a residual block, a
cell), and its output ends it. Layers without parts of their own make a block together: it begins at a convolution, and ends
before the next one or the next part. So a stem of convolution, BatchNorm and ReLU is a block; a BatchNorm and ReLU between the
last cell and the pooling are none. A part that gives no feature map, such as a head, is looked into in its turn, and so is
everything where fewer than two blocks would be found.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot.pools import run
from pliant.accuracy.zero_shot.subject import Layer, RefusedError
from pliant.accuracy.zero_shot.watch import is_map


def block_ends(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """The modules whose output ends a block, in running order.

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
            f"this score compares the feature maps of blocks, {type(network).__name__} has {len(ends)}."
        )
    return ends


@torch.no_grad()
def _calls(network: nn.Module, images: Tensor) -> list[tuple[nn.Module, bool]]:
    """Every call in running order, and whether it gave a feature map."""
    calls: list[tuple[nn.Module, bool]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _, made: calls.append((module, is_map(made, len(images))))
        )
        for module in network.modules()
        if module is not network
    ]
    run(network, images)
    for hook in hooks:
        hook.remove()
    return calls


def _ends(network: nn.Module, calls: list[tuple[nn.Module, bool]], depth: int) -> list[nn.Module]:
    maps = {id(module) for module, gives_map in calls if gives_map}
    parts = {id(part) for part in _parts(network, maps, depth)}
    ends: list[nn.Module] = []
    open_run = False
    for module, gives_map in calls:
        if id(module) not in parts or not gives_map:
            continue
        if any(True for _ in module.children()):
            ends.append(module)
            open_run = False
        elif isinstance(module, Layer):
            ends.append(module)
            open_run = True
        elif open_run:
            ends[-1] = module
    if len({id(end) for end in ends}) < len(ends):
        raise RefusedError("this score needs blocks that run once a pass, one of them runs again.")
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
