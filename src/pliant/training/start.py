"""Where the weights of a supernet begin, chosen apart from how they are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from pliant.errors import RecipeError
from pliant.networks.backbones.registry import NAMES, published, published_file
from pliant.networks.foreign.source import TIMM, foreign_module, module_digest
from pliant.networks.foreign.supernet import ForeignSupernet
from pliant.networks.initialization import patch_pca_stem
from pliant.networks.weights import load_weights
from pliant.plugins import call_plugin, is_plugin, plugin_path
from pliant.spaces.presets import FOREIGN
from pliant.training.checkpoint import load_tensors

CHECKPOINT_BEGINS = (b"PK", b"\x80\x02")
"""The first bytes of what `torch.save` writes: a zip archive, or a pickle before PyTorch 1.6."""


class Start(Protocol):
    """Changes the fresh weights of a network before its first step."""

    @property
    def identity(self) -> str:
        """Equal for equal starts; the record keeps it."""
        ...

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Set weights in place.

        Args:
            network: with the weights of `networks.initialization`.
            images: returns training images, (N, channels, size, size) pixels from 0 to 1.
        """
        ...


@dataclass(frozen=True)
class Fresh:
    """Nothing but the initialisation."""

    identity: str = "none"

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Weights stay as they are."""


@dataclass(frozen=True)
class PatchPca:
    """The first convolution sees the principal components of the images' patches."""

    identity: str = "patch-pca"

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Replace the filters of the first convolution."""
        patch_pca_stem(network, images())


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a file, such as `supernet/weights.safetensors` of another run of the same space.

    Raises:
        RecipeError: the file does not exist.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise RecipeError(
                f"a start's weights are a .safetensors file, found none at {self.path}."
            )

    @property
    def identity(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Load every tensor, but for a classifier of other classes.

        Raises:
            DamagedFileError: the file cannot be read.
            RecipeError: it holds another network; names the tensors that differ.
        """
        load_weights(
            network,
            load_tensors(self.path)[0],
            source=str(self.path),
            advice="Use the file of a run with the same space.",
        )


@dataclass(frozen=True)
class ForeignStart:
    """The weights of a network of the user's own, with which its supernet is made."""

    name: str

    @property
    def identity(self) -> str:
        """Digest of the weights."""
        return module_digest(foreign_module(self.name))

    def apply(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Weights stay as they are.

        Raises:
            RecipeError: the network is of another space.
        """
        if not isinstance(network, ForeignSupernet):
            raise RecipeError(
                f"the weights of {self.name} are those of its own space. Leave the space out, or"
                f" name it {FOREIGN!r}."
            )


STARTS: Mapping[str, Callable[[], Start]] = {"patch-pca": PatchPca, "none": Fresh}


def start_file(name: str) -> Path | None:
    """The file that a start of this name reads; None for a name."""
    if name in STARTS or name in NAMES or name.startswith(TIMM):
        return None
    return plugin_path(name) if is_plugin(name) else Path(name)


def make_start(name: str) -> Start:
    """The start of a name.

    Args:
        name: one of `STARTS`, published weights (`backbones.registry.NAMES`), a .safetensors file
            of a run, a checkpoint of the published networks, `timm:NAME`, or `file.py:NAME`, a
            function that takes nothing and returns a network or a `Start`.

    Raises:
        RecipeError: the name means no start.
    """
    if name in STARTS:
        return STARTS[name]()
    if name in NAMES:
        return published(name)
    if name.startswith(TIMM):
        return ForeignStart(name)
    if is_plugin(name):
        start: Start | nn.Module = call_plugin(name, what="a start")
        return ForeignStart(name) if isinstance(start, nn.Module) else start
    require_start_name(name)
    path = Path(name)
    return Checkpoint(path) if path.suffix == ".safetensors" else published_file(path)


def require_start_name(name: str) -> None:
    """Refuse what means no start, without reading its weights.

    Raises:
        RecipeError: no such name, or a file that PyTorch did not write.
    """
    path = Path(name)
    if name in STARTS or name in NAMES or name.startswith(TIMM) or is_plugin(name):
        return
    if path.suffix == ".safetensors":
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(2) not in CHECKPOINT_BEGINS:
                raise RecipeError(
                    f"a file of published weights is a checkpoint as PyTorch writes it, received "
                    f"{name}. Name another."
                )
        return
    raise RecipeError(
        f"a start is one of {', '.join((*STARTS, *NAMES))}, a .safetensors file of a run, a file of"
        f" published weights, timm:NAME, or file.py:NAME; received {name!r}."
    )
