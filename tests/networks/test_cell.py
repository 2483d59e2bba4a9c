"""A network of cells is the benchmark's network, whatever runs it.

Alone, in the supernet, exported.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pliant.accuracy.calibration import calibrate
from pliant.deploy.package import write_model
from pliant.deploy.verify import run_model_py
from pliant.networks import cell_modules, plain
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.networks.supernet import build, describe
from pliant.spaces import cell_blocks as block_types
from pliant.spaces.cell import EDGES, OPERATIONS, CellSpace
from pliant.spaces.cell_blocks import Cell, Reduction
from pliant.spaces.input_output_blocks import Head

CELLS = {
    "full": "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "shared": "|avg_pool_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|",
    "skips": "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|",
    "pools": "|avg_pool_3x3~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|avg_pool_3x3~2|",
    "unread": "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
    "+|nor_conv_1x1~0|avg_pool_3x3~1|none~2|",
    "on zero": "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|"
    "+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|",
    "handed on": "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "dead": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|none~2|",
}


@pytest.fixture(scope="module")
def space() -> CellSpace:
    return CellSpace("cells", width=4, depth=2, channels=3, image_size=12, classes=5)


def fresh(space, text, seed=0):
    """A network with weights and offsets away from their start."""
    network = build(space, space.parse(text), mean=[0.4, 0.5, 0.45], std=[0.2, 0.25, 0.3])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                1 + 0.3 * noise if parameter.ndim == 1 else noise / parameter[0].numel() ** 0.5
            )
    return network.train()


class Benchmark:
    """The network as NAS-Bench-201 writes it, every operation of every cell run.

    Operations that Pliant drops get new weights.
    """

    def __init__(self, space, text, state):
        self.space, self.state, self.seed = space, state, torch.Generator().manual_seed(7)
        self.nodes = [
            [term.split("~") for term in node.strip("|").split("|")] for node in text.split("+")
        ]

    def relu_conv_bn(self, x, conv, norm, kernel, stride=1, rectify=True):
        channels = x.shape[1]
        weight = self.state.get(
            f"{conv}.weight", torch.randn((channels, channels, kernel, kernel), generator=self.seed)
        )
        scale = self.state.get(f"{norm}.weight", torch.ones(len(weight)))
        shift = self.state.get(f"{norm}.bias", torch.zeros(len(weight)))
        x = F.conv2d(x.relu() if rectify else x, weight, stride=stride, padding=kernel // 2)
        return F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-5)

    def cell(self, x, slot):
        nodes = [x]
        for target, terms in enumerate(self.nodes, 1):
            nodes.append(
                sum(
                    self.operation(name, nodes[int(source)], f"{slot}.{{}}.{name}_{source}{target}")
                    for name, source in terms
                )
            )
        return nodes[-1]

    def operation(self, name, x, slot):
        if name == "none":
            return x.mul(0.0)
        if name == "skip_connect":
            return x
        if name == "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)(x)
        return self.relu_conv_bn(x, slot.format("convs"), slot.format("norms"), int(name[-1]))

    def __call__(self, images):
        state, head = self.state, "blocks.head"
        x = (images - state["blocks.preprocess.mean"].view(1, -1, 1, 1)) / state[
            "blocks.preprocess.std"
        ].view(1, -1, 1, 1)
        x = self.relu_conv_bn(x, "blocks.stem.conv1", "blocks.stem.norm1", 3, rectify=False)
        for stage in (1, 2, 3):
            if stage > 1:
                slot = f"blocks.stage{stage}_reduction"
                y = self.relu_conv_bn(x, f"{slot}.conv1", f"{slot}.norm1", 3, stride=2)
                y = self.relu_conv_bn(y, f"{slot}.conv2", f"{slot}.norm2", 3)
                x = (
                    F.conv2d(
                        nn.AvgPool2d(2, stride=2, padding=0)(x), state[f"{slot}.shortcut.weight"]
                    )
                    + y
                )
            for number in range(self.space.depth):
                x = self.cell(x, f"blocks.stage{stage}_cell{number + 1}")
        x = F.batch_norm(
            x,
            None,
            None,
            state[f"{head}.input_norm.weight"],
            state[f"{head}.input_norm.bias"],
            training=True,
            eps=1e-5,
        )
        x = F.adaptive_avg_pool2d(x.relu(), 1).flatten(1)
        return F.linear(x, state[f"{head}.classifier.weight"], state[f"{head}.classifier.bias"])


def close(found, expected, relative=1e-5):
    torch.testing.assert_close(
        found, expected, rtol=0, atol=relative * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("text", CELLS.values(), ids=CELLS)
@torch.no_grad()
def test_it_is_the_benchmarks_network(space, text, pixels):
    """Dropping what is dead changes nothing: the benchmark's network runs all of it."""
    network = fresh(space, text)
    close(network(pixels(space, 4)), Benchmark(space, text, network.state_dict())(pixels(space, 4)))


@pytest.mark.parametrize("text", CELLS.values(), ids=CELLS)
@torch.no_grad()
def test_the_active_network_is_the_extracted_one(space, text, perturbed, pixels):
    supernet, architecture = perturbed(space).train(), space.parse(text)
    close(
        supernet(pixels(space, 4), architecture),
        supernet.extract(architecture).train()(pixels(space, 4)),
    )


@pytest.mark.parametrize("text", CELLS.values(), ids=CELLS)
@torch.no_grad()
def test_the_delivered_model_is_the_calibrated_network(space, text, perturbed, pixels):
    architecture = space.parse(text)
    network = calibrate(perturbed(space).extract(architecture), pixels(space, 16))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    found = run(network_model(space.blocks(architecture), state), pixels(space, 2, seed=1).numpy())
    close(torch.from_numpy(found), network(pixels(space, 2, seed=1)), 1e-4)


def run(model, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": images})[0]


BLOCKS = [
    *(
        Cell(slot="a", size=5, channels=3, operations=CELLS[name])
        for name in ("full", "shared", "skips", "pools")
    ),
    Cell(
        slot="a", size=4, channels=2, operations="|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    ),
    Cell(
        slot="a",
        size=4,
        channels=2,
        operations="|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    ),
    *(Reduction(slot="a", size=size, inputs=3, outputs=6) for size in (6, 7)),
    Head(slot="a", size=4, inputs=3, classes=5, input_norm=True),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@torch.no_grad()
def test_a_block_to_be_timed_is_the_block_that_is_delivered(block):
    """Random weights have the module's names and shapes, and the nodes compute the same."""
    weights = random_weights(block, np.random.default_rng(0))
    module = plain.BLOCKS[type(block).__name__](**block.sizes).eval()
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unknown = module.load_state_dict(tensors, strict=False)
    assert (unknown, [name for name in missing if not name.endswith("num_batches_tracked")]) == (
        [],
        [],
    )
    images = np.random.default_rng(1).standard_normal(
        (2, block.in_channels, block.size, block.size), dtype=np.float32
    )
    expected = module(torch.from_numpy(images))
    last = block.layers()[-1]
    assert expected.shape[1:] == (
        (last.K,) if last.kind == "matmul" else (last.G * last.K, last.P, last.Q)
    )
    close(
        torch.from_numpy(run(block_model(block, np.random.default_rng(0), batch=2), images)),
        expected,
    )


@pytest.mark.parametrize("text", CELLS.values(), ids=CELLS)
@torch.no_grad()
def test_the_workload_counts_what_the_network_computes(space, text, pixels):
    """MACs of every convolution and linear layer as hooks see them.

    Parameters as PyTorch counts them.
    """
    architecture, macs = space.parse(text), []
    network = fresh(space, text)

    def hook(module, inputs, output):
        macs.append(
            module.weight.numel() * output[0, 0].numel()
            if output.ndim == 4
            else module.weight.numel()
        )

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    network(pixels(space, 2))
    assert macs == [layer.macs for layer in space.lower(architecture).layers if layer.weighted]
    size = space.benchmark_size(space.prune_dead_edges(architecture))
    assert size == (sum(parameter.numel() for parameter in network.parameters()), sum(macs))


def test_only_what_is_active_gets_a_gradient(space, perturbed, pixels):
    supernet, architecture = perturbed(space).train(), space.parse(CELLS["unread"])
    supernet(pixels(space, 4), architecture).square().sum().backward()
    reached = {
        name
        for name, parameter in supernet.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {
        name for name, _ in plain.Network(describe(space.blocks(architecture))).named_parameters()
    }


def test_a_cell_reads_the_same_with_and_without_pytorch(space):
    for names in itertools.islice(itertools.product(OPERATIONS, repeat=len(EDGES)), 0, None, 61):
        text = space.benchmark_text(space.of_operations(names))
        assert cell_modules.cell_edges(text) == block_types.cell_edges(text)


def test_the_delivered_source_carries_the_cells(space, tmp_path):
    """`model.py` runs without Pliant, and computes what the network computes."""
    architecture = space.sample_choices(np.random.default_rng(3))
    network = build(space, architecture, mean=[0.5] * 3, std=[0.25] * 3)
    images = torch.rand(4, 3, space.image_size, space.image_size)
    calibrate(network, images)
    write_model(tmp_path, network, space.blocks(architecture), classes=[str(n) for n in range(10)])
    torch.testing.assert_close(run_model_py(tmp_path, images), network(images))
