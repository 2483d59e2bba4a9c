"""Sorting channels by importance changes the order of weights and not what networks compute."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pliant.networks.supernet import Supernet
from pliant.training.progressive import SHARES, ProgressiveShrinking

SIZES = {"digits": 8, "mobile-32": 24, "plain-32": 24, "vit-32": 24, "photos": 64}


@pytest.fixture(params=["toy", *SIZES])
def space(request, toy_space, shipped):
    return toy_space if request.param == "toy" else shipped(request.param, SIZES[request.param])


def close(found, expected, relative=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * float(expected.abs().max()))


def falls(importance: torch.Tensor, borders=()) -> bool:
    tiers = [
        importance[start:end]
        for start, end in itertools.pairwise([0, *sorted(borders), len(importance)])
    ]
    return all(bool((tier[:-1] >= tier[1:] * (1 - 1e-6)).all()) for tier in tiers)


@torch.no_grad()
def test_the_largest_network_computes_the_same(space, perturbed, pixels):
    supernet, images = perturbed(space), pixels(space, 4)
    before, weights = (
        supernet(images, space.largest()),
        {k: v.clone() for k, v in supernet.state_dict().items()},
    )
    supernet.sort_channels()
    assert any(
        not torch.equal(tensor, weights[name]) for name, tensor in supernet.state_dict().items()
    ), "something moved"
    close(supernet(images, space.largest()), before)


@torch.no_grad()
def test_by_images_the_largest_network_computes_the_same_too(space, perturbed, pixels):
    supernet, images = perturbed(space), pixels(space, 4)
    before = supernet(images, space.largest())
    supernet.sort_channels(images=images)
    close(supernet(images, space.largest()), before)


@torch.no_grad()
def test_by_images_what_channels_contribute_falls(shipped, perturbed, pixels):
    """Standard deviation of a mid channel times the norm of the weights that read it, by hand."""
    supernet = perturbed(shipped("photos", 64))
    images, block = pixels(supernet.space, 4), supernet.blocks["stage2_block2"]
    supernet.sort_channels(images=images)
    read = []
    hook = block.project.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    supernet(images, supernet.space.largest())
    hook.remove()
    norms = block.project.weight.square().sum((0, 2, 3)).sqrt()
    assert falls(read[0].std((0, 2, 3)) * norms)
    assert not falls(block.project.weight.abs().sum((0, 2, 3)))


@torch.no_grad()
def test_the_large_spaces_of_once_for_all_too(shipped, perturbed, pixels):
    for name in ("ofa-mobilenetv3", "ofa-resnet50"):
        space = shipped(name, 128)
        largest = space.architecture(dict(space.largest().options) | {"r": 128})
        supernet, images = perturbed(space), pixels(space, 1)
        before = supernet(images, largest)
        supernet.sort_channels()
        close(supernet(images, largest), before, 1e-4)


@torch.no_grad()
def test_sorting_twice_is_sorting_once(space, perturbed):
    supernet = perturbed(space)
    supernet.sort_channels()
    once = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.sort_channels()
    for name, tensor in supernet.state_dict().items():
        torch.testing.assert_close(tensor, once[name], rtol=0, atol=0)


@torch.no_grad()
def test_importance_falls(shipped, perturbed):
    """The L1 norm of the weights that read a channel, by hand for one group of each kind."""
    supernet = perturbed(shipped("mobile-32", 24))
    supernet.sort_channels()
    block = supernet.blocks["stage2_block1"]
    assert falls(block.project.weight.abs().sum((0, 2, 3))), "mid channels"
    assert falls(block.squeeze_expand.weight.abs().sum((0, 2, 3))), "inside the squeeze"
    # The output channels of stage 1 are read by its second block and by the first one of stage 2.
    readers = [supernet.blocks[slot].expand.weight for slot in ("stage1_block2", "stage2_block1")]
    assert falls(sum(weight.abs().sum((0, 2, 3)) for weight in readers))

    supernet = perturbed(shipped("plain-32", 24))
    supernet.sort_channels()
    assert falls(supernet.blocks["stage1_block1"].conv2.weight.abs().sum((0, 2, 3)))
    readers = [supernet.blocks[slot].conv1.weight for slot in ("stage1_block1", "stage2_pool")]
    assert falls(sum(weight.abs().sum((0, 2, 3)) for weight in readers))
    last = supernet.blocks["stage3_block1"].conv1.weight.abs().sum((0, 2, 3))
    assert falls(last + supernet.blocks["head"].classifier.weight.abs().sum(0))


@torch.no_grad()
def test_heads_are_sorted_whole(shipped, perturbed):
    """A head is as important as the weights that read it; queries, keys and values go with it."""
    supernet = perturbed(shipped("vit-32", 24))
    block = supernet.blocks["stage1_attention1"]
    before = block.qkv.bias.view(4, 3 * 32).clone()
    importance = block.project.weight.abs().sum(0).view(4, 32).sum(1)
    order = importance.argsort(descending=True)
    assert not torch.equal(order, torch.arange(4))
    supernet.sort_channels()
    assert torch.equal(block.qkv.bias.view(4, 3 * 32), before[order])
    assert falls(block.project.weight.abs().sum(0).view(4, 32).sum(1))
    kept = supernet.space.architecture(dict(supernet.space.largest().options) | {"1.1h": 2})
    block.project.weight[:, -32:] *= 9  # the last head stays in the second tier
    moved = block.qkv.bias.view(4, 3 * 32)[3].clone()
    supernet.sort_channels([kept])
    assert torch.equal(block.qkv.bias.view(4, 3 * 32)[2], moved)


@torch.no_grad()
def test_small_networks_change_unless_their_widths_are_kept(shipped, perturbed, pixels):
    space = shipped("plain-32", 24)
    images, small = pixels(space, 4), space.smallest()
    supernet = perturbed(space)
    before = supernet(images, small)
    supernet.sort_channels(
        [space.architecture(dict(space.largest().options) | widths(space, small))]
    )
    close(supernet(images, small), before)
    supernet.sort_channels()
    assert (supernet(images, small) - before).abs().max() > 0.01 * before.abs().max()


def widths(space, architecture):
    chosen = dict(space.largest().options)
    return {
        c.name: architecture.mapping.get(c.name, c.options[0])
        for c in space.choices
        if c.dimension == "width" and c.name in chosen
    }


@torch.no_grad()
def test_channels_stay_on_their_side_of_a_kept_width(shipped, perturbed):
    space = shipped("digits", 8)
    supernet = perturbed(space)
    supernet.sort_channels([space.smallest()])
    block = next(block for block in space.blocks(space.smallest()) if block.slot == "stage2_block1")
    importance = supernet.blocks["stage2_block1"].project.weight.abs().sum((0, 2, 3))
    assert falls(importance, [block.mid_channels])
    assert not falls(importance)


@pytest.mark.parametrize("phase", ["width1", "width2"])
@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_what_was_trained_before_a_width_phase_computes_the_same_in_it(
    name, phase, shipped, perturbed, pixels
):
    """Every network that an earlier phase could draw, whatever its widths at different places."""
    space = shipped(name, SIZES[name])
    strategy = ProgressiveShrinking(space)
    before = list(SHARES)[list(SHARES).index(phase) - 1]
    rng, images = np.random.default_rng(0), pixels(space, 2)
    networks = [space.sample_choices(rng, strategy.options(before)) for _ in range(12)]
    supernet: Supernet = perturbed(space)
    expected = [supernet(images, network) for network in networks]
    strategy.on_phase_start(phase, supernet)
    for network, logits in zip(networks, expected, strict=True):
        close(supernet(images, network), logits, 1e-4)
