"""Does the closed form equal the walk? Counts and stall-exact latency of random nests.

python benchmarks/accelerator_exactness.py --nests 10000 --stalls 2000
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from result import publish

from oracles.random_nests import random_nest
from oracles.walk import walk, walk_stall
from pliant.accelerator.chip import Axis, Chip, Memory
from pliant.accelerator.energy import TABLES
from pliant.accelerator.model.cost import evaluate


def chip(generator: np.random.Generator, *, multicast: bool) -> Chip:
    """No limits of size; bandwidths and double buffering are drawn."""
    bandwidth = [float(value) for value in generator.integers(1, 30, size=3)]
    registers = Memory(
        1e9, double_buffered=bool(generator.integers(2)), bandwidth_bytes_per_cycle=bandwidth[0]
    )
    buffer = Memory(
        1e9, double_buffered=bool(generator.integers(2)), bandwidth_bytes_per_cycle=bandwidth[1]
    )
    return Chip(
        "wide",
        (Axis("a", 10**6, max_loops=8),),
        registers,
        buffer,
        TABLES["eyeriss"],
        100.0,
        bandwidth[2],
        multicast=multicast,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nests", type=int, default=10000)
    parser.add_argument("--stalls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    generator, started = np.random.default_rng(options.seed), time.process_time()
    unequal = ragged = bypassed = 0
    for index in range(options.nests):
        layer, mapping = random_nest(generator, most_steps=150, most_operations=3000)
        multicast = index % 4 > 0
        counts = evaluate(layer, chip(generator, multicast=multicast), mapping).counts
        unequal += counts != walk(layer, mapping, multicast=multicast)
        covered = np.array(mapping.register) * mapping.pes * mapping.buffer * mapping.dram
        ragged += bool(
            (
                covered != [layer.N, layer.G, layer.K, layer.C, layer.P, layer.Q, layer.R, layer.S]
            ).any()
        )
        bypassed += bool(mapping.bypass)
    late = 0
    for index in range(options.stalls):
        layer, mapping = random_nest(generator, most_steps=300)
        hardware = chip(generator, multicast=index % 4 > 0)
        cycles = evaluate(layer, hardware, mapping, latency="stall_exact").cycles
        late += not math.isclose(cycles, walk_stall(layer, hardware, mapping), rel_tol=1e-12)
    counted = {
        "what": "counts",
        "nests": options.nests,
        "unequal": unequal,
        "with_ragged_edges": ragged,
        "with_a_bypass": bypassed,
    }
    stalled = {"what": "stall-exact latency", "nests": options.stalls, "unequal": late}
    publish(
        "accelerator_exactness",
        [counted, stalled],
        seed=options.seed,
        cpu_s=time.process_time() - started,
    )


if __name__ == "__main__":
    main()
