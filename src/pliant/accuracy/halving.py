"""Successive halving without waiting: which network to train next, and how far.

Li, L., Jamieson, K., Rostamizadeh, A., Gonina, E., Hardt, M., Recht, B., Talwalkar, A., A system
for massively parallel hyperparameter tuning (ASHA), 2020, arXiv:1810.05934, algorithm 2. Every
network is trained to the first rung; the best 1/eta of a rung are trained on to the next one, as
soon as they are among its best, so that no worker waits for others. What is left is stopped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from pliant.errors import RecipeError

Candidate = TypeVar("Candidate", bound=Hashable)


def rung_epochs(epochs: int, factor: int) -> tuple[int, ...]:
    """Epochs at which networks are compared, then those of the whole schedule: 1, 3, 9 of 9.

    Args:
        epochs: of the whole schedule.
        factor: eta, by which the epochs grow from rung to rung.

    Raises:
        RecipeError: there is nothing to stop early.
    """
    if factor < 2 or epochs < 2:
        raise RecipeError(
            "successive halving trains one of at least 2 networks on, and a schedule has at least "
            f"2 epochs; received one of {factor} and {epochs} epochs. Raise them, or leave it out."
        )
    rungs, reached = [], 1
    while reached < epochs:
        rungs.append(reached)
        reached *= factor
    return (*rungs, epochs)


class SuccessiveHalving(Generic[Candidate]):
    """Hands out (candidate, rung) and takes values; with one worker the order is always the same.

    Args:
        candidates: to train, in the order in which they begin; each once.
        rungs: number of rungs; who is told a value at the last one is done.
        factor: eta: of so many candidates of a rung, one is promoted.
    """

    def __init__(self, candidates: Iterable[Candidate], rungs: int, factor: int) -> None:
        self.factor = factor
        self._waiting = deque(candidates)
        self._values: list[dict[Candidate, float]] = [{} for _ in range(rungs)]
        self._promoted: list[set[Candidate]] = [set() for _ in range(rungs - 1)]
        self._running = 0

    def next(self) -> tuple[Candidate, int] | None:
        """What to train and to which rung; None where one has to wait, or all is done."""
        chosen = self._promotable()
        if chosen is None and self._waiting:
            chosen = self._waiting.popleft(), 0
        if chosen is None and not self._running:
            chosen = self._promotable(one_more=not self._finished)
        if chosen is not None:
            self._running += 1
        return chosen

    def tell(self, candidate: Candidate, rung: int, value: float | None) -> None:
        """What a candidate is worth at a rung; it counts there, but is never promoted, if None.

        Args:
            candidate: as handed out.
            rung: as handed out.
            value: higher is better.
        """
        self._running -= 1
        self._values[rung][candidate] = -math.inf if value is None else value

    @property
    def _finished(self) -> bool:
        """Whether a candidate has a value at the last rung."""
        return any(value > -math.inf for value in self._values[-1].values())

    def _promotable(self, *, one_more: bool = False) -> tuple[Candidate, int] | None:
        """The best candidate of the highest rung that has one to promote, and its next rung.

        Args:
            one_more: promote one more than the share of a rung. A small number of candidates, or a
                best one that fails, would otherwise leave none that was trained to the end.
        """
        for rung in reversed(range(len(self._promoted))):
            values, promoted = self._values[rung], self._promoted[rung]
            places = len(values) // self.factor
            if one_more:
                places = max(places, len(promoted) + 1)
            ranked = sorted(values, key=lambda one: -values[one])  # of equal ones the earlier
            for candidate in ranked[:places]:
                if candidate not in promoted and values[candidate] > -math.inf:
                    promoted.add(candidate)
                    return candidate, rung + 1
        return None
