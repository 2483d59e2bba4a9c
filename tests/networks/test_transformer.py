"""Transformers: what their layers cost by hand, and how children inherit from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pliant.errors import EncodingError
from pliant.networks.morph.inheritance import inherit
from pliant.networks.supernet import build
from pliant.spaces.presets import preset
from pliant.spaces.transformer import TransformerSpace
from pliant.spaces.transformer_blocks import AttentionBlock


def test_attention_costs_what_is_counted_by_hand():
    """16 tokens of 12 channels, three heads of 4."""
    block = AttentionBlock(slot="a", size=4, channels=12, heads=3, head_size=4)
    macs = {layer.name[2:]: layer.macs for layer in block.layers() if layer.macs}
    products = 3 * 16 * 16 * 4
    assert macs == {
        "qkv": 16 * 36 * 12,
        "scores": products,
        "values": products,
        "project": 16 * 12 * 12,
    }
    assert block.cost.parameters == 2 * 12 + (12 * 36 + 36) + (12 * 12 + 12)
    # Queries, keys and values beside the input, the scores and their softmax.
    assert block.cost.peak_activation_bytes == 4 * (16 * 12 + 16 * 36 + 2 * 3 * 16 * 16)


@torch.no_grad()
def test_children_keep_whole_heads_and_say_what_layer_norm_changes():
    space = preset("vit-32", channels=1, image_size=24, classes=3)
    small = space.smallest()
    parent = build(space, small, mean=[0.5], std=[0.2]).eval()
    for parameter in parent.parameters():
        parameter.normal_(std=0.1)
    images, before = torch.rand(4, 1, 24, 24), parent.state_dict()

    def child(**changed):
        other = space.architecture(dict(small.options) | changed)
        rng = np.random.default_rng(0)
        return inherit(parent, space.blocks(small), space.blocks(other), images, rng)

    assert child(**{"1.1m": 4}).approximations == ()
    grown = child(**{"1.1h": 4})
    assert grown.approximations == ("heads is 4 instead of 2",)
    name = "blocks.stage1_attention1.qkv.weight"
    assert torch.equal(grown.network.state_dict()[name][: 2 * 96], before[name])
    torch.testing.assert_close(grown.network(images), parent(images))  # new heads add nothing yet
    assert "head normalises 128 channels instead of 96" in child(w=128).approximations


def test_a_transformer_without_blocks_or_patches_is_refused():
    sizes = {"widths": (8,), "heads": (1,), "ratios": (2,), "head_size": 4, "patch": 4}
    images = {"channels": 1, "classes": 2}
    for depths, size in (((0, 1), 8), ((1,), 3)):
        with pytest.raises(EncodingError, match="at least one block and one patch"):
            TransformerSpace("mine", depths=depths, image_size=size, **sizes, **images)
