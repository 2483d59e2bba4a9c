"""The measured roofs of this machine: peak arithmetic, and the bandwidth of each level of memory.

Peaks are those of real libraries: matrix products and convolutions of ONNX Runtime, PyTorch (also
its oneDNN kernels) and NumPy, of which the best counts, since a single library may miss half of the
peak: on an AMD processor with AVX-512, OpenBLAS and MKL use AVX2. Bandwidths are those of
element-wise kernels that read two arrays and write one (as in J. D. McCalpin's STREAM), for working
sets from the first cache to several times the last one. In small caches a compiled loop counts:
libraries spend a third of the time between two passes.

The time of a kernel is its minimum over interleaved rounds: interference only ever adds time. With
one thread it is CPU time, as everywhere in `pliant.devices`.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.lib.stride_tricks import as_strided
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

from pliant.devices.data_sheet import Cache, DataSheet, PeakGops
from pliant.devices.measure import measuring_processor, pinned
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError
from pliant.host import machine_name
from pliant.networks.onnx import IR_VERSION, OPSET

MATRIX_SIZES: Final = (256, 512, 1024)
CONVOLUTIONS: Final = ((64, 56), (128, 28), (256, 14))
"""Channels, and height and width, of 3x3 convolutions."""
ROUNDS: Final = 12
FEW_ROUNDS: Final = 3
"""Where a quick look is enough."""
SAMPLE_S: Final = 0.004
"""Least duration of one timing."""
CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of a processor."""
FILLED: Final = (0.4, 0.5, 0.75, 0.9)
"""Working sets of a cache in parts of its capacity: large enough to leave the level above."""
MEMORY_BYTES: Final = 2**28
"""Working set that no cache holds; four times the last cache where that is more."""
MAX_MEMORY_BYTES: Final = 2**30
LINE_FLOATS: Final = 16
"""Floats of one cache line of 64 bytes."""
PAGE_BYTES: Final = 4096
STREAMED_ARRAYS: Final = 3
"""Two arrays are read and one is written."""

Kernel = Callable[[], object]


def measure_roofs(
    threads: int = 1,
    *,
    rounds: int = ROUNDS,
    progress: Callable[[str, int, int], None] = lambda note, done, total: None,
) -> DataSheet:
    """Measure this machine; what comes back has the form of a data sheet.

    Args:
        threads: that compute at the same time.
        rounds: in which every kernel is timed once.
        progress: called with a note, the rounds done and their number.

    Raises:
        MeasurementError: more threads than this process has processors.
    """
    with pinned(measuring_processor(Settings(threads=threads))), _threads(threads):
        arithmetic = arithmetic_rates(
            threads, rounds, lambda done: progress("peak arithmetic", done, rounds)
        )
        levels = bandwidths(threads, rounds, lambda done: progress("bandwidth", done, rounds))
    best = {}
    for precision, rates in arithmetic.items():
        best[precision] = max(rates, key=lambda name: rates[name])
    peaks = {precision: arithmetic[precision][kernel] for precision, kernel in best.items()}
    how = ", ".join(f"{precision} by {kernel}" for precision, kernel in best.items())
    return DataSheet(
        name=roofs_name(threads),
        source=f"measured on {datetime.now(timezone.utc):%Y-%m-%d} by Pliant: {how}; onnxruntime "
        f"{onnxruntime.__version__}, torch {torch.__version__}, numpy {np.__version__}",
        bandwidth_gb_per_s=levels.pop()[1],
        peak_gops=PeakGops(**peaks),
        caches=tuple(Cache(f"L{number}", kb, rate) for (number, kb), rate in levels),
    )


def roofs_name(threads: int) -> str:
    """The name of this machine's roofs."""
    return f"{machine_name()}, {threads} thread(s)"


@contextmanager
def _threads(threads: int) -> Any:
    """PyTorch and the libraries behind NumPy use so many threads."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    if threads > 1 and threads > available:
        raise MeasurementError(
            f"roofs are measured with one processor per thread; {threads} threads were asked for,"
            f" and this process may use {available}."
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


# Arithmetic.


def arithmetic_rates(
    threads: int, rounds: int = ROUNDS, progress: Callable[[int], None] = lambda done: None
) -> dict[str, dict[str, float]]:
    """Rates of all kernels in 1e9 operations per second, by precision and kernel.

    Args:
        threads: of ONNX Runtime; the other libraries use those that are set.
        rounds: in which every kernel is timed once.
        progress: called with the rounds done.
    """
    kernels: dict[tuple[str, str], tuple[Kernel, float]] = {}
    for size in MATRIX_SIZES:
        for (precision, library), kernel in _products(size, threads).items():
            kernels[precision, f"{library} {size}"] = kernel, 2.0 * size**3
    for channels, pixels in CONVOLUTIONS:
        operations = 2.0 * (channels * 3 * pixels) ** 2
        for library, kernel in _convolutions(channels, pixels, threads).items():
            name = f"{library} {channels}x{pixels}x{pixels}"
            kernels["fp32", name] = kernel, operations
    seconds = _fastest(
        {key: kernel for key, (kernel, _) in kernels.items()}, threads, rounds, progress
    )
    rates: dict[str, dict[str, float]] = {}
    for (precision, name), (_, operations) in kernels.items():
        rates.setdefault(precision, {})[name] = 1e-9 * operations / seconds[precision, name]
    return rates


def _products(size: int, threads: int) -> dict[tuple[str, str], Kernel]:
    """Products of two square matrices by precision and library."""
    rng = np.random.default_rng(size)
    left, right = rng.standard_normal((2, size, size), dtype=np.float32)
    result = np.empty_like(left)
    one, two, three = (torch.from_numpy(array) for array in (left, right, result))
    brief = one.bfloat16(), two.bfloat16()
    bytes_ = rng.integers(-127, 127, (size, size), dtype=np.int8)
    unsigned = rng.integers(0, 255, (size, size), dtype=np.uint8)
    whole = torch.from_numpy(bytes_)
    found: dict[tuple[str, str], Kernel | None] = {
        ("fp32", "ONNX Runtime MatMul"): _session("MatMul", left, right, threads),
        ("fp32", "torch.mm"): lambda: torch.mm(one, two, out=three),
        ("fp32", "torch oneDNN linear"): _onednn_linear(one, two),
        ("fp32", "numpy.matmul"): lambda: np.matmul(left, right, out=result),
        ("bf16", "torch.mm"): lambda: torch.mm(*brief),
        ("int8", "ONNX Runtime MatMulInteger"): _session(
            "MatMulInteger", unsigned, bytes_, threads
        ),
        ("int8", "torch._int_mm"): lambda: torch._int_mm(whole, whole),
    }
    return {key: kernel for key, kernel in found.items() if kernel is not None}


def _onednn_linear(left: torch.Tensor, right: torch.Tensor) -> Kernel | None:
    """A product whose operands have oneDNN's own layout; None where PyTorch was built without."""
    if not torch.backends.mkldnn.is_available():
        return None
    moving, stored = left.to_mkldnn(), right.to_mkldnn()
    return lambda: torch._C._nn.mkldnn_linear(moving, stored, None)


def _convolutions(channels: int, pixels: int, threads: int) -> dict[str, Kernel]:
    """3x3 convolutions of one image by library."""
    rng = np.random.default_rng(channels)
    image = rng.standard_normal((1, channels, pixels, pixels), dtype=np.float32)
    weight = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
    one, two = torch.from_numpy(image), torch.from_numpy(weight)
    return {
        "ONNX Runtime Conv": _session(
            "Conv", image, weight, threads, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        ),
        "torch conv2d": lambda: torch.nn.functional.conv2d(one, two, padding=1),
    }


def _session(
    operator: str, moving: np.ndarray, stored: np.ndarray, threads: int, **attributes: Any
) -> Kernel:
    """One operator in ONNX Runtime, whose second operand is stored as weights are."""
    kind = helper.np_dtype_to_tensor_dtype(moving.dtype)
    result = TensorProto.INT32 if operator.endswith("Integer") else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["moving", "stored"], ["result"], **attributes)],
        "peak",
        [helper.make_tensor_value_info("moving", kind, moving.shape)],
        [helper.make_tensor_value_info("result", result, None)],
        [numpy_helper.from_array(stored, "stored")],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    model = onnx.shape_inference.infer_shapes(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"moving": moving})


# Memory.


def cache_sizes(folder: Path = CACHES) -> list[tuple[int, int]]:
    """Level and capacity in kB (1024 bytes) of each cache that holds data, smallest first.

    Empty where the system does not describe them: then the memory alone has a roof.
    """
    found = {}
    for cache in sorted(folder.glob("index*")):
        try:
            kind = (cache / "type").read_text().strip()
            level = int((cache / "level").read_text())
            size = re.fullmatch(r"(\d+)([KM]?)", (cache / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size:
            found[level] = int(size[1]) * (1024 if size[2] == "M" else 1)
    return sorted(found.items())


def bandwidths(
    threads: int, rounds: int = ROUNDS, progress: Callable[[int], None] = lambda done: None
) -> list[tuple[tuple[int, int], float]]:
    """Bandwidth of each cache, and of the memory as the last one.

    The first caches belong to one core: with several threads each has its own, so their
    bandwidths add up. The last cache and the memory are shared and measured with all threads.

    Args:
        threads: that stream at the same time.
        rounds: in which every working set is timed once.
        progress: called with the rounds done.

    Returns:
        Level and capacity in kB, and the bandwidth in GB/s; level 0 is the memory.
    """
    caches = cache_sizes()
    largest = 1024 * caches[-1][1] if caches else 0
    memory = min(max(MEMORY_BYTES, 4 * largest), MAX_MEMORY_BYTES)
    kernels: dict[tuple[int, int, str], tuple[Kernel, float]] = {}
    for level, kb in caches:
        is_shared = (level, kb) == caches[-1] and threads > 1
        for part in FILLED:
            size = int(1024 * kb * part)
            for name, streamed in _streams(size, whole=is_shared).items():
                kernels[level, kb, f"{name} {part}"] = streamed
    for name, streamed in _streams(memory, whole=threads > 1).items():
        kernels[0, 0, name] = streamed
    seconds = _fastest(
        {key: kernel for key, (kernel, _) in kernels.items()}, threads, rounds, progress
    )
    best: dict[tuple[int, int], float] = {}
    for key, (_, moved) in kernels.items():
        level, kb, _name = key
        rate = 1e-9 * moved / seconds[key]
        if threads > 1 and level and (level, kb) != caches[-1]:
            rate *= threads
        best[level, kb] = max(best.get((level, kb), 0.0), rate)
    ordered = [((level, kb), best[level, kb]) for level, kb in (*caches, (0, 0))]
    return _not_slower(ordered)


def _not_slower(
    levels: Sequence[tuple[tuple[int, int], float]],
) -> list[tuple[tuple[int, int], float]]:
    """A level is at least as fast as the larger ones behind it."""
    found: list[tuple[tuple[int, int], float]] = []
    for key, rate in reversed(levels):
        found.append((key, max(rate, found[-1][1] if found else 0.0)))
    return found[::-1]


def _streams(working_set: int, *, whole: bool) -> dict[str, tuple[Kernel, float]]:
    """Kernels that stream through three arrays, and the bytes that one call moves.

    Args:
        working_set: bytes of the three arrays together.
        whole: whether only kernels that use several threads count.
    """
    floats = working_set // (4 * STREAMED_ARRAYS) // LINE_FLOATS * LINE_FLOATS
    one, two, result = _arrays(floats)
    first, second, third = (torch.from_numpy(array) for array in (one, two, result))
    moved = 4.0 * STREAMED_ARRAYS * floats
    # The triad of STREAM: result = one + number * two.
    triad: Kernel = lambda: torch.add(first, second, alpha=3.0, out=third)  # noqa: E731
    found = {"triad": (triad, moved)}
    if whole:
        return found
    # A call costs more than a pass through a small cache: one call passes many times, over rows
    # that all lie at the same place.
    repeats = max(1, 2**22 // int(moved))
    left, right, sums = (
        as_strided(array, (repeats, floats), (0, 4)) for array in (one, two, result)
    )
    compiled = _compiled_triad()
    found["compiled triad"] = (
        lambda: compiled(one, two, result, np.float32(3), repeats),
        moved * repeats,
    )
    found["add"] = (lambda: np.add(left, right, out=sums), moved * repeats)
    found["maximum"] = (lambda: np.maximum(left, right, out=sums), moved * repeats)
    return found


@functools.cache
def _compiled_triad() -> Callable[..., None]:
    """The triad as a loop of machine code, any number of times without a call in between."""
    import numba

    @numba.njit(cache=True, fastmath=True)
    def triad(
        one: np.ndarray, two: np.ndarray, result: np.ndarray, number: np.float32, repeats: int
    ) -> None:
        for _ in range(repeats):
            for i in range(one.size):
                result[i] = one[i] + number * two[i]

    compiled: Callable[..., None] = triad
    return compiled


def _arrays(floats: int) -> list[np.ndarray]:
    """Three arrays of ones on cache lines, which do not start at the same place of a page."""
    page = PAGE_BYTES // 4
    stride = -(-floats // page) * page + page // 3 // LINE_FLOATS * LINE_FLOATS
    store = np.ones(STREAMED_ARRAYS * stride + LINE_FLOATS, dtype=np.float32)
    start = (-store.ctypes.data // 4) % LINE_FLOATS
    return [store[start + i * stride :][:floats] for i in range(STREAMED_ARRAYS)]


def _fastest(
    kernels: Mapping[Any, Kernel],
    threads: int,
    rounds: int,
    progress: Callable[[int], None],
) -> dict[Any, float]:
    """Least seconds of one call of each kernel, timed in interleaved rounds."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    calls = {}
    for key, kernel in kernels.items():
        kernel()
        started = time.perf_counter()
        kernel()
        calls[key] = max(1, round(SAMPLE_S / max(time.perf_counter() - started, 1e-7)))
    best = dict.fromkeys(kernels, float("inf"))
    for done in range(rounds):
        for key, kernel in kernels.items():
            started = clock()
            for _ in range(calls[key]):
                kernel()
            best[key] = min(best[key], (clock() - started) / calls[key])
        progress(done + 1)
    return best
