"""Do the measured roofs agree with independent kernels?

    python benchmarks/roofs.py

Arithmetic: the measured fp32 peak against the best of three kernels that Pliant does not use:
OpenVINO's MatMul, ONNX Runtime's 1x1 convolution and SciPy's `sgemm` (whose OpenBLAS may have no
kernel for the processor). Bandwidth: each level against a STREAM-like triad (J. D. McCalpin, 1995)
in C that gcc compiles. One thread; the least CPU time of interleaved rounds counts, for OpenVINO,
which computes in a thread of its own, the least time.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import openvino.opset13 as op
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.linalg.blas import sgemm
from threadpoolctl import threadpool_limits

from pliant.devices.measure import measuring_processor, pinned
from pliant.devices.roofs import MEMORY_BYTES, measure_roofs
from pliant.devices.timings import Settings

ROUNDS = 15
SIZES = (256, 484, 576, 1024)  # squares, as of the pixels of an image
RESULTS = Path(__file__).parent / "results" / "roofs.json"
WITHIN = 0.10


def least_seconds(kernels, calls, clock=time.thread_time):
    best = dict.fromkeys(kernels, float("inf"))
    for kernel in kernels.values():
        kernel()
    for _ in range(ROUNDS):
        for name, kernel in kernels.items():
            started = clock()
            for _ in range(calls):
                kernel()
            best[name] = min(best[name], (clock() - started) / calls)
    return best


def pointwise_session(left, right):
    """A 1x1 convolution with as many operations as the product of the two matrices."""
    size, edge = len(left), int(len(left) ** 0.5)
    image = left[:, : edge * edge].reshape(1, size, edge, edge)
    weight = numpy_helper.from_array(right.reshape(size, size, 1, 1), "b")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["a", "b"], ["y"])],
        "pointwise",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, image.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    opset = helper.make_opsetid("", 17)
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[opset], ir_version=9)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": image})


def openvino_product(left, right):
    """A product with stored weights in fp32 on one thread."""
    moving = op.parameter(left.shape, np.float32, name="a")
    model = openvino.Model([op.matmul(moving, op.constant(right), False, False)], [moving], "mm")
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    hints["ENABLE_CPU_PINNING"] = False
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_tensor("a", openvino.Tensor(left))
    return request.infer


def independent_peak_gflops():
    """The best rate of each kernel over all sizes."""
    rates = {}
    rng = np.random.default_rng(0)
    for size in SIZES:
        left, right = rng.standard_normal((2, size, size), dtype=np.float32)
        fortran = np.asfortranarray(left), np.asfortranarray(right)
        kernels = {
            "scipy sgemm": lambda fortran=fortran: sgemm(1.0, *fortran),
            "onnxruntime 1x1 Conv": pointwise_session(left, right),
        }
        calls = max(1, (512 // size) ** 3)
        found = least_seconds(kernels, calls)
        own_thread = {"OpenVINO MatMul": openvino_product(left, right)}
        found |= least_seconds(own_thread, calls, time.perf_counter)
        for name, seconds in found.items():
            rates[name] = max(rates.get(name, 0.0), 2e-9 * size**3 / seconds)
    return rates


TRIAD = """
void triad(const float *restrict a, const float *restrict b, float *restrict c, float scalar,
           long size, long repeats) {
    for (long r = 0; r < repeats; r++) {
        for (long i = 0; i < size; i++) c[i] = a[i] + scalar * b[i];
        __asm__ volatile("" ::: "memory");
    }
}
"""


def compiled_triad():
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "triad.so"
        flags = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared")
        command = ["gcc", *flags, "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(command, input=TRIAD, text=True, check=True)
        triad = ctypes.CDLL(str(library)).triad
    triad.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_float] + [ctypes.c_long] * 2
    return triad


def aligned(floats):
    store = np.ones(floats + 16, np.float32)
    return store[(-store.ctypes.data // 4) % 16 :][:floats]


def triad_gb_per_s(triad, working_set):
    """Bandwidth of a triad through three arrays of a working set together."""
    floats = working_set // 12 // 16 * 16
    arrays = [aligned(floats) for _ in range(3)]
    repeats = max(1, int(1e8) // (12 * floats))
    where = [one.ctypes.data for one in arrays]
    kernel = lambda: triad(*where, 3.0, floats, repeats)  # noqa: E731
    seconds = least_seconds({"triad": kernel}, 1)["triad"]
    return 12e-9 * floats * repeats / seconds


def main():
    with pinned(measuring_processor(Settings())), threadpool_limits(1):
        torch.set_num_threads(1)
        sheet = measure_roofs(1)
        peaks = independent_peak_gflops()
        levels, triad = {}, compiled_triad()
        for cache in sheet.caches:
            sizes = [int(1024 * cache.capacity_kb * part) for part in (0.4, 0.5, 0.6, 0.75)]
            levels[cache.name] = (
                cache.bandwidth_gb_per_s,
                max(triad_gb_per_s(triad, one) for one in sizes),
            )
        levels["memory"] = sheet.bandwidth_gb_per_s, triad_gb_per_s(triad, MEMORY_BYTES)
    rows = {"fp32 peak, GFLOP/s": (sheet.peak_gops.fp32, max(peaks.values()))}
    rows |= {f"{name}, GB/s": pair for name, pair in levels.items()}
    report = {"machine": sheet.name, "source": sheet.source, "independent_gflops": peaks}
    report["rows"] = []
    print(f"| {sheet.name} | Pliant | independent | difference |\n|---|---|---|---|")
    for name, (ours, theirs) in rows.items():
        difference = ours / theirs - 1
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {difference:+.1%} |")
        row = {"what": name, "pliant": ours, "independent": theirs, "difference": difference}
        report["rows"].append(row)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(abs(row["difference"]) > WITHIN for row in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
