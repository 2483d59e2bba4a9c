"""One point of a search space: a frozen, hashable value with a short text form.

An architecture holds the options of its active choices only, in the order of its space. What an
inactive block would have been is not part of it, so two architectures are equal exactly when their
networks are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Option = int | float | str
"""A value that a choice can take."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The active choices of one network, as (name, option) pairs.

    The text form joins them: `r28_1d2_1.1k3e4_1.2k5e3` is resolution 28, stage 1 of depth 2, and
    two blocks with a kernel and an expansion each. A name is a place (`1.2`: stage 1, block 2) and
    a letter; choices of the same place share its mention. `Space.parse` reads the form back.
    """

    options: tuple[tuple[str, Option], ...]

    def __str__(self) -> str:
        words: list[str] = []
        place = None
        for name, option in self.options:
            here = name.rstrip("abcdefghijklmnopqrstuvwxyz")
            if words and here == place and here:
                words[-1] += f"{name[len(here) :]}{option_text(option)}"
            else:
                words.append(f"{name}{option_text(option)}")
            place = here
        return "_".join(words)

    def __getitem__(self, name: str) -> Option:
        return self.mapping[name]

    def __iter__(self) -> Iterator[tuple[str, Option]]:
        return iter(self.options)

    @property
    def mapping(self) -> Mapping[str, Option]:
        """Name to option."""
        return dict(self.options)


def option_text(option: Option) -> str:
    """An option in the text of an architecture: the shortest digits that read back exactly."""
    if not isinstance(option, float):
        return str(option)
    short = f"{option:g}"
    return short if float(short) == option and "e" not in short else float.__repr__(option)
