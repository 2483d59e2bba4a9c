"""The errors that Pliant raises for its users.

Every error that a user can act on derives from `PliantError`; its message states the rule, what was
received and what to do. The command line prints the message and exits with code 2; a traceback is a
bug in Pliant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PliantError(Exception):
    """A mistake or a condition that the user can fix."""


class RecipeError(PliantError, ValueError):
    """A recipe, an option or a limit that cannot be understood."""


class DataError(PliantError, ValueError):
    """Images or labels that cannot be used."""


class EncodingError(PliantError, ValueError):
    """Text, options or integers that name no architecture of the space."""


class InfeasibleError(PliantError, ValueError):
    """A limit that no architecture of the space can meet."""


class UncalibratedError(PliantError, RuntimeError):
    """A sub-network whose BatchNorm statistics were never computed."""


class MorphError(PliantError, ValueError):
    """A change of a network that would not keep what it computes."""


class ForeignError(PliantError, ValueError):
    """A network of the user's own that cannot be made elastic."""


class DivergedError(PliantError, RuntimeError):
    """Training whose loss or weights are no longer numbers.

    Args:
        message: for the user.
        step: after which it was noticed, counted from 1; 0 where it is not known.
        loss: of this step, maybe no number.
    """

    def __init__(self, message: str, step: int = 0, loss: float = float("nan")) -> None:
        super().__init__(message)
        self.step, self.loss = step, loss


class MeasurementError(PliantError, RuntimeError):
    """A measurement that is too noisy, or that the device refused."""


class ProfileMismatchError(PliantError, ValueError):
    """A device profile made for another runtime, thread count, batch or space."""


class DamagedFileError(PliantError, RuntimeError):
    """A checkpoint, record or profile that cannot be read back."""


class RunConflictError(PliantError, RuntimeError):
    """A run directory that belongs to another recipe or another process."""


class VerificationError(PliantError, RuntimeError):
    """A delivered network that does not do what its supernet does."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    if not names:
        return "There is none to name."
    close = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
