"""Where do the blocks of any module end? AZ-NAS compares the feature maps between them.

The root, and every plain `Sequential` in it, is a list of parts. A part that holds weights is a
block (a residual block, a cell), which ends at its output. Layers without such parts form a block
together: it begins at a convolution and ends before the next one or the next part, whether its
normalisations and activations are modules, one module for both, or calls of functions. So a stem of
convolution, BatchNorm and ReLU is a block; a BatchNorm and ReLU between the last cell and the
pooling are none. A part that returns no feature map, such as a head, is searched in turn, and so is
every part where fewer than two blocks would be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pliant.accuracy.zero_shot.activations import CLAMPS, LARGER, RECTIFIERS, is_feature_map
from pliant.accuracy.zero_shot.forward import forward_pass
from pliant.accuracy.zero_shot.normalisations import NORMALISATIONS
from pliant.accuracy.zero_shot.scoring_input import RefusedError
from pliant.accuracy.zero_shot.weights import WeightLayer

_LAYERS = frozenset(
    {
        *(RECTIFIERS | CLAMPS | LARGER),
        *NORMALISATIONS,
        *(F.hardsigmoid, F.softsign, F.tanh, F.sigmoid, torch.tanh, torch.sigmoid),
        *(F.max_pool2d, F.avg_pool2d, F.dropout, F.dropout2d, F.pad, F.interpolate),
    }
)
"""Functions that a layer of a list of parts may be written as."""


@dataclass(eq=False)
class BlockEnd:
    """The end of a block: the output of a module, or of functions that are called on it."""

    module: nn.Module
    functions: int = 0
    """How many functions follow."""


def block_ends(network: nn.Module, images: Tensor) -> list[BlockEnd]:
    """Where blocks end, in running order; asked with two of the images.

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


@dataclass(frozen=True)
class _Call:
    """A module that ran, whether it returned a feature map, and how many functions followed."""

    module: nn.Module
    returns_map: bool
    functions: int


class BlockOutputs(TorchFunctionMode):
    """Follows the outputs of modules through the functions that are called on them.

    Args:
        see: called with a module, a number of functions and their output: first 0 and that of the
            module itself. What it returns takes the place of the output.
    """

    def __init__(self, see: Callable[[nn.Module, int, Any], Any]) -> None:
        super().__init__()
        self.see = see
        self.latest: tuple[nn.Module, int, Tensor] | None = None
        """The module that ended last, functions called since, and their output."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """A function on the latest output is one more layer."""
        result = func(*args, **(kwargs or {}))
        if self.latest is None or func not in _LAYERS or not args or not isinstance(result, Tensor):
            return result
        module, functions, output = self.latest
        if args[0] is not output:
            return result
        return self._made(module, functions + 1, result)

    def ended(self, module: nn.Module, _: Any, output: Any) -> Any:
        """A forward hook of every module."""
        return self._made(module, 0, output)

    def _made(self, module: nn.Module, functions: int, output: Any) -> Any:
        output = self.see(module, functions, output)
        self.latest = (module, functions, output) if isinstance(output, Tensor) else None
        return output


@torch.no_grad()
def _calls(network: nn.Module, images: Tensor) -> list[_Call]:
    """Every call in running order."""
    calls: list[_Call] = []

    def see(module: nn.Module, functions: int, output: Any) -> Any:
        if functions == 0:
            calls.append(_Call(module, is_feature_map(output, len(images)), 0))
        else:
            ended = max(at for at, call in enumerate(calls) if call.module is module)
            calls[ended] = _Call(module, is_feature_map(output, len(images)), functions)
        return output

    outputs = BlockOutputs(see)
    hooks = [
        module.register_forward_hook(outputs.ended)
        for module in network.modules()
        if module is not network
    ]
    try:
        with outputs:
            forward_pass(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _ends(network: nn.Module, calls: list[_Call], depth: int) -> list[BlockEnd]:
    maps = {id(call.module) for call in calls if call.returns_map}
    parts = {id(part) for part in _parts(network, maps, depth)}
    ends: list[BlockEnd] = []
    open_run = False
    for call in calls:
        if id(call.module) not in parts or not call.returns_map:
            continue
        if _is_block(call.module):
            ends.append(BlockEnd(call.module))
            open_run = False
        elif isinstance(call.module, WeightLayer):
            ends.append(BlockEnd(call.module, call.functions))
            open_run = True
        elif open_run:
            ends[-1] = BlockEnd(call.module, call.functions)
    if len({id(end.module) for end in ends}) < len(ends):
        raise RefusedError(
            "this score needs blocks that run once per forward pass, one of them runs twice."
        )
    return ends


def _is_block(part: nn.Module) -> bool:
    """Whether a part holds weights of its own; one of a BatchNorm and an activation does not."""
    inside = [module for module in part.modules() if module is not part]
    weights = [one for module in inside for one in module.parameters(recurse=False)]
    return bool(inside) and any(weight.ndim > 1 for weight in weights)


def _parts(module: nn.Module, maps: set[int], depth: int) -> Iterator[nn.Module]:
    for child in module.children():
        inside = any(True for _ in child.children())
        if inside and (type(child) is nn.Sequential or id(child) not in maps):
            yield from _parts(child, maps, depth)
        elif _is_block(child) and depth > 0:
            yield from _parts(child, maps, depth - 1)
        else:
            yield child
