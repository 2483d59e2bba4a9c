"""Weights made by a formula, and what Once-for-All's own code computes for them.

The file in shared/data beside the repository tells the formula.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from pliant.networks.backbones.once_for_all import mobile_architecture, resnet_architecture
from pliant.networks.backbones.registry import published_file
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset

DATA = Path(__file__).parents[4] / "shared" / "data" / "once_for_all_reference.json"
NETWORKS = {"ofa_mbv3": "ofa-mobilenetv3", "ofa_resnet50": "ofa-resnet50"}
"""Supernets of the reference, and our spaces of them."""


def reference():
    return json.loads(DATA.read_text("utf-8"))


def weights(shapes):
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name, shape):
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("_matrix"):
        values = np.eye(len(values)) + 0.05 * values
    elif name.endswith("running_mean"):
        values = 0.1 * values
    elif name.endswith("running_var"):
        values = 1 + 0.1 * abs(values)
    elif values.ndim == 1:
        values = (1 if name.endswith(".weight") else 0) + 0.1 * values
    else:
        values = values * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def images():
    values = np.random.default_rng(0).standard_normal((4, 3, 128, 128))
    return torch.from_numpy(values.astype(np.float32))


def everywhere(setting, places):
    """A setting of each place; a scalar means the same everywhere."""
    return setting if isinstance(setting, list) else [setting] * places


def architecture(space, case):
    """The architecture of a case, whose settings are those of Once-for-All's own code."""
    if "ks" in case:
        settings = {"ks": 20, "e": 20, "d": 5}
        make = mobile_architecture
    else:
        settings = {"e": 18, "d": 5, "w": 6}
        make = resnet_architecture
    return make(
        space, 128, **{name: everywhere(case[name], count) for name, count in settings.items()}
    )


def supernet(name, checkpoint):
    """Our supernet with the weights of a checkpoint; it reads images as they are."""
    space = preset(name, channels=3, image_size=128, classes=10)
    network = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    published_file(checkpoint).apply(network, lambda: torch.empty(0))
    network.blocks["preprocess"].mean.zero_()
    network.blocks["preprocess"].std.fill_(1.0)
    return network


@torch.no_grad()
def relative_error(network, case):
    """The largest difference of logits over the largest logit."""
    expected = torch.tensor(case["logits"])
    found = network(images(), architecture(network.space, case))
    return float((found - expected).abs().max() / expected.abs().max())
