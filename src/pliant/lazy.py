"""The public names of a package, loaded on first use, so that importing the package costs nothing.

    if TYPE_CHECKING:
        from pliant.runs.run import Run as Run
    else:
        __getattr__, __dir__, __all__ = lazy_names(__name__, {"run": ["Run"]})

Type checkers and editors read the imports; Python reads the names. As Scientific Python SPEC 1
proposes (https://scientific-python.org/specs/spec-0001/), by `__getattr__` of modules (PEP 562).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: its full name.
        names: public names by the module that defines them, relative to the package.
        modules: modules of the package that are public names themselves.
    """
    homes = {name: module for module, public in names.items() for name in public}
    public = sorted([*homes, *modules])

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(f"{package}.{homes[name]}"), name)
        elif name in modules:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    def listed() -> list[str]:
        special = [name for name in vars(sys.modules[package]) if name.startswith("__")]
        return sorted([*special, *public])

    return load, listed, public
