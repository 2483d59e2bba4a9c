"""An ONNX model that this package wrote, as a PyTorch module, for quantization-aware training.

Rounding lets gradients pass (straight-through estimator: Bengio, Y. et al., Estimating or
propagating gradients through stochastic neurons for conditional computation, 2013,
arXiv:1308.3432); values outside of a tensor's range get none. So what is trained is the graph that
is delivered, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.errors import EncodingError
from pliant.networks.quantize import INTEGER_END

Attributes = Mapping[str, Any]


class OnnxModule(nn.Module):
    """The nodes of a model, run one after the other.

    Args:
        model: in float or quantized, of the operators that `pliant.networks.onnx` writes.
        weights: that are trained, by their names in the float model; the integers of a quantized
            model follow from them in every pass.

    Raises:
        EncodingError: an operator is not known.
    """

    def __init__(
        self, model: onnx.ModelProto, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__()
        self.nodes = [(node, _attributes(node)) for node in model.graph.node]
        for node, _ in self.nodes:
            if node.op_type not in OPERATORS:
                raise EncodingError(
                    f"a model to be trained has the operators {', '.join(OPERATORS)}, received"
                    f" {node.op_type!r}."
                )
        self.source = model.graph.input[0].name
        self.weights = nn.ParameterDict()
        self.constants: dict[str, Any] = {}
        for one in model.graph.initializer:
            name = one.name.removesuffix(INTEGER_END)
            trained = (weights or {}).get(name)
            if trained is not None:
                self.weights[_key(name)] = nn.Parameter(_in_fast_layout(trained))
            value = numpy_helper.to_array(one)
            # Shapes and axes are Python's numbers, which a compiler or an exporter needs to know.
            is_shape = value.dtype == np.int64
            self.constants[one.name] = value.tolist() if is_shape else _in_fast_layout(value)

    def forward(self, images: Tensor) -> Tensor:
        """From the model's input to its last `logits` or features."""
        values: dict[str, Tensor] = {"": torch.empty(0), self.source: images}
        for node, attributes in self.nodes:
            inputs = [self._value(name, values) for name in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](attributes, *inputs)
        return values.get("logits", values[self.nodes[-1][0].output[0]])

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Any:
        if name in values:
            return values[name]
        trained = _key(name.removesuffix(INTEGER_END))
        return self.weights[trained] if trained in self.weights else self.constants[name]

    def float_weights(self) -> dict[str, np.ndarray]:
        """The trained floats, by their names in the float model."""
        return {
            name.replace("/", "."): value.detach().numpy() for name, value in self.weights.items()
        }


def _in_fast_layout(array: np.ndarray) -> Tensor:
    """Depthwise convolutions are several times as fast on a CPU with the channels last."""
    tensor = torch.from_numpy(array.copy())
    if tensor.ndim == 4 and tensor.is_floating_point():
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _key(name: str) -> str:
    """Names of parameters have no dots."""
    return name.replace(".", "/")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _quantize(attributes: Attributes, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The values that uint8 can represent; dequantizing them changes nothing more."""
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point.int(), 0, 255)


def _dequantize(attributes: Attributes, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x.float() * scale.view(-1, *[1] * (x.ndim - 1))
    if zero_point.dtype != torch.int8:
        return x  # an activation, or a bias: 32 bits round nothing that matters
    largest = x.detach().abs().flatten(1).amax(1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return torch.fake_quantize_per_channel_affine(x, scales, zero_point.int(), 0, -127, 127)


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = attributes["pads"]
    return F.conv2d(
        F.pad(x, (left, right, top, bottom)) if (top, left) != (bottom, right) else x,
        weight,
        bias,
        attributes["strides"],
        0 if (top, left) != (bottom, right) else (top, left),
        attributes.get("dilations", 1),
        attributes["group"],
    )


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    pads = attributes.get("pads", [0, 0])[:2]
    return F.avg_pool2d(
        x,
        attributes["kernel_shape"],
        attributes["strides"],
        pads,
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        count_include_pad=False,
    )


def _resize(
    attributes: Attributes, x: Tensor, region: Tensor, scales: Tensor, sizes: list[int]
) -> Tensor:
    return F.interpolate(x, sizes, mode="bilinear", antialias=True, align_corners=False)


def _slice(attributes: Attributes, x: Tensor, *ends: list[int]) -> Tensor:
    """The only slice that is written: columns from the last to the first."""
    return x.flip(-1)


def _batch_norm(
    attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, eps=attributes["epsilon"])


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, scale.shape, scale, bias, attributes["epsilon"])


def _gemm(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _reshape(attributes: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape(shape)


OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Conv": _conv,
    "Gemm": _gemm,
    "Add": lambda _, x, y: x + y,
    "Mul": lambda _, x, y: x * y,
    "Relu": lambda _, x: F.relu(x),
    "Clip": lambda _, x, low, high: x.clamp(low, high),
    "HardSigmoid": lambda _, x: F.hardsigmoid(x),
    "HardSwish": lambda _, x: F.hardswish(x),
    "Gelu": lambda _, x: F.gelu(x),
    "MaxPool": lambda a, x: F.max_pool2d(x, a["kernel_shape"], a["strides"]),
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Flatten": lambda _, x: x.flatten(1),
    "Reshape": _reshape,
    "ReduceMean": lambda _, x, axis: x.mean(axis[0]),
    "Transpose": lambda a, x: x.permute(*a["perm"]),
    "Identity": lambda _, x: x,
    "Cast": lambda _, x: x.float(),
    "Resize": _resize,
    "Slice": _slice,
    "Gather": lambda a, x, index: x.select(a["axis"], index),
    "MatMul": lambda _, x, y: x @ y,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Softmax": lambda a, x: x.softmax(a["axis"]),
}
"""By the operator's name: attributes and inputs to the result."""
