"""How a long step tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called with a step's name, how much is done, of how much, and a note."""


def silent(step: str, done: int, total: int, note: str) -> None:
    """Progress that nobody watches."""
