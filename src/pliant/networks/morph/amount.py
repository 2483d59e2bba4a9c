"""What a person writes about one change: `stage2=1.5x`, `conv1=64`, `stage3=+1`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pliant.errors import MorphError


@dataclass(frozen=True, slots=True)
class Amount:
    """A layer or stage, and by how much it grows."""

    layer: str
    value: float
    is_factor: bool

    def of(self, before: int, rounding: Callable[[float], int] = round) -> int:
        """The size that comes of another one.

        Args:
            before: the parent's size.
            rounding: of the size that a factor gives.
        """
        return rounding(before * self.value) if self.is_factor else int(self.value)


def parse_amount(text: str, *, what: str, example: str) -> Amount:
    """Read `LAYER=NUMBER`, where the number of a width may be a factor such as `1.5x`.

    Args:
        text: as written.
        what: the option, for messages.
        example: of the form.

    Raises:
        MorphError: another form, or a number that does not grow anything.
    """
    layer, _, value = text.rpartition("=")
    found = re.fullmatch(r"\+?(?P<number>\d+(?:\.\d+)?)(?P<factor>x?)", value.strip())
    if not layer.strip() or found is None:
        raise MorphError(f"{what} reads {example}, received {text!r}.")
    number, is_factor = float(found["number"]), bool(found["factor"])
    if (is_factor and number <= 1) or number <= 0 or (not is_factor and number % 1):
        raise MorphError(
            f"{what} makes something larger: a whole number, or a factor above 1, as {example};"
            f" received {text!r}."
        )
    return Amount(layer.strip(), number, is_factor)
