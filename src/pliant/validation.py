"""Values from files, checked by Pydantic, and what is wrong with them in one wording everywhere.

A recipe, a chip and an energy table are typed classes; `validated` makes one from the tables of its
file. A fault names the key, the rule and what was received; an unknown key names the nearest one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pliant.errors import RecipeError, nearest

Value = TypeVar("Value")


def validated(kind: type[Value], tree: Any, origin: str, what: str) -> Value:
    """A value of a class from plain data.

    Args:
        kind: a Pydantic model or a dataclass.
        tree: dictionaries, lists, numbers and texts, as TOML or JSON give them.
        origin: file or name for messages.
        what: what is described, as `recipe` or `chip`.

    Raises:
        RecipeError: a line for each key that is wrong, unknown or missing.
    """
    try:
        adapter: TypeAdapter[Value] = _adapter(cast(Any, kind))
        with naming(origin):
            return adapter.validate_python(tree)
    except ValidationError as error:
        faults = error.errors()
        lines = [_explain(fault, kind, origin, what) for fault in faults]
        raise RecipeError("\n".join(lines)) from None


@contextmanager
def naming(origin: str) -> Iterator[None]:
    """Errors about values of a file name that file, also those of rules that do not know it."""
    try:
        yield
    except RecipeError as error:
        raise type(error)(_with_origin(str(error), origin)) from None


def _with_origin(said: str, origin: str) -> str:
    return said if origin in said else f"{origin}: {said}"


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _explain(fault: Any, kind: type[Any], origin: str, what: str) -> str:
    """One fault in words: the key, the rule, what was received."""
    if fault["type"] == "value_error":  # a rule of ours, which says all of this itself
        return _with_origin(str(fault["ctx"]["error"]), origin)
    place = fault["loc"]
    key = ".".join(str(part) for part in place)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{origin}: unknown key {key!r}. {nearest(place[-1], _keys(kind, place[:-1]))}"
    if fault["type"] == "missing":
        return f"{origin}: key {key!r} is missing; every {what} states it."
    rule = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{origin}: key {key!r}: {rule}, received {fault['input']!r}."


def _keys(kind: Any, place: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a place inside a class."""
    for part in place:
        kind = get_args(kind)[0] if isinstance(part, int) else _fields(kind)[part]
        if type(None) in get_args(kind):  # of an optional table, the table
            kind = get_args(kind)[0]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    """Types of the fields of a Pydantic model or a dataclass."""
    if hasattr(kind, "model_fields"):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
