"""Score networks on all cores: one process per core, one network at a time in each, on one thread.

Networks are small, and threads that share one cost more than they save.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pliant.devices.measure import available_processors
from pliant.errors import PliantError
from pliant.metrics import Failed, Quality, Score
from pliant.scoring.images import Batch
from pliant.scoring.networks import NetworkSource
from pliant.spaces.architecture import Architecture
from pliant.training.allocator import keep_freed_memory, trim_freed_memory
from pliant.workers import WorkerPool, open_workers
from pliant.workers.choose import AnyWorkers


class Scored(Protocol):
    """One network by one score."""

    @property
    def value(self) -> float:
        """Higher is better."""
        ...

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval over the random draws of the score; None where it draws nothing."""
        ...

    @property
    def seconds(self) -> float:
        """CPU time."""
        ...

    @property
    def notes(self) -> Any:
        """What a reader of the number must know."""
        ...


class Scorer(Protocol):
    """Scores a network by several methods; it can be sent to other processes."""

    def __call__(
        self,
        network: nn.Module,
        names: Sequence[str],
        images: Tensor,
        labels: Tensor | None,
        *,
        seed: int,
    ) -> Mapping[str, Scored | Failed]:
        """One result per name."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One network by one method: a score, or why there is none."""

    architecture: str
    method: str
    score: float | None = None
    """Higher is better; None where it failed."""
    low: float | None = None
    """95 % interval over the random draws of the score, where it has one."""
    high: float | None = None
    seconds: float | None = None
    notes: str = ""
    failure: str | None = None

    @property
    def quality(self) -> Quality:
        """The score or the failure."""
        return Failed(self.failure or "no score") if self.score is None else Score(self.score)


Job = tuple[str, tuple[str, ...]]
"""The name of a network, and the names of the methods."""


@dataclass(frozen=True)
class Worker:
    """Scores networks one by one; the same in every process.

    Args:
        networks: where they come from.
        batch: the images that all of them are shown.
        scorer: computes the scores.
        seed: of the weights and of everything that the scores draw.
    """

    networks: NetworkSource
    batch: Batch
    scorer: Scorer
    seed: int = 0

    def __call__(self, job: Job) -> list[ScoreRow]:
        """The rows of a network, one per method."""
        name, methods = job
        # New weights are drawn from PyTorch's global random state, which is restored.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                network = self.networks.network(name)
            except PliantError as error:
                return [ScoreRow(name, method, failure=str(error)) for method in methods]
            images = torch.from_numpy(self.batch.images)
            labels = None if self.batch.labels is None else torch.from_numpy(self.batch.labels)
            found = self.scorer(network, methods, images, labels, seed=self.seed)
        trim_freed_memory()  # every network has activations of other sizes
        return [_row(name, method, found[method]) for method in methods]


def _row(name: str, method: str, found: Scored | Failed) -> ScoreRow:
    if isinstance(found, Failed):
        return ScoreRow(name, method, failure=found.reason)
    if not found.value < math.inf:  # NaN, or an overflow that would rank first
        return ScoreRow(
            name,
            method,
            seconds=found.seconds,
            failure=f"{method} returned {found.value}, which is no score",
        )
    low, high = found.interval or (None, None)
    notes = found.notes if isinstance(found.notes, str) else "; ".join(map(str, found.notes or ()))
    return ScoreRow(name, method, float(found.value), low, high, found.seconds, notes)


class ScorePool:
    """A worker in every process, or in every actor of a Ray cluster. A context manager.

    Args:
        worker: scores one network.
        workers: how many processes, one per core where None; with 0 or 1, this process works.
            Or the address of a Ray cluster, as `pliant.workers.open_workers` takes it.

    Raises:
        RecipeError: networks or scores that cannot be sent to other processes.
        PliantError: a cluster that cannot be reached.
    """

    def __init__(self, worker: Worker, workers: AnyWorkers = None) -> None:
        self.worker = worker
        cores = len(available_processors())
        self._workers: AnyWorkers = cores if workers is None else workers or 1
        self._pool: WorkerPool | None = None

    def __enter__(self) -> ScorePool:
        if self._workers != 1:
            self._pool = open_workers(partial(_start, self.worker), self._workers)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.__exit__(*raised)

    def score(self, jobs: Sequence[Job]) -> Iterator[list[ScoreRow]]:
        """The rows of each job, in the order in which they finish.

        A network whose worker dies is scored once more on another one, then its rows are failures.

        Raises:
            MeasurementError: worker after worker dies.
        """
        if self._pool is None:
            with _one_thread():
                for job in jobs:
                    yield self.worker(job)
            return
        for job, found in self._pool.run(jobs):
            name, methods = job
            if isinstance(found, Failed):
                yield [ScoreRow(name, method, failure=found.reason) for method in methods]
            else:
                yield found


class ScoreEstimator:
    """One zero-shot method as an estimator."""

    def __init__(self, pool: ScorePool, method: str) -> None:
        self.pool = pool
        self.method = method

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """One score per architecture, all processes at work."""
        rows = {
            row.architecture: row
            for done in self.pool.score([(str(one), (self.method,)) for one in architectures])
            for row in done
        }
        return [rows[str(one)].quality for one in architectures]


def _start(worker: Worker) -> Worker:
    """Prepares another process for its jobs."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return worker


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums in the same order as in a subprocess."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
