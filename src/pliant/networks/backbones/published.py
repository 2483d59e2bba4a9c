"""Other people's checkpoints, read as data and loaded into a network of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pliant.errors import DamagedFileError, RecipeError
from pliant.networks import plain
from pliant.networks.weights import load_weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""A BatchNorm's statistics: of the largest network only, so a supernet does not keep them."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Published networks whose checkpoints name their tensors alike."""

    mark: str
    """A tensor that all of them have and no other family has."""
    space: Callable[[Tensors], str]
    """The preset whose largest network a checkpoint holds."""
    translate: Callable[[Tensors, nn.Module], dict[str, Tensor]]
    """Tensors by the names of our network; what has no counterpart keeps its name."""
    mean: tuple[float, ...]
    """Pixels, from 0 to 1, are normalised by this mean and deviation, one for each channel."""
    std: tuple[float, ...]
    ours: str = ""
    """Part of the names that only our networks have; none where empty."""


@dataclass(frozen=True)
class PublishedWeights:
    """A start: the weights of a published network for the space that it is the largest network of.

    Args:
        name: what messages call them.
        file: where they are; asked when they are needed.
        families: those that they may belong to.
    """

    name: str
    file: Callable[[], Path]
    families: tuple[Family, ...]

    @property
    def identity(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.file().read_bytes()).hexdigest()[:12]

    @property
    def space(self) -> str:
        """The preset whose largest network they are.

        Raises:
            DamagedFileError: the file cannot be read.
            RecipeError: it holds another network.
        """
        tensors = read_checkpoint(self.file())
        return self._family(tensors).space(tensors)

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Load every tensor, and read pixels as the published network does.

        The classifier stays as it is where the network has other classes. Running statistics are
        loaded where the network keeps them.

        Raises:
            DamagedFileError: the file cannot be read.
            RecipeError: the network is of another space; names the tensors that differ.
        """
        tensors = read_checkpoint(self.file())
        family = self._family(tensors)
        found, expected = family.translate(tensors, network), network.state_dict()
        optional = {name for name in (*expected, *found) if name.endswith(STATISTICS)}
        optional |= {name for name in expected if name.startswith("blocks.preprocess.")}
        if family.ours:
            optional |= {name for name in expected if family.ours in name}
        load_weights(
            network,
            found,
            source=self.name,
            advice=f"Use it with the space {family.space(tensors)!r} and images of three channels.",
            optional=optional,
        )
        for module in network.modules():
            if isinstance(module, plain.Preprocess):
                module.mean.copy_(torch.tensor(family.mean))
                module.std.copy_(torch.tensor(family.std))

    def _family(self, tensors: Tensors) -> Family:
        for family in self.families:
            if family.mark in tensors:
                return family
        raise RecipeError(
            "published weights are those of EfficientNet-Lite or of a supernet of Once-for-All;"
            f" {self.name} has {', '.join(sorted(tensors)[:3])} and {len(tensors)} tensors in all."
            " Use another file."
        )


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`; nothing in it is run.

    Raises:
        DamagedFileError: it cannot be read, or holds something else than tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise DamagedFileError(
            f"a checkpoint holds tensors alone, as PyTorch writes them; {path} does not, or is "
            f"damaged ({type(error).__name__}), and nothing in it was run. Fetch it again."
        ) from error
    if isinstance(found, dict) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise DamagedFileError(
            f"a checkpoint holds tensors by their names, {path} does not. Use another file."
        )
    return found


def mobile_slots(network: nn.Module) -> list[str]:
    """The slots of the inverted residuals of a network, in running order."""
    blocks = getattr(network, "blocks", nn.ModuleDict())
    return [name for name in blocks if name == "first" or name.startswith("stage")]
