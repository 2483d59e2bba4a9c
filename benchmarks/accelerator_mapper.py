"""How fast are certified optima and evaluations, and how far from the optimum are other mappers?

python benchmarks/accelerator_mapper.py networks
python benchmarks/accelerator_mapper.py rates
python benchmarks/accelerator_mapper.py evolution --evaluations 2000
python benchmarks/accelerator_mapper.py proofs
python benchmarks/accelerator_mapper.py inner-loop

`proofs`: CPU seconds of every network on every shipped chip and on an array of two 64-wide axes
with two loops each, proven and within 1 %. `inner-loop`: 60 networks of a Once-for-All space, as a
search over networks and chips maps them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerator_networks import BLOCK, NETWORKS
from numba import get_num_threads
from result import publish

from oracles.random_nests import random_mapping
from pliant.accelerator.chip import Axis, Chip, load_chip, shipped_chips
from pliant.accelerator.mapper.baselines import (
    DATAFLOWS,
    decode,
    fixed_dataflow,
    naas_evolution,
    random_search,
)
from pliant.accelerator.mapper.optimal import optimal_mapping
from pliant.accelerator.mapper.orders import evaluate_orders
from pliant.accelerator.mapping_store import forget
from pliant.accelerator.model.cost import evaluate_many
from pliant.accelerator.model.counts import layer_key
from pliant.accelerator.network_mapping import map_workload, network_bound
from pliant.errors import InfeasibleError
from pliant.spaces.presets import preset
from pliant.workload import Layer

CHIPS = ("eyeriss", "nvdla-1024")
LAYERS = (
    Layer("ResNet 3x3 64 56^2", "conv", ("image",), K=64, C=64, P=56, Q=56, R=3, S=3),
    Layer("ResNet 1x1 2048->512 7^2", "conv", ("image",), K=512, C=2048, P=7, Q=7),
    Layer("MobileNetV2 1x1 384->64 14^2", "conv", ("image",), K=64, C=384, P=14, Q=14),
    Layer("MobileNetV2 depthwise 144 56^2", "conv", ("image",), G=144, P=56, Q=56, R=3, S=3),
    Layer("VGG 3x3 512 28^2", "conv", ("image",), K=512, C=512, P=28, Q=28, R=3, S=3),
)


def networks() -> list[dict[str, Any]]:
    """CPU seconds of every distinct layer shape of the four networks."""
    optimal_mapping(LAYERS[0], load_chip("eyeriss"))  # compiles
    rows = []
    for goal in ("edp", "energy", "latency"):
        for chip in CHIPS:
            for name, build in NETWORKS.items():
                started = time.process_time()
                mapped = map_workload(build(), load_chip(chip), goal)  # type: ignore[arg-type]
                total = time.process_time() - started
                seconds = [
                    layer.certificate.seconds
                    for layer in {id(item.certificate): item for item in mapped.layers}.values()
                ]
                rows.append(
                    {
                        "objective": goal,
                        "chip": chip,
                        "network": name,
                        "shapes": mapped.distinct,
                        "cpu_s": total,
                        "wall_median_s": statistics.median(seconds),
                        "wall_max_s": max(seconds),
                        "proven": mapped.proven,
                        "latency_ms": mapped.latency_ms,
                        "utilisation": mapped.utilisation,
                    }
                )
                print(rows[-1], flush=True)
    return rows


def wide_chip() -> Chip:
    """Two axes of 64, each of which unrolls two of five loops."""
    axes = (Axis("rows", 64, "KCPQG", max_loops=2), Axis("columns", 64, "KCRSG", max_loops=2))
    return replace(load_chip("edge-tpu-like"), name="two 64-wide axes", axes=axes)


def proofs() -> list[dict[str, Any]]:
    """CPU seconds of the energy-delay product, all layer shapes of a network one by one."""
    optimal_mapping(LAYERS[0], load_chip("eyeriss"))  # compiles
    shapes = {name: build().layers for name, build in NETWORKS.items()}
    shapes["ViT-B/16 block"] = BLOCK
    rows = []
    for chip in [*(load_chip(name) for name in shipped_chips()), wide_chip()]:
        for name, layers in shapes.items():
            distinct = {layer_key(layer): layer for layer in layers}.values()
            row: dict[str, Any] = {"chip": chip.name, "network": name, "shapes": len(distinct)}
            for key, gap in (("", 0.0), ("_gap_1", 0.01)):
                seconds, complete = [], True
                for layer in distinct:
                    started = time.process_time()
                    best = optimal_mapping(layer, chip, gap=gap)
                    seconds.append(time.process_time() - started)
                    complete &= best.certificate.complete
                row |= {f"cpu_s{key}": sum(seconds), f"complete{key}": complete}
                row |= {f"median_s{key}": statistics.median(seconds)}
                row |= {f"longest_s{key}": max(seconds)}
            rows.append(row)
            print(row, flush=True)
    return rows


def inner_loop(networks: int = 60) -> list[dict[str, Any]]:
    """CPU and wall seconds of many networks of one space on nvdla-256."""
    space, chip = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000), "nvdla-256"
    generator = np.random.default_rng(0)
    workloads = [space.lower(space.sample_choices(generator)) for _ in range(networks)]
    hardware, rows = load_chip(chip), []
    map_workload(workloads[0], hardware)  # compiles
    with tempfile.TemporaryDirectory() as folder:
        for name, threads, memory, cache in (
            ("every network anew", 1, False, None),
            ("every network anew", 2, False, None),
            ("in memory", 1, True, None),
            ("in memory", 2, True, None),
            ("in memory and written to a file", 1, True, Path(folder)),
            ("by another process, from the file", 1, True, Path(folder)),
        ):
            forget()
            wall, cpu = time.perf_counter(), time.process_time()
            for workload in workloads:
                if not memory:
                    forget()
                map_workload(workload, hardware, threads=threads, cache=cache)
            rows.append(
                {
                    "results": name,
                    "threads": threads,
                    "cpu_s": time.process_time() - cpu,
                    "wall_s": time.perf_counter() - wall,
                }
            )
            print(rows[-1], flush=True)
    started = time.process_time()
    bounds = [network_bound(workload, hardware).edp for workload in workloads]
    seconds = time.process_time() - started
    found = [map_workload(workload, hardware) for workload in workloads]
    share = statistics.median(
        bound / (one.energy * one.cycles) for bound, one in zip(bounds, found, strict=True)
    )
    rows.append({"results": "bound only", "threads": 1, "cpu_s": seconds, "bound_over_edp": share})
    return rows


def rates() -> list[dict[str, Any]]:
    """Mappings per second of one core (NUMBA_NUM_THREADS=1).

    Of any orders, and of nine orders with eight bypasses for given tiles.
    """
    layer, chip, generator = LAYERS[0], load_chip("eyeriss"), np.random.default_rng(0)
    codes = np.stack([decode(generator.random(53), layer, chip) for _ in range(4000)])
    ragged = np.stack([random_mapping(layer, generator).encode() for _ in range(4000)])
    many, odd = np.tile(codes, (20, 1)), np.tile(ragged, (20, 1))
    rows = []
    for name, call, mappings in (
        (
            "any two orders, mappings of the mapper's space",
            lambda: evaluate_many(layer, chip, many),
            len(many),
        ),
        (
            "any two orders, ragged at every level",
            lambda: evaluate_many(layer, chip, odd),
            len(odd),
        ),
        (
            "nine orders, eight bypasses",
            lambda: evaluate_orders(layer, chip, codes),
            72 * len(codes),
        ),
    ):
        call()
        seconds = []
        for _ in range(5):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
        rows.append({"kernel": name, "million_a_second": mappings / min(seconds) / 1e6})
        print(rows[-1], flush=True)
    return rows


def over_optimum(layer: Layer, chip: Chip, dataflow: str, best: float) -> float | None:
    """EDP of a fixed dataflow over the optimum; None where the chip has none."""
    try:
        return fixed_dataflow(layer, chip, dataflow).value / best
    except InfeasibleError:
        return None


def evolution(evaluations: int, seeds: int) -> list[dict[str, Any]]:
    """EDP of other mappers over the certified optimum."""
    rows = []
    for chip_name in CHIPS:
        chip = load_chip(chip_name)
        for layer in LAYERS:
            best = optimal_mapping(layer, chip).value
            row: dict[str, Any] = {"chip": chip_name, "layer": layer.name}
            for name, search in (("naas", naas_evolution), ("random", random_search)):
                found = [
                    search(layer, chip, "edp", evaluations, np.random.default_rng(seed)).value
                    / best
                    for seed in range(seeds)
                ]
                row[name] = statistics.median(found)
                row[f"{name}_worst"] = max(found)
            row |= {name: over_optimum(layer, chip, name, best) for name in DATAFLOWS}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["networks", "rates", "evolution", "proofs", "inner-loop"])
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "evolution":
        rows = evolution(options.evaluations, options.seeds)
    else:
        tables = {"networks": networks, "rates": rates, "proofs": proofs, "inner-loop": inner_loop}
        rows = tables[options.what]()
    publish(f"accelerator_{options.what}", rows, numba_threads=get_num_threads())


if __name__ == "__main__":
    main()
