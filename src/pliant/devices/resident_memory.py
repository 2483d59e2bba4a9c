"""How much memory does a process need that runs a network with ONNX Runtime?

Three parts: the weights, one block of memory per layer of the graph, and the arena that holds the
activations. The arena is simulated, since it holds more than the tensors that are alive at once
(`Workload.peak_activation_bytes`): a chunk that was freed serves a later tensor only if it is large
enough (best fit, as in ONNX Runtime's BFC arena after TensorFlow's).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pliant.child import run_python
from pliant.errors import MeasurementError
from pliant.workload.layer import NETWORK_INPUT, Layer, Workload, lifetimes

CHUNK_BYTES: Final = 256
"""The arena rounds sizes up to multiples of this."""
SPLIT_REST_BYTES: Final = 128 * 2**20
"""A chunk is split if it is twice as large as needed, or if so much would be left."""
RUNS: Final = 2
"""Inferences, after which the arena hardly grows."""
VECTOR_CHANNELS: Final = 16
"""Convolutions store channels in blocks of a vector: 16 floats with AVX-512, 8 with AVX2."""
SESSION_BYTES: Final = 1_900_000
"""Of a session and of its first run beyond those of an empty model (ONNX Runtime 1.32, Linux)."""
LAYER_BYTES: Final = 22_000
"""Of the nodes, names and kernels of one layer (the same)."""


def resident_memory_bytes(workload: Workload) -> int:
    """Predicted memory of a process that runs a network, beyond one that runs an empty model.

    Args:
        workload: the network, for the images of one run.
    """
    graph = SESSION_BYTES + LAYER_BYTES * len(workload.layers)
    return graph + workload.parameter_bytes + arena_bytes(workload)


def arena_bytes(workload: Workload) -> int:
    """Size of the arena: of all regions that it asked the system for.

    The second run finds the chunks of the first, and may need further ones.

    Args:
        workload: its input is copied once, when pixels become numbers.
    """
    arena = _Arena()
    for _ in range(RUNS):
        _run(workload, arena)
    return arena.total_bytes


def _run(workload: Workload, arena: _Arena) -> None:
    """Allocate and free what one inference does."""
    # Pixels of one byte become numbers of the network's width, which are then transposed.
    bits = max(workload.input_bits, workload.layers[0].bits)
    input_bytes = -(-workload.input_elements * bits // 8)
    pixels = arena.allocate(input_bytes)
    places = {NETWORK_INPUT: arena.allocate(input_bytes)}
    arena.free(pixels)
    layers = {layer.name: layer for layer in workload.layers}
    for step in lifetimes(workload.layers, input_bytes):
        copied = _reordered(step.layer, layers)
        copies = [arena.allocate(one.output_bytes) for one in copied]
        for one in copied:
            if one.name in step.dies:
                arena.free(places.pop(one.name))
        if step.overwrites is None:
            places[step.layer.name] = arena.allocate(_blocked_bytes(step.layer))
        else:
            places[step.layer.name] = places.pop(step.overwrites)
        for name in step.dies:
            if name in places:
                arena.free(places.pop(name))
        for copy in copies:
            arena.free(copy)
    for chunk in places.values():
        arena.free(chunk)


def _reordered(layer: Layer, layers: Mapping[str, Layer]) -> list[Layer]:
    """Inputs that are copied out of blocks, since a convolution of fewer channels reads none."""
    if layer.kind != "conv" or layer.G > 1 or layer.C >= VECTOR_CHANNELS:
        return []
    read = [layers[name] for name in layer.inputs if name in layers]
    return [one for one in read if one.kind in ("conv", "pool")]


def _blocked_bytes(layer: Layer) -> int:
    """Size of an output whose channels are padded to whole vectors, as convolutions store them."""
    if layer.kind not in ("conv", "pool"):
        return layer.output_bytes
    channels = layer.G * layer.K
    padded = -(-channels // VECTOR_CHANNELS) * VECTOR_CHANNELS
    return layer.output_bytes // channels * padded


@dataclass(slots=True, eq=False)
class _Chunk:
    """A part of a region."""

    size: int
    free: bool = False


class _Arena:
    """Regions of chunks; a region is as large as the first tensor that was put there."""

    def __init__(self) -> None:
        self._regions: list[list[_Chunk]] = []

    @property
    def total_bytes(self) -> int:
        """Of all regions."""
        return sum(chunk.size for region in self._regions for chunk in region)

    def allocate(self, size: int) -> _Chunk:
        """The smallest free chunk that is large enough, else a new region."""
        size = -(-size // CHUNK_BYTES) * CHUNK_BYTES
        best: tuple[list[_Chunk], int] | None = None
        for region in self._regions:
            for place, chunk in enumerate(region):
                fits = chunk.free and chunk.size >= size
                if fits and (best is None or chunk.size < best[0][best[1]].size):
                    best = region, place
        if best is None:
            self._regions.append([_Chunk(size)])
            return self._regions[-1][0]
        region, place = best
        chunk = region[place]
        rest = chunk.size - size
        chunk.free = False
        if rest >= size or rest >= SPLIT_REST_BYTES:
            chunk.size = size
            region.insert(place + 1, _Chunk(rest, free=True))
        return chunk

    def free(self, chunk: _Chunk) -> None:
        """Free a chunk, and join it with free neighbours."""
        chunk.free = True
        region = next(one for one in self._regions if any(part is chunk for part in one))
        joined: list[_Chunk] = []
        for part in region:
            if joined and part.free and joined[-1].free:
                joined[-1].size += part.size
            else:
                joined.append(part)
        region[:] = joined


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """What a fresh process needed, in bytes, beyond what it needed before it opened the model."""

    session_bytes: int
    """Once the session is open, freed memory returned to the system."""
    peak_bytes: int
    """At most, while the model ran."""


def measure_resident_memory(path: Path, batch: int = 1) -> ResidentMemory:
    """Run a model in a fresh process and read its resident memory (Linux).

    The arena asks the system for what is needed, not for powers of two, and remembers no pattern of
    an earlier run, which would be a second copy. Memory that is free but not yet returned to the
    system is returned before each reading.

    Args:
        path: of an ONNX model.
        batch: images per run, where the file leaves it open.

    Raises:
        MeasurementError: not Linux, or the process fails.
    """
    if not sys.platform.startswith("linux"):
        raise MeasurementError(
            f"resident memory is read from /proc, which Linux has; this is {sys.platform}."
        )
    done = run_python(_PROCESS, str(path.resolve()), str(batch))
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise MeasurementError(f"{path} is run in a subprocess, which failed: {last}")
    return ResidentMemory(**json.loads(done.stdout))


_PROCESS: Final = """
import sys
from pliant.devices.resident_memory import resident_memory_here
sys.stdout.write(resident_memory_here(*sys.argv[1:]))
"""


def resident_memory_here(path: str, batch: str) -> str:
    """A measurement in this process, as JSON; what the subprocess does."""
    import ctypes
    import gc

    import numpy as np
    import onnx
    import onnxruntime

    def settled_bytes() -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return _status_bytes("VmRSS")

    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # No limit; 1: extend by what is requested; -1: the default of the other two.
    onnxruntime.create_and_register_allocator(kind, onnxruntime.OrtArenaCfg(0, 1, -1, -1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    before = settled_bytes()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else int(batch) for size in source.shape]
    name = source.type.removeprefix("tensor(").removesuffix(")").upper()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(name))
    image = np.zeros(shape, dtype)
    opened = settled_bytes()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    for _ in range(RUNS):
        session.run(None, {source.name: image})
    peak = _status_bytes("VmHWM")
    return json.dumps({"session_bytes": opened - before, "peak_bytes": peak - before})


def _status_bytes(field: str) -> int:
    """A size that Linux tells of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise MeasurementError(f"/proc/self/status has no {field}.")
