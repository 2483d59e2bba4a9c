"""`pliant elastic`: what of a network of the user's own can shrink, and what cannot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pliant.cli.app import app, say, screen
from pliant.errors import RecipeError

if TYPE_CHECKING:
    from pliant.spaces.foreign import ForeignSpace


@app.command()
def elastic(
    network: Annotated[
        str,
        typer.Argument(
            help="file.py:NAME, a function or class that gives a torch.nn.Module, or timm:NAME."
        ),
    ],
    example: Annotated[
        str, typer.Option(help="Shape of its input: images x channels x height x width.")
    ] = "1x3x96x96",
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file; the network's own where left out.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="A module that stays as it is. Repeatable.")
    ] = None,
) -> None:
    """What of a network can shrink, and by how much; what cannot, and why."""
    shape = example_shape(example)
    import torch

    from pliant.networks.foreign.source import foreign_module
    from pliant.networks.foreign.supernet import make_elastic

    module = foreign_module(network, weights)
    supernet = make_elastic(module, torch.zeros(shape), keep=tuple(keep or ()))
    space = supernet.space
    table = Table("what", "options", "parameters less", "MACs less")
    table.columns[0].overflow = "fold"  # a name is copied from here
    whole = space.cost(space.largest())
    for choice in space.choices:
        smallest = space.cost(
            space.architecture(dict(space.largest().options) | {choice.name: choice.options[0]})
        )
        shares = [
            f"{1 - smallest.metric(name) / whole.metric(name):.1%}"
            for name in ("parameters", "macs")
        ]
        table.add_row(choice.name, ", ".join(map(str, choice.options)), *shares)
    screen.print(table)
    for layer, reason in space.description.fixed.items():
        say(f"{layer} keeps its outputs: {reason}")
    _say_ends(space)


def _say_ends(space: ForeignSpace) -> None:
    """The smallest and the largest network."""
    smallest, largest = (space.cost(one) for one in (space.smallest(), space.largest()))
    say(
        f"{space.size:.3g} networks of {smallest.parameters:,} to {largest.parameters:,} parameters"
        f" and {smallest.macs:,} to {largest.macs:,} MACs; at full size the outputs are those of"
        " the network"
    )


def example_shape(text: str) -> tuple[int, ...]:
    """The shape of a text such as 1x3x96x96.

    Raises:
        RecipeError: it is none of four sizes.
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
        raise RecipeError(
            "an example is images x channels x height x width, such as 1x3x96x96; received"
            f" {text!r}."
        )
    return tuple(int(size) for size in text.split("x"))
