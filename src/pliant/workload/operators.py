"""One set of operator rules: which layers does an operator of a file or a module become?

A front end (`pliant.workload.onnx_reader`, `pliant.networks.trace`) translates its own operators
into the small vocabulary of this file, with shapes, and the rules turn them into layers:

* convolutions, products, attention, recurrent cells, pooling and reductions become loop nests;
* softmax, layer normalisation, resizing, gathering, and combinations of several tensors read and
  write whole tensors, so each is one element-wise layer;
* BatchNorm and added constants fold into the layer that feeds them; activations and changes of
  addresses are free;
* what depends on stored numbers or shapes alone is a constant, up to the first product or
  convolution: those run at every inference, so they are layers;
* everything else is refused by name: an operator that nobody described never costs zero.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pliant.errors import EncodingError, nearest
from pliant.workload.layer import NETWORK_INPUT, Kind, Layer, Workload

Operator = Literal[
    "convolution",
    "product",
    "einsum",
    "attention",
    "recurrent",
    "pool",
    "global_pool",
    "adaptive_pool",
    "reduction",
    "batch_norm",
    "whole_tensor",
    "gated",
    "add",
    "elementwise",
    "activation",
    "address",
    "constant",
]
"""The vocabulary; `_Builder` has the rule of each."""

MULTIPLIES: Final = frozenset(["convolution", "product", "einsum", "attention", "recurrent"])
"""Operators that are layers also where every operand is a constant."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value between two operators.

    Args:
        key: which value it is, or which memory where several tensors view the same.
        shape: every size; one below 1 is not known.
        bits: width of one element.
        view: which part of the memory it shows; None where every value has a key of its own.
    """

    key: Hashable
    shape: tuple[int, ...]
    bits: int = 32
    view: Hashable = None

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.known_shape)

    @property
    def known_shape(self) -> tuple[int, ...]:
        """The shape.

        Raises:
            EncodingError: a size is not known, or 0.
        """
        if min(self.shape, default=1) < 1:
            raise EncodingError(
                f"tensor {self.key!r}: every size is a number from 1 up, received {self.shape},"
                " where 0 is a size that is not known or an empty tensor. Export with fixed shapes,"
                " or state open sizes."
            )
        return self.shape


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operator.

    Args:
        operator: the word of the vocabulary; None where the front end knows none.
        native: what the front end calls the operator.
        name: what to call its layer.
        other_name: what to call it where the name is taken, with a number from the second on.
        place: where it is in the network, for messages.
        inputs: tensors read, in order, weights included.
        outputs: tensors written.
        attributes: what the rule of the operator asks for; see the rules.
    """

    operator: Operator | None
    native: str
    name: str
    other_name: str
    place: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def build_workload(
    operations: Sequence[Operation],
    inputs: Sequence[Tensor],
    *,
    stored: Mapping[Hashable, int] | None = None,
    skip: Collection[str] = (),
    hint: str = "skip={{{0!r}}}",
) -> Workload:
    """The layers of a network that runs these operations in order.

    Args:
        operations: in running order, those on constants too.
        inputs: the tensors that the network is given.
        stored: how many numbers are stored under the key of a tensor: weights, biases, tables.
        skip: native names of operators without a cost of their own, passed through as if free.
        hint: how a caller skips an operator, with `{0}` for its name.

    Raises:
        EncodingError: an operator without a rule (by name), a name to skip that no operator has,
            an unknown size, a window of more than two dimensions, or no layer at all.
    """
    natives = {operation.native for operation in operations}
    for name in skip:
        if name not in natives:
            raise EncodingError(
                f"what is skipped is an operator of the network, it has no {name!r}."
                f" {nearest(name, sorted(natives))}"
            )
    if not inputs:
        raise EncodingError("a network has an input, this one has none.")
    builder = _Builder(operations, inputs, stored or {}, skip, hint)
    for operation in operations:
        builder.read(operation)
    if not builder.layers:
        raise EncodingError("the network has no layer that costs anything.")
    elements = sum(tensor.elements for tensor in inputs)
    left_out = tuple(sorted(builder.left_out))
    return Workload(builder.finished(), elements, inputs[0].bits, left_out)


class _Builder:
    """Walks the operations; its maps say for each key what is known of the value it holds now."""

    def __init__(
        self,
        operations: Sequence[Operation],
        inputs: Sequence[Tensor],
        stored: Mapping[Hashable, int],
        skip: Collection[str],
        hint: str,
    ) -> None:
        self.stored, self.skip, self.hint = stored, frozenset(skip), hint
        self.left_out: set[str] = set()
        """Operators that were skipped although a computed value reaches them."""
        self.layers: dict[str, Layer] = {}
        self.sources: dict[Hashable, tuple[str, ...]] = {
            tensor.key: (NETWORK_INPUT,) for tensor in inputs
        }
        """Which layers a value comes from. A value without sources is a constant."""
        self.results: dict[Hashable, str] = {}
        """The layer whose very result a value is, nothing done to it since."""
        self.reshaped: dict[Hashable, str] = {}
        """The same, also through changes of shape."""
        self.products_of_data: set[str] = set()
        """Layers that multiply two computed tensors, as attention does: no weights to fold into."""
        self.origins: dict[Hashable, frozenset[Hashable]] = {
            key: frozenset([key]) for key in stored
        }
        """The stored tensors from which a constant is made."""
        self.counted: set[Hashable] = set()
        """Stored tensors that belong to a layer already: each is stored once."""
        self.parameters: Counter[str] = Counter()
        """How many numbers each layer stores."""
        self.unowned = 0
        """Stored numbers that were read before there was a layer."""
        self.summed: dict[str, str] = {}
        """Layers that add up what a transposed convolution multiplied, and its products."""
        self.with_addend: set[str] = set()
        """Those of them that store one addend per output channel."""
        self.roots: dict[Hashable, dict[Hashable, Hashable]] = {}
        """The value that a view is a function of, element by element."""
        self.readers = Counter(
            key for operation in operations for key in {tensor.key for tensor in operation.inputs}
        )

    def read(self, operation: Operation) -> None:
        """Adds the layers of one operation, or passes on what is known of its inputs."""
        moving = [tensor for tensor in operation.inputs if tensor.key in self.sources]
        operator = operation.operator
        if operator == "constant" or not (moving or operator in MULTIPLIES):
            self._add_constants(operation, moving)
            return
        constants = [tensor.key for tensor in operation.inputs if tensor.key not in self.sources]
        origins = frozenset[Hashable]().union(*(self.origins.get(key, ()) for key in constants))
        layers = len(self.layers)
        producers = self._all_sources(moving)
        if operation.native in self.skip:
            self.left_out.add(operation.native)
            self._pass(operation, moving)
        elif operator == "address":
            self._pass(operation, moving)
        elif operator is None:
            raise EncodingError(
                f"operator {operation.native!r} ({operation.place}) has no cost in this model."
                f" To pass it through as free: {self.hint.format(operation.native)}."
            )
        elif operation.outputs:
            rule = getattr(self, f"_{operator}")
            rule(operation, moving)
        if operator != "batch_norm":
            self._store(origins, list(self.layers)[layers:], producers)

    def finished(self) -> tuple[Layer, ...]:
        """The layers, with the numbers that each of them stores."""
        found = []
        for name, layer in self.layers.items():
            parameters = self.parameters[name]
            stored = None if parameters == layer.loop_parameters else parameters
            found.append(replace(layer, stored=stored))
        return tuple(found)

    # Which numbers are stored.

    def _add_constants(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """What constants become is made of the stored tensors that they are made of."""
        known = (self.origins.get(tensor.key, ()) for tensor in operation.inputs if not moving)
        origins = frozenset[Hashable]().union(*known)
        self._forget(operation)
        for tensor in operation.outputs:
            self.origins[tensor.key] = origins

    def _store(
        self, origins: Collection[Hashable], made: Sequence[str], producers: Sequence[str]
    ) -> None:
        """Gives the stored tensors that an operation reads to its layers.

        Where it makes none, they belong to the layer that it runs with.
        """
        new = [key for key in origins if key not in self.counted]
        self.counted.update(new)
        numbers = sum(self.stored[key] for key in new)
        loops = {name: self.layers[name].loop_parameters for name in made}
        if made:
            numbers, self.unowned = numbers + self.unowned, 0
        if numbers == sum(loops.values()):
            self.parameters.update(loops)
        elif made:
            weighted = [name for name in made if self.layers[name].weighted]
            self.parameters[(weighted or made)[0]] += numbers
        elif producers and producers[0] != NETWORK_INPUT:
            self.parameters[producers[0]] += numbers
        else:
            self.unowned += numbers

    # What stays known after an operation.

    def _forget(self, operation: Operation) -> None:
        for tensor in operation.outputs:
            for known in (self.sources, self.results, self.reshaped, self.roots, self.origins):
                known.pop(tensor.key, None)

    def _pass(
        self, operation: Operation, moving: Sequence[Tensor], *, pointwise: bool = False
    ) -> None:
        """Outputs come from where the moving inputs come from; `pointwise`, element by element."""
        keys = {tensor.key for tensor in (*operation.inputs, *operation.outputs)}
        if operation.operator == "address" and len(operation.inputs) == len(keys) == 1:
            # Another view of the same memory: nothing is written.
            for tensor in operation.outputs:
                self.results.pop(tensor.key, None)
            return
        sources = self._all_sources(moving)
        reshaped = self.reshaped.get(moving[0].key)
        root = self._root(moving[0])
        same_elements = (
            operation.operator == "address"
            and len(operation.inputs) == len(operation.outputs) == 1
            and math.prod(operation.inputs[0].shape) == math.prod(operation.outputs[0].shape)
        )
        self._forget(operation)
        for tensor in operation.outputs:
            self.sources[tensor.key] = sources
            if same_elements and reshaped is not None:
                self.reshaped[tensor.key] = reshaped
            if pointwise and tensor.shape == moving[0].shape:
                self.roots[tensor.key] = {tensor.view: root}

    def _written(self, operation: Operation, name: str) -> None:
        self._forget(operation)
        for tensor in operation.outputs:
            self.sources[tensor.key] = (name,)
            self.results[tensor.key] = self.reshaped[tensor.key] = name

    def _all_sources(self, moving: Sequence[Tensor]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in moving for name in self.sources[one.key]))

    def _root(self, tensor: Tensor) -> Hashable:
        own = (tensor.key, tensor.view, self.sources[tensor.key])
        return self.roots.get(tensor.key, {}).get(tensor.view, own)

    # How layers are made.

    def _layer(
        self, operation: Operation, kind: Kind, inputs: Iterable[str], part: str = "", **sizes: Any
    ) -> str:
        """Adds a layer, without saying which tensor holds its result, and returns its name."""
        ending = f".{part}" if part else ""
        preferred, other = operation.name + ending, operation.other_name + ending
        numbered = (f"{other}{number}" for number in itertools.count(2))
        names = itertools.chain((preferred, other), numbered)
        name = next(one for one in names if one not in self.layers and one != NETWORK_INPUT)
        bits = operation.outputs[0].bits
        self.layers[name] = Layer(name, kind, tuple(inputs), bits=bits, **sizes)
        return name

    def _add_layer(
        self, operation: Operation, kind: Kind, moving: Sequence[Tensor], **sizes: Any
    ) -> None:
        inputs = sources = self._all_sources(moving)
        if kind == "elementwise":
            # One stream for each tensor that is read; one may lie in parts, as a concatenation.
            inputs = tuple(self.sources[tensor.key][0] for tensor in moving)
            sizes["concatenated"] = tuple(name for name in sources if name not in inputs)
        self._written(operation, self._layer(operation, kind, inputs, **sizes))

    # The rules. Each is called with the operation and those of its inputs that are no constants.

    def _convolution(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: images (N, C, H, W), weights (K, C / groups, R, S).

        Attributes: `strides`, `dilations`, `groups`, `bias`.
        """
        weight = operation.inputs[1].known_shape
        groups = operation.attributes["groups"]
        if operation.attributes.get("transposed"):
            self._transposed_convolution(operation, moving, weight, groups)
        else:
            self._add_layer(
                operation,
                "conv",
                moving,
                N=operation.outputs[0].known_shape[0],
                G=groups,
                K=weight[0] // groups,
                C=weight[1],
                bias=operation.attributes["bias"],
                **_windows(operation, weight[2:]),
            )
        if operation.inputs[1] in moving:
            self.products_of_data.add(self.results[operation.outputs[0].key])

    def _transposed_convolution(
        self,
        operation: Operation,
        moving: Sequence[Tensor],
        weight: tuple[int, ...],
        groups: int,
    ) -> None:
        """Weights (C, K / groups, R, S): every pixel is multiplied with the whole kernel (a 1x1
        convolution to K R S channels), and what falls on one output pixel is added up.

        V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016,
        arXiv:1603.07285, chapter 4.
        """
        kernel = weight[2:]
        ones = [1] * len(kernel)
        by_pixel = {"strides": ones, "dilations": ones}
        pixels = replace(operation, outputs=operation.inputs[:1], attributes=by_pixel)
        sizes = {
            "N": operation.outputs[0].known_shape[0],
            "G": groups,
            "K": weight[1] * math.prod(kernel),
            "C": weight[0] // groups,
            "bias": False,
        } | _windows(pixels, ones)
        overlap = self._layer(operation, "conv", self._all_sources(moving), "product", **sizes)
        batch, channels, *spatial = operation.outputs[0].known_shape
        result = self._layer(
            operation,
            "elementwise",
            [overlap],
            N=batch,
            G=channels,
            P=spatial[0],
            Q=math.prod(spatial[1:]),
        )
        self._written(operation, result)
        self.summed[result] = overlap
        if operation.attributes["bias"]:
            self.with_addend.add(result)

    def _product(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: left (..., M, C), right (..., C, K).

        Attributes: `transpose_left`, `transpose_right`, `bias`.
        """
        left, right = (_matrix(tensor, side) for side, tensor in enumerate(operation.inputs[:2]))
        if operation.attributes.get("transpose_left"):
            left = (*left[:-2], left[-1], left[-2])
        if operation.attributes.get("transpose_right"):
            right = (*right[:-2], right[-1], right[-2])
        if operation.inputs[0].key not in self.sources:
            # The constant operand holds the weights: (A B)^T = B^T A^T.
            left, right = (
                (*right[:-2], right[-1], right[-2]),
                (*left[:-2], left[-1], left[-2]),
            )
        self._matrix_layer(operation, moving, left, right)

    def _matrix_layer(
        self,
        operation: Operation,
        moving: Sequence[Tensor],
        left: Sequence[int],
        right: Sequence[int],
    ) -> None:
        # A right operand with its own batch (attention) makes every batch entry a group.
        groups = math.prod(right[:-2])
        batches = math.prod(
            max(sizes) for sizes in itertools.zip_longest(left[-3::-1], right[-3::-1], fillvalue=1)
        )
        operands = [tensor for tensor in moving if tensor in operation.inputs[:2]]
        self._add_layer(
            operation,
            "matmul",
            operands,
            N=batches * left[-2] // groups,
            G=groups,
            K=right[-1],
            C=left[-1],
            bias=operation.attributes.get("bias", False),
        )
        if len(operands) == 2:
            self.products_of_data.add(self.results[operation.outputs[0].key])

    def _einsum(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: two tensors. Attributes: `equation`, every letter once in each term.

        A letter of one term alone that the output lacks is summed before the product.
        """
        terms, _, output = operation.attributes["equation"].replace(" ", "").partition("->")
        letters = terms.split(",")
        plain = all(term.isalpha() and len(set(term)) == len(term) for term in (*letters, output))
        if len(letters) != 2 or not plain:
            raise EncodingError(
                f"{operation.place}: sums of two tensors with every letter once in a term are"
                f" layers of this model, received {operation.attributes['equation']!r}."
            )
        size: dict[str, int] = {}
        for term, tensor in zip(letters, operation.inputs, strict=True):
            size |= dict(zip(term, tensor.known_shape, strict=True))
        alone = (set(letters[0]) ^ set(letters[1])) - set(output)
        for place, (term, tensor) in enumerate(zip(letters, operation.inputs, strict=True)):
            if tensor in moving and alone & set(term):
                summed = self._summed(operation, tensor, [size[a] for a in term if a not in alone])
                moving = [summed if one is tensor else one for one in moving]
                inputs = (*operation.inputs[:place], summed, *operation.inputs[place + 1 :])
                operation = replace(operation, inputs=inputs)
        first, second = (set(term) for term in letters)
        if operation.inputs[0].key not in self.sources:
            first, second = second, first
        kept = set(output)

        def extent(of: set[str]) -> int:
            return math.prod(size[letter] for letter in of)

        left = (
            extent(first & second & kept),
            extent((first - second) & kept),
            extent(first & second - kept),
        )
        right = (left[0], left[2], extent((second - first) & kept))
        self._matrix_layer(operation, moving, left, right)

    def _summed(self, operation: Operation, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """A layer that sums axes of an operand, and its result."""
        summed = replace(tensor, key=(operation.name, tensor.key), shape=tuple(shape))
        own, other = f"{operation.name}.sum", f"{operation.other_name}.sum"
        addition = replace(operation, name=own, other_name=other, inputs=(tensor,))
        self._reduction(replace(addition, outputs=(summed,)), [tensor])
        return summed

    def _attention(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: queries, keys, values, each (batch, heads, tokens, width).

        Attributes: `heads` of the three, where they are (batch, tokens, heads x width).
        """
        shapes = []
        heads = operation.attributes.get("heads", (0, 0, 0))
        for count, tensor in zip(heads, operation.inputs[:3], strict=True):
            shape = tensor.known_shape
            if len(shape) == 3:
                shape = (shape[0], count, shape[1], shape[2] // count)
            shapes.append(shape)
        (batch, query_heads, queries, width), keys, values = shapes
        # Query heads that share their keys are more rows of one product.
        groups, rows = batch * keys[1], queries * query_heads // keys[1]
        read = [tensor for tensor in moving if tensor in operation.inputs[:3]]
        sources = self._all_sources(read)
        scores = self._layer(
            operation,
            "matmul",
            sources,
            "scores",
            N=rows,
            G=groups,
            K=keys[2],
            C=width,
            bias=False,
        )
        softmax = self._layer(
            operation,
            "elementwise",
            [scores],
            "softmax",
            N=batch,
            G=query_heads,
            P=queries,
            Q=keys[2],
        )
        result = self._layer(
            operation,
            "matmul",
            dict.fromkeys((softmax, *self.sources.get(operation.inputs[2].key, ()))),
            "values",
            N=rows,
            G=groups,
            K=values[3],
            C=keys[2],
            bias=False,
        )
        self._written(operation, result)

    def _recurrent(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: sequences (..., features). All steps of a cell are the rows of one product.

        Attributes: `rows`, steps x batch; `bias`; `cells`, layer by layer, the cells of each layer
        (directions), each as (gate outputs, input features, state features, hidden features).
        The gates are sums of the two products, element by element; states stay where they are.
        """
        sources = self._all_sources(moving)
        rows, bias = operation.attributes["rows"], operation.attributes["bias"]
        for depth, directions in enumerate(operation.attributes["cells"]):
            results = []
            for direction, (gates, features, state, hidden) in enumerate(directions):
                cell = f"l{depth}{'_reverse' if direction else ''}"
                sizes = {"N": rows, "K": gates, "bias": bias}
                fed = self._layer(
                    operation, "matmul", sources, f"{cell}.input", C=features, **sizes
                )
                kept = self._layer(operation, "matmul", [fed], f"{cell}.hidden", C=state, **sizes)
                # Both products are several times as wide as the result: one part for each gate.
                parts = [fed, kept] * (gates // hidden)
                result = self._layer(
                    operation, "elementwise", parts, f"{cell}.gates", N=rows, G=hidden
                )
                if state != hidden:
                    sizes = {"N": rows, "K": state, "bias": False}
                    result = self._layer(
                        operation, "matmul", [result], f"{cell}.projection", C=hidden, **sizes
                    )
                results.append(result)
            sources = tuple(results)
        self._forget(operation)
        for tensor in operation.outputs:
            self.sources[tensor.key] = sources

    def _pool(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: images (..., C, H, W). Attributes: `kernel`, `strides`, `dilations`."""
        windows = _windows(operation, operation.attributes["kernel"])
        *batch, channels = operation.outputs[0].shape[: -len(operation.attributes["kernel"])]
        self._add_layer(operation, "pool", moving[:1], N=math.prod(batch), G=channels, **windows)

    def _adaptive_pool(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: images (N, C, H, W); windows as large as the largest that it takes."""
        image, result = operation.inputs[0].known_shape, operation.outputs[0].known_shape
        step = [-(-before // after) for before, after in zip(image[2:], result[2:], strict=True)]
        even = replace(operation, attributes={"strides": step, "dilations": [1] * len(step)})
        windows = _windows(even, step)
        self._add_layer(operation, "pool", moving[:1], N=image[0], G=image[1], **windows)

    def _global_pool(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: images (N, C, H, W)."""
        batch, channels, rows, *columns = operation.inputs[0].known_shape
        sizes = {"N": batch, "G": channels, "R": rows, "S": math.prod(columns)}
        self._add_layer(operation, "pool", moving[:1], **sizes)

    def _reduction(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: any tensor; how far it shrinks is the window."""
        before, after = operation.inputs[0], operation.outputs[0]
        shape, elements = before.known_shape, after.elements
        images = len(shape) == 4 and after.shape[:2] == shape[:2]
        if images and elements == shape[0] * shape[1]:
            self._global_pool(operation, moving)
        else:
            self._add_layer(
                operation, "pool", moving[:1], G=elements, R=before.elements // elements
            )

    def _batch_norm(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Folds into the weighted layer before it, where nothing else reads that layer's result.

        It leaves one addend per channel there. On its own it stores a factor and an addend.
        Attribute: `batch_statistics`, which the images themselves have.
        """
        own = {tensor.key for tensor in operation.inputs if tensor not in moving}
        channels, new = moving[0].known_shape[1], not own <= self.counted
        origins = frozenset[Hashable]().union(*(self.origins.get(key, ()) for key in own))
        stored = sum(self.stored[key] for key in origins) or 2 * channels
        self.counted |= own | origins
        name = self.results.get(moving[0].key)
        alone = self.readers[moving[0].key] == 1
        alone = alone and not operation.attributes.get("batch_statistics")
        if name is not None and self._has_weights(name) and alone:
            # A layer that is used again, with its BatchNorm, stores nothing anew.
            if not self._has_addend(name) and (new or self.parameters[name]):
                self.parameters[name] += channels
            self._fold(operation, name)
        else:
            self._whole_tensor(operation, moving)
            numbers = min(stored, 2 * channels) if new else 0
            self.parameters[self.results[operation.outputs[0].key]] += numbers

    def _has_weights(self, name: str) -> bool:
        weighted = self.layers[self.summed.get(name, name)].weighted
        return weighted and name not in self.products_of_data

    def _has_addend(self, name: str) -> bool:
        return name in self.with_addend if name in self.summed else self.layers[name].bias

    def _fold(self, operation: Operation, name: str) -> None:
        # A folded BatchNorm or constant leaves one addend per output channel.
        self.with_addend.add(name)
        self.layers[name] = replace(self.layers[name], bias=True)
        self._forget(operation)
        for tensor in operation.outputs:
            self.sources[tensor.key] = (name,)

    def _whole_tensor(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: any tensors; every element of the output is written once."""
        batch, channels, rows, *columns = (*operation.outputs[0].known_shape, 1, 1, 1)
        sizes = {"N": batch, "G": channels, "P": rows, "Q": math.prod(columns)}
        self._add_layer(operation, "elementwise", moving, **sizes)

    def _gated(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Input: a tensor whose two halves are multiplied."""
        self._whole_tensor(operation, [moving[0]] * 2)

    def _add(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """As `_elementwise`; one constant per output channel, added to a product, is its bias."""
        name = self.reshaped.get(moving[0].key)
        constants = [tensor for tensor in operation.inputs if tensor.key not in self.sources]
        if len(moving) == 1 and name is not None and self._has_weights(name):
            channels = self.layers[name].G * self.layers[name].K
            if any(math.prod(tensor.shape) == channels > 1 for tensor in constants):
                self._fold(operation, name)
                return
        if len(moving) == 2 and moving[0] == moving[1]:
            # Two branches that turn out to be one value are added all the same.
            self._whole_tensor(operation, moving)
        else:
            self._elementwise(operation, moving)

    def _activation(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """As `_elementwise`: free, but where a second tensor is computed too, as an exponent."""
        self._elementwise(operation, moving)

    def _elementwise(self, operation: Operation, moving: Sequence[Tensor]) -> None:
        """Inputs: tensors that broadcast.

        Functions of one value, as x sigmoid(x), are free, and so is one computed number for a whole
        tensor, as the scale of a quantisation.
        """
        moving = [tensor for tensor in moving if math.prod(tensor.shape) != 1] or moving
        if len({self._root(tensor) for tensor in moving}) == 1:
            self._pass(operation, moving, pointwise=True)
        else:
            self._whole_tensor(operation, moving)


def _matrix(tensor: Tensor, side: int) -> tuple[int, ...]:
    """The shape of an operand; a vector is a row on the left (side 0) and a column on the right."""
    shape = tensor.known_shape
    if len(shape) > 1:
        return shape
    return (1, *shape) if side == 0 else (*shape, 1)


def _windows(operation: Operation, kernel: Sequence[int]) -> dict[str, Any]:
    """Output and kernel sizes, strides and dilations; one-dimensional windows get columns of 1."""
    if not 1 <= len(kernel) <= 2:
        raise EncodingError(
            f"{operation.place}: one or two spatial sizes are layers of this model,"
            f" received {len(kernel)}."
        )
    spatial = operation.outputs[0].known_shape[-len(kernel) :]
    sizes: dict[str, Any] = dict(zip(("P", "Q"), spatial, strict=False))
    sizes |= dict(zip(("R", "S"), kernel, strict=False))
    for key, extents in (("strides", spatial), ("dilations", kernel)):
        values = list(operation.attributes[key])
        # Along a size of 1 the step is never taken.
        used = [step if extent > 1 else 1 for step, extent in zip(values, extents, strict=True)]
        sizes[key] = (used[0], used[1] if len(used) > 1 else 1)
    return sizes
