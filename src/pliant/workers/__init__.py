"""Independent jobs on several workers: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.workers.choose import open_workers as open_workers
    from pliant.workers.choose import parse_workers as parse_workers
    from pliant.workers.pool import InProcess as InProcess
    from pliant.workers.pool import WorkerPool as WorkerPool
    from pliant.workers.processes import Processes as Processes
    from pliant.workers.ray_cluster import RayWorkers as RayWorkers
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "choose": ["open_workers", "parse_workers"],
            "pool": ["InProcess", "WorkerPool"],
            "processes": ["Processes"],
            "ray_cluster": ["RayWorkers"],
        },
    )
