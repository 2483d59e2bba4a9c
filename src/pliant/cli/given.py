"""Which options stood on the command line? Those that would have no effect are refused."""

from __future__ import annotations

from collections.abc import Collection

import typer

from pliant.errors import RecipeError


def given_options(context: typer.Context) -> dict[str, str]:
    """The parameters that stood on the command line: how each is written there, by its name.

    Args:
        context: of the command.
    """
    given = {}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            given[parameter.name or ""] = parameter.opts[0]
    return given


def refuse_unused(context: typer.Context, unused: Collection[str], rule: str) -> None:
    """Refuse the options that have no effect with the others.

    Args:
        context: of the command.
        unused: names of the parameters without an effect.
        rule: what they are for; the beginning of the message.

    Raises:
        RecipeError: some of them stood on the command line; it names them.
    """
    given = given_options(context)
    if found := [given[name] for name in unused if name in given]:
        raise RecipeError(f"{rule}, received {', '.join(found)}. Leave it out.")
