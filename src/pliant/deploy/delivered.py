"""Reads a delivered network back: its blocks, its weights, and what its pictures become.

`model.py` is not run: its description is Python literals, which are parsed as such.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from pliant.deploy.package import MODEL
from pliant.errors import DamagedFileError, RecipeError
from pliant.networks import plain
from pliant.networks.supernet import describe
from pliant.spaces.block import BLOCK_TYPES, Block
from pliant.training.checkpoint import load_tensors

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class DeliveredNetwork:
    """A network that a run delivered, ready to compute."""

    network: plain.Network
    blocks: tuple[Block, ...]
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    """Options of `pliant.picture.preprocess` that are not its defaults."""


def delivered_folder(path: Path) -> Path | None:
    """The folder of a delivered network, from its path or that of its weights; None for others."""
    folder = path.parent if path.name == WEIGHTS else path
    return folder if (folder / WEIGHTS).is_file() and (folder / "model.py").is_file() else None


def read_delivered(folder: Path) -> DeliveredNetwork:
    """The network of a folder such as `runs/NAME/best`.

    Raises:
        DamagedFileError: a file is not what `pliant deploy` writes.
        RecipeError: it has blocks that this program does not know.
    """
    source = folder / "model.py"
    values = _literals(source, ("DESCRIPTION", "CLASSES"))
    blocks = tuple(_block(*row) for row in values["DESCRIPTION"])
    views = max(getattr(block, "views", 1) for block in blocks)
    if views > 1:
        blocks = tuple(dataclasses.replace(block, views=views) for block in blocks)
    network = plain.Network(describe(blocks))
    tensors, _ = load_tensors(folder / WEIGHTS)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise DamagedFileError(
            f"{folder / WEIGHTS} holds the weights that {source} describes; they differ. Deliver"
            " the network again."
        )
    network.load_state_dict(tensors)
    metadata = {one.key: one.value for one in onnx.load(folder / MODEL).metadata_props}
    options = json.loads(metadata.get("preprocessing", "{}"))
    return DeliveredNetwork(network.eval(), blocks, tuple(values["CLASSES"]), options)


def _literals(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
        found = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in names
        }
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedFileError(
            f"{path} cannot be read as a delivered model.py: {error}."
        ) from error
    if missing := [name for name in names if name not in found]:
        raise DamagedFileError(
            f"{path} has no {missing[0]}, which pliant deploy writes. A network of your own is"
            " named as file.py:NAME."
        )
    return found


def _block(slot: str, name: str, sizes: dict[str, Any]) -> Block:
    if name not in BLOCK_TYPES:
        raise RecipeError(
            f"a network is grown by the descriptions of its blocks; {slot} is a {name}, which is"
            " one of your own. Name the network as file.py:NAME, a function that returns"
            " load() of its model.py."
        )
    return BLOCK_TYPES[name](slot=slot, **sizes)
