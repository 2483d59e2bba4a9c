"""Where do the blocks of any module end? AZ-NAS compares the feature maps between them.

The root, and every plain `Sequential` in it, is a list of parts. A part that holds several layers
with weights is a block (a residual block, a cell), which ends at its output. Layers without such
parts form a block together: it begins at a convolution and ends before the next one or the next
part, whether its layers are modules, one module for several, or calls of functions. Layers that
read one map and whose outputs are concatenated are one layer, written apart. So a stem of
convolution, BatchNorm and ReLU is a block; a BatchNorm and ReLU between the last cell and the
pooling are none. A part that returns no feature map, such as a head, is searched in turn, and so is
every part where fewer than two blocks would be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from pliant.accuracy.zero_shot.activations import (
    CHOICES,
    CLAMPS,
    LARGER,
    RECTIFIERS,
    is_feature_map,
)
from pliant.accuracy.zero_shot.forward import forward_pass
from pliant.accuracy.zero_shot.normalisations import NORMALISATIONS
from pliant.accuracy.zero_shot.scoring_input import RefusedError
from pliant.accuracy.zero_shot.weights import WeightLayer
from pliant.networks.function_calls import FunctionCalls

_LAYERS = frozenset(
    {
        *(RECTIFIERS | CLAMPS | LARGER | CHOICES),
        *NORMALISATIONS,
        *(F.hardsigmoid, F.softsign, F.tanh, F.sigmoid, torch.tanh, torch.sigmoid),
        *(F.max_pool2d, F.avg_pool2d, F.dropout, F.dropout2d, F.pad, F.interpolate),
        *(torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__),
        *(torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__),
        *(torch.sub, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__rsub__, Tensor.__isub__),
        *(torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__),
    }
)
"""Functions that a layer of a list of parts may be written as; the arithmetic is that of one map,
as in `x * sigmoid(x)` and `(x + abs(x)) / 2`."""
_CONCATENATIONS = frozenset({torch.cat, torch.concat, torch.concatenate})
_WEIGHTED = frozenset(
    {
        *(F.conv1d, F.conv2d, F.conv3d, torch.convolution, F.linear, F.bilinear),
        *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(torch.matmul, torch.mm, torch.bmm, torch.einsum, torch.addmm, torch.baddbmm),
        *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__, Tensor.__rmatmul__),
    }
)
"""Functions that a layer with weights may be written as."""


@dataclass(frozen=True)
class LayerCall:
    """A module or function that ended in a forward pass."""

    what: nn.Module | Callable[..., Any]
    scope: nn.Module
    """The module whose `forward` called the function; a module is its own."""
    run: int
    """Equal for all that was computed, without another layer with weights, from one output."""
    weighted: int
    """Functions with weights that were called: in the module's own `forward`, or 1 for such a
    function itself."""
    returns_map: bool
    joined: frozenset[int] = frozenset()
    """Runs of the layers that a concatenation makes one of."""


def block_ends(network: nn.Module, images: Tensor) -> list[int]:
    """Where blocks end, asked with two of the images: numbers of calls as `LayerCalls` counts.

    Raises:
        RefusedError: fewer than two blocks.
    """
    calls = layer_calls(network, images[:2])
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
def layer_calls(network: nn.Module, images: Tensor) -> list[LayerCall]:
    """Every call of a forward pass in running order."""
    calls: list[LayerCall] = []

    def see(_: int, call: LayerCall, output: Any) -> Any:
        calls.append(call)
        return output

    forward_pass(network, images, LayerCalls(network, len(images), see))
    return calls


class LayerCalls(FunctionCalls):
    """Numbers the modules and functions of a forward pass that may end a block.

    Args:
        network: whose modules have hooks within this context.
        images: in the forward pass.
        see: called with a number, what was called and its output; what it returns takes the place
            of the output.
    """

    def __init__(
        self, network: nn.Module, images: int, see: Callable[[int, LayerCall, Any], Any]
    ) -> None:
        super().__init__()
        self.network, self.images, self.see = network, images, see
        self._parameters = {one.untyped_storage().data_ptr() for one in network.parameters()}
        self._hooks: list[RemovableHandle] = []
        self._running = [network]
        self._weighted = [0]
        """Functions with weights that each running module has called so far."""
        self._reads: dict[int, tuple[object, int]] = {}
        """Which map, and which version of it, the layer with weights read that begins each run."""
        self._count = 0

    def __enter__(self) -> LayerCalls:
        """Hook every module but the network itself, whose end ends no block."""
        for module in self.network.modules():
            if module is not self.network:
                self._hooks.append(module.register_forward_pre_hook(self._begin))
                self._hooks.append(module.register_forward_hook(self._end))
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        super().__exit__(kind, error, trace)
        for hook in self._hooks:
            hook.remove()

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A function on the output of a layer is one more layer."""
        result = func(*args, **kwargs)
        read = _tensors((*args, *kwargs.values()))
        scope = self._running[-1]
        if func in _WEIGHTED and isinstance(result, Tensor) and self._has_weight(read):
            self._weighted[-1] += 1
            self._reads[self._count] = _identity(read[0])
            return self._made(func, scope, result, 1, self._count)
        runs = {_run(one) for one in read if is_feature_map(one, self.images)}
        run = max((_run(one) for one in read), default=-1)
        if run < 0:
            return result
        if func in _CONCATENATIONS and self._read_one_map(runs):
            return self._made(func, scope, result, 0, run, frozenset(runs))
        if func in _LAYERS and isinstance(result, Tensor) and len(runs - {-1}) <= 1:
            return self._made(func, scope, result, 0, run)
        _set_run(result, run)  # such as the condition of `torch.where`, or a sum
        return result

    def _read_one_map(self, runs: set[int]) -> bool:
        """Whether the layers that begin some runs are known to have read the same map."""
        return runs <= self._reads.keys() and len({self._reads[one] for one in runs}) == 1

    def _has_weight(self, read: Sequence[Tensor]) -> bool:
        return any(one.untyped_storage().data_ptr() in self._parameters for one in read)

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._running.append(module)
        self._weighted.append(0)

    def _end(self, module: nn.Module, _: Any, output: Any) -> Any:
        self._running.pop()
        weighted, run = self._weighted.pop(), _run(output)
        return self._made(module, module, output, weighted, run if run >= 0 else self._count)

    def _made(
        self,
        what: nn.Module | Callable[..., Any],
        scope: nn.Module,
        output: Any,
        weighted: int,
        run: int,
        joined: frozenset[int] = frozenset(),
    ) -> Any:
        returns_map = is_feature_map(output, self.images)
        call = LayerCall(what, scope, run, weighted, returns_map, joined)
        output = self.see(self._count, call, output)
        self._count += 1
        _set_run(output, run)
        return output


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """Those among the arguments of a function, and in the lists among them."""
    found: list[Tensor] = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else []
        found += _tensors(value) if isinstance(value, tuple | list) else []
    return found


def _identity(value: Tensor) -> tuple[object, int]:
    """Equal for two reads of one tensor that was not written between them."""
    if not hasattr(value, "layer_identity"):
        value.layer_identity = object()  # type: ignore[attr-defined]
    return value.layer_identity, value._version  # type: ignore[attr-defined]


def _run(value: Any) -> int:
    """The number of the call that a tensor was computed from; -1 where there is none."""
    return int(getattr(value, "layer_run", -1))


def _set_run(value: Any, run: int) -> None:
    for one in value if isinstance(value, tuple | list) else [value]:
        if isinstance(one, Tensor):
            one.layer_run = run  # type: ignore[attr-defined]


def _ends(network: nn.Module, calls: Sequence[LayerCall], depth: int) -> list[int]:
    blocks = {id(call.what) for call in calls if _is_block(call)}
    maps = {id(call.what) for call in calls if call.returns_map}
    parts, opened = set[int](), {id(network)}
    for part, is_opened in _parts(network, maps, blocks, depth):
        (opened if is_opened else parts).add(id(part))
    ends: list[int] = []
    open_run = False
    for number, call in enumerate(calls):
        is_function = not isinstance(call.what, nn.Module)
        if not call.returns_map or id(call.scope) not in (opened if is_function else parts):
            continue
        while ends and calls[ends[-1]].run in call.joined:
            ends.pop()
        if id(call.what) in blocks:
            ends.append(number)
            open_run = False
        elif call.joined or call.weighted or isinstance(call.what, WeightLayer):
            ends.append(number)
            open_run = True
        elif open_run and not (is_function and call.run != calls[ends[-1]].run):
            ends[-1] = number
    return ends


def _is_block(call: LayerCall) -> bool:
    """Whether a module holds weights for several layers; one with a BatchNorm and an activation
    does not."""
    part = call.what
    if not isinstance(part, nn.Module) or isinstance(part, WeightLayer):
        return False
    has_weights = any(weight.ndim > 1 for weight in part.parameters())
    return has_weights and (call.weighted > 1 or any(True for _ in part.children()))


def _parts(
    module: nn.Module, maps: set[int], blocks: set[int], depth: int
) -> Iterator[tuple[nn.Module, bool]]:
    """The parts of a module, and the modules that were opened to find them, which are True."""
    for child in module.children():
        inside = id(child) in blocks or any(True for _ in child.children())
        if inside and (type(child) is nn.Sequential or id(child) not in maps):
            yield child, True
            yield from _parts(child, maps, blocks, depth)
        elif id(child) in blocks and depth > 0:
            yield child, True
            yield from _parts(child, maps, blocks, depth - 1)
        else:
            yield child, False
