"""From which networks one inherits its weights, and how many epochs all of them were trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pliant.accuracy.estimator import digest_of
from pliant.estimation.estimators import EstimatorSettings
from pliant.spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Lineage:
    """The ancestors of one network."""

    ancestors: tuple[str, ...] = ()
    """The parent first."""
    epochs: int | None = None
    """Of its own training; None where it has none of its own."""
    lineage_epochs: int | None = None
    """With those of all ancestors."""

    def context(self, identity: str) -> str:
        """What a result depends on: the estimator, and the ancestors where there are any."""
        return digest_of(identity, *self.ancestors) if self.ancestors else identity

    @property
    def measures(self) -> dict[str, Any]:
        """For the record."""
        if self.epochs is None:
            return {}
        return {
            "epochs": self.epochs,
            "lineage_epochs": self.lineage_epochs,
            "ancestors": list(self.ancestors),
        }


LineageOf = Callable[[Architecture], Lineage]


def untrained(architecture: Architecture) -> Lineage:
    """That of a network which is not trained on its own."""
    return Lineage()


class Lineages:
    """Where networks of an evolution inherit their weights from.

    Args:
        settings: epochs of networks with and without a parent.
        parents: what each mutant was made from, as the searcher keeps it.
    """

    def __init__(
        self, settings: EstimatorSettings, parents: Mapping[Architecture, Architecture]
    ) -> None:
        self.settings, self.parents = settings, parents

    def of(self, architecture: Architecture) -> Lineage:
        """The ancestors of a network, and the epochs of all of them."""
        line, parent = [], self.parents.get(architecture)
        while parent is not None:
            line.append(str(parent))
            parent = self.parents.get(parent)
        whole, own = self.settings.epochs, self.settings.child_epochs
        if not line:
            return Lineage((), whole, whole)
        return Lineage(tuple(line), own, whole + own * len(line))
