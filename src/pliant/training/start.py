"""Where the weights of a supernet begin, chosen apart from how they are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from pliant.errors import RecipeError
from pliant.networks.initialization import patch_pca_stem
from pliant.plugins import call_plugin, is_plugin, plugin_path
from pliant.training.checkpoint import load_tensors

MAX_NAMED = 3
"""Tensors that an error names."""


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
        """Load every tensor.

        Raises:
            DamagedFileError: the file cannot be read.
            RecipeError: it holds another network; names the tensors that differ.
        """
        found, expected = load_tensors(self.path)[0], dict(network.state_dict())
        wrong = [f"{name} is missing there" for name in expected if name not in found]
        wrong += [f"{name} is unknown here" for name in found if name not in expected]
        for name, tensor in found.items():
            if name in expected and tensor.shape != expected[name].shape:
                here, there = tuple(expected[name].shape), tuple(tensor.shape)
                wrong.append(f"{name} is {there} there and {here} here")
        if wrong:
            more = f" and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
            raise RecipeError(
                f"a start holds the weights of this supernet; {self.path} differs in {len(wrong)} "
                f"tensors: {'; '.join(wrong[:MAX_NAMED])}{more}. Use the file of a run with the "
                "same space, image size and classes."
            )
        network.load_state_dict(found)


STARTS: Mapping[str, Callable[[], Start]] = {"patch-pca": PatchPca, "none": Fresh}


def start_file(name: str) -> Path | None:
    """The file that a start of this name reads; None for one of `STARTS`."""
    if name in STARTS:
        return None
    return plugin_path(name) if is_plugin(name) else Path(name)


def make_start(name: str) -> Start:
    """The start of a name.

    Args:
        name: one of `STARTS`, a .safetensors file, or `file.py:NAME`, a function that takes nothing
            and returns a `Start`.

    Raises:
        RecipeError: the name means no start.
    """
    if name in STARTS:
        return STARTS[name]()
    if is_plugin(name):
        start: Start = call_plugin(name, what="a start")
        return start
    if not name.endswith(".safetensors"):
        raise RecipeError(
            f"a start is one of {', '.join(STARTS)}, a .safetensors file or file.py:NAME, "
            f"received {name!r}."
        )
    return Checkpoint(Path(name))
