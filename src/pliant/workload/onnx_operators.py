"""Which word of `pliant.workload.operators` is an operator of ONNX, and which inputs hold data?

Operators of ONNX's own domain are known by their name, those of ONNX Runtime as
`com.microsoft.Name`. Other domains have no operator that is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx
from onnx import helper

from pliant.workload.operators import Operator

_NAMES: Final[dict[Operator, str]] = {
    "convolution": "Conv ConvTranspose",
    "product": "Gemm MatMul",
    "einsum": "Einsum",
    "attention": "Attention",
    "recurrent": "LSTM GRU RNN",
    "pool": "MaxPool AveragePool LpPool",
    "global_pool": "GlobalAveragePool GlobalMaxPool GlobalLpPool",
    "reduction": """ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2
        ReduceSumSquare ReduceLogSum ReduceLogSumExp ArgMax ArgMin""",
    "batch_norm": "BatchNormalization",
    "whole_tensor": """Softmax LogSoftmax Hardmax LRN LayerNormalization RMSNormalization
        GroupNormalization InstanceNormalization MeanVarianceNormalization LpNormalization Resize
        Upsample Gather GatherElements GatherND ScatterElements ScatterND CumSum TopK OneHot
        RotaryEmbedding""",
    "add": "Add Sub Sum",
    "elementwise": """Mul Div Max Min Mean Where Mod And Or Xor Equal Greater GreaterOrEqual
        Less LessOrEqual""",
    "activation": """Relu LeakyRelu PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Swish
        Mish Tanh Elu Selu Celu Gelu Erf Softplus Softsign Shrink Sqrt Exp Log Sin Cos Neg Abs Sign
        Reciprocal Pow Floor Ceil Round Not IsNaN IsInf Cast QuantizeLinear DequantizeLinear
        DynamicQuantizeLinear""",
    "address": """CastLike Flatten Reshape Transpose Squeeze Unsqueeze Identity Dropout Pad Concat
        Split Slice Expand Tile Trilu DepthToSpace SpaceToDepth ReverseSequence""",
    "constant": "Shape Size EyeLike RandomNormalLike RandomUniformLike",
}
_OPERATORS: Final = {name: operator for operator, names in _NAMES.items() for name in names.split()}

_FIRST: Final = (0,)
_ALL: Final = range(1000)


@dataclass(frozen=True, slots=True)
class _Variant:
    """An operator that computes what one of ONNX's own does, but with other inputs."""

    standard: str
    data: Sequence[int] = _ALL
    """Which of its inputs the standard operator has; the rest are scales and zero points."""
    on_integers: bool = False
    """Whether it computes with integers in place of real numbers, so that they are its width."""


_STANDARD_VARIANTS: Final[dict[str, _Variant]] = {
    "QuantizeLinear": _Variant("QuantizeLinear", _FIRST),
    "DequantizeLinear": _Variant("DequantizeLinear", _FIRST),
    "QLinearConv": _Variant("Conv", (0, 3, 8), on_integers=True),
    "QLinearMatMul": _Variant("MatMul", (0, 3), on_integers=True),
    "ConvInteger": _Variant("Conv", (0, 1), on_integers=True),
    "MatMulInteger": _Variant("MatMul", (0, 1), on_integers=True),
}
_OF_ONNX_RUNTIME: Final[dict[str, _Variant]] = {
    "QuantizeLinear": _Variant("QuantizeLinear", _FIRST),
    "DequantizeLinear": _Variant("DequantizeLinear", _FIRST),
    "QLinearAdd": _Variant("Add", (0, 3), on_integers=True),
    "QLinearMul": _Variant("Mul", (0, 3), on_integers=True),
    "QLinearSigmoid": _Variant("Sigmoid", _FIRST, on_integers=True),
    "QLinearLeakyRelu": _Variant("LeakyRelu", _FIRST, on_integers=True),
    "QLinearSoftmax": _Variant("Softmax", _FIRST, on_integers=True),
    "QLinearAveragePool": _Variant("AveragePool", _FIRST, on_integers=True),
    "QLinearGlobalAveragePool": _Variant("GlobalAveragePool", _FIRST, on_integers=True),
    "QLinearConcat": _Variant("Concat", range(2, 1000, 3), on_integers=True),
    "QGemm": _Variant("Gemm", (0, 3, 6), on_integers=True),
    "MatMulIntegerToFloat": _Variant("MatMul", (0, 1, 6), on_integers=True),
    "DynamicQuantizeMatMul": _Variant("MatMul", (0, 1, 4)),
    "DynamicQuantizeLSTM": _Variant("LSTM", (0, 1, 2, 3)),
    "FusedConv": _Variant("Conv", (0, 1, 2)),
    "FusedGemm": _Variant("Gemm", (0, 1, 2)),
    "FusedMatMul": _Variant("MatMul", (0, 1)),
    "Gelu": _Variant("Gelu"),
    "FastGelu": _Variant("Gelu"),
    "BiasGelu": _Variant("Gelu"),
    "QuickGelu": _Variant("Gelu"),
    "SkipLayerNormalization": _Variant("LayerNormalization"),
    "SimplifiedLayerNormalization": _Variant("RMSNormalization"),
    "SkipSimplifiedLayerNormalization": _Variant("RMSNormalization"),
    "MultiHeadAttention": _Variant("Attention", (0, 1, 2, 3)),
}
_VARIANTS: Final = _STANDARD_VARIANTS | {
    f"com.microsoft.{name}": variant for name, variant in _OF_ONNX_RUNTIME.items()
}
_REFUSED_INPUTS: Final = {
    "Attention": (4, 5),  # Keys and values of earlier tokens, which no size of an input tells.
    "com.microsoft.MultiHeadAttention": (6, 7),
    "com.microsoft.FusedConv": (3,),  # A tensor that is added.
}
_ONE_TENSOR: Final = frozenset(["Resize", "Upsample", "Pad", "Clip", "Pow", "Tile"])
"""Operators whose further inputs say how, and hold no data."""


def native_name(node: onnx.NodeProto) -> str:
    """What a node's operator is called, with its domain where that is not ONNX's own."""
    own = node.domain in ("", "ai.onnx")
    return node.op_type if own else f"{node.domain}.{node.op_type}"


def standard_name(node: onnx.NodeProto) -> str:
    """The operator of ONNX's own that a node computes; its native name where there is none."""
    name = native_name(node)
    return _VARIANTS[name].standard if name in _VARIANTS else name


def operator_of(node: onnx.NodeProto) -> Operator | None:
    """The word of the vocabulary, None where there is none."""
    for position in _REFUSED_INPUTS.get(native_name(node), ()):
        if any(node.input[position : position + 1]):
            return None
    if native_name(node) == "com.microsoft.MultiHeadAttention" and not all(node.input[:3]):
        return None
    return _OPERATORS.get(standard_name(node))


def computes_on_integers(node: onnx.NodeProto) -> bool:
    """Whether integers stand for real numbers, so that the result is as wide as what is read."""
    variant = _VARIANTS.get(native_name(node))
    return variant is not None and variant.on_integers


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """Names of the tensors that are computed with, weights included, in the standard order."""
    given = list(node.input)
    data = _VARIANTS[native_name(node)].data if native_name(node) in _VARIANTS else _ALL
    if node.op_type in _ONE_TENSOR:
        data = _FIRST
    return [given[at] for at in data if at < len(given) and given[at]]


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The values of a node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


Shape = tuple[int, ...]


def rule_attributes(node: onnx.NodeProto, shapes: Sequence[Shape], output: Shape) -> dict[str, Any]:
    """What the rule of the operator asks for; see `pliant.workload.operators`.

    Args:
        node: of a known operator.
        shapes: of its data inputs.
        output: the shape of its first result.
    """
    given = node_attributes(node)
    ones = [1] * max(len(output) - 2, 1)
    windows = {key: given.get(key, ones) for key in ("strides", "dilations")}
    match operator_of(node):
        case "convolution":
            windows |= {"transposed": node.op_type == "ConvTranspose"}
            return windows | {"groups": given.get("group", 1), "bias": len(shapes) > 2}
        case "pool":
            return windows | {"kernel": given["kernel_shape"]}
        case "product":
            left, right = (bool(given.get(key, 0)) for key in ("transA", "transB"))
            return {"transpose_left": left, "transpose_right": right, "bias": len(shapes) > 2}
        case "einsum":
            return {"equation": given["equation"].decode()}
        case "attention":
            of_all = given.get("num_heads", 0)
            of_keys = given.get("kv_num_heads", of_all)
            return {"heads": (given.get("q_num_heads", of_all), of_keys, of_keys)}
        case "recurrent":
            return _recurrent_sizes(node, shapes)
    return {}


def _recurrent_sizes(node: onnx.NodeProto, shapes: Sequence[Shape]) -> dict[str, Any]:
    """X (steps, batch, features), W (directions, gates x hidden, features), R (directions,
    gates x hidden, hidden); of DynamicQuantizeLSTM W and R have their last two sizes swapped."""
    rows = shapes[0][0] * shapes[0][1]
    swapped = node.op_type == "DynamicQuantizeLSTM"
    directions, gates, features = shapes[1]
    if swapped:
        gates, features = features, gates
    hidden = shapes[2][1 if swapped else 2]
    cells = [[(gates, features, hidden, hidden)] * directions]
    bias = len(node.input) > 3 and bool(node.input[3])
    return {"rows": rows, "bias": bias, "cells": cells}
