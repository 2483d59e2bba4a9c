"""How long does each layer of an ONNX model take on this machine? From ONNX Runtime's own profile.

The runtime fuses nodes, renames them, and adds nodes of its own (reorderings of channels). A node
of the file belongs to the layer that it computes, or follows; the kernel of a fused node has the
name of one of its parts, or of the tensor that it writes. A kernel whose name leads to no layer is
the runtime's own. Where one node is several layers, as an LSTM is, the first has the time of all.

The runtime may also compute with more bits than the file has: without kernels for 16 bits it casts
them to 32. The roofs of a layer are those of what is computed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import onnxruntime

from pliant.devices.data_sheet import DataSheet, workload_bits
from pliant.devices.measure import measuring_processor, pinned
from pliant.devices.runtimes.onnxruntime import session_options
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError
from pliant.files import FEW_BYTES
from pliant.workload.layer import Workload
from pliant.workload.roofline import NetworkRoofline, Roofline, layer_bounds

RUN_S: Final = 0.5
"""How long a model is run."""
MIN_RUNS: Final = 10
MAX_RUNS: Final = 200
_KERNEL: Final = "_kernel_time"
_RUNTIME_SUFFIX: Final = re.compile(r"(_nchwc|_token_\d+|_quant)+$")
"""What ONNX Runtime appends to the names of nodes that it rewrites."""
_RUNTIME_PREFIX: Final = "fused "
"""What it puts before the name of a node with its activation."""
_BITS: Final = {"int8": 8, "uint8": 8, "float16": 16, "bfloat16": 16, "float": 32, "double": 64}
"""Width of the types in a profile."""


class _Kernel(NamedTuple):
    """One kernel of the profile; seconds of one run, and the width of its first operand or 0."""

    name: str
    operator: str
    seconds: float
    bits: int


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Times of one inference, in seconds."""

    layers: Mapping[str, float]
    """By layer; a layer that was fused into another one has none."""
    runtime: Mapping[str, float]
    """What belongs to no layer, by operator."""
    row_of: Mapping[str, str]
    """Of layers that one kernel computes with earlier ones, the layer that has the time of all."""
    bits: Mapping[str, int]
    """Width of the numbers that a layer is computed with, where it is known."""


def timed_roofline(
    name: str,
    workload: Workload,
    sheet: DataSheet,
    model: bytes,
    settings: Settings,
    *,
    sizes: Mapping[str, int] | None = None,
) -> tuple[NetworkRoofline, Roofline]:
    """A network under the roofs of this machine, its layers timed by ONNX Runtime.

    Args:
        name: of the network.
        workload: its layers, as `onnx_workload` reads them.
        sheet: the roofs.
        model: the serialised ONNX model.
        settings: of the runtime.
        sizes: of open dimensions, as of `layer_times`.

    Returns:
        The network, and its roofs: those of the precision that the runtime computes with.

    Raises:
        MeasurementError: the runtime cannot run the model.
        RecipeError: there are no roofs of this precision.
    """
    names = [layer.name for layer in workload.layers]
    times = layer_times(model, names, settings, sizes=sizes)
    layers = []
    for layer in workload.layers:
        computed = times.bits.get(times.row_of.get(layer.name, layer.name), 0)
        layers.append(replace(layer, bits=max(layer.bits, computed)))
    as_computed = replace(workload, layers=tuple(layers))
    roofline = sheet.roofline(workload_bits(as_computed))
    network = NetworkRoofline(
        name,
        layer_bounds(as_computed, roofline),
        achieved_seconds=tuple(times.layers.get(one) for one in names),
        runtime_seconds=tuple(times.runtime.items()),
        row_of=times.row_of,
        widened=sum(new != old for new, old in zip(layers, workload.layers, strict=True)),
    )
    return network, roofline


def layer_times(
    model: bytes,
    layers: Collection[str],
    settings: Settings,
    *,
    sizes: Mapping[str, int] | None = None,
) -> LayerTimes:
    """Run a model and add up the times of its kernels by layer.

    Args:
        model: a serialised ONNX model.
        layers: names of its layers, as `onnx_workload` reads them.
        settings: of the runtime.
        sizes: of open dimensions of the inputs, by the name that the file gives them, or by input
            and dimension as `image:0`; the batch of the settings for all others.

    Raises:
        MeasurementError: the runtime cannot run the model.
    """
    proto = onnx.load_from_string(model)
    for node in proto.graph.node:
        node.name = node.name or node.output[0]  # as the reader of workloads calls it
    shared = _shared(proto.graph, layers)
    owners = _owners(proto.graph, frozenset(layers), shared)
    serialised = proto.SerializeToString()
    with pinned(measuring_processor(settings)):
        kernels = _kernels(serialised, settings, sizes or {})
        whole = _typical(_run(_session(serialised, settings), settings.batch, sizes or {}))
    scale = min(1.0, whole / max(sum(kernel.seconds for kernel in kernels), 1e-9))
    by_layer: dict[str, float] = defaultdict(float)
    runtime: dict[str, float] = defaultdict(float)
    bits: dict[str, int] = {}
    for kernel in kernels:
        part = _RUNTIME_SUFFIX.sub("", kernel.name).removeprefix(_RUNTIME_PREFIX)
        owner = owners.get(part) or owners.get(kernel.name)
        if owner is None:
            runtime[kernel.operator] += scale * kernel.seconds
        else:
            by_layer[owner] += scale * kernel.seconds
            bits.setdefault(owner, kernel.bits)  # further kernels follow it, such as a Cast
    row_of: dict[str, str] = {}
    for rows in shared.values():
        if rows[0] in by_layer:
            row_of |= dict.fromkeys(rows[1:], rows[0])
    return LayerTimes(dict(by_layer), dict(runtime), row_of, bits)


def _shared(graph: onnx.GraphProto, layers: Iterable[str]) -> dict[str, list[str]]:
    """The layers of each node, in running order.

    The layers that one node makes beside others have its name and an ending, as `lstm.l0.input`.
    """
    nodes = {node.name for node in graph.node}
    found: dict[str, list[str]] = defaultdict(list)
    for layer in layers:
        name = layer
        while name and name not in nodes:
            name = name.rpartition(".")[0]
        if name:
            found[name].append(layer)
    return found


def _owners(
    graph: onnx.GraphProto, layers: Collection[str], shared: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The layer of each node and tensor: the first of its own, else that of what it reads first."""
    owners: dict[str, str] = {}
    of_tensor: dict[str, str] = {}
    for node in graph.node:
        owner = shared[node.name][0] if node.name in shared else None
        if owner is None:
            owner = next((name for name in node.output if name in layers), None)
        if owner is None:
            owner = next((of_tensor[name] for name in node.input if name in of_tensor), None)
        if owner is not None:
            owners[node.name] = owner
            of_tensor |= dict.fromkeys(node.output, owner)
    return of_tensor | owners  # a node's own name comes before that of a tensor


def _kernels(model: bytes, settings: Settings, sizes: Mapping[str, int]) -> list[_Kernel]:
    """The kernels of one run, in order."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(model, settings, profile_to=Path(folder) / "profile")
        _run(session, settings.batch, sizes)
        events = _events(Path(session.end_profiling()))
    durations: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            of = event["args"]
            first = next((kind for one in of.get("input_type_shape", ()) for kind in one), "")
            name = event["name"].removesuffix(_KERNEL)
            durations[name, of["op_name"], _BITS.get(first, 0)].append(1e-6 * event["dur"])
    return [
        _Kernel(name, operator, _typical(np.array(values)), bits)
        for (name, operator, bits), values in durations.items()
    ]


def _session(model: bytes, settings: Settings, *, profile_to: Path | None = None) -> Any:
    """A model that is open as settings say; with a profile, if there is a place for it."""
    options = session_options(settings)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    with _runtime_errors():
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextmanager
def _runtime_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no other class
        reason = str(error).splitlines()[0]
        raise MeasurementError(f"ONNX Runtime cannot run the model: {reason}") from None


def _events(trace: Path) -> list[dict[str, Any]]:
    """What ONNX Runtime wrote of a profile; it writes what fits on a disk, and says nothing."""
    try:
        events: list[dict[str, Any]] = json.loads(trace.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if shutil.disk_usage(trace.parent).free < FEW_BYTES:
            reason = os.strerror(errno.ENOSPC)
            raise OSError(errno.ENOSPC, reason, str(trace.parent)) from None
        raise MeasurementError(
            f"times of layers come from a trace of ONNX Runtime; this one cannot be read: {error}."
        ) from None
    return events


def _run(session: Any, batch: int, sizes: Mapping[str, int]) -> np.ndarray:
    """Runs for about `RUN_S`, on random inputs; seconds of each run, shape (runs,)."""
    rng = np.random.default_rng(0)
    inputs = {}
    for source in session.get_inputs():
        shape = []
        for axis, size in enumerate(source.shape):
            if not isinstance(size, int):  # the name of an open dimension, or None
                size = sizes.get(f"{source.name}:{axis}", sizes.get(size, batch))
            shape.append(size)
        kind = onnx.helper.tensor_dtype_to_np_dtype(_tensor_type(source.type))
        numbers = rng.random(shape, dtype=np.float32)
        inputs[source.name] = (numbers if kind.kind == "f" else 127 * numbers).astype(kind)
    seconds: list[float] = []
    while len(seconds) < MIN_RUNS or (sum(seconds) < RUN_S and len(seconds) < MAX_RUNS):
        started = time.perf_counter()
        with _runtime_errors():
            session.run(None, inputs)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def _tensor_type(text: str) -> int:
    """The type of ONNX of `tensor(float)` and the like."""
    name = text.removeprefix("tensor(").removesuffix(")").upper()
    number: int = onnx.TensorProto.DataType.Value(name)
    return number


def _typical(seconds: np.ndarray) -> float:
    """The mean of the faster half: the clock counts whole microseconds, and noise only adds."""
    ordered = np.sort(seconds)
    return float(ordered[: (len(ordered) + 1) // 2].mean())
