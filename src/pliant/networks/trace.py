"""Which layers does any PyTorch module run? One pass over an example, watched operator by operator.

The module need not be one of Pliant's: whatever it calls (layers, functions, tensor methods) arrives as an operator of
the ATen library, with real shapes. What moves data becomes a layer, what every chip does on the way is free: the rules
are those of `pliant.workload.onnx`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pliant.errors import EncodingError
from pliant.workload import NETWORK_INPUT, Kind, Layer, Workload

_ACTIVATIONS: Final = """
    relu leaky_relu prelu _prelu_kernel hardtanh clamp clamp_min clamp_max sigmoid hardsigmoid hardswish silu mish tanh elu
    celu gelu erf softplus sqrt rsqrt exp log neg abs reciprocal pow"""
_ADDRESSES: Final = """
    view _unsafe_view reshape _reshape_alias view_as transpose permute t squeeze unsqueeze expand flatten unflatten cat stack split
    split_with_sizes chunk unbind slice select narrow clone detach alias contiguous copy _to_copy to lift_fresh
    native_dropout dropout constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle roll"""
_FREE: Final = frozenset(f"{_ACTIVATIONS} {_ADDRESSES}".split())
"""Folded into the layer before, or only a change of addresses."""
_CONSTANT: Final = frozenset(
    [
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
        "new_empty",
        "new_zeros",
        "new_ones",
        "new_full",
    ]
)
"""Their results depend on shapes alone."""
_ELEMENTWISE: Final = frozenset(["add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where"])
_NORMS: Final = frozenset(
    ["native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_no_update"]
)
_WHOLE: Final = """
    _softmax _log_softmax _safe_softmax native_layer_norm native_group_norm upsample_nearest2d upsample_bilinear2d
    _upsample_bilinear2d_aa upsample_bicubic2d embedding index_select gather"""
_WHOLE_TENSOR: Final = frozenset(_WHOLE.split())


def module_workload(module: nn.Module, *example: Tensor, skip: Collection[str] = ()) -> Workload:
    """The layers of a module, in the order in which they run.

    The module runs once, in evaluation mode, and is left as it was.

    Args:
        module: anything that can be called with the example.
        example: tensors of the shapes and types that the network gets, batch included.
        skip: operators without a cost of their own (as ATen names them), passed through as if free.

    Raises:
        EncodingError: an operator that has no cost (named), or a convolution that is no layer of ours.
    """
    with _watched(module) as stack, sdpa_kernel(SDPBackend.MATH), _Recorder(stack) as recorder:
        module(*example)
    return _Reader(recorder.operations, example, skip).read()


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, outermost first; evaluation mode while it lasts."""
    stack: list[str] = []
    modes = {part: part.training for part in module.modules()}
    hooks = []
    for name, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        hooks.append(part.register_forward_hook(lambda *_: stack.pop() and None, always_call=True))
    try:
        module.eval()
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in modes.items():
            part.training = mode


@dataclass(frozen=True, slots=True)
class _Operation:
    """One call of an ATen operator. Tensors are kept, so that no two storages ever have one address."""

    name: str
    place: str
    """The module that called it."""
    given: tuple[Any, ...]
    results: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors among the arguments, lists of them opened."""
        return tuple(leaf for leaf in tree_leaves(self.given) if isinstance(leaf, Tensor))


class _Recorder(TorchDispatchMode):
    def __init__(self, stack: Sequence[str]) -> None:
        super().__init__()
        self.stack, self.operations = stack, list[_Operation]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        # An operator in place ends in an underscore, and is the same work.
        name = func.overloadpacket.__name__
        name = name.rstrip("_") if not name.startswith("__") else name
        self.operations.append(
            _Operation(name, self.stack[-1] if self.stack else "", tuple(args), results)
        )
        return result


class _Reader:
    """Turns operations into layers; `sources` says which layers a storage was last written by."""

    def __init__(
        self, operations: Sequence[_Operation], example: Sequence[Tensor], skip: Collection[str]
    ) -> None:
        self.operations, self.example, self.skip = operations, example, set(skip)
        self.sources: dict[int, tuple[str, ...]] = {
            _storage(tensor): (NETWORK_INPUT,) for tensor in example
        }
        self.layers: dict[str, Layer] = {}
        self.fresh: dict[int, Layer] = {}
        """The layer whose very result a storage holds, nothing done to it since."""
        self.makers: dict[str, Callable[[_Operation], None]] = {"convolution": self._convolution}
        self.makers |= dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "linear"), self._product)
        self.makers |= dict.fromkeys(
            ("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d"),
            self._pool,
        )
        self.makers |= dict.fromkeys(
            ("_adaptive_avg_pool2d", "adaptive_max_pool2d"), self._adaptive_pool
        )
        self.makers |= dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min"), self._reduction)

    def read(self) -> Workload:
        """Every operation that works on data."""
        for operation in self.operations:
            moving = [tensor for tensor in operation.tensors if _storage(tensor) in self.sources]
            if moving and operation.name not in _CONSTANT:
                self._read(operation, moving)
        if not self.layers:
            raise EncodingError("the module runs no layer that costs anything.")
        first = self.example[0]
        return Workload(
            tuple(self.layers.values()),
            sum(tensor.numel() for tensor in self.example),
            8 * first.element_size(),
        )

    def _read(self, operation: _Operation, moving: Sequence[Tensor]) -> None:
        name = operation.name
        if name in self.makers:
            self.makers[name](operation)
        elif (
            name in _WHOLE_TENSOR
            or (name in _ELEMENTWISE and len(moving) > 1)
            or (name in _NORMS and not self._folds(moving[0]))
        ):
            self._elementwise(operation, moving)
        elif name in _NORMS:
            # Folded, it leaves one addend an output channel, whatever else comes of it.
            layer = self.fresh[_storage(moving[0])]
            self.layers[layer.name] = replace(layer, bias=True)
            self._write(operation, (layer.name,), None)
        elif name in _ELEMENTWISE | _FREE | self.skip:
            came_from = tuple(
                dict.fromkeys(
                    source for tensor in moving for source in self.sources[_storage(tensor)]
                )
            )
            self._write(operation, came_from, None)
        else:
            raise EncodingError(
                f"operator {name!r} (in module {operation.place!r}) has no cost in this model."
                f" To pass it through as free: skip={{{name!r}}}."
            )

    def _folds(self, tensor: Tensor) -> bool:
        """Whether a BatchNorm becomes part of the weighted layer before it: nothing else reads that layer's result."""
        key = _storage(tensor)
        readers = sum(
            any(_storage(read) == key for read in operation.tensors)
            for operation in self.operations
        )
        return key in self.fresh and self.fresh[key].weighted and readers == 1

    def _write(self, operation: _Operation, sources: tuple[str, ...], layer: Layer | None) -> None:
        for key in {_storage(result) for result in operation.results if result.numel()}:
            self.sources[key] = sources
            if layer is not None:
                self.fresh[key] = layer
            else:
                self.fresh.pop(key, None)

    def _add(
        self, operation: _Operation, kind: Kind, moving: Sequence[Tensor], **sizes: Any
    ) -> None:
        name = self._free_name(operation)
        sources = [
            self.sources[_storage(tensor)] for tensor in moving if _storage(tensor) in self.sources
        ]
        if kind == "elementwise":
            inputs = tuple(source[0] for source in sources)
        else:
            inputs = tuple(dict.fromkeys(name for source in sources for name in source))
        bits = 8 * operation.results[0].element_size()
        layer = self.layers[name] = Layer(name, kind, inputs, bits=bits, **sizes)
        self._write(operation, (name,), layer)

    def _free_name(self, operation: _Operation) -> str:
        """The module's name; where it runs several layers, the operator's with it, and a number from the second on."""
        base = ".".join(filter(None, (operation.place, operation.name)))
        names = itertools.chain(
            (operation.place or base, base), (f"{base}{number}" for number in itertools.count(2))
        )
        return next(name for name in names if name not in self.layers and name != NETWORK_INPUT)

    def _convolution(self, operation: _Operation) -> None:
        image, weight, bias, stride, _, dilation, transposed, _, groups = operation.given
        if transposed:
            raise EncodingError(
                f"module {operation.place!r}: transposed convolutions are no layer of this model."
            )
        windows = _windows(operation, weight.shape[2:], stride, dilation)
        channels = {
            "N": image.shape[0],
            "G": groups,
            "K": weight.shape[0] // groups,
            "C": weight.shape[1],
        }
        self._add(operation, "conv", [image], **channels, **windows, bias=bias is not None)

    def _product(self, operation: _Operation) -> None:
        bias = operation.name in ("addmm", "baddbmm") or (
            operation.name == "linear" and len(operation.given) > 2
        )
        first = 1 if operation.name in ("addmm", "baddbmm") else 0
        left, right = operation.given[first], operation.given[first + 1]
        result = operation.results[0]
        groups = result.shape[0] if operation.name in ("bmm", "baddbmm") else 1
        rows = math.prod(result.shape[:-1]) // groups
        self._add(
            operation,
            "matmul",
            [left, right],
            N=rows,
            G=groups,
            K=result.shape[-1],
            C=left.shape[-1],
            bias=bias,
        )

    def _pool(self, operation: _Operation) -> None:
        image, kernel, *rest = operation.given
        dilation = rest[2] if operation.name.startswith("max") and len(rest) > 2 else 1
        windows = _windows(
            operation, _listed(kernel), rest[0] if rest and rest[0] else kernel, dilation
        )
        self._add(operation, "pool", [image], N=image.shape[0], G=image.shape[1], **windows)

    def _adaptive_pool(self, operation: _Operation) -> None:
        image, result = operation.given[0], operation.results[0]
        step = [
            -(-before // after)
            for before, after in zip(image.shape[2:], result.shape[2:], strict=True)
        ]
        self._add(
            operation,
            "pool",
            [image],
            N=image.shape[0],
            G=image.shape[1],
            **_windows(operation, step, step, 1),
        )

    def _reduction(self, operation: _Operation) -> None:
        image, result = operation.given[0], operation.results[0]
        if image.dim() == 4 and result.numel() == image.shape[0] * image.shape[1]:
            self._add(
                operation,
                "pool",
                [image],
                N=image.shape[0],
                G=image.shape[1],
                R=image.shape[2],
                S=image.shape[3],
            )
        else:
            self._add(
                operation, "pool", [image], G=result.numel(), R=image.numel() // result.numel()
            )

    def _elementwise(self, operation: _Operation, moving: Sequence[Tensor]) -> None:
        batch, channels, *spatial = (*operation.results[0].shape, 1, 1, 1)
        self._add(
            operation,
            "elementwise",
            moving,
            N=batch,
            G=channels,
            P=spatial[0],
            Q=math.prod(spatial[1:]),
        )


def _storage(tensor: Tensor) -> int:
    # Views and operators in place share the storage, so data keep their sources through them.
    return tensor.untyped_storage().data_ptr()


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _windows(
    operation: _Operation, kernel: Sequence[int], stride: Any, dilation: Any
) -> dict[str, int]:
    """Output and kernel sizes, stride and dilation; one-dimensional windows get columns of 1."""
    spatial = operation.results[0].shape[2:]
    if not 1 <= len(spatial) <= 2:
        raise EncodingError(
            f"module {operation.place!r}: one or two spatial sizes are layers of this model, received {len(spatial)}."
        )
    kernel = [*kernel] * (len(spatial) // len(kernel))
    sizes = dict(zip(("P", "Q"), spatial, strict=False)) | dict(
        zip(("R", "S"), kernel, strict=False)
    )
    for key, value, extents in (("stride", stride, spatial), ("dilation", dilation, kernel)):
        values = _listed(value) * (len(spatial) // len(_listed(value)))
        # Along a size of 1 the step is never taken.
        used = {step for step, extent in zip(values, extents, strict=True) if extent > 1} or {1}
        if len(used) > 1:
            raise EncodingError(
                f"module {operation.place!r}: rows and columns have one {key}, received {values}."
            )
        sizes[key] = used.pop()
    return sizes
