"""How long does an ONNX model take on this machine, and how sure are we?

All models are timed in turn, in a new order every round, so that whatever disturbs the machine hits them alike; a fixed anchor
network, timed several times a round, takes slow drift out. With one thread the time is the thread's CPU time, which other
programs on a busy machine hardly touch; with more it is wall time. A model is done once its estimate has settled, and results
that do not repeat are an error, not a number.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pliant.devices.timings import (
    Measurement,
    Row,
    Settings,
    Timings,
    require_repeatable,
    settled,
    summarise,
    timings_of,
    usual_anchor,
    without_drift,
)
from pliant.errors import MeasurementError
from pliant.networks.onnx import IR_VERSION, OPSET, block_model
from pliant.spaces.blocks import ConvBlock

resource = importlib.import_module("resource") if importlib.util.find_spec("resource") else None
"""Missing on Windows, which does not say when a program was interrupted."""

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


ANCHORS_PER_ROUND = 7
"""One anchor a round would add its own noise to everything; the median of several does not."""
ANCHOR_SAMPLES = 3
ATTEMPTS = 3
"""Noise comes in bursts: what does not repeat is measured again before it is refused."""
MOST_BYTES_AT_ONCE = 256 * 2**20
"""Models that are open at the same time; a session needs a few times its model's size."""


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
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        source = self._session.get_inputs()[0]
        shape = [size if isinstance(size, int) else settings.batch for size in source.shape]
        image = np.random.default_rng(0).random(shape, dtype=np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(source.name, image)
        self._binding.bind_output(self._session.get_outputs()[0].name)

    def run(self) -> None:
        """One inference."""
        self._session.run_with_iobinding(self._binding)


def time_session(session: Session, repeats: int) -> Row:
    """One timing, averaged over repeats."""
    before = _interruptions()
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        session.run()
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return cpu / repeats / 1e3, wall / repeats / 1e3, _interruptions() > before


def _interruptions() -> int:
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
    """Time all models in interleaved rounds; drift is divided out of what is returned.

    Args:
        models: serialised ONNX models by name.
        progress: called with the rounds done and the most that there may be.

    Raises:
        MeasurementError: more threads than this process has processors.
    """
    processors = len(available_processors())
    if settings.threads > processors:
        raise MeasurementError(
            f"each thread needs a processor; {settings.threads} threads were asked for, {processors} may be used. Set fewer threads."
        )
    rng = np.random.default_rng(seed)
    groups = _groups(models, rng)
    total = len(groups) * settings.rounds
    parts = []
    with _quiet():
        for index, group in enumerate(groups):
            start = index * settings.rounds
            parts.append(
                _interleave(group, settings, rng, partial(_advance, progress, start, total))
            )
    usual = usual_anchor([anchor for _, anchor in parts]) if parts else (1.0, 1.0)
    found = {
        name: without_drift(timings, anchor, usual)
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
    size = MOST_BYTES_AT_ONCE
    for index in rng.permutation(len(names)):
        name = names[index]
        size += len(models[name])
        if size > MOST_BYTES_AT_ONCE:
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
    """Rounds over all models until each has settled, and the anchor's timings by round: shape (rounds, anchors a round)."""
    sessions = {name: Session(model, settings) for name, model in models.items()}
    anchor = Session(anchor_model(), settings)
    repeats = {name: _repeats(session, settings) for name, session in sessions.items()}
    anchor_repeats = _repeats(anchor, settings)
    rows: dict[str, list[list[Row]]] = {name: [] for name in sessions}
    anchor_rows: list[list[Row]] = []
    for number in range(settings.rounds):
        open_names = [
            name
            for name in sessions
            if number < settings.least_rounds or not settled(timings_of(rows[name]), settings)
        ]
        if not open_names:
            break
        anchor_rows.append([])
        for part in np.array_split(rng.permutation(len(open_names)), ANCHORS_PER_ROUND):
            anchor_rows[-1].append(_fastest(_sample(anchor, anchor_repeats, ANCHOR_SAMPLES)))
            for index in part:
                name = open_names[index]
                rows[name].append(_sample(sessions[name], repeats[name], settings.samples))
        progress(number + 1)
    return {name: timings_of(rows[name], repeats[name]) for name in sessions}, timings_of(
        anchor_rows, anchor_repeats
    )


def _fastest(rows: Sequence[Row]) -> Row:
    cpu, wall, interrupted = zip(*rows, strict=True)
    return min(cpu), min(wall), any(interrupted)


def _sample(session: Session, repeats: int, samples: int) -> list[Row]:
    session.run()  # the caches held another model
    return [time_session(session, repeats) for _ in range(samples)]


def collect_repeatable(
    models: Mapping[str, bytes],
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timings]:
    """As `collect`, and again with twice the rounds while the results do not repeat; after the last attempt they are given as they are."""
    for attempt in range(ATTEMPTS):
        patient = replace(
            settings,
            least_rounds=settings.least_rounds << attempt,
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
        refuse: raise where the result is too noisy; otherwise the figures say so themselves.

    Raises:
        MeasurementError: more than one model of ten has a split-half error above the limit.
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
    """A small fixed convolution that every measurement times along."""
    block = ConvBlock(slot="anchor", size=16, inputs=32, outputs=64, kernel=3)
    return block_model(block, np.random.default_rng(0)).SerializeToString()


def call_model() -> bytes:
    """A model that does nothing, so that its latency is the cost of calling the runtime once."""
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["image"], ["same"])
    source, target = (value(name, onnx.TensorProto.FLOAT, [1]) for name in ("image", "same"))
    graph = onnx.helper.make_graph([node], "call", [source], [target])
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION
    ).SerializeToString()


def convolution_peak_gflops(settings: Settings) -> float:
    """Highest rate of plain 3x3 convolutions in this runtime, 2 floating-point operations a MAC: the roof that networks run under."""
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
    """No garbage collection while the clock runs."""
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
    """The processor to measure on: the last one, since the system puts its own work on the first; None with more threads."""
    return max(available_processors()) if settings.threads == 1 else None


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


def measure_in_subprocess(path: Path, settings: Settings) -> Measurement:
    """One ONNX file, measured in a process that did nothing else before.

    Raises:
        MeasurementError: the process ends with an error; its last line is repeated.
    """
    arguments = [str(path.resolve()), json.dumps(asdict(settings))]
    command = [sys.executable, "-m", "pliant.devices.measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise MeasurementError(f"{path} is measured in a process of its own; it ended with: {last}")
    return Measurement(**json.loads(done.stdout))


def _measure_file(path: str, settings: str) -> str:
    """One model, measured in this process: `python -m pliant.devices.measure MODEL SETTINGS`."""
    given = Settings(**json.loads(settings))
    with pinned(measuring_processor(given)):
        [found] = measure({"model": Path(path).read_bytes()}, given, seed=0).values()
    return json.dumps(asdict(found))


if __name__ == "__main__":
    sys.stdout.write(_measure_file(*sys.argv[1:]))
