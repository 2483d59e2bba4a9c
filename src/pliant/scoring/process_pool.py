"""Score networks on all cores: one process per core, one network at a time in each, on one thread.

Networks are small, and threads that share one cost more than they save. For one machine the process
pool of the standard library is enough. Processes are spawned, since forking a program that holds
the threads of PyTorch can deadlock.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pliant.child import started_safely
from pliant.devices.measure import available_processors
from pliant.errors import MeasurementError, PliantError, RecipeError
from pliant.metrics import Failed, Quality, Score
from pliant.scoring.images import Batch
from pliant.scoring.networks import NetworkSource
from pliant.spaces.architecture import Architecture
from pliant.training.allocator import keep_freed_memory, trim_freed_memory


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


def _require_sendable(worker: Worker, processes: int) -> None:
    try:
        ForkingPickler.dumps(worker)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RecipeError(
            f"networks and scores are sent to {processes} processes, and these cannot be: {error}. "
            "Name them as file.py:NAME, define them at the top of a module, or use one process."
        ) from error


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
    """A worker in every process. A context manager.

    Args:
        worker: scores one network.
        processes: one per core where None; with 1, this process does the work.

    Raises:
        RecipeError: networks or scores that cannot be sent to other processes.
    """

    def __init__(self, worker: Worker, processes: int | None = None) -> None:
        self.worker = worker
        self.processes = processes or len(available_processors())
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScorePool:
        if self.processes > 1:
            _require_sendable(self.worker, self.processes)
            spawn = multiprocessing.get_context("spawn")
            with started_safely():  # the pool's locks start a process, too
                self._pool = ProcessPoolExecutor(
                    self.processes,
                    mp_context=spawn,
                    initializer=_start_process,
                    initargs=(self.worker,),
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if self._pool is not None:
            if kind is not None:  # nobody waits for the networks that are being scored
                for process in list((self._pool._processes or {}).values()):
                    process.kill()
            self._pool.shutdown(cancel_futures=True)

    def score(self, jobs: Sequence[Job]) -> Iterator[list[ScoreRow]]:
        """The rows of each job, in the order in which they finish.

        Raises:
            MeasurementError: a process was killed.
        """
        if self._pool is None:
            with _one_thread():
                for job in jobs:
                    yield self.worker(job)
            return
        try:
            with started_safely():
                submitted = [self._pool.submit(_work, job) for job in jobs]
            for done in as_completed(submitted):
                yield done.result()
        except BrokenProcessPool as error:
            raise MeasurementError(
                f"one of {self.processes} processes was killed while it scored networks, often for "
                "lack of memory. Use fewer with --processes, or fewer --images; the same command "
                "resumes from what was recorded."
            ) from error


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


_worker: Callable[[Job], list[ScoreRow]] | None = None


def _start_process(worker: Worker) -> None:
    """Prepares a process for its jobs."""
    global _worker
    _worker = worker
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it and stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its children, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(job: Job) -> list[ScoreRow]:
    assert _worker is not None
    return _worker(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums in the same order as in a subprocess."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
