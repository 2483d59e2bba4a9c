"""Which layers does any PyTorch module run? The rules are those of `pliant.workload.operators`.

The module need not be one of Pliant's: whatever it calls (layers, functions, tensor methods)
arrives as an operator of the ATen library, with real shapes. `torch.export` gives the operators of
a module without computing anything; a module that it refuses (Python that branches on values, say)
runs once on the example and is watched. Both ways see the same operators, so they give the same
layers.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pliant.networks.function_calls import FunctionCalls
from pliant.networks.parametrization import folded_copy, is_parametrized
from pliant.workload import Workload
from pliant.workload.operators import MULTIPLIES, Operation, Operator, Tensor, build_workload

_NAMES: Final[dict[Operator, str]] = {
    "convolution": "convolution",
    "product": "mm addmm bmm baddbmm linear mv addmv dot",
    "attention": """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention""",
    "recurrent": "lstm gru rnn_tanh rnn_relu",
    "pool": "max_pool1d max_pool2d max_pool2d_with_indices avg_pool1d avg_pool2d",
    "adaptive_pool": "_adaptive_avg_pool2d adaptive_max_pool2d",
    "reduction": """mean sum amax amin max min prod var std var_mean std_mean linalg_vector_norm
        norm logsumexp argmax argmin any all""",
    "batch_norm": "native_batch_norm _native_batch_norm_legit_no_training _batch_norm_no_update",
    "whole_tensor": """_softmax _log_softmax _safe_softmax native_layer_norm native_group_norm
        _fused_rms_norm upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d
        upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d
        _upsample_bicubic2d_aa embedding index_select index gather scatter index_put masked_scatter
        cumsum sort topk im2col col2im""",
    "gated": "glu",
    "add": "add sub",
    "elementwise": """rsub mul div maximum minimum where lerp addcmul addcdiv atan2 remainder fmod
        masked_fill eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or
        bitwise_xor""",
    "activation": """relu leaky_relu prelu _prelu_kernel hardtanh clamp clamp_min clamp_max sigmoid
        log_sigmoid_forward hardsigmoid hardswish silu mish tanh elu celu gelu erf softplus
        hardshrink softshrink threshold sqrt rsqrt exp exp2 expm1 log log2 log1p sin cos neg abs
        sgn sign rrelu_with_noise reciprocal pow square floor ceil round trunc logical_not
        bitwise_not isnan isinf _to_copy to""",
    "address": """view _unsafe_view reshape _reshape_alias view_as transpose permute t squeeze
        unsqueeze expand repeat flatten unflatten cat stack split split_with_sizes unsafe_split
        unsafe_split_with_sizes unsafe_chunk chunk unbind
        slice select narrow diagonal clone detach alias contiguous copy lift_fresh native_dropout
        dropout constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
        replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle roll
        flip unfold as_strided _pack_padded_sequence _pad_packed_sequence tril triu fill zero""",
    "constant": """empty_like zeros_like ones_like full_like rand_like randn_like new_empty
        new_zeros new_ones new_full""",
}
_OPERATORS: Final = {name: operator for operator, names in _NAMES.items() for name in names.split()}

Way = Literal["export", "watch"]
"""How the operators of a module are found."""


def module_workload(
    module: nn.Module, *example: torch.Tensor, skip: Collection[str] = (), way: Way | None = None
) -> Workload:
    """The layers of a module, in the order in which they run.

    The module is in evaluation mode while it is read, and is left as it was. A weight that is
    computed from others (a parametrisation) is the plain one that it is when it is delivered.

    Args:
        module: anything that can be called with the example.
        example: tensors of the shapes and types that the network gets, batch included.
        skip: operators without a cost of their own (as ATen names them), passed through as if free.
        way: `export` computes nothing; `watch` runs the module once and starts sooner. Where none
            is stated, `watch` for a module that cannot be exported.

    Raises:
        EncodingError: an operator that has no cost (named), or a convolution that is no layer of
        ours.
    """
    if is_parametrized(module):
        module = folded_copy(module)
    with _evaluation_mode(module):
        if way == "watch":
            recorder = _watch(module, example)
        elif way == "export":
            recorder = _export(module, example)
        else:
            recorder = _export_or_watch(module, example)
    return build_workload(recorder.operations, recorder.inputs, stored=recorder.stored, skip=skip)


def steps_workload(
    steps: Iterable[tuple[str, Callable[[], None]]],
    example: torch.Tensor,
    parameters: Sequence[torch.Tensor],
) -> Workload:
    """The layers of operators that are run one after the other, each under a name.

    Args:
        steps: the name of each operator and what runs it; its layer is called by that name.
        example: the input that the steps read.
        parameters: that the steps read.

    Raises:
        EncodingError: as `module_workload`.
    """
    holder = nn.ParameterList(parameters)
    with _evaluation_mode(holder):
        recorder = _Recorder([example], holder)
        with recorder:
            for name, step in steps:
                recorder.places.append(name)
                step()
                recorder.places.pop()
    return build_workload(recorder.operations, recorder.inputs, stored=recorder.stored)


@dataclass(frozen=True, slots=True)
class ParameterRole:
    """What a run of a network does with a parameter."""

    kind: Literal["weight", "bias", "scale", "shift"]
    """A weight is multiplied with what is computed, a bias is added to that product; scale and
    shift belong to a normalisation."""
    is_transposed: bool = False
    """Whether a matrix has inputs as its rows, as in `x @ weight`."""


def parameter_roles(module: nn.Module, *example: torch.Tensor) -> dict[str, ParameterRole]:
    """The roles of parameters by name, as one run on the example shows; others have none."""
    with _evaluation_mode(module):
        recorder = _watch(module, example)
    names: dict[Hashable, list[str]] = {}
    for name, parameter in module.named_parameters():
        names.setdefault(_described(parameter).key, []).append(name)
    origins = {key: frozenset(of_key) for key, of_key in names.items()}
    computed = {tensor.key for tensor in recorder.inputs}
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    roles: dict[str, ParameterRole] = {}
    for operation in recorder.operations:
        constants = [tensor for tensor in operation.inputs if tensor.key not in computed]
        multiplies = operation.operator in MULTIPLIES
        for position, tensor in enumerate(operation.inputs):
            for name in origins.get(tensor.key, ()) if tensor in constants else ():
                role = _role(operation, position, len(shapes[name]), constants)
                if role is not None:
                    roles.setdefault(name, role)
        keys = {tensor.key for tensor in operation.outputs}
        if multiplies or len(constants) < len(operation.inputs):
            computed |= keys
        else:
            made_of = frozenset[str]().union(*(origins.get(one.key, ()) for one in constants))
            origins |= dict.fromkeys(keys, made_of)
    return roles


def _role(
    operation: Operation, position: int, dims: int, constants: Sequence[Tensor]
) -> ParameterRole | None:
    """The role of a constant that an operation reads.

    Args:
        operation: reads it.
        position: among the inputs.
        dims: of the parameter that the constant is made of.
        constants: all inputs that are not computed.
    """
    read = operation.inputs[position]
    match operation.operator:
        case "convolution" if position > 0:
            return ParameterRole("weight" if dims > 1 else "bias")
        case "recurrent":
            return ParameterRole("weight" if dims > 1 else "bias")
        case "product" if position == 1 or operation.inputs[1] not in constants:
            if dims == 1 and position > 1:
                return ParameterRole("bias")
            strides: tuple[int, ...] = read.view[2]  # type: ignore[index]
            by_rows = position == 1 and len(strides) > 1 and strides[-1] == 1 != strides[-2]
            transposed = by_rows and not operation.attributes["transpose_right"]
            return ParameterRole("weight", transposed) if dims > 1 else None
        case "product" if dims == 1 and position > 1:
            return ParameterRole("bias")
        case "add" if dims == 1:
            return ParameterRole("bias")
        case "batch_norm" | "whole_tensor" if dims == 1 and "norm" in operation.native:
            return ParameterRole("scale" if position == 1 else "shift")
    return None


@contextlib.contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation without gradients, and attention as the products that it is.

    Fused kernels would hide the products, inference mode all of ATen's decompositions, and products
    of half precision would be read as those of single precision.
    """
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    half = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        module.eval()
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(half)
        for part, mode in modes.items():
            part.training = mode


def _export_or_watch(module: nn.Module, example: Sequence[torch.Tensor]) -> _Recorder:
    # Export raises errors of a dozen types, and those of the module itself. What is wrong with the
    # module is raised again when it runs.
    with contextlib.suppress(Exception), silenced():
        return _export(module, example)
    return _watch(module, example)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing of the pages that a failed export writes."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _export(module: nn.Module, example: Sequence[torch.Tensor]) -> _Recorder:
    """Exports the module and runs its graph on tensors without data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.export(module, tuple(example)).module(check_guards=False)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = [fake.from_tensor(tensor) for tensor in example]
    recorder = _Recorder(tensors, graph)
    with fake, recorder:
        _Player(graph, recorder).run(*tensors)
    return recorder


def _watch(module: nn.Module, example: Sequence[torch.Tensor]) -> _Recorder:
    """Runs the module itself; hooks say which part is running."""
    recorder = _Recorder(example, module)
    hooks = []
    for name, part in module.named_modules():
        enter = functools.partial(_enter, recorder, name)
        leave = functools.partial(_leave, recorder)
        hooks.append(part.register_forward_pre_hook(enter))
        hooks.append(part.register_forward_hook(leave, always_call=True))
    try:
        with recorder, _RecurrentCalls(recorder):
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder


def _enter(recorder: _Recorder, name: str, *_: Any) -> None:
    recorder.places.append(name)


def _leave(recorder: _Recorder, *_: Any) -> None:
    recorder.places.pop()


class _Recorder(TorchDispatchMode):
    """Writes down every ATen operator that runs."""

    def __init__(self, example: Sequence[torch.Tensor], module: nn.Module) -> None:
        super().__init__()
        self.stored: Counter[Hashable] = Counter()
        """Parameters by their memory; those that share it count once."""
        for described in {_described(parameter) for parameter in module.parameters()}:
            self.stored[described.key] += math.prod(described.shape)
        self.inputs = [_described(tensor) for tensor in example]
        self.operations: list[Operation] = []
        self.places = [""]
        """The modules that are running, outermost first."""
        self.quiet = False
        self.kept: list[Any] = list(example)
        """All tensors, so that no two storages ever have one address."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # What returns no tensor and writes none (asking for a device, or one number) moves no data.
        if not self.quiet and (_tensors(result) or func._schema.is_mutable):
            name = func.overloadpacket.__name__
            # An operator in place ends in an underscore, and is the same work.
            self.record(name if name.startswith("__") else name.rstrip("_"), args, kwargs, result)
        return result

    def record(self, name: str, args: Sequence[Any], kwargs: Any, result: Any) -> None:
        """Adds one call of an operator."""
        place = self.places[-1]
        base = ".".join(filter(None, (place, name)))
        operator = _OPERATORS.get(name)
        results = [tensor for tensor in _tensors(result) if tensor.numel()]
        if operator == "product" and name.startswith(("addm", "badd")):
            args = [*args[1:3], args[0], *args[3:]]
        read = _tensors((args, kwargs or {}))
        inputs = [_described(tensor) for tensor in read]
        if operator == "product" and read[1].dim() == 3 and read[1].stride(0) == 0:
            # One matrix expanded over a batch is one set of weights.
            inputs[1] = _described(read[1][0])
        self.kept += (read, results)
        self.operations.append(
            Operation(
                operator,
                name,
                place or base,
                base,
                f"in module {place!r}",
                tuple(inputs),
                tuple(_described(tensor) for tensor in results),
                _attributes_of(operator, name, args),
            )
        )


class _RecurrentCalls(FunctionCalls):
    """Recurrent layers as one call each: ATen takes them apart, differently on every machine."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = getattr(func, "__name__", "")
        if _OPERATORS.get(name) != "recurrent":
            return func(*args, **kwargs)
        return _record_recurrent(self.recorder, name, func, args, kwargs)


class _Player(fx.Interpreter):
    """Runs the nodes of an exported graph, each in the name of its module."""

    def __init__(self, graph: fx.GraphModule, recorder: _Recorder) -> None:
        super().__init__(graph)
        self.recorder = recorder

    def run_node(self, n: fx.Node) -> Any:
        """As the interpreter does, with the module's name at hand."""
        stack = n.meta.get("nn_module_stack") or {"": ("", None)}
        path = list(stack.values())[-1][0]
        # A module that is called again has a number behind its name.
        self.recorder.places.append(re.sub(r"@\d+$", "", path))
        try:
            return super().run_node(n)
        finally:
            self.recorder.places.pop()

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Recurrent layers stay one call, as in `_RecurrentCalls`."""
        name = getattr(getattr(target, "overloadpacket", None), "__name__", "")
        if _OPERATORS.get(name) == "recurrent":
            return _record_recurrent(self.recorder, name, target, args, kwargs)
        return super().call_function(target, args, kwargs)


def _record_recurrent(recorder: _Recorder, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    recorder.quiet = True
    try:
        result = func(*args, **kwargs)
    finally:
        recorder.quiet = False
    recorder.record(name, args, kwargs, result)
    return result


def _attributes_of(operator: Operator | None, name: str, args: Sequence[Any]) -> dict[str, Any]:
    """What the rule of the operator asks for, from its arguments as ATen orders them."""
    match operator:
        case "convolution":
            _, weight, bias, strides, _, dilations, transposed, _, groups = args
            dims = weight.dim() - 2
            return {
                "strides": _per_dim(strides, dims),
                "dilations": _per_dim(dilations, dims),
                "transposed": transposed,
                "groups": groups,
                "bias": bias is not None,
            }
        case "product":
            with_bias = name.startswith(("addm", "badd")) or (name == "linear" and len(args) > 2)
            return {"transpose_right": name == "linear", "bias": with_bias}
        case "batch_norm":
            # (input, weight, bias, mean, variance, training, ...); the others have no training.
            trains = name.startswith("native") and len(args) > 5 and isinstance(args[5], bool)
            return {"batch_statistics": trains and args[5]}
        case "pool":
            _, kernel, *rest = args
            dims = int(re.search(r"(\d)d", name)[1])  # type: ignore[index]
            dilations = rest[2] if name.startswith("max") and len(rest) > 2 else 1
            return {
                "kernel": _per_dim(kernel, dims),
                "strides": _per_dim(rest[0] if rest and rest[0] else kernel, dims),
                "dilations": _per_dim(dilations, dims),
            }
        case "recurrent":
            return _recurrent_sizes(args)
    return {}


def _recurrent_sizes(args: Sequence[Any]) -> dict[str, Any]:
    """The cells from their weights: (gates x hidden, features), (gates x hidden, state), with a
    projection (state, hidden).

    The arguments are (input, states, weights, biases?, layers, dropout, training, bidirectional,
    ...); packed sequences have their batch sizes after the input.
    """
    first = 2 if isinstance(args[3], bool) else 3
    weights, bias, depth = args[first : first + 3]
    directions = 1 + bool(args[first + 5])
    each = len(weights) // (depth * directions)
    projected = each - 2 * bias == 3
    cells = []
    for start in range(0, len(weights), each):
        (gates, features), (_, state) = weights[start].shape, weights[start + 1].shape
        hidden = weights[start + each - 1].shape[1] if projected else state
        cells.append((gates, features, state, hidden))
    by_layer = [cells[at : at + directions] for at in range(0, len(cells), directions)]
    return {"rows": math.prod(args[0].shape[:-1]), "bias": bias, "cells": by_layer}


def _per_dim(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * (dims // len(values))


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _described(tensor: torch.Tensor) -> Tensor:
    # Views and operators in place share the storage, so data keep their sources through them.
    view = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    key = tensor.untyped_storage()._cdata
    return Tensor(key, tuple(tensor.shape), 8 * tensor.element_size(), view)
