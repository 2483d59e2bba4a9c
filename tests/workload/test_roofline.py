"""Roofline bounds against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.errors import RecipeError
from pliant.workload import NETWORK_INPUT, Layer, Workload
from pliant.workload.roofline import (
    MemoryLevel,
    NetworkRoofline,
    Roofline,
    layer_bounds,
    least_seconds,
    least_traffic_bytes,
    why_faster,
    without_time,
)

DEVICE = Roofline(peak_macs_per_s=100e9, bandwidth_bytes_per_s=10e9)


def test_the_roofs_by_hand() -> None:
    assert DEVICE.ridge_macs_per_byte == 10
    assert DEVICE.attainable_macs_per_s(2) == 20e9
    assert DEVICE.attainable_macs_per_s(50) == 100e9
    assert [DEVICE.bound(macs_per_byte) for macs_per_byte in (9.9, 10, 11)] == [
        "memory", "compute", "compute"
    ]  # fmt: skip
    assert DEVICE.least_seconds(200e9, 1e9) == 2
    assert DEVICE.least_seconds(1e9, 50e9) == 5


def test_the_traffic_of_a_small_network_by_hand() -> None:
    # 3x3, stride 2, 3 to 8 channels, 8x8 to 4x4 pixels: 9x9 positions are touched, 8x8 exist.
    stem = Layer("stem", "conv", (NETWORK_INPUT,), K=8, C=3, P=4, Q=4, R=3, S=3, strides=(2, 2))
    # 2x2 pooling with stride 2 onto 1x1 reads 4 of the 16 pixels of each channel.
    pool = Layer("pool", "pool", ("stem",), G=8, R=2, S=2, strides=(2, 2))
    gate = Layer("gate", "elementwise", ("stem", "pool"), G=8, P=4, Q=4)
    head = Layer("head", "matmul", ("pool",), K=10, C=8, bits=16)
    workload = Workload((stem, pool, gate, head), input_elements=3 * 8 * 8)
    assert least_traffic_bytes(workload) == (
        4 * (8 * 27 + 8 + 192 + 128),
        4 * (8 * 4 + 8),
        4 * (128 + 8 + 128),
        2 * (10 * 8 + 10 + 8 + 10),
    )
    bounds = layer_bounds(workload, DEVICE)
    assert [bound.bound for bound in bounds] == ["memory"] * 4
    assert bounds[0].macs_per_byte == 8 * 27 * 16 / (4 * 544)
    total = 4 * (544 + 40 + 264) + 2 * 108
    assert least_seconds(workload, DEVICE) == pytest.approx(total / 10e9)


def test_integers_have_biases_of_four_bytes() -> None:
    """8 to 10 features in int8: 80 bytes of weights, 40 of biases, 8 read and 10 written."""
    head = Layer("head", "matmul", (NETWORK_INPUT,), K=10, C=8, bits=8)
    assert least_traffic_bytes(Workload((head,), input_elements=8)) == (80 + 40 + 8 + 10,)
    assert head.parameter_bytes == 80 + 40


def test_a_wide_convolution_is_bound_by_arithmetic() -> None:
    layer = Layer("c", "conv", (NETWORK_INPUT,), K=256, C=256, P=28, Q=28, R=3, S=3, bias=False)
    workload = Workload((layer,), input_elements=256 * 28 * 28)
    (bound,) = layer_bounds(workload, DEVICE)
    assert bound.bound == "compute"
    assert bound.least_seconds == 256 * 256 * 9 * 28 * 28 / 100e9


def test_attention_reads_its_keys_once() -> None:
    # 2 heads, 16 tokens of width 4: queries, keys, scores.
    scores = Layer("s", "matmul", (NETWORK_INPUT,), N=16, G=2, K=16, C=4, bias=False)
    workload = Workload((scores,), input_elements=10_000)
    assert least_traffic_bytes(workload) == (4 * (128 + 128 + 512),)


POSITIVE = st.floats(1e-3, 1e12)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_time_is_work_over_the_attainable_rate(
    peak: float, bandwidth: float, macs: float, traffic: float
) -> None:
    roofline = Roofline(peak, bandwidth)
    rate = roofline.attainable_macs_per_s(macs / traffic)
    assert roofline.least_seconds(macs, traffic) == pytest.approx(macs / rate)


@pytest.mark.parametrize(("peak", "bandwidth"), [(0, 1), (1, -1), (math.nan, 1)])
def test_roofs_are_positive(peak: float, bandwidth: float) -> None:
    with pytest.raises(RecipeError, match="positive peak and bandwidth"):
        Roofline(peak, bandwidth)


CACHED = Roofline(100e9, 10e9, (MemoryLevel("L1", 32e3, 400e9), MemoryLevel("L2", 1e6, 100e9)))


def test_the_working_set_chooses_the_roof() -> None:
    assert [CACHED.level(size).name for size in (32e3, 32.1e3, 1e6, 1e7)] == [
        "L1", "L2", "L2", "memory"
    ]  # fmt: skip
    assert CACHED.attainable_macs_per_s(0.2, 1e3) == 80e9
    assert CACHED.attainable_macs_per_s(0.2, 1e5) == 20e9
    assert CACHED.attainable_macs_per_s(0.2) == 2e9
    assert CACHED.bound(0.5, 1e3) == "compute"
    assert CACHED.bound(0.5, 1e5) == "memory"


@given(POSITIVE, st.floats(1e-3, 1e3), st.floats(1, 1e9), st.floats(1, 1e9))
def test_a_smaller_working_set_is_never_slower(
    macs: float, traffic: float, small: float, large: float
) -> None:
    small, large = sorted((small, large))
    assert CACHED.least_seconds(macs, traffic, small) <= CACHED.least_seconds(macs, traffic, large)
    assert CACHED.least_seconds(macs, traffic) == DEVICE.least_seconds(macs, traffic)


def test_caches_are_in_order_and_positive() -> None:
    levels = CACHED.caches
    with pytest.raises(RecipeError, match="smallest first"):
        Roofline(1.0, 1.0, levels[::-1])
    with pytest.raises(RecipeError, match="positive capacity and bandwidth"):
        MemoryLevel("L1", 0, 1)


def _network(name: str, kernel: int, channels: int) -> NetworkRoofline:
    """One convolution; equal MACs where kernel^2 times channels^2 are equal."""
    sizes = {"K": channels, "C": channels, "P": 32, "Q": 32, "R": kernel, "S": kernel}
    layer = Layer("c", "conv", (NETWORK_INPUT,), **sizes, bias=False)
    workload = Workload((layer,), input_elements=channels * 32 * 32)
    return NetworkRoofline(name, layer_bounds(workload, DEVICE))


def test_of_equal_macs_the_one_with_less_traffic_is_faster() -> None:
    narrow, wide = _network("narrow", 3, 8), _network("wide", 1, 24)
    assert narrow.macs == wide.macs
    # 576 weights each; 2 * 8 * 1024 activations against 2 * 24 * 1024: 49728 / 16960 = 2.93.
    (sentence,) = why_faster([wide, narrow])
    assert sentence.startswith("narrow is 2.93 times as fast as wide by the roofs")
    assert "1.00 times the MACs and 2.93 times the memory traffic" in sentence
    assert why_faster([narrow]) == ()


def test_the_parts_of_a_time_add_up() -> None:
    timed = NetworkRoofline(
        "timed", _network("x", 3, 8).layers, (5e-3,), runtime_seconds=(("Reorder", 1e-3),)
    )
    assert timed.seconds == pytest.approx(6e-3)
    assert sum(timed.parts_seconds.values()) == pytest.approx(6e-3)
    other = NetworkRoofline("other", timed.layers, (None,), (("Reorder", 1e-4),))
    (sentence,) = why_faster([timed, other])
    assert "timed takes 5.9 ms more" in sentence
    assert "+5.9 ms beyond the roofs" in sentence
    assert "Furthest below the roofs are c (" in sentence


def test_a_row_above_its_roof_is_told_and_none_is_below_by_less_than_nothing() -> None:
    """8 x 8 channels, 3x3, 32x32 pixels: 589,824 MACs take 5.9 us at the peak, memory 6.8 us."""
    layers = _network("x", 3, 8).layers
    least = layers[0].least_seconds
    above = NetworkRoofline("above", layers, (least / 1.11,))
    assert above.shares_of_roof == (pytest.approx(1.11),)
    [note] = above.notes
    assert note.startswith("Faster than the roofs: c (111%). ")
    (sentence,) = why_faster([above, NetworkRoofline("at", layers, (least / 1.004,))])
    assert "Furthest" not in sentence
    assert NetworkRoofline("at", layers, (least / 1.004,)).notes == ()


def test_rows_of_one_kernel_stand_under_the_sum_of_their_roofs() -> None:
    first = _network("x", 3, 8).layers[0]
    layers = (first, replace(first, name="d"), replace(first, name="e"))
    times = (6 * first.least_seconds, None, None)
    network = NetworkRoofline("lstm", layers, times, row_of={"d": "c"})
    assert network.attainable_seconds[0] == pytest.approx(2 * first.least_seconds)
    assert network.shares_of_roof == (pytest.approx(1 / 3), None, None)
    assert [without_time(network, layer) for layer in layers[1:]] == ["shared", "fused"]
    [note] = network.notes
    assert "in one kernel with the row above" in note
