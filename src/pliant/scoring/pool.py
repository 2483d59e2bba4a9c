"""Score networks on all cores: a process a core, one network at a time in each, on one thread.

Networks are small, and threads that share cores cost more than they give. For one machine the standard library's process pool is
enough; it needs no further package. Processes are spawned, since forking a program that holds PyTorch's threads can lock up.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pliant.devices.measure import available_processors
from pliant.errors import MeasurementError, PliantError
from pliant.metrics import Failed, Quality, Score
from pliant.scoring.inputs import Batch, Subjects
from pliant.spaces.architecture import Architecture
from pliant.training.allocator import keep_freed_memory, trim_freed_memory


class Scored(Protocol):
    """What a score of one network came to."""

    @property
    def value(self) -> float:
        """Higher is better."""
        ...

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the score draws at random: between which values it lies."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def notes(self) -> Any:
        """What a reader of the figure must know."""
        ...


class Scorer(Protocol):
    """A function that scores a network by several methods; it stands at the top of a module, so that it travels to other processes."""

    def __call__(
        self,
        network: nn.Module,
        names: Sequence[str],
        images: Tensor,
        labels: Tensor | None,
        *,
        seed: int,
    ) -> Mapping[str, Scored | Failed]:
        """One result a name."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One network by one method: a score, or why there is none."""

    architecture: str
    method: str
    score: float | None = None
    """Higher is better; None where it failed."""
    low: float | None = None
    """Interval of the score over its own random draws, where it has one."""
    high: float | None = None
    seconds: float | None = None
    notes: str = ""
    failure: str | None = None

    @property
    def quality(self) -> Quality:
        """The score or the failure."""
        return Failed(self.failure or "no score") if self.score is None else Score(self.score)


Job = tuple[str, tuple[str, ...]]
"""A network's name, and the methods."""


@dataclass(frozen=True)
class Worker:
    """Scores networks one by one; the same in every process.

    Args:
        subjects: where the networks come from.
        batch: the images that are shown to all of them.
        scorer: what scores.
        seed: of the weights and of the scores' own draws.
    """

    subjects: Subjects
    batch: Batch
    scorer: Scorer
    seed: int = 0

    def __call__(self, job: Job) -> list[Row]:
        """The rows of a network, one a method."""
        name, methods = job
        # Fresh weights come from PyTorch's global state, which is put back as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                network = self.subjects.network(name)
            except PliantError as error:
                return [Row(name, method, failure=str(error)) for method in methods]
            images = torch.from_numpy(self.batch.images)
            labels = None if self.batch.labels is None else torch.from_numpy(self.batch.labels)
            found = self.scorer(network, methods, images, labels, seed=self.seed)
        trim_freed_memory()  # every network has activations of other sizes
        return [_row(name, method, found[method]) for method in methods]


def _row(name: str, method: str, found: Scored | Failed) -> Row:
    if isinstance(found, Failed):
        return Row(name, method, failure=found.reason)
    if found.value != found.value:
        return Row(name, method, seconds=found.seconds, failure="the score is not a number")
    low, high = found.interval or (None, None)
    notes = found.notes if isinstance(found.notes, str) else "; ".join(map(str, found.notes or ()))
    return Row(name, method, float(found.value), low, high, found.seconds, notes)


class ScorePool:
    """A worker in every process. A context manager.

    Args:
        processes: one a core where None; with 1, this process does the work.
    """

    def __init__(self, worker: Worker, processes: int | None = None) -> None:
        self.worker = worker
        self.processes = processes or len(available_processors())
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScorePool:
        if self.processes > 1:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.processes, mp_context=spawn, initializer=_begin, initargs=(self.worker,)
            )
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def score(self, jobs: Sequence[Job]) -> Iterator[list[Row]]:
        """The rows of each job, in the order in which they are done.

        Raises:
            MeasurementError: a process was ended from outside.
        """
        if self._pool is None:
            with _one_thread():
                for job in jobs:
                    yield self.worker(job)
            return
        try:
            for done in as_completed([self._pool.submit(_work, job) for job in jobs]):
                yield done.result()
        except BrokenProcessPool as error:
            raise MeasurementError(
                f"each of {self.processes} processes scores networks until the end; one was ended from outside, often for want of memory. "
                "Use fewer with --processes, or fewer --images; what was recorded is kept, and the same command goes on."
            ) from error


class ScoreEstimator:
    """One zero-shot method as an estimator."""

    def __init__(self, pool: ScorePool, method: str) -> None:
        self.pool = pool
        self.method = method

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """One score per architecture, all of them side by side."""
        rows = {
            row.architecture: row
            for done in self.pool.score([(str(one), (self.method,)) for one in architectures])
            for row in done
        }
        return [rows[str(one)].quality for one in architectures]


_worker: Callable[[Job], list[Row]] | None = None


def _begin(worker: Worker) -> None:
    """What a process does before its first job."""
    global _worker
    _worker = worker
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its children, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(job: Job) -> list[Row]:
    assert _worker is not None
    return _worker(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums in the same order as in a process of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
