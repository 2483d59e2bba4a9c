"""Which scores are computed: from names, files and functions to the scores of every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pliant.accuracy.zero_shot import (
    Aggregate,
    AnyMethod,
    Method,
    ZeroShotScore,
    find_method,
    score,
    scores,
)
from pliant.accuracy.zero_shot.scores import require_distinct
from pliant.errors import RecipeError, nearest
from pliant.metrics import Failed
from pliant.plugins import is_plugin

BASELINES = ("parameters", "macs")
"""Computed with every selection."""


@dataclass(frozen=True)
class Selection:
    """The scores of every network, and those that rank all networks relative to each other."""

    methods: tuple[Method, ...]
    """With the baselines, and the components of the aggregates."""
    aggregates: tuple[Aggregate, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them, in the order of a table."""
        names = [one.name for one in self.methods]
        return (*names, *(one.name for one in self.aggregates))


def select_methods(
    methods: AnyMethod | Sequence[AnyMethod], *, labelled: bool = True, several: bool = True
) -> Selection:
    """The scores that the user asks for, and the baselines.

    Args:
        methods: `all`, names with commas between them, `file.py:NAME`, a `Method`, a function from
            a `ScoringInput` to a number, or several of these.
        labelled: whether there are labelled images; without them, `all` leaves out the scores
            that use images.
        several: whether there are several networks, to rank relative to each other.

    Raises:
        RecipeError: an unknown score, or one that needs images or other networks.
    """
    wanted = _expanded(methods, labelled, several)
    aggregates = [one for name, one in scores.AGGREGATES.items() if name in wanted]
    if aggregates and not several:
        raise RecipeError(
            f"{aggregates[0].name} ranks several networks relative to each other, received one. "
            f"Name {', '.join(aggregates[0].components)} instead."
        )
    names: list[AnyMethod] = [one for one in wanted if one not in scores.AGGREGATES]
    names += BASELINES
    for aggregate in aggregates:
        names += aggregate.components
    found: dict[str, Method] = {}
    chosen = [find_method(one) for one in names]
    require_distinct(chosen)
    for method in chosen:
        found.setdefault(method.name, method)
    for method in found.values():
        if method.needs != "shape" and not labelled:
            raise RecipeError(
                f"{method.name} looks at {method.needs}, so it needs training images. "
                "Give them with --data."
            )
    return Selection(tuple(found.values()), tuple(aggregates))


def _expanded(
    methods: AnyMethod | Sequence[AnyMethod], labelled: bool, several: bool
) -> list[AnyMethod]:
    """The list that `all`, or a text with commas, means."""
    wanted: list[AnyMethod]
    if not isinstance(methods, str):
        wanted = list(methods) if isinstance(methods, Sequence) else [methods]
    elif methods == "all":
        available = [one for one in scores.SCORES.values() if labelled or one.needs == "shape"]
        wanted = [one.name for one in available if one.name not in BASELINES]
        wanted += _available_aggregates() if several else []
    else:
        wanted = [word.strip() for word in methods.split(",") if word.strip()]
    known = [*scores.SCORES, *_available_aggregates()]
    for one in wanted:
        if isinstance(one, str) and one not in known and not is_plugin(one):
            raise RecipeError(f"no score is called {one!r}. {nearest(one, known)}")
    if not wanted:
        raise RecipeError(
            f"scores are named with commas between them, received {methods!r}. "
            f"Known: all, {', '.join(known)}, and file.py:NAME."
        )
    return wanted


def _available_aggregates() -> list[str]:
    known = set(scores.SCORES)
    return [one.name for one in scores.AGGREGATES.values() if known.issuperset(one.components)]


@dataclass(frozen=True)
class MethodScorer:
    """Computes the scores of a selection by their names; it can be sent to other processes."""

    methods: Mapping[str, Method]

    def __call__(
        self,
        network: nn.Module,
        names: Sequence[str],
        images: Tensor,
        labels: Tensor | None,
        *,
        seed: int,
    ) -> dict[str, ZeroShotScore | Failed]:
        """One result per name, as `pliant.accuracy.zero_shot.score` returns it."""
        chosen = [self.methods[name] for name in names]
        return score(network, chosen, images, labels, seed=seed)
