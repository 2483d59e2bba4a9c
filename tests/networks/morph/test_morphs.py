"""Children that compute what their parents compute, and morphs that are refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from random_morphs import RandomNetwork, random_morph, trained
from torch import nn
from torch.nn import functional as F

from pliant.errors import MorphError
from pliant.networks import build
from pliant.networks.morph.attach import add_skip
from pliant.networks.morph.channel_graph import ChannelGraph
from pliant.networks.morph.channel_map import narrowing, widening
from pliant.networks.morph.check import TOLERANCE, change, require_same_function
from pliant.networks.morph.deepening import deepen, deepen_by_identity, deepen_by_residual
from pliant.networks.morph.inheritance import inherit
from pliant.networks.morph.kernel import grow_kernel
from pliant.networks.morph.widening import widen
from pliant.spaces.presets import preset

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(16))
def test_a_random_morph_of_a_random_network_keeps_what_it_computes(seed):
    found = random_morph(seed)
    assert change(found.parent, found.child, found.images).largest <= TOLERANCE


@pytest.mark.parametrize(("old", "new"), [(3, 3), (3, 4), (8, 29)])
def test_shares_of_a_channels_copies_are_unequal_and_sum_to_one(old, new):
    found = widening(old, new, np.random.default_rng(1))
    sums = torch.zeros(old, dtype=torch.float64).index_add(0, found.source, found.share)
    assert torch.allclose(sums, torch.ones(old, dtype=torch.float64))
    copied = found.share[found.share < 1]
    assert len(copied.unique()) == len(copied) >= 2 * (new > old)


def test_narrowing_keeps_the_most_important_channels_in_their_order():
    assert narrowing(torch.tensor([3.0, 1.0, 5.0, 4.0]), 2).source.tolist() == [2, 3]


def network(seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.random((8, 3, 12, 12), dtype=np.float32))
    return trained(RandomNetwork(rng), images, rng), images


def test_twins_part_when_they_are_trained():
    """With equal shares the difference of twins stays 0 for ever; here it grows, without noise."""
    images = torch.rand(32, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    parent = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    child = widen(parent, {"0": 8}, images, np.random.default_rng(0))
    first = child.get_submodule("0").weight
    assert len(first.unique(dim=0)) == 4
    optimizer = torch.optim.SGD(child.parameters(), lr=0.1)
    for _ in range(5):
        loss = F.cross_entropy(child(images), torch.arange(32) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(first.unique(dim=0)) > 4


def test_residual_sums_depthwise_and_grouped_convolutions_grow_together():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.branch = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
            self.depthwise, self.out = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8 * 16, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.out(self.depthwise(x + self.branch(x)).flatten(1))

    parent, images = Tied(), torch.rand(4, 3, 6, 6)
    group = ChannelGraph(parent, images).group("depthwise")
    assert group.layers == ["stem", "branch", "depthwise"]
    assert (group.width, group.unit) == (8, 2)
    child = widen(parent, {"stem": 14}, images, RNG)
    assert child.branch.groups == 7
    assert child.depthwise.groups == child.depthwise.out_channels == 14
    assert child.out.in_features == 14 * 16
    with pytest.raises(MorphError, match=r"in steps of 2.*has 8, received 11"):
        widen(parent, {"stem": 11}, images, RNG)


class Refusing(nn.Module):
    """One layer for each reason."""

    def __init__(self):
        super().__init__()
        self.tokens, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.hidden, self.swish = nn.Linear(8, 8), nn.Hardswish()
        self.viewed, self.out = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.tokens(x).flatten(2).transpose(1, 2)).mean(1)
        x = self.swish(self.hidden(x))
        return self.out(self.viewed(x).view(-1, 2, 4).flatten(1))


@pytest.mark.parametrize(
    ("morph", "message"),
    [
        (lambda m, x: widen(m, {"tokens": 9}, x, RNG), r"LayerNorm 'norm'.*inside the block"),
        (lambda m, x: widen(m, {"viewed": 9}, x, RNG), r"reshapes them.*These can: hidden"),
        (lambda m, x: widen(m, {"out": 9}, x, RNG), "they are the network's output"),
        (lambda m, x: widen(m, {"hiden": 9}, x, RNG), "Did you mean 'hidden'"),
        (lambda m, x: widen(m, {"hidden": 7}, x, RNG), "has 8, received 7. Use 9"),
        (lambda m, x: deepen_by_identity(m, "hidden", x), "hardswish. Deepen by a residual block"),
        (lambda m, x: deepen_by_identity(m, "norm", x), "none ends norm"),
        (lambda m, x: deepen_by_residual(m, "norm", x, RNG), r"norm returns \(4, 4, 8\)"),
        (lambda m, x: grow_kernel(m, "hidden", 5, x), "hidden is Linear"),
        (lambda m, x: grow_kernel(m, "tokens", 5, x), r"received 5. Use 6, 8"),
        (lambda m, x: add_skip(m, "hidden", x), r"makes \(4, 8\) of \(4, 8\)"),
    ],
)
def test_what_cannot_keep_the_function_is_refused_with_the_layer_and_a_way_out(morph, message):
    with pytest.raises(MorphError, match=message):
        morph(Refusing(), torch.rand(4, 3, 8, 8))


def test_a_network_that_cannot_be_traced_is_refused():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x

    with pytest.raises(MorphError, match="export, which cannot trace this one"):
        widen(nn.Sequential(Branching(4, 4), nn.Linear(4, 2)), {"0": 6}, torch.rand(2, 4), RNG)


def test_a_width_that_is_a_number_in_forward_is_named():
    class Rigid(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Linear(8 * 4, 2)

        def forward(self, x):
            return self.out(self.conv(x).view(-1, 8 * 4))

    with pytest.raises(MorphError, match="Write no width as a number in forward"):
        widen(Rigid(), {"conv": 12}, torch.rand(2, 3, 2, 2), RNG)


def test_the_check_finds_what_evaluation_hides():
    """A default BatchNorm behind an identity is exact by running statistics only (A4)."""
    parent, images = nn.Sequential(nn.Conv2d(3, 4, 1)), torch.rand(8, 3, 4, 4)
    child = nn.Sequential(parent[0], nn.BatchNorm2d(4, eps=1e-12))
    assert change(parent, child, images).evaluation < TOLERANCE
    with pytest.raises(MorphError, match="in training mode"):
        require_same_function(parent, child, images, what="a BatchNorm")


def test_a_new_residual_block_learns():
    parent, images = network(3)
    child = deepen_by_residual(parent, "stem", images, RNG).train()
    block = child.stem[1]
    child(images).square().sum().backward()
    assert block.norm2.weight.grad.abs().max() > 0


@pytest.fixture(scope="module")
def mobile():
    space = preset("digits", channels=1, image_size=8, classes=10)
    architecture = space.parse("r8_1d1_1.1k3e3_2d2_2.1k3e2_2.2k5e3")
    images = torch.rand(8, 1, 8, 8)
    parent = build(space, architecture, mean=[0.5], std=[0.25])
    return space, trained(parent, images, RNG), space.blocks(architecture), images


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r8_1d1_1.1k3e2_2d2_2.1k3e2_2.2k5e3", "stage1_block1.expand has"),
        ("r8_1d1_1.1k3e3_2d2_2.1k3e2_2.2k3e3", "keeps the centre of its kernel"),
        ("r8_1d1_1.1k3e3_2d1_2.1k3e2", "stage2_block2 is left out"),
        ("r6_1d1_1.1k3e3_2d2_2.1k3e2_2.2k5e3", "resolution is 6 instead of 8"),
    ],
)
def test_a_smaller_child_is_marked_as_approximate(mobile, text, reason):
    space, parent, blocks, images = mobile
    found = inherit(parent, blocks, space.blocks(space.parse(text)), images, RNG)
    assert reason in " ".join(found.approximations)
    assert found.change is None
    assert found.network(images).isfinite().all()


def test_approximate_children_are_nearer_to_their_parent_than_fresh_networks(mobile):
    space, parent, blocks, images = mobile
    smaller = space.parse("r8_1d1_1.1k3e3_2d2_2.1k3e2_2.2k3e3")
    child = inherit(parent, blocks, space.blocks(smaller), images, RNG).network
    fresh = trained(build(space, smaller, mean=[0.5], std=[0.25]), images, RNG)
    assert change(parent, child, images).evaluation < change(parent, fresh, images).evaluation


def test_a_new_block_without_a_residual_sum_is_named(mobile):
    space, parent, blocks, images = mobile
    extra = dataclasses.replace(blocks[2], slot="extra", outputs=blocks[2].inputs, stride=2)
    child = [*blocks[:2], extra, *blocks[2:]]
    found = inherit(parent, blocks, child, images, RNG)
    assert "extra is new and not a residual block whose sum is its output" in found.approximations
    assert space.name == "digits"


def test_parents_are_left_as_they_were(mobile):
    space, parent, blocks, images = mobile
    before = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    inherit(parent, blocks, space.blocks(space.largest()), images, RNG)
    assert all(torch.equal(tensor, before[name]) for name, tensor in parent.state_dict().items())
    module, pictures = network(1)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    deepen(module, "stem", pictures, RNG)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
