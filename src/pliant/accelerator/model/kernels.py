"""How kernels are compiled, and when they are compiled again.

Numba keeps machine code beside each file and looks at that file alone. A kernel holds the code of
those that it calls, which are in other files: after an update it would compute as before. So the
code is kept together with a digest of all files of the accelerator, and made anew if one changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from numba import njit

_EXACT: Final[dict[str, Any]] = {"cache": True, "error_model": "numpy"}
_FAST: Final[dict[str, Any]] = _EXACT | {"fastmath": {"reassoc", "nsz", "contract"}}
"""No reciprocals, no assumption about infinities: counts stay exact."""


@cache
def sources_digest() -> str:
    """A digest of every file from which kernels are made."""
    folder, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    decorate = njit(**options)

    def compiled(function: Callable[..., Any]) -> Any:
        made = decorate(function)
        # Numba's own stamp is the file's time and size.
        made._cache._cache_file._source_stamp = sources_digest()
        return made

    return compiled


kernel = _compiler(**_FAST, nogil=True, _nrt=False)
"""For every equation. It allocates nothing, so that Numba counts no references: each is an atomic
addition, and together they took 40 % of the mapper's time."""
allocating_kernel = _compiler(**_FAST, nogil=True)
"""The same for those that make arrays."""
entry_kernel = _compiler(**_EXACT, nogil=True)
"""The outermost loop over rows, whose own arithmetic is not rearranged."""
inlined = _compiler(**_FAST, inline="always")
"""As `kernel`, but inlined before compilation: rows of the scratch have to be constants where a
loop is compiled, or LLVM does not know that they do not overlap."""
