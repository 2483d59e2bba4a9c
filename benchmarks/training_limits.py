"""What limits the training rate of the 32-pixel presets: depthwise gradients, and freed memory?

    python benchmarks/training_limits.py

First depthwise convolutions of mobile-32, one thread, channels last, batch size 64: forward pass,
input gradient and weight gradient by PyTorch, and both gradients by Pliant. Then forward and
backward pass of each preset's largest network on all threads, in a process that keeps freed memory,
as Pliant's commands do, and in one that returns it to the system, as PyTorch does by default; three
alternating pairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import torch
from result import publish
from training_rate import PRESETS, median_seconds, passes, subject

from pliant.networks.depthwise import input_gradient, weight_gradient
from pliant.training.allocator import keep_freed_memory

DEPTHWISE = ((64, 32, 2), (96, 16, 1), (192, 8, 1), (384, 4, 1))
"""Channels, height and width of the input, stride."""
BATCH, PAIRS = 64, 3


def depthwise_row(channels, size, stride, kernel, dtype):
    x = (
        torch.randn(BATCH, channels, size, size)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    weight = torch.randn(channels, 1, kernel, kernel).to(dtype)
    pad = kernel // 2
    forward = lambda: torch.conv2d(x, weight, None, stride, pad, 1, channels)  # noqa: E731
    g = torch.ones_like(forward())

    def backward(inputs, weights):
        mask = [inputs, weights, False]
        torch.ops.aten.convolution_backward(
            g, x, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], channels, mask
        )

    timed = {
        "forward": forward,
        "input_gradient": lambda: backward(True, False),
        "weight_gradient": lambda: backward(False, True),
        "our_input_gradient": lambda: input_gradient(g, x, weight, stride, pad),
        "our_weight_gradient": lambda: weight_gradient(g, x, weight, stride, pad),
    }
    row = {f"{name}_ms": 1000 * median_seconds(function) for name, function in timed.items()}
    shape = f"{channels}x{size}x{size}, {kernel}x{kernel}, stride {stride}"
    gain = (row["input_gradient_ms"] + row["weight_gradient_ms"]) / (
        row["our_input_gradient_ms"] + row["our_weight_gradient_ms"]
    )
    return {"depthwise": shape, "precision": str(dtype).removeprefix("torch."), **row, "gain": gain}


def images_per_second(name, precision, batch):
    supernet, images, labels = subject(name, batch)
    largest = supernet.space.largest()
    return batch / median_seconds(
        lambda: passes(lambda x: supernet(x, largest), images, labels, precision), times=9
    )


def memory_row(name, precision):
    rates = {"keep": [], "hand-back": []}
    for _ in range(PAIRS):
        for way, found in rates.items():
            command = [sys.executable, __file__, "--measure", name, precision, way]
            found.append(
                float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
    kept, back = (statistics.median(found) for found in rates.values())
    return {
        "preset": name,
        "precision": precision,
        "images_per_second": kept,
        "handed_back": back,
        "ratio": kept / back,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument(
        "--measure",
        nargs=3,
        metavar=("PRESET", "PRECISION", "WAY"),
        help="one rate, in this process",
    )
    arguments = parser.parse_args()
    if arguments.measure:
        name, precision, way = arguments.measure
        if way == "keep":
            keep_freed_memory()
        print(images_per_second(name, precision, arguments.batch))
        return
    keep_freed_memory()
    memory = [memory_row(name, precision) for name in PRESETS for precision in ("fp32", "bf16")]
    torch.set_num_threads(1)
    types = (torch.float32, torch.bfloat16)
    rows = [
        depthwise_row(*shape, kernel, dtype)
        for dtype in types
        for shape in DEPTHWISE
        for kernel in (3, 5, 7)
    ]
    publish("training_limits_depthwise", rows, batch=BATCH, threads=1)
    publish("training_limits_memory", memory, batch=arguments.batch, pairs=PAIRS)


if __name__ == "__main__":
    main()
