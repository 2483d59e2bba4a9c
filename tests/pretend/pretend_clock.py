"""A clock for tests under which a network takes time by its MACs, on every machine alike.

What is chosen by latency then depends on neither the speed nor the noise of the machine that runs
the tests. Everything else of a measurement is real: rounds, anchors, statistics, child processes.
Tests of the measurement itself ask for the fixture `real_clock`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import onnx

from pliant.devices import measure

CALL_NS, NODE_NS, MACS_PER_NS = 1_000, 400, 40
"""About those of a laptop."""
FUSED = ("QuantizeLinear", "DequantizeLinear")
"""Into the nodes that they surround."""


def install(patch: Any = setattr) -> None:
    """Measure by this clock in this process and in those that it starts to measure.

    Args:
        patch: sets an attribute; that of a MonkeyPatch undoes it later.
    """
    clock = SimpleNamespace(now_ns=0)
    original = measure.runtime_named
    patch(measure, "runtime_named", lambda name: _Runtime(original(name), clock))
    read = SimpleNamespace(
        thread_time_ns=lambda: clock.now_ns, perf_counter_ns=lambda: clock.now_ns
    )
    patch(measure, "time", read)
    patch(measure, "_involuntary_context_switches", lambda: 0)
    patch(measure, "_MEASURE_FILE", _installed_in(measure._MEASURE_FILE))


def _installed_in(program: str) -> str:
    """The same program, by this clock."""
    place = __file__
    return f"""
import importlib.util, sys
specification = importlib.util.spec_from_file_location("pretend_clock", {place!r})
sys.modules["pretend_clock"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(sys.modules["pretend_clock"])
sys.modules["pretend_clock"].install()
{program}"""


class _Runtime:
    """A runtime whose sessions take time of the clock and compute nothing."""

    def __init__(self, runtime: Any, clock: Any) -> None:
        self._runtime, self._clock = runtime, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def open(self, model: bytes, settings: Any) -> _Session:
        return _Session(duration_ns(model) * settings.batch, self._clock)


class _Session:
    def __init__(self, nanoseconds: int, clock: Any) -> None:
        self._nanoseconds, self._clock, self._runs = nanoseconds, clock, 0

    def run(self) -> None:
        """Takes up to 0.4 % longer in two runs of three, so that there is a spread."""
        self._runs += 1
        self._clock.now_ns += self._nanoseconds + self._nanoseconds * (self._runs % 3) // 500


def duration_ns(model: bytes) -> int:
    """How long one image takes: a call, the nodes, and the multiply-accumulates."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(size.dim_value or 1 for size in sizes)  # of one image
    nanoseconds = CALL_NS
    for node in graph.node:
        nanoseconds += 0 if node.op_type in FUSED else NODE_NS
        if node.op_type in ("Conv", "Gemm"):  # weights of shape (outputs, ...)
            sums = math.prod(shapes[node.input[1]][1:])
            nanoseconds += math.prod(shapes[node.output[0]]) * sums // MACS_PER_NS
    return nanoseconds
