"""Channel groups follow from layers: here beside what one writes by hand for each block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pliant.networks.channels import block_channels
from pliant.networks.elastic_blocks import ELASTIC_BLOCKS
from pliant.networks.supernet import Supernet
from pliant.spaces.convolutional_blocks import BasicBlock, Bottleneck, ConvBlock, InvertedResidual
from pliant.spaces.input_output_blocks import Head
from pliant.spaces.presets import preset
from pliant.spaces.transformer_blocks import AttentionBlock, MlpBlock, PatchEmbedding

RESIDUAL = {"slot": "a", "size": 6, "inputs": 8, "mid_channels": 16, "outputs": 8}

BY_HAND = {
    ConvBlock(slot="a", size=6, inputs=3, outputs=8, pool=2): {
        "in": ("conv1.weight/1", ""),
        "out": ("", "conv1.weight norm1.weight norm1.bias"),
    },
    InvertedResidual(**RESIDUAL, kernel=5, squeeze_excite=True): {
        "in": ("expand.weight/1", "project.weight project_norm.weight project_norm.bias"),
        "expand": (
            "project.weight/1",
            "expand.weight expand_norm.weight expand_norm.bias depthwise.weight"
            " depthwise_norm.weight depthwise_norm.bias squeeze_reduce.weight/1"
            " squeeze_expand.weight squeeze_expand.bias",
        ),
        "squeeze.reduce": ("squeeze_expand.weight/1", "squeeze_reduce.weight squeeze_reduce.bias"),
    },
    InvertedResidual(**RESIDUAL | {"mid_channels": 8}, kernel=3, expand=False): {
        "in": (
            "project.weight/1",
            "depthwise.weight depthwise_norm.weight depthwise_norm.bias"
            " project.weight project_norm.weight project_norm.bias",
        ),
    },
    BasicBlock(slot="a", size=6, channels=8, mid_channels=4): {
        "in": ("conv1.weight/1", "conv2.weight norm2.weight norm2.bias"),
        "conv1": ("conv2.weight/1", "conv1.weight norm1.weight norm1.bias"),
    },
    Bottleneck(**RESIDUAL | {"outputs": 12}, stride=2, project=True): {
        "in": ("conv1.weight/1 shortcut.weight/1", ""),
        "conv2": ("conv3.weight/1", "conv2.weight norm2.weight norm2.bias"),
        "conv1": ("conv2.weight/1", "conv1.weight norm1.weight norm1.bias"),
        "out": (
            "",
            "conv3.weight norm3.weight norm3.bias"
            " shortcut.weight shortcut_norm.weight shortcut_norm.bias",
        ),
    },
    PatchEmbedding(slot="a", size=6, inputs=3, outputs=8, patch=3): {
        "in": ("embed.weight/1", ""),
        "out": ("", "embed.weight embed.bias positions"),
    },
    **{
        # A single head has no other to change places with.
        AttentionBlock(slot="a", size=3, channels=8, heads=heads, head_size=4): {
            "in": (
                "qkv.weight/1",
                "layer_norm.weight layer_norm.bias project.weight project.bias",
            ),
            "qkv": ("project.weight/1", "qkv.weight qkv.bias"),
        }
        for heads in (1, 3)
    },
    MlpBlock(slot="a", size=3, channels=8, mid_channels=12): {
        "in": (
            "expand.weight/1",
            "layer_norm.weight layer_norm.bias project.weight project.bias",
        ),
        "expand": ("project.weight/1", "expand.weight expand.bias"),
    },
    Head(slot="a", size=6, inputs=8, classes=5, input_norm=True): {
        "in": ("classifier.weight/1", "input_norm.weight input_norm.bias"),
        "out": ("", "classifier.weight classifier.bias"),
    },
}
"""By the layer that writes the channels: what consumes them, and what else is indexed by them."""


@pytest.mark.parametrize("block", BY_HAND, ids=lambda block: type(block).__name__)
def test_groups_are_those_written_by_hand(block):
    module = ELASTIC_BLOCKS[type(block).__name__](**block.sizes)
    names = {id(parameter): name for name, parameter in module.named_parameters()}

    def words(axes) -> set[str]:
        return {f"{names[id(one)]}/1" if dim else names[id(one)] for one, dim in axes}

    found = block_channels(block, module)
    groups = {"in": found.input, **{group.layer: group for group in found.inner}}
    if found.output is not found.input:
        groups["out"] = found.output
    assert list(groups) == list(BY_HAND[block])
    for key, (consumers, producers) in BY_HAND[block].items():
        assert words(groups[key].consumers) == set(consumers.split()), key
        assert words(groups[key].producers) == set(producers.split()), key
        assert not groups[key].fixed
        assert groups[key].units == (block.heads if key == "qkv" else None)


def test_parameters_that_no_layer_names_keep_their_order():
    """A cell's supernet holds every operation, its largest network only some of them."""
    space = preset("nas-bench-201", channels=3, image_size=8, classes=10)
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_()
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.sort_channels()
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
