"""How long does an ONNX model take on this machine, and how sure are we?

All models are timed in turn, in a new order every round, so that whatever disturbs the machine hits them alike; a fixed anchor
network in each round takes slow drift out. With one thread the time is the thread's CPU time, which other programs on a busy
machine hardly touch; with more it is wall time. A spread that is too wide is an error, not a number.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from pliant.errors import MeasurementError
from pliant.networks.onnx import block_model
from pliant.spaces.blocks import ConvBlock

Optimisation = Literal["basic", "extended", "all"]
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are run and timed. The first three are part of what is measured, the others of how well."""

    threads: int = 1
    batch: int = 1
    optimisation: Optimisation = "all"
    rounds: int = 9
    samples: int = 5
    """Timings of a model in a round."""
    sample_us: float = 1500.0
    """A timing repeats the model until it takes about this long, so that short ones are timed as well as long ones."""
    noise_limit: float = 0.05
    """Largest split-half error of a result that is not refused."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one model for one batch."""

    latency_ms: float
    spread_ms: float
    """Half the range between the quartiles of the rounds."""
    split_half_error: float
    """Relative difference between the estimates of the even and of the odd rounds."""
    runs: int
    preempted_share: float
    """Share of timings in which the system gave the processor to another program."""
    source: Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Raw times of one model, shape (rounds, samples), of one run each."""

    cpu_us: np.ndarray
    wall_us: np.ndarray
    preempted: np.ndarray
    repeats: int
    """Runs behind each timing."""


class Session:
    """A model ready to run with random input."""

    def __init__(self, model: bytes, settings: Settings) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = LEVELS[settings.optimisation]
        options.log_severity_level = 3
        # Threads that spin while they wait would be counted as work, and slow down everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        source = self._session.get_inputs()[0]
        shape = [size if isinstance(size, int) else settings.batch for size in source.shape]
        image = np.random.default_rng(0).random(shape, dtype=np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(source.name, image)
        self._binding.bind_output(self._session.get_outputs()[0].name)

    def run(self) -> None:
        """One inference."""
        self._session.run_with_iobinding(self._binding)


def time_session(session: Session, repeats: int) -> tuple[float, float, bool]:
    """CPU and wall time of one run in microseconds, averaged over repeats, and whether another program came between."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        session.run()
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    preempted = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw > before
    return cpu / repeats / 1e3, wall / repeats / 1e3, preempted


def collect(
    models: Mapping[str, bytes], settings: Settings, *, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Timings]:
    """Time all models in interleaved rounds, with an anchor whose drift is divided out."""
    anchor_name = "\0anchor"
    sessions = {name: Session(model, settings) for name, model in models.items()}
    sessions[anchor_name] = Session(anchor_model(), settings)
    repeats = {name: _repeats(session, settings) for name, session in sessions.items()}
    raw: dict[str, list[list[tuple[float, float, bool]]]] = {name: [] for name in sessions}
    rng = np.random.default_rng(seed)
    with _quiet():
        for number in range(settings.rounds):
            for index in rng.permutation(len(sessions)):
                name = list(sessions)[index]
                session = sessions[name]
                session.run()  # the caches held another model
                raw[name].append([time_session(session, repeats[name]) for _ in range(settings.samples)])
            progress(number + 1, settings.rounds)
    found = {name: _timings(rows, repeats[name]) for name, rows in raw.items()}
    anchor = found.pop(anchor_name)
    return {name: without_drift(timings, anchor) for name, timings in found.items()}


def measure(
    models: Mapping[str, bytes],
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    refuse: bool = True,
) -> dict[str, Measurement]:
    """Latency of each model.

    Args:
        models: serialised ONNX models by name.
        refuse: raise where the result is too noisy; otherwise the figures say so themselves.

    Raises:
        MeasurementError: the median split-half error of the models is above the limit.
    """
    found = {name: summarise(timings, settings) for name, timings in collect(models, settings, seed=seed, progress=progress).items()}
    error = float(np.median([one.split_half_error for one in found.values()])) if found else 0.0
    if refuse and error > settings.noise_limit:
        preempted = float(np.mean([one.preempted_share for one in found.values()]))
        raise MeasurementError(
            f"two halves of a measurement agree to {settings.noise_limit:.0%}; these differ by {error:.1%} "
            f"({preempted:.0%} of the timings were interrupted by other programs). Stop what else runs on this machine and try again."
        )
    return found


def summarise(timings: Timings, settings: Settings) -> Measurement:
    """The estimate of one model: the lower quartile of each round, then the median over rounds.

    Interference only ever adds time, hence the lower quartile; it comes in bursts that spoil whole rounds, hence the median.
    """
    by_cpu = settings.threads == 1
    rounds = np.quantile(timings.cpu_us if by_cpu else timings.wall_us, 0.25, axis=1) / 1e3
    latency_ms = float(np.median(rounds))
    halves = (float(np.median(rounds[0::2])), float(np.median(rounds[1::2]))) if len(rounds) > 1 else (latency_ms, latency_ms)
    low, high = np.quantile(rounds, [0.25, 0.75])
    return Measurement(
        latency_ms=latency_ms,
        spread_ms=float(high - low) / 2,
        split_half_error=abs(halves[0] - halves[1]) / latency_ms,
        runs=timings.cpu_us.size * timings.repeats,
        preempted_share=float(timings.preempted.mean()),
        source="cpu" if by_cpu else "wall",
    )


def without_drift(timings: Timings, anchor: Timings) -> Timings:
    """Times divided by how much slower than usual the anchor was in the same round."""

    def steady(times: np.ndarray, reference: np.ndarray) -> np.ndarray:
        by_round = np.median(reference, axis=1)
        return times / (by_round / np.median(by_round))[:, None]

    return Timings(steady(timings.cpu_us, anchor.cpu_us), steady(timings.wall_us, anchor.wall_us), timings.preempted, timings.repeats)


def anchor_model() -> bytes:
    """A small fixed convolution that every measurement times along."""
    block = ConvBlock(slot="anchor", size=16, inputs=32, outputs=64, kernel=3)
    return block_model(block, np.random.default_rng(0)).SerializeToString()


def convolution_peak_gflops(settings: Settings) -> float:
    """Highest rate of plain 3x3 convolutions in this runtime, 2 floating-point operations a MAC: the roof that networks run under."""
    blocks = [ConvBlock(slot=f"peak{size}", size=size, inputs=width, outputs=width) for size, width in ((56, 64), (28, 128), (14, 256))]
    models = {block.slot: block_model(block, np.random.default_rng(0)).SerializeToString() for block in blocks}
    found = measure(models, settings, seed=0, refuse=False)
    return max(2 * block.cost.macs / (found[block.slot].latency_ms * 1e6) for block in blocks)


def _repeats(session: Session, settings: Settings) -> int:
    for _ in range(3):
        session.run()
    once = min(time_session(session, 3)[1] for _ in range(3))
    return max(1, round(settings.sample_us / max(once, 1.0)))


def _timings(rows: list[list[tuple[float, float, bool]]], repeats: int) -> Timings:
    table = np.array(rows, dtype=np.float64)
    return Timings(table[..., 0], table[..., 1], table[..., 2], repeats)


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection while the clock runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def pinned(cpu: int | None) -> Iterator[bool]:
    """Run on one processor where the system permits; says whether it does."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


def _measure_file(path: str, settings: str) -> str:
    """One model, measured here; for a process of its own, started as `python -m pliant.devices.measure MODEL SETTINGS`."""
    given = Settings(**json.loads(settings))
    cpu = max(os.sched_getaffinity(0)) if given.threads == 1 and hasattr(os, "sched_getaffinity") else None
    with pinned(cpu):
        [found] = measure({"model": Path(path).read_bytes()}, given, seed=0).values()
    return json.dumps(asdict(found))


if __name__ == "__main__":
    sys.stdout.write(_measure_file(*sys.argv[1:]))
