"""The ONNX model of every block computes what its PyTorch module computes, at any sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import EncodingError
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.networks.plain import BLOCKS, Network
from pliant.networks.supernet import describe
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import (
    BasicBlock,
    Bottleneck,
    ConvBlock,
    InvertedResidual,
    MaxPool,
)
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.presets import preset
from pliant.spaces.transformer_blocks import AttentionBlock, MlpBlock, PatchEmbedding, TokenHead
from pliant.workload import NETWORK_INPUT

CHANNELS = st.integers(1, 20)
SIZES = st.integers(3, 17)
ACTIVATIONS = st.sampled_from(["relu", "relu6", "hswish", "gelu"])
PADDINGS = st.sampled_from(["symmetric", "same"])


@st.composite
def any_block(draw) -> Block:
    common = {"slot": "a", "size": draw(SIZES), "views": draw(st.integers(1, 2))}
    inputs, hidden, outputs, activation = (
        draw(CHANNELS),
        draw(CHANNELS),
        draw(CHANNELS),
        draw(ACTIVATIONS),
    )
    stride, kernel, flag = (
        draw(st.integers(1, 2)),
        draw(st.sampled_from([1, 3, 5, 7])),
        draw(st.booleans()),
    )
    kind = draw(st.sampled_from(sorted(BLOCKS)))
    if kind == "MaxPool":
        return MaxPool(**common, channels=inputs)
    if kind == "Preprocess":
        return Preprocess(**common, channels=draw(st.sampled_from([1, 3])), resolution=draw(SIZES))
    if kind == "ConvBlock":
        pool = 2 if flag and stride == 1 else 1
        residual = stride == pool == 1 and draw(st.booleans())
        return ConvBlock(
            **common,
            inputs=inputs,
            outputs=inputs if residual else outputs,
            residual=residual,
            kernel=kernel,
            stride=stride,
            pool=pool,
            activation=activation,
            padding=draw(PADDINGS),
        )
    if kind == "InvertedResidual":
        outputs = inputs if draw(st.booleans()) else outputs
        more = {
            "kernel": kernel,
            "stride": stride,
            "expand": flag,
            "squeeze_excite": draw(st.booleans()),
            "activation": activation,
            "padding": draw(PADDINGS),
        }
        return InvertedResidual(
            **common,
            inputs=inputs,
            mid_channels=hidden if flag else inputs,
            outputs=outputs,
            **more,
        )
    if kind == "BasicBlock":
        return BasicBlock(**common, channels=inputs, mid_channels=hidden, activation=activation)
    if kind in ("AttentionBlock", "MlpBlock"):
        common["size"] = draw(st.integers(2, 5))
        if kind == "MlpBlock":
            return MlpBlock(**common, channels=inputs, mid_channels=hidden)
        heads, head_size = draw(st.integers(1, 3)), draw(st.integers(1, 5))
        return AttentionBlock(**common, channels=inputs, heads=heads, head_size=head_size)
    if kind == "PatchEmbedding":
        common["size"] = 3 * draw(st.integers(1, 5))
        return PatchEmbedding(**common, inputs=inputs, outputs=outputs, patch=3)
    if kind == "TokenHead":
        return TokenHead(**common, inputs=inputs, classes=draw(st.integers(2, 7)))
    if kind == "Bottleneck":
        project = flag or stride > 1
        outputs = outputs if project else inputs
        return Bottleneck(
            **common,
            inputs=inputs,
            mid_channels=hidden,
            outputs=outputs,
            stride=stride,
            project=project,
            activation=activation,
        )
    more = {
        "expand": draw(st.sampled_from([0, 6])),
        "hidden": draw(st.sampled_from([0, 9])),
        "dropout": draw(st.sampled_from([0.0, 0.2])),
    }
    return Head(
        **common, inputs=inputs, classes=draw(st.integers(2, 7)), activation=activation, **more
    )


def randomised(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter and statistic drawn, with BatchNorm scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(("running_var", "std")):
                tensor.copy_(0.3 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                scale = 1 / np.sqrt(max(1, tensor[0].numel())) if tensor.ndim > 1 else 0.7
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def run(model: onnx.ModelProto, images: np.ndarray, name: str = "image") -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {name: images})[0]


def network_of(blocks: list[Block], seed: int) -> Network:
    return randomised(Network(describe(blocks)), seed)


def compare(blocks: list[Block], seed: int, images: int = 2) -> None:
    network = network_of(blocks, seed)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    first = blocks[0]
    shape = (images * first.in_views, first.in_channels, first.size, first.size)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = network(pixels).numpy()
    found = run(network_model(blocks, state), pixels.numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max()))
    )


@settings(max_examples=100, deadline=None)
@given(any_block(), st.integers(0, 1000))
def test_every_block_equals_its_module(block, seed):
    compare([block], seed)


@pytest.mark.parametrize(
    ("size", "resolution"), [(32, 24), (32, 28), (28, 20), (8, 6), (24, 32), (9, 5), (5, 17)]
)
def test_resizing_is_antialiased_as_in_pytorch(size, resolution):
    compare([Preprocess(slot="a", size=size, channels=3, resolution=resolution)], seed=1)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("digits", 8),
        ("mobile-32", 32),
        ("plain-32", 32),
        ("wide-32", 32),
        ("vit-32", 28),
        ("photos", 80),
        ("ofa-resnet50", 128),
    ],
)
def test_networks_of_the_presets_equal_their_modules(name, size):
    space = preset(name, channels=3, image_size=size, classes=10)
    architecture = space.smallest() if size > 32 else space.sample_choices(np.random.default_rng(3))
    compare(list(space.blocks(architecture)), seed=2, images=1)


@settings(max_examples=30, deadline=None)
@given(any_block(), st.integers(1, 3))
def test_a_block_to_be_timed_is_the_block_that_is_delivered(block, batch):
    """The table's model has the nodes and shapes of the delivered one, and finite features."""
    timed = block_model(block, np.random.default_rng(0), batch=batch)
    state = {name: tensor.numpy() for name, tensor in network_of([block], 0).state_dict().items()}
    reads_pictures = isinstance(block, Preprocess)
    delivered = network_model([block], state, pictures=reads_pictures)
    assert [node.op_type for node in timed.graph.node] == [
        node.op_type for node in delivered.graph.node
    ]
    assert [list(value.dims) for value in timed.graph.initializer] == [
        list(value.dims) for value in delivered.graph.initializer
    ]
    shapes = {
        f"blocks.a.{name}": array.shape
        for name, array in random_weights(block, np.random.default_rng(0)).items()
    }
    assert shapes == {
        name: array.shape
        for name, array in state.items()
        if not name.endswith("num_batches_tracked")
    }
    pixels = np.random.default_rng(1).random(
        (batch * block.in_views, block.in_channels, block.size, block.size), dtype=np.float32
    )
    if reads_pictures:
        pictures = (255 * pixels).astype(np.uint8).transpose(0, 2, 3, 1)
        features = run(timed, pictures, "pictures")
        # As pictures or as pixels, the features are the same.
        alike = (pictures / np.float32(255)).transpose(0, 3, 1, 2)
        as_pixels = run(network_model([block], state), alike)
        np.testing.assert_allclose(run(delivered, pictures, "pictures"), as_pixels, atol=1e-5)
    else:
        features = run(timed, pixels)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", ["mobile-32", "wide-32"])
def test_the_nodes_count_what_the_block_counts(name):
    """MACs of the model's convolutions and products, from inferred shapes, are the block's."""
    space = preset(name, channels=3, image_size=32, classes=10)
    for block in space.blocks(space.largest()):
        model = onnx.shape_inference.infer_shapes(block_model(block, np.random.default_rng(0)))
        values = [*model.graph.value_info, *model.graph.output]
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in values
        }
        weights = {value.name: list(value.dims) for value in model.graph.initializer}
        macs = 0
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm"):
                images, _, *pixels = shapes[node.output[0]]
                macs += int(np.prod(weights[node.input[1]])) * images * int(np.prod(pixels))
        assert macs == block.cost.macs, block


def test_metadata_and_shapes_are_in_the_file():
    block = Head(slot="head", size=4, inputs=3, classes=5)
    state = {
        f"blocks.head.{name}": array
        for name, array in random_weights(block, np.random.default_rng(0)).items()
    }
    model = network_model([block], state, metadata={"classes": "a\nb"})
    assert {entry.key: entry.value for entry in model.metadata_props} == {"classes": "a\nb"}
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, [dim.dim_value for dim in dims[1:]]) == ("N", [3, 4, 4])
    fixed = network_model([block], state, batch=2).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in fixed] == [2, 5]


def test_a_layer_that_does_not_say_what_it_computes_is_refused():
    class Attention(ConvBlock):
        def layers(self, reads=NETWORK_INPUT):
            return tuple(replace(layer, operation=None) for layer in ConvBlock.layers(self, reads))

    with pytest.raises(EncodingError, match="received Attention"):
        block_model(Attention(slot="a", size=4, inputs=1, outputs=1), np.random.default_rng(0))


def test_a_pooling_whose_padding_is_unknown_is_refused():
    class Overlapping(ConvBlock):
        def layers(self, reads=NETWORK_INPUT):
            conv, pool = ConvBlock.layers(self, reads)
            return conv, replace(pool, R=3, S=3)

    block = Overlapping(slot="a", size=4, inputs=1, outputs=1, pool=2)
    with pytest.raises(EncodingError, match=r"\(3, 3\) with strides \(2, 2\) in layer 'a.pool'"):
        block_model(block, np.random.default_rng(0))
