"""The fast weight gradient of depthwise convolutions is the plain one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pliant.networks.depthwise import depthwise_conv, fast_conv, weight_gradient


def gradients(convolve, x, weight, toward):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = convolve(x, weight)
    (y * toward(y)).sum().backward()
    return y.detach(), x.grad, weight.grad


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 5),
    kernel=st.sampled_from([1, 3, 5, 7, 9]),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    channels_last=st.booleans(),
)
def test_output_and_gradients_are_those_of_conv2d(
    height, width, channels, kernel, stride, padded, channels_last
):
    drawn = torch.Generator().manual_seed(0)
    padding = 0 if padded else kernel // 2
    if padded:
        height, width = height + kernel - 1, width + kernel - 1
    x = torch.randn(3, channels, height, width, generator=drawn, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, generator=drawn, dtype=torch.float64)

    def toward(y):
        return torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()

    ours = gradients(
        lambda x, weight: depthwise_conv(x, weight, stride, padding), x, weight, toward
    )
    plain = gradients(
        lambda x, weight: F.conv2d(x, weight, None, stride, padding, 1, channels),
        x,
        weight,
        toward,
    )
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (5, ([1, 1], [2, 2])),
        (5, (2, 1)),
        (7, ([2, 2], [3, 3])),
        (5, ([2, 1], [2, 2])),
        (5, ([1, 1], [4, 4], [2, 2])),
        (5, ([1, 1], "same")),
        (4, ([1, 1], [2, 2])),
    ],
)
def test_a_convolution_of_any_arguments_is_that_of_conv2d(kernel, arguments):
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 11, 12, generator=drawn, dtype=torch.float64)
    weight = torch.randn(3, 1, kernel, kernel, generator=drawn, dtype=torch.float64)
    bias = torch.randn(3, generator=drawn, dtype=torch.float64)
    stride, padding, *dilation = arguments
    arguments = (stride, padding, *(dilation or [1]), 3)
    both = [
        gradients(lambda x, w, way=way: way(x, w, bias, *arguments), x, weight, torch.cos)
        for way in (fast_conv, F.conv2d)
    ]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_by_hand():
    # One channel, a row of three pixels, kernel 5: the weight at offset d collects g[w] * x[w + d].
    x, g = torch.tensor([[[[1.0, 2.0, 4.0]]]]), torch.tensor([[[[1.0, 10.0, 100.0]]]])
    found = weight_gradient(g, x, torch.zeros(1, 1, 5, 5), 1, 2)
    expected = torch.zeros(5, 5)
    expected[2] = torch.tensor([100.0, 10 + 200, 1 + 20 + 400, 2 + 40, 4])
    assert torch.equal(found[0, 0], expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_under_autocast_gradients_have_the_type_of_what_they_are_of_and_its_value(kernel, stride):
    torch.manual_seed(0)
    x, weight = (
        torch.randn(4, 8, 8, 8, requires_grad=True),
        torch.randn(8, 1, kernel, kernel, requires_grad=True),
    )
    found = []
    for convolve in (
        lambda x, weight, stride: depthwise_conv(x, weight, stride, kernel // 2),
        lambda x, weight, stride: F.conv2d(x, weight, None, stride, kernel // 2, 1, 8),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            y = convolve(x, weight, stride)
        assert y.dtype == torch.bfloat16
        found.append(torch.autograd.grad(y.float().square().sum(), (x, weight)))
    for ours, plain in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, plain, rtol=0.02, atol=0.02 * float(plain.abs().max()))


def test_without_gradients_it_is_conv2d():
    x, weight = torch.randn(2, 3, 9, 9), torch.randn(3, 1, 7, 7)
    assert torch.equal(depthwise_conv(x, weight, 2, 3), F.conv2d(x, weight, None, 2, 3, 1, 3))
