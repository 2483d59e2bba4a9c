"""Workers that are actors of a Ray cluster, or of a Ray that is started on this machine.

Each actor holds one CPU of the cluster. Pliant and the images must be on every node, the images at
the same path; weights are sent. Moritz, P. et al., Ray: a distributed framework for emerging AI
applications, 2018, arXiv:1712.05889.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import pliant
from pliant.errors import PliantError, RecipeError
from pliant.workers.pool import Done, Job, Lost, MakeWork, WorkerPool, is_out_of_memory

SECONDS_TO_CONNECT = 5.0
HERE = "ray"
"""The address that means this machine: a Ray that runs here already, or one that is started."""


class RayWorkers(WorkerPool[Any]):
    """Actors of a cluster, one job at a time in each.

    Args:
        make: makes the work inside each actor; picklable.
        address: `ray://HEAD:10001`, `HEAD:6379` on a node of the cluster, or `ray` for this
            machine.
        size: number of actors; one per CPU of the cluster where None.

    Raises:
        RecipeError: Ray is not installed.
        PliantError: the cluster cannot be reached, or runs another version of Pliant.
    """

    def __init__(self, make: MakeWork, address: str = HERE, size: int | None = None) -> None:
        self._ray = _connected(address, size)
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        super().__init__(make, size or cpus)
        self._make = self._ray.put(make)
        self._running_refs: dict[Any, Any] = {}
        self._require_same_version(address)

    def _require_same_version(self, address: str) -> None:
        remote = self._ray.remote(max_retries=0)(_version)
        try:
            found = self._ray.get(remote.remote())
        except self._ray.exceptions.RayError as error:
            raise PliantError(
                f"every node of a cluster has Pliant installed; {address} answered: "
                f"{_first_line(error)}. Install pliant {pliant.__version__} there."
            ) from error
        if found != pliant.__version__:
            raise PliantError(
                f"a cluster runs the Pliant of its driver, {pliant.__version__}; {address} has "
                f"{found}. Install the same version on all nodes."
            )

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._ray.shutdown()

    def _start(self) -> Any:
        actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        return actor.remote(self._make)

    def _send(self, worker: Any, job: Job) -> None:
        self._running_refs[worker] = worker.run.remote(job)

    def _wait(self) -> list[tuple[Any, Done | Lost]]:
        refs = {ref: worker for worker, ref in self._running_refs.items()}
        ready, _ = self._ray.wait(list(refs), num_returns=1)
        found = []
        for ref in ready:
            worker = refs[ref]
            del self._running_refs[worker]
            found.append((worker, self._outcome(ref)))
        return found

    def _outcome(self, ref: Any) -> Done | Lost:
        exceptions = self._ray.exceptions
        try:
            return Done(self._ray.get(ref))
        except exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None) or error
            if is_out_of_memory(cause):
                return Lost(f"out of memory: {cause}")
            raise cause from error
        except exceptions.RayError as error:  # the actor, its node or its memory
            return Lost(_first_line(error))

    def _stop(self, worker: Any) -> None:
        self._running_refs.pop(worker, None)
        self._ray.kill(worker)


class _Actor:
    """One worker in the cluster."""

    def __init__(self, make: MakeWork) -> None:
        self._work = make()

    def run(self, job: Job) -> Any:
        return self._work(job)


def _version() -> str:
    return pliant.__version__


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def require_cluster(address: str) -> Any:
    """The module of Ray, if the port of the cluster is open.

    Raises:
        RecipeError: Ray is not installed.
        PliantError: nothing listens at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise RecipeError(
            f"workers of a cluster need Ray, received {address}. Install it with "
            "pip install 'pliant[ray]', or name a number of processes of this machine."
        ) from error
    if address != HERE:  # Ray itself tries for half a minute
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT):
                pass
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from error
    return ray


def _unreachable(address: str, error: BaseException) -> PliantError:
    return PliantError(
        f"a Ray cluster is reached at ray://HEAD:10001; {address} could not be: "
        f"{_first_line(error)}. Start it with ray start --head, or use --workers NUMBER."
    )


def _connected(address: str, size: int | None) -> Any:
    """The module of Ray, connected."""
    ray = require_cluster(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == HERE:
        options |= {"num_cpus": size, "include_dashboard": False}
    else:
        options |= {"address": address}
    if address.startswith("ray://"):
        options.pop("logging_level")
        options.pop("log_to_driver")
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises what its transport raises
        raise _unreachable(address, error) from error
    return ray
