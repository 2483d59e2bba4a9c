"""Adds custom blocks to `model.py`: the source of their plain modules and of its dependencies.

`model.py` runs without Pliant, so a module may need PyTorch and other installed libraries, names of
the file of the plain blocks, constants of its own file, and functions and classes of its own and of
other files of the user.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pliant.errors import EncodingError
from pliant.networks import cell_modules, plain, transformer_modules  # noqa: F401 - blocks
from pliant.networks.elastic_blocks import plain_block


def own_source(names: Iterable[str]) -> str:
    """The source of those blocks that the file of the plain blocks does not have; empty without.

    Args:
        names: of the blocks of a network.

    Raises:
        EncodingError: a block was not registered; or its module needs a part of Pliant or a value
            with no source, uses a name for something else than `model.py` does, or was not defined
            in a file.
    """
    text = ""
    written: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        module = plain_block(name)
        if module.__module__ != plain.__name__:
            text += _with_needs(module, written)
            text += f"\n\nBLOCKS[{name!r}] = {module.__name__}\n"
    return text


def _with_needs(definition: Any, written: dict[str, Any]) -> str:
    """The source of a class or function, behind that of the names of its file that it uses."""
    written[definition.__name__] = definition
    try:
        source = textwrap.dedent(inspect.getsource(definition))
    except (OSError, TypeError) as error:
        raise EncodingError(
            "a block that is delivered is defined in a file, received"
            f" {definition.__qualname__}, which has no source. Move it to a file."
        ) from error
    names = vars(sys.modules[definition.__module__])
    text = ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in names:
            text += _needed(node.id, names[node.id], definition, written)
    return f"{text}\n\n{source}"


def _needed(name: str, value: Any, user: Any, written: dict[str, Any]) -> str:
    """What makes one name known in `model.py`."""
    if getattr(plain, name, None) is value:
        return ""  # it is there already
    if name in written and written[name] is value:
        return ""
    if name in written or hasattr(plain, name) or name in ("DESCRIPTION", "CLASSES", "load"):
        raise EncodingError(
            f"a name means one thing in model.py; {user.__qualname__} uses {name!r} for another."
            " Rename it in the file of the block."
        )
    written[name] = value
    if isinstance(value, ModuleType) and _is_library(value.__name__):
        return f"import {value.__name__} as {name}\n"
    home = getattr(value, "__module__", None)
    if isinstance(home, str) and hasattr(value, "__name__"):
        if home != user.__module__ and _is_library(home):
            return f"from {home} import {value.__name__} as {name}\n"
        if home == user.__module__ or not _of_pliant(home):
            return _with_needs(value, written)
    if _is_literal(value):
        return f"{name} = {value!r}\n"
    raise EncodingError(
        f"model.py runs without Pliant; {user.__qualname__} needs {name!r}. Use PyTorch, names of"
        " pliant.networks.plain and of your own files imported one by one, and numbers and texts of"
        " its own file."
    )


def _is_literal(value: Any) -> bool:
    """Whether the value's text is Python for the same value."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _is_library(module: str) -> bool:
    """Whether a module is built in or installed, so that `model.py` can import it anywhere."""
    if _of_pliant(module):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return True
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return any(Path(sysconfig.get_path(kind)) in Path(file).parents for kind in kinds)


def _of_pliant(module: str) -> bool:
    return module.partition(".")[0] == "pliant"
