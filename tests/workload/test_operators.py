"""The rules themselves, without a file or a module."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from pliant.errors import EncodingError
from pliant.workload import Workload
from pliant.workload.operators import Operation, Operator, Tensor, _Builder, build_workload


def call(
    operator: Operator | None, inputs: tuple[Tensor, ...], output: Tensor, **attributes: object
) -> Operation:
    name = str(output.key)
    return Operation(operator, "Native", name, name, "here", inputs, (output,), attributes)


def tensor(key: str, *shape: int) -> Tensor:
    return Tensor(key, shape)


X = tensor("x", 4, 8)
PRODUCT = call("product", (X, tensor("w", 8, 16)), tensor("y", 4, 16))


def built(*operations: Operation) -> Workload:
    constants = [one for operation in operations for one in operation.inputs if one.key in "wvc"]
    stored = {one.key: one.elements for one in constants}
    return build_workload(operations, [X], stored=stored)


def test_every_word_has_a_rule() -> None:
    for word in set(get_args(Operator)) - {"address", "constant"}:
        assert callable(getattr(_Builder, f"_{word}")), word


def test_only_a_constant_per_channel_is_a_bias() -> None:
    y, z = tensor("y", 4, 16), tensor("z", 4, 16)
    for shape, folds in (((16,), True), ((1, 16), True), ((), False), ((4, 1), False)):
        size = math.prod(shape)
        added = call("add", (y, tensor("c", *shape)), z)
        (layer,) = built(PRODUCT, added).layers
        assert (layer.bias, layer.parameters) == (folds, 8 * 16 + size)


def test_a_product_of_data_has_no_weights_to_fold_into() -> None:
    scores = call("product", (X, X), tensor("s", 4, 4), transpose_right=True)
    masked = call("add", (tensor("s", 4, 4), tensor("mask", 4)), tensor("m", 4, 4))
    norm = call("batch_norm", (tensor("s", 4, 4), tensor("scale", 4)), tensor("n", 4, 4))
    assert not built(scores, masked).layers[0].bias
    assert [layer.kind for layer in built(scores, norm).layers] == ["matmul", "elementwise"]


@pytest.mark.parametrize(
    ("function", "operator", "layers"),
    [
        ("activation", "elementwise", 1),  # x * f(x)
        ("activation", "add", 1),  # x + f(x)
        ("address", "elementwise", 2),  # x * flipped x
        ("whole_tensor", "elementwise", 3),  # x * softmax(x)
    ],
)
def test_functions_of_one_value(function: Operator, operator: Operator, layers: int) -> None:
    y, f = tensor("y", 4, 16), tensor("f", 4, 16)
    combined = call(operator, (y, f), tensor("z", 4, 16))
    assert len(built(PRODUCT, call(function, (y,), f), combined).layers) == layers


def test_one_value_added_to_itself_is_read_twice_and_squared_is_an_activation() -> None:
    y, z = tensor("y", 4, 16), tensor("z", 4, 16)
    assert built(PRODUCT, call("add", (y, y), z)).layers[1].inputs == ("y", "y")
    assert len(built(PRODUCT, call("elementwise", (y, y), z)).layers) == 1


def test_a_computed_exponent_is_a_second_operand() -> None:
    y = tensor("y", 4, 16)
    other = call("product", (X, tensor("v", 8, 16)), tensor("e", 4, 16))
    power = call("activation", (y, tensor("e", 4, 16)), tensor("z", 4, 16))
    assert built(PRODUCT, other, power).layers[2].inputs == ("y", "e")


def test_what_nothing_computed_reaches_is_never_asked_for_a_rule() -> None:
    unknown = call(None, (tensor("w", 8, 16),), tensor("v", 0))
    assert len(built(unknown, PRODUCT).layers) == 1
    with pytest.raises(EncodingError, match=r"'Native' \(here\) has no cost"):
        built(call(None, (X,), tensor("v", 0)))


def test_names_that_are_taken_get_a_number() -> None:
    again = call("product", (X, tensor("w", 8, 16)), tensor("y", 4, 16))
    assert [layer.name for layer in built(PRODUCT, again, again).layers] == ["y", "y2", "y3"]
