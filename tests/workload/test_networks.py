"""The shipped workloads have the MACs and parameters that are known of their networks."""

from __future__ import annotations

import pytest

from pliant.errors import RecipeError
from pliant.workload.networks import NETWORKS, network

KNOWN = {
    "mobilenet-v2": (300_774_272, 3_504_872 - 17_056),
    "squeezenet": (349_151_936, 1_235_496),
    "mnasnet": (314_415_872, 4_383_312 - 18_960),
    "resnet-50": (4_089_184_256, 25_557_032 - 26_560),
    "vgg-16": (15_470_264_320, 138_357_544),
}
"""MACs, and parameters as torchvision states them, less the channels of all BatchNorms: one of the
two numbers that a BatchNorm stores of a channel is folded away."""


@pytest.mark.parametrize("name", KNOWN)
def test_totals_are_the_known_ones(name):
    found = network(name)
    assert (found.macs, found.parameters) == KNOWN[name]
    assert not found.left_out


def test_u_net_by_hand():
    """3x3 convolutions by width and size, 2x2 up-convolutions, and the last 1x1 of two classes."""
    found, size, macs, parameters = network("u-net"), 256, 0, 0
    widths = [1, 64, 128, 256, 512, 1024]
    for depth in range(5):
        own, inside = widths[depth + 1], widths[depth]
        pixels = (size >> depth) ** 2
        macs += 9 * pixels * (inside * own + own * own)
        parameters += 9 * (inside * own + own * own) + 2 * own
        if depth < 4:  # on the way up, at the same size: twice the width into the width, and on
            macs += 9 * pixels * (2 * own * own + own * own)
            parameters += 9 * 3 * own * own + 2 * own
            macs += pixels * 2 * own * own
            parameters += 4 * 2 * own * own + own
    macs += size**2 * 64 * 2
    parameters += 64 * 2 + 2
    assert (found.macs, found.parameters) == (macs, parameters)


def test_names_are_known():
    assert set(NETWORKS) == {*KNOWN, "u-net"}
    with pytest.raises(RecipeError, match=r"no network is called 'resnet50'.*resnet-50"):
        network("resnet50")
