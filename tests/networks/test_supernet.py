"""A supernet's sub-network is its extracted network and computes what its space describes."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pliant.accuracy.calibration import calibrate
from pliant.networks import plain
from pliant.networks.onnx import network_model
from pliant.networks.supernet import Supernet, build, describe
from pliant.spaces import rounding

PRESETS = {
    "digits": (8, 4),
    "mobile-32": (24, 4),
    "plain-32": (24, 4),
    "wide-32": (24, 4),
    "vit-32": (24, 4),
    "photos": (80, 2),
    "ofa-mobilenetv3": (128, 1),
    "ofa-mobilenetv3-w1.2": (128, 1),
    "ofa-resnet50": (128, 1),
}
"""Image size, and random architectures to try."""


def architectures(space, count, seed=0):
    """Random ones at the smallest resolution where images are large, as they are slow."""
    rng = np.random.default_rng(seed)
    frozen = {"r": (128,)} if space.image_size >= 128 else None
    return [space.sample_choices(rng, frozen) for _ in range(count)]


def close(found, expected, relative):
    torch.testing.assert_close(
        found, expected, rtol=0, atol=relative * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_the_active_network_is_the_extracted_one(name, shipped, perturbed, pixels):
    size, count = PRESETS[name]
    space = shipped(name, size)
    supernet = perturbed(space).train()
    images = pixels(space, 2 if size > 32 else 4)
    for architecture in architectures(space, count):
        close(supernet(images, architecture), alone(supernet, architecture)(images), 1e-5)


def alone(supernet, architecture):
    network = supernet.extract(architecture).train()
    for module in network.modules():
        if isinstance(module, plain.Head):
            module.dropout = 0.0  # `Supernet.forward` drops nothing unless it is asked to
    return network


@torch.no_grad()
def test_both_ends_of_small_spaces_are_the_extracted_ones(toy_space, shipped, perturbed, pixels):
    for space in (toy_space, shipped("digits", 8), shipped("plain-32", 24)):
        supernet = perturbed(space).train()
        for architecture in (space.smallest(), space.largest()):
            close(
                supernet(pixels(space, 4), architecture),
                alone(supernet, architecture)(pixels(space, 4)),
                1e-5,
            )


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_the_delivered_model_is_the_calibrated_network(name, shipped, perturbed, pixels):
    """ONNX = PyTorch, with images that the network resizes."""
    size, _ = PRESETS[name]
    space = shipped(name, size)
    supernet = perturbed(space)
    [architecture] = architectures(space, 1, seed=3)
    found = next((choice.options for choice in space.choices if choice.name == "r"), ())
    if resolutions := [r for r in (*found[:1], 132) if r in found and r != size]:
        architecture = space.architecture(dict(architecture.options) | {"r": resolutions[0]})
    network = calibrate(supernet.extract(architecture), pixels(space, 4 if size > 32 else 16))
    images = pixels(space, 2, seed=1)
    expected = network(images)
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = network_model(space.blocks(architecture), state).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    close(torch.from_numpy(session.run(None, {"image": images.numpy()})[0]), expected, 1e-4)


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_the_workload_counts_what_the_network_computes(name, shipped, pixels):
    """Shapes and MACs of every convolution and linear layer as hooks see them.

    Parameters with each BatchNorm as one addend a channel.
    """
    size, count = PRESETS[name]
    space = shipped(name, size)
    for architecture in architectures(space, count, seed=1):
        network = build(space, architecture, mean=[0.5] * 3, std=[0.2] * 3).train()
        seen = []

        def hook(module, inputs, output, seen=seen):
            shape = tuple(output.shape[1:])
            pixels = shape[1:] if isinstance(module, nn.Conv2d) else shape[:-1]
            macs = len(output) // 2 * module.weight.numel() * int(np.prod(pixels))
            if isinstance(module, nn.Linear) and pixels:  # one row per token
                shape = (int(np.prod(pixels)), shape[-1])
            seen.append((shape, macs, module.weight.numel() + len(module.weight)))

        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(hook)
        network(pixels(space, 2))
        workload = space.lower(architecture)
        expected = []
        for layer in workload.layers:
            if layer.weighted and layer.stored is None:
                shape = (layer.N, layer.K) if layer.N > 1 else (layer.K,)
                if layer.kind == "conv":
                    shape = (layer.G * layer.K, layer.P, layer.Q)
                expected.append((shape, layer.macs, layer.parameters))
        assert seen == expected
        products = sum(layer.macs for layer in workload.layers if layer.stored == 0)
        macs = sum(macs for _, macs, _ in seen) + products
        assert macs == workload.macs == space.cost(architecture).macs
        addends = sum(
            m.num_features if isinstance(m, nn.BatchNorm2d) else 0 for m in network.modules()
        )
        stored = sum(p.numel() for p in network.parameters()) - addends
        assert stored == workload.parameters == space.cost(architecture).parameters


@torch.no_grad()
def test_a_description_alone_builds_the_network(toy_space, perturbed, pixels):
    """Nothing but names and sizes crosses to `plain`, which is delivered without Pliant."""
    architecture = toy_space.largest()
    network = alone(perturbed(toy_space), architecture)
    other = plain.Network(describe(toy_space.blocks(architecture))).train()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(pixels(toy_space, 2)), network(pixels(toy_space, 2)))


def test_rounding_of_channels_is_the_same_with_and_without_pytorch():
    for tenth in range(10, 20_000):
        assert plain.make_divisible(tenth / 10) == rounding.make_divisible(tenth / 10)


def test_extraction_copies(toy_space, perturbed):
    supernet = perturbed(toy_space)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network = supernet.extract(toy_space.largest())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


# Gradients.


def active_mask(supernet, architecture):
    """Where the weights that a sub-network uses lie in the supernet."""
    masks = {}
    space = supernet.space
    for block in space.blocks(architecture):
        network = plain.Network(describe([block]))
        for name, tensor in network.named_parameters():
            whole = supernet.get_parameter(name)
            mask = torch.zeros(whole.shape, dtype=torch.bool)
            if whole.shape[2:] == tensor.shape[2:]:
                mask[tuple(slice(size) for size in tensor.shape)] = True
            else:  # a smaller kernel: the first matrix mixes all but the outermost ring
                mask[: tensor.shape[0], : tensor.shape[1], 1:-1, 1:-1] = True
            masks[name] = mask
    return masks


@pytest.mark.parametrize("name", ["digits", "mobile-32", "plain-32", "vit-32"])
def test_only_what_is_active_gets_a_gradient(name, shipped, perturbed, pixels):
    space = shipped(name, PRESETS[name][0])
    supernet = perturbed(space).train()
    for architecture in (space.smallest(), *architectures(space, 3, seed=5)):
        supernet.zero_grad(set_to_none=True)
        supernet(pixels(space, 8), architecture).square().sum().backward()
        masks = active_mask(supernet, architecture)
        reached = 0
        for key, parameter in supernet.named_parameters():
            if "kernel_matrices" in key:
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            mask = masks.get(key, torch.zeros(parameter.shape, dtype=torch.bool))
            assert not gradient[~mask].any(), key
            reached += int((gradient[mask] != 0).sum())
        assert reached > 0.8 * sum(int(mask.sum()) for mask in masks.values()), (
            "all but dead channels"
        )


def test_gradients_of_two_networks_add_up(shipped, perturbed, pixels):
    """Two sub-networks side by side in one graph.

    Neither disturbs the other's outputs or gradients.
    """
    space = shipped("mobile-32", 24)
    supernet = perturbed(space).train()
    one, other = architectures(space, 2, seed=6)
    images = pixels(space, 4)
    alone_one, alone_other = supernet(images, one), supernet(images, other)
    separate = []
    for logits in (alone_one, alone_other):
        supernet.zero_grad(set_to_none=True)
        logits.square().sum().backward()
        separate.append(
            {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
        )
    supernet.zero_grad(set_to_none=True)
    first, second = supernet(images, one), supernet(images, other)
    assert torch.equal(first, alone_one)
    assert torch.equal(second, alone_other)
    (first.square().sum() + second.square().sum()).backward()
    for name, parameter in supernet.named_parameters():
        parts = [gradients[name] for gradients in separate if name in gradients]
        if parts:
            close(parameter.grad, sum(parts), 1e-5)


# Starting values.


@torch.no_grad()
def test_residual_branches_start_at_nothing(shipped, pixels):
    """All residual blocks begin as the identity, so that a deep network starts as a shallow one."""
    space = shipped("mobile-32", 24)
    torch.manual_seed(0)
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3).train()
    deep = space.architecture({choice.name: choice.options[-1] for choice in space.choices})
    shallow = space.architecture(
        {c.name: c.options[0] if c.dimension == "depth" else c.options[-1] for c in space.choices}
    )
    assert torch.equal(supernet(pixels(space, 4), deep), supernet(pixels(space, 4), shallow))


@torch.no_grad()
def test_pixels_are_normalised_by_the_training_images(shipped, pixels):
    space = shipped("digits", 8)
    supernet = Supernet(space, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0])
    images = pixels(space, 2)
    block = space.blocks(space.largest())[0]
    found = supernet.blocks["preprocess"](images, block)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        torch.testing.assert_close(found[:, channel], (images[:, channel] - mean) / std)


def saved(supernet, path):
    torch.save(supernet, path)
    return torch.load(path, weights_only=False)


def loaded(supernet, path):
    torch.save(supernet.state_dict(), path)
    other = Supernet(supernet.space, mean=[0.1] * 3, std=[1.0] * 3)
    other.load_state_dict(torch.load(path))
    return other


@pytest.mark.parametrize("again", [lambda one, path: copy.deepcopy(one), saved, loaded])
@pytest.mark.parametrize("name", ["mobile-32", "plain-32", "vit-32", "nas-bench-201"])
@torch.no_grad()
def test_a_copy_computes_the_same_and_shares_no_weight(
    name, again, shipped, perturbed, pixels, tmp_path
):
    space = shipped(name, 32)
    supernet, images = perturbed(space), pixels(space, 2)
    architecture = space.sample(np.random.default_rng(1))  # the blocks of one are cached
    expected = supernet(images, architecture)
    other = again(supernet, tmp_path / "supernet.pt")
    assert other.space.identity == space.identity
    assert torch.equal(other(images, architecture), expected)
    for parameter in other.parameters():
        parameter.zero_()
    assert torch.equal(supernet(images, architecture), expected)
