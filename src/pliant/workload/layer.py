"""What must be computed: a network as loop sizes, without PyTorch.

A layer is the loop nest `for n, g, k, c, p, q, r, s`: images, groups, output and input channels of
one group, output rows and columns, kernel rows and columns. The same eight loops describe
convolutions, depthwise convolutions (K = C = 1), matrix products (P = Q = R = S = 1), pooling and
element-wise layers, so costs are arithmetic. Batch normalisation and activations are folded into
the layer that feeds them, as every inference runtime does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pliant.errors import EncodingError

Kind = Literal["conv", "matmul", "pool", "elementwise"]

Activation = Literal["none", "relu", "relu6", "hswish", "hsigmoid", "gelu"]

Operator = Literal[
    "conv",
    "max_pool",
    "average_pool",
    "global_pool",
    "batch_norm",
    "layer_norm",
    "scale",
    "add_stored",
    "add",
    "mul",
    "linear",
    "token_linear",
    "attention_scores",
    "softmax",
    "attention_values",
    "mean_over_flips",
    "preprocess",
    "identity",
    "zero",
]
"""`conv` is also the linear layer that runs at every pixel; `layer_norm` normalises the channels of
each pixel; `scale` multiplies each channel with a stored number; `add` combines tensors; `mul`
multiplies its first tensor by its second one, which may have one pixel; `add_stored` adds a stored
number for each channel and pixel; `linear` reads features, and `token_linear` each pixel as a row
of its own; `attention_scores` are the products of queries and keys over the root of the head size,
`softmax` normalises them over the keys, and `attention_values` are their products with the values;
`preprocess` normalises pixels by the training images and resizes them."""

NETWORK_INPUT = "image"
"""The name under which the first layers read the network's input."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a layer computes beyond its loop sizes: enough to run it and to find its parameters."""

    operator: Operator
    activation: Activation = "none"
    """Applied to the result (after the BatchNorm)."""
    module: str = ""
    """Path of its parameters in the plain module of the block; of `scale` and `add_stored` the
    parameter itself."""
    batch_norm: str = ""
    """Path of the BatchNorm that follows; it is folded into a convolution, not into a pooling."""
    epsilon: float = 1e-5
    """Added to the variance by a normalisation."""
    bias: bool = True
    """Whether a convolution without a BatchNorm has a bias; False where one follows its pooling."""
    input_activation: Activation = "none"
    """Applied to what is read, in blocks that activate before they convolve."""
    padding: tuple[int, int] | None = None
    """Zeros before the first and after the last row and column; half a kernel where None."""

    @property
    def normalises(self) -> bool:
        """Whether there is a BatchNorm, folded or of its own."""
        return bool(self.batch_norm) or self.operator == "batch_norm"


@dataclass(frozen=True, slots=True)
class Layer:
    """One loop nest of a network, and the layers whose outputs it reads.

    Only `conv` and `matmul` multiply with weights and count as MACs; the others move and combine
    data.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    """Names of the layers read, in order; `NETWORK_INPUT` for the image.

    An element-wise layer has one for each of its operands. Empty where stored numbers alone are
    multiplied.
    """
    N: int = 1
    """Images."""
    G: int = 1
    """Groups; for depthwise, pooling and element-wise layers, the channels."""
    K: int = 1
    """Output channels of one group."""
    C: int = 1
    """Input channels of one group."""
    P: int = 1
    """Output rows."""
    Q: int = 1
    """Output columns."""
    R: int = 1
    """Kernel rows."""
    S: int = 1
    """Kernel columns."""
    strides: tuple[int, int] = (1, 1)
    """Steps of the kernel, in input rows and columns."""
    dilations: tuple[int, int] = (1, 1)
    """Distances of the kernel's taps, in input rows and columns."""
    bits: int = 32
    """Width of weights and activations."""
    bias: bool = True
    """Whether one addend a output channel is stored (a folded BatchNorm is one)."""
    stored_per_channel: int = 0
    """Numbers that an element-wise layer stores per channel.

    2 of a LayerNorm, 1 of a layer scale.
    """
    stored: int | None = None
    """Numbers stored for this layer where they do not follow from its loops, else None.

    0 of a product of two computed tensors and of a layer that uses the weights of an earlier one;
    the table of an embedding.
    """
    concatenated: tuple[str, ...] = ()
    """Names of further layers read: the other parts of operands that are concatenations."""
    operation: Operation | None = field(default=None, compare=False)
    """Exactly what is computed, None where only sizes are known.

    Layers of equal sizes cost the same.
    """

    def __post_init__(self) -> None:
        loops = (self.N, self.G, self.K, self.C, self.P, self.Q, self.R, self.S, self.bits)
        if min(*loops, *self.strides, *self.dilations) >= 1:
            return
        small = {name: getattr(self, name) for name in ("N", *"GKCPQRS", "bits")}
        wrong = {name: value for name, value in small.items() if value < 1}
        pairs = {"strides": self.strides, "dilations": self.dilations}
        wrong |= {name: value for name, value in pairs.items() if min(value) < 1}
        raise EncodingError(
            f"layer {self.name!r}: loop sizes are whole numbers from 1 up, received {wrong}."
        )

    @property
    def weighted(self) -> bool:
        """Whether the layer multiplies with stored weights."""
        return self.kind in ("conv", "matmul")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass; 0 where nothing is multiplied with weights."""
        return (
            self.N * self.G * self.K * self.C * self.P * self.Q * self.R * self.S
            if self.weighted
            else 0
        )

    @property
    def parameters(self) -> int:
        """Stored numbers: weights, and one addend an output channel where there is a bias."""
        return self.loop_parameters if self.stored is None else self.stored

    @property
    def loop_parameters(self) -> int:
        """Numbers that a layer with these loops stores if its weights are its own."""
        if not self.weighted:
            return self.stored_per_channel * self.G * self.K
        return self.G * self.K * self.C * self.R * self.S + (self.G * self.K if self.bias else 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all layers whose outputs are read."""
        return self.inputs + self.concatenated

    @property
    def addend_bits(self) -> int:
        """Width of biases and per-channel numbers: 32 where weights are narrow integers."""
        return 32 if self.bits < 16 else self.bits

    @property
    def parameter_bytes(self) -> int:
        """Size of the stored numbers."""
        if self.stored is not None:
            return -(-self.stored * self.bits // 8)
        weights = self.G * self.K * self.C * self.R * self.S if self.weighted else 0
        addends = self.parameters - weights
        return -(-weights * self.bits // 8) + addends * self.addend_bits // 8

    @property
    def output_elements(self) -> int:
        """Numbers in the output tensor."""
        return self.N * self.G * self.K * self.P * self.Q

    @property
    def output_bytes(self) -> int:
        """Size of the output tensor, rounded up to whole bytes."""
        return -(-self.output_elements * self.bits // 8)


def gates(layers: Sequence[Layer]) -> dict[str, str]:
    """The layers that only compute the factors of a `mul`, as in squeeze-and-excite.

    Returns:
        The name of the `mul` by the name of each of them.
    """
    by_name = {layer.name: layer for layer in layers}
    found: dict[str, str] = {}
    for layer in layers:
        if layer.operation is None or layer.operation.operator != "mul":
            continue
        scaled, factors = layer.inputs
        pending = [factors]
        while pending:
            name = pending.pop()
            if name != scaled and name in by_name:
                found[name] = layer.name
                pending += by_name[name].inputs
    return found


@dataclass(frozen=True, slots=True)
class Workload:
    """The layers of a network in an order in which they can run; the last one is the output.

    Args:
        layers: each reads the network's input or earlier layers only; names are unique.
        input_elements: numbers in the input tensors.
        input_bits: width of one of them.
        left_out: operators that the caller asked to pass through as free: totals are without them.

    Raises:
        EncodingError: a name appears twice, or a layer reads one that does not come before it.
    """

    layers: tuple[Layer, ...]
    input_elements: int
    input_bits: int = field(default=32)
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {NETWORK_INPUT}
        for layer in self.layers:
            if layer.name in known:
                raise EncodingError(f"layer names are unique, received {layer.name!r} twice.")
            if missing := [name for name in layer.reads if name not in known]:
                raise EncodingError(
                    f"layer {layer.name!r} reads {missing[0]!r}, which does not come before it."
                )
            known.add(layer.name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Stored numbers, with every BatchNorm folded into one addend an output channel."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def parameter_bytes(self) -> int:
        """Size of the stored numbers."""
        return sum(layer.parameter_bytes for layer in self.layers)

    @property
    def peak_activation_bytes(self) -> int:
        """Largest sum of tensors alive at once; layers run in their order."""
        return peak_activation_bytes(self.layers, -(-self.input_elements * self.input_bits // 8))


def with_bits(layers: Iterable[Layer], bits: int) -> tuple[Layer, ...]:
    """The layers with weights and activations of another width.

    Pixels keep theirs until they are normalised and resized.
    """
    if bits == 32:
        return tuple(layers)
    return tuple(
        layer
        if layer.operation and layer.operation.operator == "preprocess"
        else replace(layer, bits=bits)
        for layer in layers
    )


def peak_activation_bytes(layers: Sequence[Layer], input_bytes: int) -> int:
    """The largest sum of tensors that are alive at once.

    Before each layer frees what nobody reads any more, everything alive is added up. BatchNorm and
    activations are folded into their layers; sums and products run in place where they can
    (`lifetimes`).

    Args:
        layers: in running order.
        input_bytes: size of the tensor called `NETWORK_INPUT`.
    """
    alive = {NETWORK_INPUT: input_bytes}
    peak = input_bytes
    for step in lifetimes(layers, input_bytes):
        if step.overwrites is not None:
            del alive[step.overwrites]
        alive[step.layer.name] = step.layer.output_bytes
        peak = max(peak, sum(alive.values()))
        for name in step.dies:
            del alive[name]
    return peak


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What one layer does to the tensors in memory."""

    layer: Layer
    overwrites: str | None
    """Name of the tensor whose place the output takes."""
    dies: tuple[str, ...]
    """Names of the tensors that nobody reads any more once the layer has run."""


def lifetimes(layers: Sequence[Layer], input_bytes: int) -> Iterator[Lifetime]:
    """When each tensor begins and ends.

    A sum or product of several tensors is written over an operand of its own size that nobody else
    reads afterwards, as runtimes do.

    Args:
        layers: in running order.
        input_bytes: size of the tensor called `NETWORK_INPUT`.
    """
    # A tensor that nobody reads is alive while the next layer runs; the caller may want it.
    ends = {layer.name: step + 1 for step, layer in enumerate(layers)} | {NETWORK_INPUT: 0}
    for step, layer in enumerate(layers):
        ends |= dict.fromkeys(layer.reads, step)
    sizes = {layer.name: layer.output_bytes for layer in layers} | {NETWORK_INPUT: input_bytes}
    ending: dict[int, list[str]] = {}
    for name, step in ends.items():
        ending.setdefault(step, []).append(name)
    for step, layer in enumerate(layers):
        dies = ending.get(step, [])
        overwrites = None
        if layer.kind == "elementwise" and len(layer.inputs) > 1:
            fitting = [name for name in layer.inputs if name in dies]
            same_size = (name for name in fitting if sizes[name] == layer.output_bytes)
            overwrites = next(same_size, None)
        yield Lifetime(layer, overwrites, tuple(name for name in dies if name != overwrites))
