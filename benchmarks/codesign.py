"""An accelerator for small and for large networks: how much is gained, by what, and in what time.

    python benchmarks/codesign.py --designs 1000 --seeds 0 1 2 3 4
    python benchmarks/codesign.py --large --designs 1000 --seeds 0 1 2 3 4
    python benchmarks/codesign.py --encodings --chips eyeriss --designs 500 --seeds 0 1 2 3 4
    python benchmarks/codesign.py --ceilings

Baselines and networks of Y. Lin, M. Yang, S. Han, "NAAS", 2021, arXiv:2105.13258: MobileNetV2,
SqueezeNet and MNASNet within the resources of Eyeriss, NVDLA-256 and ShiDianNao; VGG-16, ResNet-50
and U-Net within those of NVDLA-1024 and of an Edge TPU. Gains are ratios of energy-delay products,
geometric means over the networks, over the chip with its fixed dataflow.

Energies: `maestro`, for which off-chip traffic is free; `maestro-on-chip`, where it also takes no
time, as in MAESTRO before off-chip bandwidth entered it in May 2021, when the paper appeared; and
`dosa` and `interstellar`, which have DRAM. `--ceilings` searches nothing: it tells what the best
mappings gain, and what no design within the resources can gain more than. `--encodings` compares
importance, index and random at equal evaluations, with one loop for each axis as in the paper.

Each row is kept in `--work`, and the same command goes on after a stop; `--budget` ends it before
the first row that would begin after so many minutes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from result import publish

from pliant.accelerator.chip import Chip, load_chip
from pliant.accelerator.energy import TABLES
from pliant.progress import silent
from pliant.runs.codesign import CodesignOptions, bound_of_all, codesign, given_stages
from pliant.search.mapped_designs import MappedNetworks
from pliant.workload import Workload
from pliant.workload.networks import network

SMALL = ("mobilenet-v2", "squeezenet", "mnasnet"), ("eyeriss", "nvdla-256", "shidiannao-like")
LARGE = ("vgg-16", "resnet-50", "u-net"), ("nvdla-1024", "edge-tpu-like")
ON_CHIP = "maestro-on-chip"
PAPER = {
    "eyeriss": (4.4, 2.1),
    "nvdla-256": (1.7, 1.4),
    "shidiannao-like": (4.4, 4.9),
    "nvdla-1024": (2.2, 1.1),
    "edge-tpu-like": (2.6, 1.1),
}
"""Speed-up and energy saving over each baseline, as the paper states them."""


def chip_with(name: str, table: str) -> Chip:
    """A shipped chip with other energies."""
    chip = load_chip(name)
    if table == ON_CHIP:
        table, chip = "maestro", replace(chip, dram_bandwidth_bytes_per_cycle=math.inf)
    return replace(chip, energy=TABLES[table])


def ceiling(workloads: dict[str, Workload], chip: Chip) -> dict[str, Any]:
    """What best mappings gain, and the most that any design does."""
    fixed, mapped = given_stages(MappedNetworks(workloads), chip, CodesignOptions())
    bound = bound_of_all(workloads, chip)
    row: dict[str, Any] = {
        "fixed": fixed.name,
        "best_mappings": fixed.best.edp / mapped.best.edp,
        "no_design_gains_more_than": fixed.best.edp / bound,
    }
    if fixed.best.failure is None:
        for name in ("cycles", "energy"):
            ratios = [
                getattr(fixed.best.costs[one], name) / getattr(mapped.best.costs[one], name)
                for one in workloads
            ]
            row[f"{name}_by_mappings"] = math.prod(ratios) ** (1 / len(ratios))
    return row


def searched(
    workloads: dict[str, Workload], chip: Chip, folder: Path, options: CodesignOptions
) -> dict[str, Any]:
    """One co-design, taken apart."""
    resumed = folder.exists()
    started, cpu = time.perf_counter(), time.process_time()
    result = codesign(workloads, chip, folder, options, progress=silent)
    row: dict[str, Any] = {
        stage.name.split(" on ")[0]: result.gain(stage) for stage in result.stages
    }
    row["no_design_gains_more_than"] = result.most_gain
    searches = [one for stage in result.stages[2:] for one in stage.designs]
    row["rejected"] = sum(one.bound is not None for one in searches) / len(searches)
    row["best_is_proven"] = result.best.proven
    if not resumed:  # else the time of the part that was left
        row["minutes"] = (time.perf_counter() - started) / 60
        row["cpu_minutes"] = (time.process_time() - cpu) / 60
    return row


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One after the other, until the budget is spent."""
    names, chips = LARGE if options.large else SMALL
    workloads = {name: network(name) for name in names}
    began = time.perf_counter()
    encodings = ("importance", "index") if options.encodings else ("importance",)
    for chip_name in options.chips or chips:
        for table in options.tables:
            chip = chip_with(chip_name, table)
            head = {"within": chip_name, "energies": table}
            if options.ceilings:
                paper = dict(zip(("paper_speed_up", "paper_energy"), PAPER[chip_name], strict=True))
                yield head | ceiling(workloads, chip) | paper
                continue
            for seed in options.seeds:
                for encoding in encodings:
                    if (time.perf_counter() - began) / 60 > options.budget:
                        return
                    search = CodesignOptions(
                        designs=options.designs,
                        seed=seed,
                        gap=options.gap,
                        encoding=encoding,
                        loops_per_axis=1 if options.encodings else options.loops_per_axis,
                        threads=options.threads,
                    )
                    part = f"{chip_name}-{table}-{seed}-{encoding}-{search.loops_per_axis}"
                    row = searched(workloads, chip, options.work / part, search)
                    paper_edp = math.prod(PAPER[chip_name])
                    yield head | {"seed": seed, "encoding": encoding} | row | {"paper": paper_edp}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--large", action="store_true", help="the large networks")
    parser.add_argument("--ceilings", action="store_true", help="no search: what can be gained")
    parser.add_argument("--encodings", action="store_true", help="importance, index, random")
    parser.add_argument("--chips", nargs="+")
    parser.add_argument("--tables", nargs="+", default=["maestro", ON_CHIP, "dosa", "interstellar"])
    parser.add_argument("--loops-per-axis", type=int)
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=math.inf, help="minutes")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/codesign"))
    options = parser.parse_args()
    name = "codesign-large" if options.large else "codesign"
    for kind in ("ceilings", "encodings"):
        name += f"-{kind}" if getattr(options, kind) else ""
    designs = 0 if options.ceilings else options.designs
    publish(name, list(rows(options)), designs=designs)


if __name__ == "__main__":
    main()
