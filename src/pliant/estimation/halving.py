"""Training from scratch with early stopping on any workers, every rung kept in the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pliant.accuracy.halving import SuccessiveHalving, rung_epochs
from pliant.estimation.estimators import Job
from pliant.estimation.evaluate import add, known_estimate
from pliant.metrics import Accuracy, Estimate, Failed, Stopped
from pliant.progress import Progress, silent
from pliant.record import Record
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workers import WorkerPool


class HalvedTraining:
    """Trains networks from scratch, and stops those that others leave behind.

    A network that reaches the last rung has the same row as without early stopping. At a lower rung
    its row is `Stopped`, under a stage of its own, such as `scratch until epoch 2`.

    Args:
        name: of the estimator: `scratch`, or with the number of its seed.
        space: whose costs the rows get.
        record: stays with this process; every result is committed as it arrives.
        identity: of the estimator: rows of another identity do not count.
        open_pool: opens the workers, only where something is left to train.
        epochs: of the whole schedule.
        factor: of so many networks of a rung, one is trained on.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        record: Record,
        identity: str,
        open_pool: Callable[[], WorkerPool],
        *,
        epochs: int,
        factor: int,
    ) -> None:
        self.name, self.space = name, space
        self.record, self.identity = record, identity
        self.rungs, self.factor = rung_epochs(epochs, factor), factor
        self._open_pool = open_pool
        self._pool: WorkerPool | None = None

    def evaluate(
        self, architectures: Sequence[Architecture], progress: Progress = silent
    ) -> list[Estimate]:
        """One estimate per architecture, in order: an accuracy, `Stopped` or `Failed`.

        Args:
            architectures: that compete; repeats are trained once.
            progress: told after every rung of a network.
        """
        distinct = list(dict.fromkeys(architectures))
        halving = SuccessiveHalving(distinct, len(self.rungs), self.factor)
        found: dict[Architecture, Estimate] = {}
        try:
            while True:
                while (step := halving.next()) is not None:
                    one, rung = step
                    known = self._known(one, rung)
                    if known is None:
                        self._submit(one, rung)
                        if not self._has_free_worker:
                            break
                    else:
                        self._tell(halving, found, one, rung, known)
                if not self._pending:
                    break
                for one, rung, estimate in self._finished():
                    self._tell(halving, found, one, rung, estimate)
                progress(self.name, len(found), len(distinct), "networks, stopped early or not")
        finally:
            self._close()
        return [found[one] for one in architectures]

    def _tell(
        self,
        halving: SuccessiveHalving[Architecture],
        found: dict[Architecture, Estimate],
        architecture: Architecture,
        rung: int,
        estimate: Estimate,
    ) -> None:
        found[architecture] = estimate
        quality = estimate.quality
        if isinstance(quality, Stopped):
            halving.tell(architecture, rung, quality.reached.top1)
        else:
            value = None if isinstance(quality, Failed) else quality.value
            halving.tell(architecture, rung, value)

    def _stage(self, rung: int) -> str:
        last = rung == len(self.rungs) - 1
        return self.name if last else f"{self.name} until epoch {self.rungs[rung]}"

    def _known(self, architecture: Architecture, rung: int) -> Estimate | None:
        return known_estimate(self.record, self._stage(rung), architecture, self.identity)

    def _submit(self, architecture: Architecture, rung: int) -> None:
        if self._pool is None:
            self._pool = self._open_pool().__enter__()
        self._pool.submit(Job(self.name, str(architecture), self.rungs[rung]))

    @property
    def _pending(self) -> int:
        return 0 if self._pool is None else self._pool.pending

    @property
    def _has_free_worker(self) -> bool:
        return self._pool is None or self._pool.free > 0

    def _finished(self) -> list[tuple[Architecture, int, Estimate]]:
        """What workers finished, written to the record."""
        assert self._pool is not None
        rows = []
        for job, result in self._pool.finished():
            architecture, rung = (
                self.space.parse(job.architecture),
                self.rungs.index(job.until_epoch),
            )
            lost = isinstance(result, Failed)
            estimate = Estimate(result, 0.0) if lost else self._at_rung(result, rung)
            add(
                self.record,
                self._stage(rung),
                architecture,
                self.space,
                self.identity,
                estimate,
                lost=lost,
            )
            rows.append((architecture, rung, estimate))
        return rows

    def _at_rung(self, estimate: Estimate, rung: int) -> Estimate:
        """The same, with its accuracy as that of a training that was not finished."""
        reached, epochs = estimate.quality, self.rungs[rung]
        if not isinstance(reached, Accuracy) or epochs == self.rungs[-1]:
            return estimate
        reason = (
            f"stopped by successive halving after {epochs} of {self.rungs[-1]} epochs at "
            f"{reached.top1:.2%}"
        )
        return Estimate(Stopped(reason, reached, epochs), estimate.seconds, estimate.curve)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.__exit__()
            self._pool = None
