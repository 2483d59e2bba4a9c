"""Workers that are processes of this machine.

Processes are spawned, since forking a program that holds the threads of PyTorch can deadlock. The
pool of the standard library ends as a whole when one of its processes is killed, so each process
has a pipe of its own here.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler

from pliant.child import started_safely
from pliant.errors import RecipeError
from pliant.workers.pool import Done, Job, Lost, MakeWork, WorkerPool, is_out_of_memory

SECONDS_TO_END = 5.0


class _Worker:
    """A process and this end of its pipe."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe


class Processes(WorkerPool[_Worker]):
    """Processes of this machine, one job at a time in each.

    Args:
        make: makes the work inside each process; picklable.
        size: number of processes.

    Raises:
        RecipeError: `make` cannot be sent to another process.
    """

    def __init__(self, make: MakeWork, size: int) -> None:
        super().__init__(make, size)
        try:
            ForkingPickler.dumps(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RecipeError(
                f"networks and scores are sent to {size} processes, and these cannot be: {error}. "
                "Name them as file.py:NAME, define them at the top of a module, or use one process."
            ) from error

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self.make, theirs), daemon=True)
        with started_safely():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _send(self, worker: _Worker, job: Job) -> None:
        try:
            worker.pipe.send(job)
        except OSError:  # it died while idle, which `_wait` will see
            return

    def _wait(self) -> list[tuple[_Worker, Done | Lost]]:
        ready = wait([worker.pipe for worker in self._running])
        return [(worker, self._outcome(worker)) for worker in self._running if worker.pipe in ready]

    def _outcome(self, worker: _Worker) -> Done | Lost:
        try:
            found = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(SECONDS_TO_END)
            return Lost(f"its process died with exit code {worker.process.exitcode}")
        if isinstance(found, BaseException):
            raise found
        assert isinstance(found, Done | Lost)
        return found

    def _stop(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.join(SECONDS_TO_END)
        worker.process.close()


def _serve(make: MakeWork, pipe: Connection) -> None:
    """The life of a process: make the work, then answer jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it and stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = make()
    except Exception as error:
        pipe.send(error)
        return
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(Done(work(job)))
        except Exception as error:
            pipe.send(Lost(f"out of memory: {error}") if is_out_of_memory(error) else error)


def _end_with_parent() -> None:
    """A killed parent cannot stop its children, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
