"""What a block describes is what its module runs and what its ONNX nodes hold, at any sizes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pliant.networks import plain
from pliant.networks.onnx import block_model, random_weights
from pliant.networks.supernet import describe
from pliant.networks.trace import module_workload
from pliant.spaces.block import Block
from pliant.spaces.cell_blocks import Reduction
from pliant.spaces.convolutional_blocks import (
    BasicBlock,
    Bottleneck,
    ConvBlock,
    InvertedResidual,
    MaxPool,
)
from pliant.spaces.input_output_blocks import Head
from pliant.spaces.transformer_blocks import AttentionBlock, MlpBlock, PatchEmbedding, TokenHead
from pliant.workload import Layer
from pliant.workload.onnx_reader import onnx_workload

CHANNELS = st.integers(2, 20)
SIZES = st.integers(3, 9)
STRIDES = st.integers(1, 2)
KERNELS = st.sampled_from([3, 5])
PADDINGS = st.sampled_from(["symmetric", "same"])


@st.composite
def residual(draw: st.DrawFn) -> Block:
    """Blocks whose output may be added to their input."""
    inputs, outputs, mid = draw(CHANNELS), draw(CHANNELS), draw(CHANNELS)
    expand, project, stride = draw(st.booleans()), draw(st.booleans()), draw(STRIDES)
    where: dict[str, Any] = {"slot": "b", "size": draw(SIZES)}
    kind = draw(st.sampled_from([InvertedResidual, Bottleneck, BasicBlock]))
    if kind is BasicBlock:
        return BasicBlock(channels=inputs, mid_channels=mid, **where)
    if kind is Bottleneck:
        sizes = {"outputs": outputs, "stride": stride, "project": True}
        return Bottleneck(
            inputs=inputs, mid_channels=mid, **where, **(sizes if project else {"outputs": inputs})
        )
    return InvertedResidual(
        inputs=inputs,
        mid_channels=mid if expand else inputs,
        outputs=draw(st.sampled_from([inputs, outputs])),
        kernel=draw(KERNELS),
        stride=stride,
        expand=expand,
        squeeze_excite=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu", "hswish"])),
        padding=draw(PADDINGS),
        **where,
    )


BLOCKS: st.SearchStrategy[Block] = st.one_of(
    residual(),
    st.builds(
        ConvBlock,
        slot=st.just("b"),
        size=SIZES,
        inputs=CHANNELS,
        outputs=CHANNELS,
        kernel=st.sampled_from([1, 3, 5]),
        stride=STRIDES,
        padding=PADDINGS,
    ),
    st.builds(
        ConvBlock,
        slot=st.just("b"),
        size=SIZES,
        inputs=CHANNELS,
        outputs=CHANNELS,
        pool=st.integers(1, 3),
    ),
    st.builds(MaxPool, slot=st.just("b"), size=SIZES, channels=CHANNELS),
    st.builds(
        PatchEmbedding,
        slot=st.just("b"),
        size=st.sampled_from([6, 12]),
        inputs=CHANNELS,
        outputs=CHANNELS,
        patch=st.sampled_from([2, 3]),
    ),
    st.builds(
        AttentionBlock,
        slot=st.just("b"),
        size=st.integers(2, 5),
        channels=CHANNELS,
        heads=st.integers(1, 3),
        head_size=st.integers(1, 5),
    ),
    st.builds(
        MlpBlock,
        slot=st.just("b"),
        size=st.integers(2, 5),
        channels=CHANNELS,
        mid_channels=CHANNELS,
    ),
    st.builds(
        TokenHead, slot=st.just("b"), size=st.integers(2, 5), inputs=CHANNELS, classes=CHANNELS
    ),
    st.builds(Reduction, slot=st.just("b"), size=SIZES, inputs=CHANNELS, outputs=CHANNELS),
    st.builds(
        Head,
        slot=st.just("b"),
        size=SIZES,
        inputs=CHANNELS,
        classes=CHANNELS,
        expand=st.sampled_from([0, 6]),
        hidden=st.sampled_from([0, 5]),
        input_norm=st.booleans(),
    ),
)


def module_of(block: Block) -> nn.Module:
    [(_, name, sizes)] = describe([block])
    module = plain.build_block(plain.BLOCKS[name], sizes).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
    return module


def weighted(layers: tuple[Layer, ...]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (x.kind, x.N * (x.P * x.Q), x.G, x.K, x.C, x.R, x.S, x.strides)
        for x in layers
        if x.weighted
    )


@settings(max_examples=60, deadline=None)
@given(BLOCKS)
def test_a_block_describes_what_its_module_runs(block: Block) -> None:
    module = module_of(block)
    image = torch.zeros(1, block.in_channels, block.size, block.size)
    with torch.no_grad():
        output = module(image)
    layers = block.layers()
    last = layers[-1]
    assert output[0].numel() == last.output_elements
    traced = module_workload(module, image, way="watch")
    assert weighted(traced.layers) == weighted(layers)
    assert traced.macs == sum(layer.macs for layer in layers) == block.cost.macs
    stored = sum(parameter.numel() for parameter in module.parameters())
    folded = sum(x.num_features for x in module.modules() if isinstance(x, nn.BatchNorm2d))
    # A BatchNorm is one addend behind a convolution, and nothing in front of one.
    alone = block.in_channels if isinstance(block, Head) and block.input_norm else 0
    assert block.cost.parameters == stored - folded - alone


@settings(max_examples=40, deadline=None)
@given(BLOCKS)
def test_a_block_describes_what_its_onnx_nodes_hold(
    tmp_path_factory: pytest.TempPathFactory, block: Block
) -> None:
    path = tmp_path_factory.mktemp("block") / "block.onnx"
    onnx.save(block_model(block, np.random.default_rng(0)), str(path))
    found = onnx_workload(path)
    assert weighted(found.layers) == weighted(block.layers())
    assert found.macs == block.cost.macs


@settings(max_examples=60, deadline=None)
@given(BLOCKS)
def test_random_weights_are_the_state_of_the_module(block: Block) -> None:
    weights = random_weights(block, np.random.default_rng(0))
    state = module_of(block).state_dict()
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert {name: array.shape for name, array in weights.items()} == shapes


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.sampled_from([1, 2]))
def test_twice_the_views_are_twice_the_work_of_the_same_weights(block: Block, views: int) -> None:
    if isinstance(block, Head | TokenHead):
        return  # it averages over views before its last layers
    other = dataclasses.replace(block, views=views)
    assert other.cost.macs == views * block.cost.macs
    assert other.cost.parameters == block.cost.parameters
    assert other.cost.peak_activation_bytes == views * block.cost.peak_activation_bytes


@settings(max_examples=60, deadline=None)
@given(BLOCKS)
def test_activations_alive_at_once_lie_between_a_layer_and_all_of_them(block: Block) -> None:
    layers = block.layers()
    image = 4 * block.in_channels * block.size**2
    sizes = [layer.output_bytes for layer in layers]
    assert image + sizes[0] <= block.cost.peak_activation_bytes <= image + sum(sizes)
    assert block.cost.peak_activation_bytes >= max(sizes)
