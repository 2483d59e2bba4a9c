"""Does ZigZag find better mappings by its own model? Its search and our optimum, costed by it.

ZigZag needs a virtual environment of its own (`pip install zigzag-dse six`):

    python benchmarks/accelerator_zigzag.py prepare zz
    zz-venv/bin/python benchmarks/accelerator_zigzag.py run zz

`prepare` writes our certified optima and ZigZag's input files into the folder `zz`; `run` runs
ZigZag's own search (LOMA), and its cost model on our loop orders.

The chip is ZigZag's `tpu_like`: 32 x 32, weights in registers filled from DRAM, inputs and outputs
in 2 MiB. ZigZag is given our spatial split and our loops, innermost first, and allots them to its
memories itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAMES = {"N": "B", "K": "K", "C": "C", "P": "OY", "Q": "OX", "R": "FY", "S": "FX"}
LAYERS = {
    "3x3 64 56^2": (64, 64, 56, 56, 3, 3),
    "3x3 256 14^2": (256, 256, 14, 14, 3, 3),
    "1x1 2048->512 7^2": (512, 2048, 7, 7, 1, 1),
    "1x1 384->64 14^2": (64, 384, 14, 14, 1, 1),
}


def prepare(folder: Path) -> None:
    """Our optimum of each layer, and the files that ZigZag reads."""
    from pliant.accelerator.chip import DIMS, Axis, Chip, Memory, WordWidths
    from pliant.accelerator.energy import EnergyTable
    from pliant.accelerator.mapper.optimal import optimal_mapping
    from pliant.workload import Layer

    table = EnergyTable(
        "tpu_like",
        "ZigZag's tpu_like.yaml, a byte",
        "picojoule",
        8,
        mac=0.04,
        register=0.05,
        noc=0.0,
        buffer=1.55,
        dram=90.6,
    )
    axes = (Axis("D1", 32, "K", 1), Axis("D2", 32, "C", 1))
    # Transfers overlap with work in ZigZag only where a memory is at most half full, so ours is
    # double-buffered: 128 B hold two tiles of 64 weights. ZigZag's single partial sum has ports
    # enough to be exchanged; two here model that.
    registers = Memory(weight_bytes=128, input_bytes=256, output_bytes=4, double_buffered=True)
    # Weights are never kept in the 2 MiB; the model has one size for all or one each, so inputs and
    # outputs get half of it.
    buffer = Memory(
        weight_bytes=2,
        input_bytes=2.0**20,
        output_bytes=2.0**20,
        double_buffered=True,
        bandwidth_bytes_per_cycle=256,
    )
    chip = Chip(
        "tpu_like", axes, registers, buffer, table, 200.0, 8.0, word_widths=WordWidths(8, 8, 8, 16)
    )
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for index, (name, sizes) in enumerate(LAYERS.items()):
        loops = dict(zip("KCPQRS", sizes, strict=True))
        layer = Layer(name, "conv", ("image",), **loops)  # type: ignore[arg-type]
        best = optimal_mapping(layer, chip, "edp")
        mapping = best.mapping
        loops = [(dim, mapping.register[DIMS.index(dim)]) for dim in reversed(DIMS)]
        loops += [(dim, mapping.buffer[DIMS.index(dim)]) for dim in reversed(mapping.buffer_order)]
        loops += [(dim, mapping.dram[DIMS.index(dim)]) for dim in reversed(mapping.dram_order)]
        spread = [[NAMES[dim], mapping.pes[DIMS.index(dim)]] for dim in "KC"]
        case = {"index": index, "name": name, "sizes": sizes, "spread": spread}
        case["ordering"] = [[NAMES[dim], count] for dim, count in loops if count > 1]
        case["pliant"] = {
            "energy_pj": best.cost.energy,
            "cycles": best.cost.cycles,
            "mapping": str(mapping),
            "seconds": best.certificate.seconds,
        }
        cases.append(case)
        print(name, best.cost.energy, best.cost.cycles, best.certificate.seconds)
    (folder / "cases.json").write_text(json.dumps(cases, indent=1), encoding="utf-8")


def run(folder: Path) -> None:
    """ZigZag's search, and ZigZag's cost of our loops."""
    import yaml
    import zigzag
    from zigzag.api import get_hardware_performance_zigzag

    results = []
    for case in json.loads((folder / "cases.json").read_text(encoding="utf-8")):
        names = ["B", "K", "C", "OY", "OX", "FY", "FX"]
        layer = {
            "id": 0,
            "name": "layer",
            "operator_type": "Conv",
            "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
            "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
            "loop_dims": names,
            "loop_sizes": [1, *case["sizes"]],
            "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
            "operand_source": {"I": 0, "W": 0},
        }
        (folder / "workload.yaml").write_text(yaml.safe_dump([layer]), encoding="utf-8")
        row: dict[str, Any] = {"name": case["name"], "pliant": case["pliant"]}
        for kind in ("loma", "ours"):
            spread = {"D1": [f"K, {case['spread'][0][1]}"], "D2": [f"C, {case['spread'][1][1]}"]}
            mapping: dict[str, Any] = {
                "name": "default",
                "spatial_mapping": spread,
                "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
            }
            if kind == "ours":
                mapping["temporal_ordering"] = case["ordering"]
            (folder / "mapping.yaml").write_text(yaml.safe_dump([mapping]), encoding="utf-8")
            started = time.process_time()
            energy, cycles, *_ = get_hardware_performance_zigzag(
                workload=str(folder / "workload.yaml"),
                accelerator=str(
                    Path(zigzag.__file__).parent / "inputs" / "hardware" / "tpu_like.yaml"
                ),
                mapping=str(folder / "mapping.yaml"),
                opt="EDP",
                lpf_limit=6,
                loma_show_progress_bar=False,
                dump_folder=str(folder / f"out_{case['index']}_{kind}"),
                pickle_filename=str(folder / f"out_{case['index']}_{kind}.pickle"),
            )
            row[kind] = {
                "energy_pj": float(energy),
                "cycles": float(cycles),
                "cpu_s": time.process_time() - started,
            }
        row["ours_over_loma_edp"] = (
            row["ours"]["energy_pj"]
            * row["ours"]["cycles"]
            / (row["loma"]["energy_pj"] * row["loma"]["cycles"])
        )
        results.append(row)
        print(json.dumps(row), flush=True)
    # Pliant is not installed with ZigZag, so the result is written here as `result.publish`
    # would.
    result = {
        "benchmark": "accelerator_zigzag",
        "date": date.today().isoformat(),
        "machine": {
            "cpu": platform.processor(),
            "os": platform.platform(),
            "python": platform.python_version(),
        },
        "zigzag": version("zigzag-dse"),
        "rows": results,
    }
    path = Path(__file__).parent / "results" / "accelerator_zigzag.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("prepare", "run"))
    parser.add_argument("folder", type=Path, help="of ZigZag's input files and results")
    arguments = parser.parse_args()
    {"prepare": prepare, "run": run}[arguments.step](arguments.folder)
