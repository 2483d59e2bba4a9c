"""Write docs/recipe.md: every key of a recipe with its type, range and default.

    python docs/generate_recipe_page.py

All of it is read from the model that checks recipes; the meaning of a key is the text below its
field in `pliant/runs/recipe.py`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pliant.runs.recipe import Recipe

PAGE = Path(__file__).parent / "recipe.md"

HEAD = """\
# The keys of a recipe

A recipe is a TOML file: one that ships with Pliant, by name (`digits`, `fashion-mnist`, `cifar10`),
or one of your own, by a path that ends in `.toml`. Options of the command line replace single keys.
`runs/NAME/recipe.toml` contains all keys of a run; the same command with that file repeats the run.

An unknown key, a value of another type and a value out of range are refused before a run begins.
`file.py:NAME` is a function or class NAME of your own in a Python file.

This page is generated: `python docs/generate_recipe_page.py`.
"""
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
FILLED_IN = {"name": "name of the file"}
"""Required by the model, but set while the file is read."""
TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "table"}


def recipe_page() -> str:
    """The page as it should be."""
    page = HEAD + _section("Top level", Recipe)
    for name, field in Recipe.model_fields.items():
        if (table := _table(field)) is not None:
            page += _section(f"`[{name}]`", table)
    return page


def _section(title: str, table: type[BaseModel]) -> str:
    texts = _texts(table)
    lines = ["| key | type | range | default | meaning |", "|---|---|---|---|---|"]
    for name, field in table.model_fields.items():
        if _table(field) is None:
            kind = _type(field.annotation)
            cells = (f"`{name}`", kind, _range(field), _default(name, field), texts.get(name, ""))
            lines.append(f"| {' | '.join(cells)} |")
    about = " ".join((inspect.getdoc(table) or "").split())
    return f"\n## {title}\n\n{about}\n\n" + "\n".join(lines) + "\n"


def _table(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a table of its own."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _texts(table: type[BaseModel]) -> dict[str, str]:
    """The text below each field of a class, by the field's name."""
    (statement,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(statement, ast.ClassDef)
    texts = {}
    for field, text in pairwise(statement.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return texts


def _type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin in (Union, UnionType):
        return _type(next(each for each in inner if each is not type(None)))
    if origin is tuple:
        return f"list of {_type(inner[0])}s"
    return TYPES[origin or kind]


def _range(field: FieldInfo) -> str:
    found = []
    for bound in field.metadata:
        found += [
            f"{word} {getattr(bound, key)}" for key, word in BOUNDS.items() if hasattr(bound, key)
        ]
        if pattern := getattr(bound, "pattern", None):
            found.append(f"`{pattern}`")
    return ", ".join(found)


def _default(name: str, field: FieldInfo) -> str:
    if name in FILLED_IN:
        return FILLED_IN[name]
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(recipe_page(), "utf-8")
