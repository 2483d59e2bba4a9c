"""relu6 and the epsilon of BatchNorms are the block's own, from the supernet to the ONNX model."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from pliant.deploy.package import onnx_bytes
from pliant.networks.initialization import initialise
from pliant.networks.plain import BlockModule
from pliant.networks.supernet import Supernet
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import ConvBlock, InvertedResidual
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.space import Choice, Space

EPSILON = 1e-3
"""MobileNets in TensorFlow have this one."""


class MobileNetV2Like(Space):
    choices = (Choice("e", (8, 16)),)

    def layout(self, architecture) -> tuple[Block, ...]:
        usual = {"size": 8, "norm_epsilon": EPSILON, "activation": "relu6"}
        return (
            Preprocess(slot="preprocess", size=8, channels=3, resolution=8),
            ConvBlock(slot="stem", inputs=3, outputs=4, pool=2, **usual),
            InvertedResidual(
                slot="block", inputs=4, mid_channels=architecture["e"], outputs=4, kernel=3,
                **usual | {"size": 4},
            ),
            Head(slot="head", inputs=4, classes=5, input_norm=True, **usual | {"size": 4}),
        )  # fmt: skip


def test_relu6_and_epsilon_reach_supernet_extraction_and_onnx():
    space = MobileNetV2Like("v2", channels=3, image_size=8, classes=5)
    torch.manual_seed(0)
    supernet, images = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3), 5 * torch.rand(6, 3, 8, 8)
    for parameter in supernet.parameters():
        nn.init.normal_(parameter, std=2)
    for architecture in (space.smallest(), space.largest()):
        network = supernet.extract(architecture)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {EPSILON}
        with torch.no_grad():
            expected = network.train()(images)
            torch.testing.assert_close(supernet(images, architecture), expected)
        for norm in norms:
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0, 10 * EPSILON)  # so small that the epsilon counts
        expected = network.eval()(images).detach().numpy()
        session = onnxruntime.InferenceSession(
            onnx_bytes(network, space.blocks(architecture), pictures=False)
        )
        (logits,) = session.run(None, {"image": images.numpy()})
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_own_block_declares_the_norm_that_begins_at_zero():
    class Own(BlockModule):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = self.norm(2), self.norm(2)

        @property
        def residual_norm(self):
            return self.last

    own = Own()
    initialise(own)
    assert own.first.weight.tolist() == [1, 1]
    assert own.last.weight.tolist() == [0, 0]
