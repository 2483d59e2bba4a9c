"""From `--workers` to a pool."""

from __future__ import annotations

import os

from pliant.errors import RecipeError
from pliant.workers.pool import InProcess, MakeWork, WorkerPool
from pliant.workers.processes import Processes

AnyWorkers = int | str | None
"""A number of processes of this machine (0 for this process itself), `ray`, `ray://HEAD:10001`,
`HEAD:6379`; None for one process per core."""


def parse_workers(text: AnyWorkers) -> AnyWorkers:
    """What `--workers` means, before anything is started.

    Raises:
        RecipeError: neither a number nor an address.
    """
    if text is None or isinstance(text, int):
        return text
    if text.isdecimal():
        return int(text)
    host, colon, port = text.removeprefix("ray://").rpartition(":")
    if text == "ray" or (host and colon and port.isdecimal()):
        return text
    raise RecipeError(
        f"workers are a number of processes, or a Ray cluster as ray://HEAD:10001; received "
        f"{text!r}."
    )


def require_workers(workers: AnyWorkers) -> AnyWorkers:
    """The same workers, if there are any: asked before what takes long, without starting one.

    Raises:
        RecipeError: neither a number nor an address, or Ray is not installed.
        PliantError: a cluster that cannot be reached.
    """
    chosen = parse_workers(workers)
    if isinstance(chosen, str):
        from pliant.workers.ray_cluster import require_cluster

        require_cluster(chosen)
    return chosen


def open_workers(make: MakeWork, workers: AnyWorkers = None) -> WorkerPool:
    """The pool that `--workers` names.

    Args:
        make: makes the work inside each worker.
        workers: as of `AnyWorkers`.

    Raises:
        RecipeError: neither a number nor an address, or Ray is not installed.
        PliantError: a cluster that cannot be reached.
    """
    chosen = parse_workers(workers)
    if isinstance(chosen, str):
        from pliant.workers.ray_cluster import RayWorkers

        return RayWorkers(make, chosen)
    if chosen == 0:
        return InProcess(make)
    return Processes(make, chosen or _cores())


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
