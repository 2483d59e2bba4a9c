"""An elastic layer at some sizes is exactly the plain layer with the leading weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pliant.networks.elastic import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear

SMALL = st.integers(1, 9)


def drawn(layer: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


@settings(max_examples=60, deadline=None)
@given(
    most=st.tuples(SMALL, SMALL),
    fewer=st.tuples(SMALL, SMALL),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    size=st.integers(1, 9),
    bias=st.booleans(),
)
def test_a_convolution_uses_its_leading_channels(most, fewer, kernel, stride, size, bias):
    (most_in, most_out), inputs, outputs = most, min(most[0], fewer[0]), min(most[1], fewer[1])
    elastic = drawn(
        ElasticConv2d(most_in, most_out, kernel, stride, kernel // 2, groups=1, bias=bias), 1
    )
    plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(elastic.weight[:outputs, :inputs])
        if plain.bias is not None:
            plain.bias.copy_(elastic.bias[:outputs])
        x = images(2, inputs, size, size)
        assert torch.equal(elastic(x, outputs, kernel), plain(x))


@settings(max_examples=60, deadline=None)
@given(
    most=st.integers(2, 9),
    channels=SMALL,
    largest=st.sampled_from([1, 3, 5, 7]),
    smaller=st.integers(0, 3),
    stride=st.integers(1, 2),
)
def test_a_depthwise_convolution_uses_its_leading_channels_and_its_kernel(
    most, channels, largest, smaller, stride
):
    channels, kernel = min(most, channels), max(min(largest, 3), largest - 2 * smaller)
    elastic = drawn(
        ElasticConv2d(most, most, largest, stride, largest // 2, groups=most, bias=False), 2
    )
    plain = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    with torch.no_grad():
        plain.weight.copy_(elastic.active_weight(channels, 1, kernel))
        x = images(2, channels, 7, 7)
        assert torch.equal(elastic(x, channels, kernel), plain(x))


@settings(max_examples=40, deadline=None)
@given(most=SMALL, channels=SMALL, size=st.integers(2, 6))
def test_a_batchnorm_normalises_the_channels_it_receives(most, channels, size):
    channels = min(most, channels)
    elastic = drawn(ElasticBatchNorm2d(most), 3)
    plain = nn.BatchNorm2d(channels)
    with torch.no_grad():
        plain.weight.copy_(elastic.weight[:channels])
        plain.bias.copy_(elastic.bias[:channels])
        x = images(3, channels, size, size)
        assert torch.equal(elastic(x), plain(x))
        elastic.eval()
        assert torch.equal(elastic(x), plain(x)), "there are no other statistics than the batch's"
    assert not list(elastic.buffers())


@settings(max_examples=40, deadline=None)
@given(most=SMALL, features=SMALL, outputs=SMALL)
def test_a_linear_layer_reads_the_features_it_receives(most, features, outputs):
    features = min(most, features)
    elastic = drawn(ElasticLinear(most, outputs), 4)
    plain = nn.Linear(features, outputs)
    with torch.no_grad():
        plain.weight.copy_(elastic.weight[:, :features])
        plain.bias.copy_(elastic.bias)
        x = images(3, features)
        torch.testing.assert_close(elastic(x), plain(x), rtol=0, atol=1e-6)


def test_plain_weights_load_into_elastic_layers_as_they_are():
    pairs = [
        (nn.Conv2d(4, 6, 3, 1, 1), ElasticConv2d(4, 6, 3, 1, 1, groups=1, bias=True)),
        (
            nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False),
            ElasticConv2d(6, 6, 3, 1, 1, groups=6, bias=False),
        ),
        (nn.Linear(4, 6), ElasticLinear(4, 6)),
    ]
    for plain, elastic in pairs:
        elastic.load_state_dict(plain.state_dict())
        assert all(
            torch.equal(elastic.state_dict()[name], tensor)
            for name, tensor in plain.state_dict().items()
        )


@pytest.mark.parametrize(("largest", "kernel"), [(7, 5), (7, 3), (5, 3)])
def test_matrices_at_the_identity_take_the_centre(largest, kernel):
    layer = ElasticConv2d(4, 4, largest, 1, largest // 2, groups=4, bias=False)
    border = (largest - kernel) // 2
    centre = layer.weight[:3, :, border : border + kernel, border : border + kernel]
    assert torch.equal(layer.active_weight(3, 1, kernel), centre)
    assert layer.active_weight(3, 1, largest).data_ptr() == layer.weight.data_ptr(), (
        "the largest kernel is a view"
    )


def test_a_kernel_of_3_comes_from_7_through_5():
    """By loops: w5 = M5 centre(w7), w3 = M3 centre(w5), rows by rows."""
    layer = drawn(ElasticConv2d(2, 2, 7, 1, 3, groups=2, bias=False), 5)
    assert {name: tuple(matrix.shape) for name, matrix in layer.kernel_matrices.items()} == {
        "to5": (25, 25),
        "to3": (9, 9),
    }
    weight, to5, to3 = (
        layer.weight.detach().double(),
        *(layer.kernel_matrices[name].detach().double() for name in ("to5", "to3")),
    )
    five, three = torch.zeros(2, 25, dtype=torch.float64), torch.zeros(2, 9, dtype=torch.float64)
    for channel in range(2):
        inner = [weight[channel, 0, 1 + row, 1 + column] for row in range(5) for column in range(5)]
        for i in range(25):
            five[channel, i] = sum(to5[i, j] * inner[j] for j in range(25))
        inner = [
            five[channel, 5 * (1 + row) + 1 + column] for row in range(3) for column in range(3)
        ]
        for i in range(9):
            three[channel, i] = sum(to3[i, j] * inner[j] for j in range(9))
    torch.testing.assert_close(
        layer.active_weight(2, 1, 5).double(), five.view(2, 1, 5, 5), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        layer.active_weight(2, 1, 3).double(), three.view(2, 1, 3, 3), rtol=1e-5, atol=1e-5
    )


def test_a_smaller_kernel_teaches_its_matrices_and_the_inner_weights_only():
    layer = drawn(ElasticConv2d(3, 3, 7, 1, 3, groups=3, bias=False), 6)
    layer(images(1, 2, 8, 8), 2, 5).square().sum().backward()
    assert layer.kernel_matrices["to5"].grad.abs().min() > 0
    assert layer.kernel_matrices["to3"].grad is None
    expected = torch.zeros(3, 1, 7, 7, dtype=torch.bool)
    expected[:2, :, 1:-1, 1:-1] = True
    assert torch.equal(layer.weight.grad != 0, expected)


def test_only_large_depthwise_kernels_have_matrices():
    assert not hasattr(ElasticConv2d(4, 4, 3, 1, 1, groups=4, bias=False), "kernel_matrices")
    assert not hasattr(ElasticConv2d(4, 4, 5, 1, 2, groups=1, bias=False), "kernel_matrices")
