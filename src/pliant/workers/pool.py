"""What every pool of workers does: queue jobs, collect results, and survive workers that do not.

A worker is made once by a function that is sent to it, and then takes one job after the other. A
worker that dies, or runs out of memory, costs its job, which is tried once more on another worker;
the second time the job has failed and the others go on. Errors that are neither end the program,
since they are mistakes in the code. The results are kept by the caller: workers write nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pliant.errors import MeasurementError
from pliant.metrics import Failed

Job = Any
"""Small, and picklable where workers are other processes."""
Work = Callable[[Job], Any]
"""What a worker does; its result is picklable, too."""
MakeWork = Callable[[], Work]
"""Makes it inside the worker, where data and weights are then loaded once."""

W = TypeVar("W")
"""A pool's own handle of one of its workers."""

ATTEMPTS = 2
"""Workers on which a job is tried."""
MAX_LOSSES_BEFORE_A_RESULT = 4


@dataclass(frozen=True, slots=True)
class Done:
    """A job's result."""

    result: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """A job without a result, since its worker died or ran out of memory."""

    reason: str


@dataclass(slots=True)
class _Attempt:
    job: Job
    losses: int = 0


class WorkerPool(ABC, Generic[W]):
    """Workers of one kind; a context manager, which ends them.

    Args:
        make: makes the work inside each worker.
        size: number of workers.
    """

    def __init__(self, make: MakeWork, size: int) -> None:
        self.make = make
        self.size = size
        self.losses = 0
        """How often a worker died or ran out of memory."""
        self._queue: deque[_Attempt] = deque()
        self._running: dict[W, _Attempt] = {}
        self._idle: list[W] = []
        self._results = 0

    @abstractmethod
    def _start(self) -> W:
        """A new worker; it may still be loading."""

    @abstractmethod
    def _send(self, worker: W, job: Job) -> None:
        """Give an idle worker a job."""

    @abstractmethod
    def _wait(self) -> list[tuple[W, Done | Lost]]:
        """Outcomes of running jobs, at least one; a mistake in the code is raised."""

    @abstractmethod
    def _stop(self, worker: W) -> None:
        """End a worker, whatever it does."""

    def __enter__(self) -> WorkerPool[W]:
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in [*self._idle, *self._running]:
            self._stop(worker)
        self._idle.clear()
        self._running.clear()

    @property
    def pending(self) -> int:
        """Jobs that were submitted and have no result yet."""
        return len(self._queue) + len(self._running)

    @property
    def free(self) -> int:
        """Workers that wait for a job."""
        return max(0, self.size - self.pending)

    def submit(self, job: Job) -> None:
        """Add a job; it begins when a worker is free."""
        self._queue.append(_Attempt(job))
        self._assign()

    def _assign(self) -> None:
        while self._queue and len(self._running) < self.size:
            worker = self._idle.pop() if self._idle else self._start()
            attempt = self._queue.popleft()
            self._running[worker] = attempt
            self._send(worker, attempt.job)

    def finished(self) -> Iterator[tuple[Job, Any]]:
        """Wait, then yield (job, result) of those that finished; `Failed` where a job was lost.

        Raises:
            MeasurementError: worker after worker dies and none ever gave a result.
        """
        if not self.pending:
            return
        for worker, outcome in self._wait():
            attempt = self._running.pop(worker)
            if isinstance(outcome, Done):
                self._results += 1
                self._idle.append(worker)
                yield attempt.job, outcome.result
                continue
            self._stop(worker)  # also where it only ran out of memory: a new one begins empty
            self.losses += 1
            self._require_hope(outcome)
            attempt.losses += 1
            if attempt.losses < ATTEMPTS:
                self._queue.appendleft(attempt)
            else:
                yield attempt.job, Failed(f"lost on {ATTEMPTS} workers, at last: {outcome.reason}")
        self._assign()

    def _require_hope(self, outcome: Lost) -> None:
        if not self._results and self.losses >= MAX_LOSSES_BEFORE_A_RESULT:
            raise MeasurementError(
                f"workers give results; {self.losses} were lost before the first one, at last: "
                f"{outcome.reason}. Use fewer workers, or give them more memory."
            )

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """(job, result) of every job, in the order in which they finish."""
        for job in jobs:
            self.submit(job)
        while self.pending:
            yield from self.finished()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was missing; PyTorch says so by a RuntimeError."""
    name, text = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "allocate memory" in text


class InProcess(WorkerPool[int]):
    """This process as the only worker."""

    def __init__(self, make: MakeWork) -> None:
        super().__init__(make, 1)
        self._work: Work | None = None
        self._job: Job = None

    def _start(self) -> int:
        self._work = self.make()
        return 0

    def _send(self, worker: int, job: Job) -> None:
        self._job = job

    def _wait(self) -> list[tuple[int, Done | Lost]]:
        assert self._work is not None
        try:
            return [(0, Done(self._work(self._job)))]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return [(0, Lost(f"out of memory: {error}"))]

    def _stop(self, worker: int) -> None:
        self._work = None
