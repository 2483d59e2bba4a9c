"""A user's own parts, named as `file.py:NAME`: the only code from files that Pliant runs.

In Python the part itself may be given. A recipe then names it as `object:NAME`: another process
must be given it again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable
from inspect import ismodule
from pathlib import Path
from types import ModuleType
from typing import Any

from pliant.errors import PliantError, RecipeError, nearest

OBJECT = "object"
"""What stands in place of the file in the name of a part that is a Python object."""
PREFIX = "pliant_plugin_"
"""Of the modules that a user's files become."""


def is_plugin(text: str) -> bool:
    """Whether a name means a part of the user's own: `file.py:NAME` or `object:NAME`."""
    return text.rpartition(":")[0].endswith(".py") or is_object(text)


def require_part(name: str, known: Collection[str], *, what: str) -> str:
    """The same name, if it is known or means a part of the user's own.

    Args:
        name: as a recipe or the command line has it.
        known: names of the parts that ship.
        what: what the part is, for the message, such as `a searcher`.

    Raises:
        RecipeError: it means none.
    """
    if name not in known and not is_plugin(name):
        raise RecipeError(
            f"{what} is one of {', '.join(known)} or file.py:NAME, received {name!r}. "
            f"{nearest(name, known)}"
        )
    return name


def is_object(text: str) -> bool:
    """Whether a name has the form `object:NAME`."""
    return text.startswith(f"{OBJECT}:")


def object_text(part: object) -> str:
    """The name of a part that was given as a Python object, as `object:NAME`."""
    name = getattr(part, "__qualname__", None) or type(part).__qualname__
    return f"{OBJECT}:{name.rpartition('<locals>.')[2]}"


def plugin_path(text: str) -> Path:
    """The file of a name of the form `file.py:NAME`."""
    return Path(text.rpartition(":")[0])


def plugin_name(text: str) -> str:
    """A name of the form `file.py:NAME` without the folders of the file, for people."""
    return f"{plugin_path(text).name}:{text.rpartition(':')[2]}"


def load_plugin(text: str, *, what: str) -> Any:
    """The object that a Python file calls NAME. The file is run, once per process and content.

    Args:
        text: `file.py:NAME`.
        what: what the object is for, for messages, such as `a space`.

    Raises:
        RecipeError: not of this form, no such file or name, or the file itself ends in an error.
    """
    path_text, _, name = text.rpartition(":")
    if is_object(text):
        raise RecipeError(
            f"{what} was given as a Python object, {name}, which a file cannot hold. Give it again "
            "from Python, as in Run.reopen(folder, target__name=...), or as file.py:NAME."
        )
    if not is_plugin(text) or not name.isidentifier():
        raise RecipeError(f"{what} of your own is named as file.py:NAME, received {text!r}.")
    module = _load(Path(path_text), what)
    if not hasattr(module, name):
        found = vars(module).items()
        public = [key for key, part in found if not key.startswith("_") and not ismodule(part)]
        raise RecipeError(f"{path_text} has no {name!r}. {nearest(name, public)}")
    return getattr(module, name)


def call_plugin(
    source: str | Callable[..., Any], *arguments: Any, what: str, **options: Any
) -> Any:
    """Call the object that a Python file calls NAME; its own errors name the file and the line.

    Args:
        source: `file.py:NAME`, or the function or class itself.
        arguments: passed on.
        what: what the result is for, for messages.
        options: passed on.

    Raises:
        RecipeError: as `load_plugin`, or the call ends in an error that is not Pliant's own.
    """
    if isinstance(source, str):
        text, function = source, load_plugin(source, what=what)
    else:
        text, function = object_text(source).removeprefix(f"{OBJECT}:"), source
    if not callable(function):
        raise RecipeError(
            f"{what} is a function or a class, {text} is of type {type(function).__name__}."
        )
    try:
        return function(*arguments, **options)
    except PliantError:
        raise
    except (Exception, SystemExit) as error:
        raise RecipeError(
            f"{text} ended in an error at {error_place(error)}: {error!r}."
        ) from error


def _load(path: Path, what: str) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{what} comes from {path}, which cannot be read: {error}.") from error
    digest = hashlib.sha256(bytes(path.resolve()) + source).hexdigest()[:8]
    name = f"{PREFIX}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # the file may import its neighbours
    sys.modules[name] = module  # where dataclasses and `inspect` look a class's module up
    try:
        spec.loader.exec_module(module)
    except PliantError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RecipeError(
            f"{path} ended in an error at {error_place(error)}: {error!r}."
        ) from error
    return module


def own_error(error: BaseException) -> str | None:
    """Where a part of the user's own ended in an error, after it was loaded; None if none did.

    What the system refuses, such as memory or a file, says itself what to do.
    """
    if isinstance(error, MemoryError | OSError):
        return None
    own = {module.__file__ for name, module in sys.modules.items() if name.startswith(PREFIX)}
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame.filename for frame in frames if frame.filename in own]
    if not files:
        return None
    where = error_place(error)
    return f"{Path(files[-1]).name} ended in an error at {where}: {error!r}. Mend it there."


def error_place(error: BaseException) -> str:
    """Where a user's code ended in an error, as `line 12 of my_space.py in build`.

    The innermost line of the user's own; of a library, if there is none.
    """
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    others = [frame for frame in frames if not _is_below(frame.filename, [Path(__file__).parent])]
    if not others:
        return "its call"
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    own = [frame for frame in others if not _is_below(frame.filename, installed)]
    frame = (own or others)[-1]
    return f"line {frame.lineno} of {Path(frame.filename).name} in {frame.name}"


def _is_below(file: str, folders: Iterable[Path]) -> bool:
    return any(folder in Path(file).parents for folder in folders)
