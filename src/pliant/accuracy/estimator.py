"""What the accuracy estimators share: one architecture at a time, each with its cost in seconds.

An estimator has two costs. What it does once for all architectures, such as training a supernet, is
`setup_seconds`; what every further architecture takes is `Estimate.seconds`. Both are CPU time of
this process, so that other programs on the machine do not count.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from pliant.metrics import Estimate, Quality
from pliant.spaces.architecture import Architecture


class Estimator(ABC):
    """An accuracy estimator that evaluates architectures one by one, each once ever.

    Subclasses write `evaluate_one`. Where `prepare` is written too, it is called before the first
    architecture.
    """

    name: str
    """For tables, such as `supernet`."""

    def __init__(self) -> None:
        self._known: dict[Architecture, Estimate] = {}

    @property
    @abstractmethod
    def identity(self) -> str:
        """Short text of all that decides the results: those of two identities never mix."""

    def prepare(self) -> None:  # noqa: B027 - many share nothing
        """Do what all architectures share, such as training shared weights; once."""

    @property
    def setup_seconds(self) -> float:
        """CPU time of `prepare`, also in earlier processes; 0 where nothing is shared."""
        return 0.0

    @abstractmethod
    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """One architecture. A network that cannot be evaluated is `Failed`, never a number."""

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """One estimate per architecture, in order."""
        if architectures:
            self.prepare()
        for one in architectures:
            if one not in self._known:
                self._known[one] = self.evaluate_one(one)
        return [self._known[one] for one in architectures]

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """One quality per architecture, in order."""
        return [one.quality for one in self.evaluate(architectures)]


class AnyEstimator(Protocol):
    """An estimator of this package, or one of your own that has `estimate` alone."""

    def estimate(self, architectures: Sequence[Architecture]) -> Sequence[Quality]:
        """One quality per architecture, in order."""
        ...


def evaluate(estimator: AnyEstimator, architectures: Sequence[Architecture]) -> Sequence[Estimate]:
    """The estimates of any estimator; of one that reports no seconds, its time is divided equally.

    Args:
        estimator: any.
        architectures: in the order of the result.
    """
    if isinstance(estimator, Estimator):
        return estimator.evaluate(architectures)
    began = time.process_time()
    qualities = estimator.estimate(architectures)
    seconds = (time.process_time() - began) / max(1, len(architectures))
    return [Estimate(quality, seconds) for quality in qualities]


def digest_of(*parts: object) -> str:
    """A short text that differs wherever the parts do."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
