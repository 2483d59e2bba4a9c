"""An accelerator for small and for large networks: how much is gained, by what, and in what time.

    python benchmarks/codesign.py --designs 1000 --seeds 0
    python benchmarks/codesign.py --large --designs 200 --seeds 0

Baselines and networks of Y. Lin, M. Yang, S. Han, "NAAS", 2021, arXiv:2105.13258: MobileNetV2,
SqueezeNet and MNASNet within the resources of Eyeriss, NVDLA-256 and ShiDianNao; VGG-16, ResNet-50
and U-Net within those of NVDLA-1024 and of an Edge TPU. Gains are ratios of energy-delay products,
geometric means over the networks, over the chip with its fixed dataflow; with MAESTRO's energies,
for which off-chip traffic is free, and with a table that has DRAM. Each part is kept in `--work`;
the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from result import publish

from pliant.accelerator.chip import load_chip
from pliant.accelerator.energy import TABLES
from pliant.progress import silent
from pliant.runs.codesign import codesign
from pliant.workload.networks import network

SMALL = ("mobilenet-v2", "squeezenet", "mnasnet"), ("eyeriss", "nvdla-256", "shidiannao-like")
LARGE = ("vgg-16", "resnet-50", "u-net"), ("nvdla-1024", "edge-tpu-like")
PAPER_EDP = {
    "eyeriss": 4.4 * 2.1,
    "nvdla-256": 1.7 * 1.4,
    "shidiannao-like": 4.4 * 4.9,
    "nvdla-1024": 2.2 * 1.1,
    "edge-tpu-like": 2.6 * 1.1,
}
"""Speed-up times energy saving over each baseline, as the paper states them."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--large", action="store_true", help="the large networks")
    parser.add_argument("--chips", nargs="+")
    parser.add_argument("--tables", nargs="+", default=["maestro", "dosa"])
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/codesign"))
    options = parser.parse_args()
    names, chips = LARGE if options.large else SMALL
    workloads = {name: network(name) for name in names}
    rows = []
    for chip_name in options.chips or chips:
        for table in options.tables:
            for seed in options.seeds:
                chip = replace(load_chip(chip_name), energy=TABLES[table])
                folder = options.work / f"{chip_name}-{table}-{seed}"
                resumed = folder.exists()
                started, cpu = time.perf_counter(), time.process_time()
                result = codesign(
                    workloads,
                    chip,
                    folder,
                    designs=options.designs,
                    seed=seed,
                    gap=options.gap,
                    threads=options.threads,
                    progress=silent,
                )
                row = {"within": chip_name, "energies": table, "seed": seed}
                row |= {stage.name.split(" on ")[0]: result.gain(stage) for stage in result.stages}
                if not resumed:  # else the time of the part that was left
                    row["minutes"] = (time.perf_counter() - started) / 60
                    row["cpu_minutes"] = (time.process_time() - cpu) / 60
                row["paper"] = PAPER_EDP.get(chip_name)
                rows.append(row)
    publish("codesign-large" if options.large else "codesign", rows, designs=options.designs)


if __name__ == "__main__":
    main()
