"""Which operations are fast in int8: latency of single blocks over their latency in fp32.

python benchmarks/int8_operations.py

Blocks read and write integers, as within a quantized network. One thread, interleaved rounds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from result import publish

from pliant.devices.measure import Settings
from pliant.devices.profile import measure_networks, timed_block
from pliant.networks.quantize import float_operators
from pliant.spaces.convolutional_blocks import BasicBlock, ConvBlock, InvertedResidual

MOBILE = InvertedResidual(
    slot="", size=28, inputs=32, mid_channels=192, outputs=32, kernel=3, activation="relu6"
)
CONV = ConvBlock(slot="", size=28, inputs=64, outputs=64, kernel=3)
BLOCKS = {
    "inverted residual, relu6": MOBILE,
    "inverted residual, kernel 5": replace(MOBILE, kernel=5),
    "inverted residual, kernel 7": replace(MOBILE, kernel=7),
    "inverted residual, relu": replace(MOBILE, activation="relu"),
    "inverted residual, hswish": replace(MOBILE, activation="hswish"),
    "inverted residual, relu6 and squeeze-and-excite": replace(MOBILE, squeeze_excite=True),
    "inverted residual, hswish and squeeze-and-excite": replace(
        MOBILE, activation="hswish", squeeze_excite=True
    ),
    "convolution 3x3, relu": replace(CONV, activation="relu"),
    "convolution 3x3, hswish": replace(CONV, activation="hswish"),
    "convolution 3x3, gelu": replace(CONV, activation="gelu"),
    "convolution 3x3 and pooling, relu": replace(CONV, pool=2, activation="relu"),
    "basic block, relu": BasicBlock(slot="", size=28, channels=64, mid_channels=64),
}


def main():
    models = {
        f"{name} {precision}": timed_block(block, np.random.default_rng(0), 1, precision)
        for name, block in BLOCKS.items()
        for precision in ("fp32", "int8")
    }
    found = measure_networks(models, Settings(), seed=0)
    rows = []
    for name in BLOCKS:
        fp32, int8 = (found[f"{name} {precision}"].latency_ms for precision in ("fp32", "int8"))
        slow = float_operators(onnx.load_from_string(models[f"{name} int8"]))
        rows.append(
            {
                "block": name,
                "fp32_us": 1e3 * fp32,
                "int8_us": 1e3 * int8,
                "int8_over_fp32": int8 / fp32,
                "in_float": ", ".join(slow) or None,
            }
        )
    publish("int8_operations", rows)


if __name__ == "__main__":
    main()
