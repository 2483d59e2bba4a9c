"""Measures the latency of ONNX models on this machine, with an estimate of its uncertainty.

All models are timed in interleaved rounds, in a new random order every round, so that interference
affects them alike. A fixed anchor network, timed several times per round, corrects for slow drift.
With one thread the latency is the thread's CPU time, which other programs on a busy machine hardly
affect; with more it is wall-clock time. A model is no longer timed once its estimate has converged.
Results that are not repeatable raise an error.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from pliant.child import run_python
from pliant.devices.runtimes import runtime_named
from pliant.devices.runtimes.runtime import Session
from pliant.devices.timings import (
    Measurement,
    Sample,
    Settings,
    Timings,
    detrend,
    has_converged,
    reference_time,
    require_repeatable,
    summarise,
    timings_of,
)
from pliant.errors import MeasurementError
from pliant.networks.onnx import IR_VERSION, OPSET, block_model
from pliant.spaces.convolutional_blocks import ConvBlock

resource = importlib.import_module("resource") if importlib.util.find_spec("resource") else None
"""Missing on Windows, which does not report context switches of a thread."""

ANCHORS_PER_ROUND = 7
"""The noise of a single anchor timing would enter every result; the median of several is stable."""
ANCHOR_SAMPLES = 3
"""Runs per anchor timing, of which the fastest is kept."""
ATTEMPTS = 3
"""Noise comes in bursts: a measurement that is not repeatable is retried before it is refused."""
MAX_OPEN_BYTES = 256 * 2**20
"""Total size of the models that are open at once; a session needs a few times its model's size."""


def time_session(session: Session, repeats: int) -> Sample:
    """CPU and wall time per run, averaged over `repeats` runs."""
    before = _involuntary_context_switches()
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        session.run()
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return cpu / repeats / 1e3, wall / repeats / 1e3, _involuntary_context_switches() > before


def _involuntary_context_switches() -> int:
    """Of this thread so far; of the whole process where the system does not count by thread."""
    if resource is None:
        return 0
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nivcsw


def collect(
    models: Mapping[str, bytes],
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timings]:
    """Time all models in interleaved rounds and correct the timings for drift.

    Args:
        models: serialised ONNX models by name.
        settings: of the runs and of the timings.
        seed: of the order in which models are timed.
        progress: called with the number of rounds done and the maximum number of rounds.

    Returns:
        Timings by name, in the order of `models`.

    Raises:
        MeasurementError: more threads than this process has processors.
    """
    processors = len(available_processors())
    if settings.threads > processors:
        raise MeasurementError(
            f"each thread needs a processor; {settings.threads} threads were requested, "
            f"{processors} may be used. Set fewer threads."
        )
    rng = np.random.default_rng(seed)
    groups = _groups(models, rng)
    total = len(groups) * settings.rounds
    parts = []
    with _quiet(), runtime_named(settings.runtime).prepared(settings):
        for index, group in enumerate(groups):
            start = index * settings.rounds
            parts.append(
                _interleave(group, settings, rng, partial(_advance, progress, start, total))
            )
    reference = reference_time([anchor for _, anchor in parts]) if parts else (1.0, 1.0)
    found = {
        name: detrend(timings, anchor, reference)
        for part, anchor in parts
        for name, timings in part.items()
    }
    return {name: found[name] for name in models}


def _advance(progress: Callable[[int, int], None], start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _groups(models: Mapping[str, bytes], rng: np.random.Generator) -> list[dict[str, bytes]]:
    """Models in random order, in groups that fit into memory together."""
    groups: list[dict[str, bytes]] = []
    names = list(models)
    size = MAX_OPEN_BYTES
    for index in rng.permutation(len(names)):
        name = names[index]
        size += len(models[name])
        if size > MAX_OPEN_BYTES:
            groups.append({})
            size = len(models[name])
        groups[-1][name] = models[name]
    return groups


def _interleave(
    models: Mapping[str, bytes],
    settings: Settings,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> tuple[dict[str, Timings], Timings]:
    """Time models in rounds until each has converged.

    Args:
        models: serialised ONNX models by name, which fit into memory together.
        settings: of the runs and of the timings.
        rng: draws the order within each round.
        progress: called with the number of rounds done.

    Returns:
        Timings by name, and those of the anchor, of shape (rounds, ANCHORS_PER_ROUND).
    """
    runtime = runtime_named(settings.runtime)
    sessions = {name: runtime.open(model, settings) for name, model in models.items()}
    anchor = runtime.open(anchor_model(), settings)
    repeats = {name: _repeats(session, settings) for name, session in sessions.items()}
    anchor_repeats = _repeats(anchor, settings)
    rows: dict[str, list[list[Sample]]] = {name: [] for name in sessions}
    anchor_rows: list[list[Sample]] = []
    for number in range(settings.rounds):
        open_names = [
            name
            for name in sessions
            if number < settings.min_rounds or not has_converged(timings_of(rows[name]), settings)
        ]
        if not open_names:
            break
        anchor_rows.append([])
        # Anchor timings are spread over the round, between parts of the models.
        for part in np.array_split(rng.permutation(len(open_names)), ANCHORS_PER_ROUND):
            anchor_rows[-1].append(_fastest(_sample(anchor, anchor_repeats, ANCHOR_SAMPLES)))
            for index in part:
                name = open_names[index]
                rows[name].append(_sample(sessions[name], repeats[name], settings.samples))
        progress(number + 1)
    return {name: timings_of(rows[name], repeats[name]) for name in sessions}, timings_of(
        anchor_rows, anchor_repeats
    )


def _fastest(rows: Sequence[Sample]) -> Sample:
    cpu, wall, interrupted = zip(*rows, strict=True)
    return min(cpu), min(wall), any(interrupted)


def _sample(session: Session, repeats: int, samples: int) -> list[Sample]:
    session.run()  # warm-up: another model has used the caches
    return [time_session(session, repeats) for _ in range(samples)]


def collect_repeatable(
    models: Mapping[str, bytes],
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timings]:
    """Call `collect`, with twice the rounds each time that the results are not repeatable.

    Args:
        models: serialised ONNX models by name.
        settings: of the first attempt.
        seed: of the first attempt; each further one adds 1.
        progress: called with the number of rounds done and the maximum number of rounds.

    Returns:
        Timings by name; those of the last attempt even if they are not repeatable either.
    """
    for attempt in range(ATTEMPTS):
        patient = replace(
            settings,
            min_rounds=settings.min_rounds << attempt,
            rounds=settings.rounds << attempt,
        )
        timings = collect(models, patient, seed=seed + attempt, progress=progress)
        try:
            require_repeatable(
                {name: summarise(raw, settings) for name, raw in timings.items()}, settings
            )
        except MeasurementError:
            continue
        break
    return timings


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
        settings: of the runs and of the timings.
        seed: of the order in which models are timed.
        progress: called with the number of rounds done and the maximum number of rounds.
        refuse: raise where the result is too noisy; otherwise the caller checks the split-half
            error of each measurement.

    Raises:
        MeasurementError: more than one model in ten has a split-half error above the limit.
    """
    gather = collect_repeatable if refuse else collect
    found = {
        name: summarise(timings, settings)
        for name, timings in gather(models, settings, seed=seed, progress=progress).items()
    }
    if refuse:
        require_repeatable(found, settings)
    return found


def anchor_model() -> bytes:
    """A small fixed convolution, timed in every measurement as the reference for drift."""
    block = ConvBlock(slot="anchor", size=16, inputs=32, outputs=64, kernel=3)
    return block_model(block, np.random.default_rng(0)).SerializeToString()


def empty_model() -> bytes:
    """A model that does nothing: its latency is the dispatch overhead of the runtime."""
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["image"], ["same"])
    source, target = (value(name, onnx.TensorProto.FLOAT, [1]) for name in ("image", "same"))
    graph = onnx.helper.make_graph([node], "call", [source], [target])
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION
    ).SerializeToString()


def convolution_peak_gflops(settings: Settings) -> float:
    """Highest throughput of 3x3 convolutions in this runtime, counting 2 operations per MAC.

    It is the compute roof of a roofline model for networks of convolutions.
    """
    blocks = [
        ConvBlock(slot=f"peak{size}", size=size, inputs=width, outputs=width)
        for size, width in ((56, 64), (28, 128), (14, 256))
    ]
    models = {
        block.slot: block_model(block, np.random.default_rng(0)).SerializeToString()
        for block in blocks
    }
    found = measure(models, settings, seed=0, refuse=False)
    return max(2 * block.cost.macs / (found[block.slot].latency_ms * 1e6) for block in blocks)


def _repeats(session: Session, settings: Settings) -> int:
    for _ in range(3):
        session.run()
    once = min(time_session(session, 3)[1] for _ in range(3))
    return max(1, round(settings.sample_us / max(once, 1.0)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Garbage collection is off while models are timed."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def available_processors() -> set[int]:
    """Numbers of the processors that this process may use."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def measuring_processor(settings: Settings) -> int | None:
    """The processor to measure on, or None with more than one thread.

    It is the last one: operating systems tend to run their own work on the first.
    """
    return max(available_processors()) if settings.threads == 1 else None


@contextmanager
def pinned(cpu: int | None) -> Iterator[bool]:
    """Pin this process to one processor; yields whether the system permits it."""
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


def measure_in_subprocess(path: Path, settings: Settings) -> Measurement:
    """Latency of one ONNX file, measured in a subprocess with a fresh heap and fresh caches.

    Raises:
        MeasurementError: the subprocess fails; the message quotes its last line.
    """
    done = run_python(_MEASURE_FILE, str(path.resolve()), json.dumps(asdict(settings)))
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise MeasurementError(f"{path} is measured in a subprocess, which failed: {last}")
    return Measurement(**json.loads(done.stdout))


_MEASURE_FILE = """
import sys
from pliant.devices.measure import measure_file_here
sys.stdout.write(measure_file_here(*sys.argv[1:]))
"""


def measure_file_here(path: str, settings: str) -> str:
    """A measurement in this process, as JSON; what the subprocess does."""
    given = Settings(**json.loads(settings))
    with pinned(measuring_processor(given)):
        [found] = measure({"model": Path(path).read_bytes()}, given, seed=0).values()
    return json.dumps(asdict(found))
