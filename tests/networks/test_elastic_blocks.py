"""Every elastic block at any sizes is the plain block of those sizes, for any shared weights."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.networks import plain
from pliant.networks.elastic_blocks import ELASTIC_BLOCKS, copy_active
from pliant.networks.supernet import Supernet  # noqa: F401 - registers all blocks
from pliant.spaces.convolutional_blocks import (
    BasicBlock,
    Bottleneck,
    ConvBlock,
    InvertedResidual,
    MaxPool,
)
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.transformer_blocks import AttentionBlock, MlpBlock, PatchEmbedding, TokenHead

WIDTHS = st.tuples(st.integers(1, 24), st.integers(1, 24)).map(sorted)
"""Active and largest number of channels."""
ACTIVATIONS = st.sampled_from(["relu", "relu6", "hswish", "gelu"])
PADDINGS = st.sampled_from(["symmetric", "same"])


@st.composite
def pairs(draw):
    """A largest block and an active one of its slot."""
    (inputs, most_inputs), (hidden, most_hidden), (outputs, most_outputs) = (
        draw(WIDTHS),
        draw(WIDTHS),
        draw(WIDTHS),
    )
    size, most_size = draw(st.integers(2, 9)), 9
    fixed = {"slot": "a", "activation": draw(ACTIVATIONS)}
    kind, stride = draw(st.sampled_from(sorted(ELASTIC_BLOCKS))), draw(st.integers(1, 2))
    flag, second = draw(st.booleans()), draw(st.booleans())

    def both(block_type, active, largest, **shared):
        return block_type(**active, **shared), block_type(**(active | largest), **shared)

    if kind == "Preprocess":
        return both(
            Preprocess,
            {"resolution": size},
            {"resolution": most_size},
            slot="a",
            size=7,
            channels=3,
        )
    if kind == "MaxPool":
        return both(
            MaxPool, {"size": size, "channels": inputs}, {"channels": most_inputs}, slot="a"
        )
    if kind == "ConvBlock":
        shared = fixed | {
            "kernel": draw(st.sampled_from([1, 3])),
            "stride": stride,
            "pool": 2 if flag and stride == 1 else 1,
            "padding": draw(PADDINGS),
        }
        if shared["pool"] == stride == 1 and second:
            shared["residual"], outputs, most_outputs = True, inputs, most_inputs
        active = {"size": size, "inputs": inputs, "outputs": outputs}
        return both(
            ConvBlock,
            active,
            {"size": most_size, "inputs": most_inputs, "outputs": most_outputs},
            **shared,
        )
    if kind == "InvertedResidual":
        kernel, most_kernel = sorted(draw(st.tuples(*2 * [st.sampled_from([3, 5, 7])])))
        inputs, hidden, most_hidden = (
            max(2, width) for width in (inputs, hidden, most_hidden)
        )  # one group is no depthwise convolution
        if not flag:
            hidden = most_hidden = inputs
        shared = fixed | {
            "stride": stride,
            "expand": flag,
            "squeeze_excite": second,
            "inputs": inputs,
            "padding": draw(PADDINGS),
        }
        shared["outputs"] = inputs if draw(st.booleans()) else outputs
        active = {"size": size, "kernel": kernel, "mid_channels": hidden}
        return both(
            InvertedResidual,
            active,
            {"size": most_size, "kernel": most_kernel, "mid_channels": most_hidden},
            **shared,
        )
    if kind == "BasicBlock":
        active = {"size": size, "channels": inputs, "mid_channels": hidden}
        return both(
            BasicBlock,
            active,
            {"size": most_size, "channels": most_inputs, "mid_channels": most_hidden},
            **fixed,
        )
    if kind == "PatchEmbedding":
        active, largest = {"outputs": outputs}, {"outputs": most_outputs}
        return both(PatchEmbedding, active, largest, slot="a", size=8, inputs=3, patch=4)
    if kind == "AttentionBlock":
        heads, most_heads = sorted(draw(st.tuples(*2 * [st.integers(1, 3)])))
        active = {"channels": inputs, "heads": heads}
        largest = {"channels": most_inputs, "heads": most_heads}
        return both(AttentionBlock, active, largest, slot="a", size=3, head_size=4)
    if kind == "MlpBlock":
        active = {"channels": inputs, "mid_channels": hidden}
        largest = {"channels": most_inputs, "mid_channels": most_hidden}
        return both(MlpBlock, active, largest, slot="a", size=3)
    if kind == "TokenHead":
        return both(
            TokenHead, {"inputs": inputs}, {"inputs": most_inputs}, slot="a", size=3, classes=5
        )
    if kind == "Bottleneck":
        project = flag or stride == 2
        active = {
            "size": size,
            "inputs": inputs,
            "mid_channels": hidden,
            "outputs": outputs if project else inputs,
        }
        largest = {
            "inputs": most_inputs,
            "mid_channels": most_hidden,
            "outputs": most_outputs if project else most_inputs,
        }
        return both(Bottleneck, active, largest, stride=stride, project=project, **fixed)
    shared = fixed | {"classes": 5, "expand": 6 if flag else 0, "hidden": 7 if second else 0}
    return both(Head, {"size": size, "inputs": inputs}, {"inputs": most_inputs}, **shared)


@settings(max_examples=200, deadline=None)
@given(pairs(), st.integers(0, 1000))
def test_an_elastic_block_is_the_plain_one_of_its_sizes(blocks, seed):
    active, largest = blocks
    generator = torch.Generator().manual_seed(seed)
    elastic = ELASTIC_BLOCKS[type(largest).__name__](**largest.sizes)
    with torch.no_grad():
        for tensor in (*elastic.parameters(), *elastic.buffers()):
            tensor.copy_(
                torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
            )
        alone = plain.BLOCKS[type(active).__name__](**active.sizes)
        copy_active(elastic, alone)
        x = torch.randn((4, active.in_channels, active.size, active.size), generator=generator)
        found, expected = elastic(x, active), alone.train()(x)
    last = active.layers()[-1]
    assert found.shape[1:] == (
        (last.K,) if last.kind == "matmul" else (last.G * last.K, last.P, last.Q)
    )
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max()))
    )
