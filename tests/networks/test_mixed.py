"""Mixed networks: gates give the gradient of the paper, and leave forward passes alone."""

from __future__ import annotations

import itertools

import pytest
import torch

from pliant.errors import EncodingError, RecipeError
from pliant.networks.mixed import Gate, MixedNetwork, mixed_blocks
from pliant.spaces.mobile import MobileFrame
from pliant.spaces.presets import preset
from pliant.spaces.proxyless import ProxylessSpace, ProxylessStage


@pytest.fixture(scope="module")
def space():
    stages = [ProxylessStage(8, 2, kernels=(3, 5), expansions=(1,))]
    frame = MobileFrame(stem=8, stem_stride=1, activation="relu6", expand=16, hidden=0)
    return ProxylessSpace("tiny", stages, frame, channels=1, image_size=6, classes=4)


@pytest.fixture
def network(space):
    """Weights in double precision, without the zero scales with which residual branches begin."""
    torch.manual_seed(0)
    found = MixedNetwork(space, mean=[0.5], std=[0.25]).double()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            if name.startswith("alpha"):
                parameter.normal_()
    return found


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(5, 1, 6, 6, generator=generator, dtype=torch.double)


LABELS = torch.tensor([0, 1, 2, 3, 0])


def loss_of(logits):
    return torch.nn.functional.cross_entropy(logits, LABELS)


def mixture(network, images, gates):
    """All operations of all blocks with real numbers as gates: eq. 3 of the paper as it stands."""
    x = images
    by_slot = {one.slot: one for one in network.mixed}
    for block in network.space.blocks(network.space.largest()):
        if block.slot not in by_slot:
            x = network.module_of(block)(x, block)
            continue
        outs = [
            x if operation is None else network.module_of(operation)(x, operation)
            for operation in by_slot[block.slot].operations
        ]
        x = sum(gate * out for gate, out in zip(gates[block.slot], outs, strict=True))
    return x


def test_operations_are_those_of_the_choices(space):
    first, second = mixed_blocks(space)
    assert first.slot == "stage1_block1"
    assert [block.kernel for block in first.operations] == [3, 5]
    assert second.operations[0] is None
    assert [block.kernel for block in second.operations[1:]] == [3, 5]


def test_every_path_is_the_network_that_is_extracted(space, network, images):
    for options in itertools.product((13, 15), (0, 13, 15)):
        architecture = space.architecture(
            {**space.largest().mapping, "1.1o": options[0], "1.2o": options[1]}
        )
        gates = {
            one.slot: Gate(range(len(one.operations)), one.choice.options.index(option))
            for one, option in zip(network.mixed, options, strict=True)
        }
        logits = network(images, gates=gates)
        assert torch.equal(logits, network(images, architecture))
        plain = network.extract(architecture).double().train()  # copied in fp32
        assert torch.allclose(plain(images), logits, atol=1e-6)


@pytest.mark.parametrize("active", [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_the_gradient_of_the_gates_is_that_of_the_full_mixture(network, images, active):
    """By autograd through all operations, at gates that are one-hot; then through the softmax."""
    one_hot = {
        one.slot: torch.eye(len(one.operations), dtype=torch.double)[index].requires_grad_()
        for one, index in zip(network.mixed, active, strict=True)
    }
    loss_of(mixture(network, images, one_hot)).backward()
    gates = {
        one.slot: Gate(range(len(one.operations)), index)
        for one, index in zip(network.mixed, active, strict=True)
    }
    network.zero_grad()
    loss_of(network(images, gates=gates)).backward()
    for slot, alpha in network.alpha.items():
        p = alpha.detach().softmax(0)
        expected = p * (one_hot[slot].grad - (p * one_hot[slot].grad).sum())  # eq. 4
        assert torch.allclose(alpha.grad, expected, rtol=1e-9, atol=1e-12)
        assert alpha.grad.abs().max() > 1e-6


def test_the_gradient_of_the_gates_is_that_of_finite_differences(network, images):
    gates = {one.slot: Gate(range(len(one.operations)), 1) for one in network.mixed}
    loss_of(network(images, gates=gates)).backward()
    for one in network.mixed:
        p = network.alpha[one.slot].detach().softmax(0)
        slopes = []
        for index in range(len(one.operations)):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {
                    other.slot: torch.eye(len(other.operations), dtype=torch.double)[1]
                    for other in network.mixed
                }
                moved[one.slot][index] += step
                with torch.no_grad():
                    ends.append(loss_of(mixture(network, images, moved)))
            slopes.append((ends[0] - ends[1]) / 2e-6)
        slope = torch.stack(slopes)
        expected = p * (slope - (p * slope).sum())
        assert torch.allclose(network.alpha[one.slot].grad, expected, rtol=1e-5, atol=1e-8)


def test_two_operations_weigh_against_each_other_alone(network, images):
    """Leaving a block out takes part as every other operation does."""
    gates = {"stage1_block1": Gate((0, 1), 0), "stage1_block2": Gate((0, 2), 1)}
    loss_of(network(images, gates=gates)).backward()
    gradient = network.alpha["stage1_block2"].grad
    assert gradient[1] == 0
    assert gradient[0] == pytest.approx(-float(gradient[2]))
    assert abs(gradient[0]) > 1e-6


def test_gates_see_the_mixed_precision_of_the_forward_pass(network, images):
    network, images = network.float(), images.float()
    gates = {one.slot: Gate(range(len(one.operations)), 0) for one in network.mixed}
    found = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(images, gates=gates).float()
        loss_of(logits).backward()
        found.append(torch.cat([alpha.grad for alpha in network.alpha.values()]))
    assert torch.allclose(found[0], found[1], atol=0.1 * float(found[0].abs().max()))
    assert not torch.equal(found[0], found[1])


def test_what_is_chosen_is_kept_with_the_weights(space, network):
    assert network.trained == ()
    network.choose(space.smallest())
    other = MixedNetwork(space, mean=[0.5], std=[0.25])
    other.load_state_dict(network.state_dict())
    assert other.trained == (space.smallest(),)


def test_a_space_of_other_choices_is_refused():
    mobile = preset("digits", channels=1, image_size=8, classes=10)
    with pytest.raises(RecipeError, match=r"one choice; r of space 'digits'.*proxyless-32"):
        mixed_blocks(mobile)


def test_operations_share_no_channels_to_be_sorted(network):
    with pytest.raises(EncodingError, match="no channels to sort"):
        network.sort_channels()
