"""Do the measured roofs agree with independent kernels?

    python benchmarks/roofs.py

Arithmetic: the measured fp32 peak against the best of three kernels that Pliant does not use:
SciPy's `sgemm`, PyTorch's `linear` and ONNX Runtime's 1x1 convolution. Bandwidth: each level
against a STREAM-like triad (J. D. McCalpin, 1995) that Numba compiles. One thread; the least CPU
time of interleaved rounds counts.
"""

import json
import sys
import time
from pathlib import Path

import numba
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.linalg.blas import sgemm
from threadpoolctl import threadpool_limits

from pliant.devices.measure import measuring_processor, pinned
from pliant.devices.roofs import MEMORY_BYTES, measure_roofs
from pliant.devices.timings import Settings

ROUNDS = 15
SIZES = (256, 576, 1024)  # squares, as of the pixels of an image
RESULTS = Path(__file__).parent / "results" / "roofs.json"
WITHIN = 0.10


def least_seconds(kernels, calls):
    best = dict.fromkeys(kernels, float("inf"))
    for kernel in kernels.values():
        kernel()
    for _ in range(ROUNDS):
        for name, kernel in kernels.items():
            started = time.thread_time()
            for _ in range(calls):
                kernel()
            best[name] = min(best[name], (time.thread_time() - started) / calls)
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


def independent_peak_gflops():
    """The best rate of each kernel over all sizes."""
    rates = {}
    rng = np.random.default_rng(0)
    for size in SIZES:
        left, right = rng.standard_normal((2, size, size), dtype=np.float32)
        one, two = torch.from_numpy(left), torch.from_numpy(right)
        fortran = np.asfortranarray(left), np.asfortranarray(right)
        kernels = {
            "scipy sgemm": lambda fortran=fortran: sgemm(1.0, *fortran),
            "torch linear": lambda one=one, two=two: torch.nn.functional.linear(one, two),
            "onnxruntime 1x1 Conv": pointwise_session(left, right),
        }
        for name, seconds in least_seconds(kernels, max(1, (512 // size) ** 3)).items():
            rates[name] = max(rates.get(name, 0.0), 2e-9 * size**3 / seconds)
    return rates


@numba.njit(fastmath=True)
def triad(a, b, c, scalar, repeats):
    for _ in range(repeats):
        for i in range(a.size):
            c[i] = a[i] + scalar * b[i]


def triad_gb_per_s(working_set):
    """Bandwidth of a triad through three arrays of a working set together."""
    floats = working_set // 12 // 16 * 16
    a, b, c = (np.ones(floats, np.float32) for _ in range(3))
    repeats = max(1, int(1e8) // (12 * floats))
    seconds = least_seconds({"triad": lambda: triad(a, b, c, np.float32(3), repeats)}, 1)["triad"]
    return 12e-9 * floats * repeats / seconds


def main():
    with pinned(measuring_processor(Settings())), threadpool_limits(1):
        torch.set_num_threads(1)
        sheet = measure_roofs(1)
        peaks = independent_peak_gflops()
        levels = {}
        for cache in sheet.caches:
            sizes = [int(1024 * cache.capacity_kb * part) for part in (0.4, 0.5, 0.6, 0.75)]
            levels[cache.name] = cache.bandwidth_gb_per_s, max(map(triad_gb_per_s, sizes))
        levels["memory"] = sheet.bandwidth_gb_per_s, triad_gb_per_s(MEMORY_BYTES)
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
