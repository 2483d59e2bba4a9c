"""What a zero-shot score is: its name, what it needs and the function that computes it.

A score of your own is a function from a `ScoringInput` to a number:

    def mean_weight(inputs: ScoringInput) -> float:
        return float(sum(weight.detach().abs().mean() for weight in inputs.network.parameters()))

In Python it is passed as it is, on the command line as `my_scores.py:mean_weight`. Where it needs
labels, or has a name of its own, the file holds a `Method` instead of the function.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pliant.accuracy.zero_shot.scoring_input import ScoringInput, ZeroShotScore
from pliant.errors import RecipeError
from pliant.metrics import Failed
from pliant.plugins import load_plugin, plugin_path

Compute = Callable[[ScoringInput], ZeroShotScore | float]
"""Higher is better. It may change nothing of the caller's network: see `zero_shot.copies`."""


@dataclass(frozen=True, slots=True)
class Method:
    """A score of single networks."""

    name: str
    needs: Literal["shape", "images", "labels"]
    """Of the images: their shape only, their pixels, or their labels too."""
    summary: str
    compute: Compute
    version: str = ""
    """Digest of the source of a score of the user's own: results of two versions never mix."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A score of networks relative to each other, from other scores of all of them."""

    name: str
    components: tuple[str, ...]
    """Names of the scores that it combines."""
    combine: Callable[
        [Sequence[Mapping[str, float | ZeroShotScore | Failed | None]], Sequence[str]], list[float]
    ]
    """From the scores of each network, and the components, to one number per network."""


def own_method(function: Method | Compute) -> Method:
    """A user's function as a score.

    Raises:
        RecipeError: not a function or a `Method`.
    """
    if isinstance(function, Method):
        return function
    if isinstance(function, type) or not callable(function):
        raise RecipeError(
            "a score of your own is a function from a ScoringInput to a number, or a Method; "
            f"received {function!r}."
        )
    name = getattr(function, "__name__", type(function).__name__)
    summary = (function.__doc__ or "").strip().partition("\n")[0]
    return Method(name, "shape", summary, function)


def file_method(text: str) -> Method:
    """The score that a Python file defines; it can be sent to other processes.

    Args:
        text: `file.py:NAME`, a function or a `Method`.

    Raises:
        RecipeError: no such file or name, or not a score.
    """
    method = own_method(load_plugin(text, what="a score"))
    version = _digest(text)
    return replace(method, compute=_FileFunction(text, version), version=version)


@dataclass(frozen=True)
class _FileFunction:
    """A function of a file by its name, since functions of files cannot be pickled."""

    text: str
    version: str

    def __call__(self, inputs: ScoringInput) -> ZeroShotScore | float:
        return _load(self.text, self.version)(inputs)


@functools.cache
def _load(text: str, version: str) -> Compute:
    if _digest(text) != version:
        raise RecipeError(
            f"a score must stay the same while networks are scored; {plugin_path(text)} changed. "
            "Start the command again."
        )
    return own_method(load_plugin(text, what="a score")).compute


def _digest(text: str) -> str:
    return hashlib.sha256(plugin_path(text).read_bytes()).hexdigest()[:16]
