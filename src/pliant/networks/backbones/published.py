"""Other people's checkpoints, read as data and loaded into a network of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pliant.errors import DamagedFileError
from pliant.networks import plain
from pliant.networks.weights import load_weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""A BatchNorm's statistics: of the largest network only, so a supernet does not keep them."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`; nothing in it is run.

    Raises:
        DamagedFileError: it cannot be read, or holds something else than tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise DamagedFileError(
            f"{path} cannot be read as a checkpoint of PyTorch ({error!r}). Fetch it again."
        ) from error
    if isinstance(found, dict) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise DamagedFileError(
            f"a checkpoint holds tensors by their names, {path} does not. Use another file."
        )
    return found


def load_published(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    space: str,
    ours: str = "",
) -> None:
    """Load published weights.

    The classifier stays fresh where the network has other classes. Running statistics are loaded
    where the network keeps them.

    Args:
        network: a supernet, or the plain module of the space's largest network.
        tensors: by the names of the network's state.
        source: their name, for messages.
        space: the name of the space whose largest network they are.
        ours: part of the names that only our networks have; none where empty.

    Raises:
        RecipeError: they are those of another network; names the tensors that differ.
    """
    expected = network.state_dict()
    statistics = {name for name in (*expected, *tensors) if name.endswith(STATISTICS)}
    added = {name for name in expected if ours and ours in name}
    pixels = {name for name in expected if name.startswith("blocks.preprocess.")}
    load_weights(
        network,
        tensors,
        source=source,
        advice=f"Use it with the space {space!r} and images of three channels.",
        optional=statistics | added | pixels,
    )


def set_pixel_range(network: nn.Module, mean: float, std: float) -> None:
    """Normalise pixels as the published network does, whatever the training images are.

    Args:
        network: its first block is the preprocessing.
        mean, std: of pixels from 0 to 1.
    """
    for module in network.modules():
        if isinstance(module, plain.Preprocess):
            module.mean.fill_(mean)
            module.std.fill_(std)
