"""Does the model agree with Eyeriss? AlexNet and VGG-16 against published bars and the chip.

python benchmarks/accelerator_eyeriss.py ../shared/data/accelerator_reference.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerator_networks import NETWORKS, alexnet, batched
from result import publish

from pliant.accelerator.chip import Axis, Chip, Memory, WordWidths, load_chip
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapper.baselines import fixed_dataflow
from pliant.accelerator.mapper.optimal import BestMapping, optimal_mapping
from pliant.workload import Layer


def isca_chip() -> Chip:
    """The machine of the ISCA 2016 paper's analysis: 16 x 16 PEs, 512 B each, 128 KiB buffer."""
    axes = (Axis("rows", 16, "RCKG"), Axis("columns", 16, "PKCNG"))
    words = WordWidths(16, 16, 16, 16)
    return Chip(
        "eyeriss-isca16",
        axes,
        Memory(512.0),
        Memory(131072.0),
        TABLES["eyeriss"],
        200.0,
        word_widths=words,
    )


def measured_chip() -> Chip:
    """The chip of the JSSC paper; the picojoule table of nn_dataflow and its 30 mW of idling."""
    table = replace(TABLES["nn-dataflow"], idle_per_cycle=30e-3 / 200e6 * 1e12)
    return replace(load_chip("eyeriss"), energy=table)


def bars(reference: dict[str, Any]) -> list[dict[str, Any]]:
    """Energy of each AlexNet layer at batch 16 in ALU, DRAM and register file, 1e9 MAC energies."""
    rows = []
    for layer in alexnet(16).layers:
        if layer.name not in reference["alexnet"]:
            continue
        best = optimal_mapping(layer, isca_chip(), "energy")
        row_stationary = fixed_dataflow(layer, isca_chip(), "row-stationary", "energy")
        parts = best.cost.energy_parts
        fixed = row_stationary.cost.energy_parts
        for name, key in (("ALU", "mac"), ("DRAM", "dram"), ("RF", "register")):
            published = reference["alexnet"][layer.name][name]
            row = {
                "layer": layer.name,
                "part": name,
                "published": published,
                "optimal": parts[key] / 1e9,
                "row": fixed[key] / 1e9,
            }
            # The published bars count the four accesses of a multiply-accumulate; ours add what
            # fills the registers.
            counts = row_stationary.cost.counts
            row["macs_only"] = (
                (4 * counts["operations"] - counts["started_sums"]) / 1e9
                if name == "RF"
                else row["row"]
            )
            rows.append(row)
    return rows


def gated(layer: BestMapping, chip: Chip, zeros: float) -> float:
    """Energy that the chip saves where an input is zero (JSSC 2017, section IV-B).

    It neither multiplies nor reads the weight.

    Sums are still read and written, so this is the least that the gating saves.
    """
    weight_read = chip.energy.register * chip.word_widths.weight_bits / chip.energy.word_bits
    return zeros * (layer.cost.energy_parts["mac"] + layer.cost.counts["operations"] * weight_read)


def whole(layers: list[tuple[BestMapping, float]]) -> dict[str, float]:
    """Latency, and power of the chip itself, without DRAM.

    As the model has it, and with the published share of zeros gated.
    """
    milliseconds = sum(layer.cost.latency_ms for layer, _ in layers)
    on_chip = sum(layer.cost.energy - layer.cost.energy_parts["dram"] for layer, _ in layers)
    saved = sum(gated(layer, measured_chip(), zeros) for layer, zeros in layers)
    power = on_chip * 1e-9 / milliseconds * 1e3
    return {
        "latency_ms": milliseconds,
        "power_mw": power,
        "gated_mw": power * (1 - saved / on_chip),
    }


def chip_rows(layers: tuple[Layer, ...], published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Latency and power of every convolution, and of the measured chip."""
    chip, rows, mapped = measured_chip(), [], []
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    for layer, row in zip([*convolutions, None], published, strict=True):
        if layer is None:
            ours = whole(mapped)
        else:
            best = fixed_dataflow(layer, chip, "row-stationary", "energy")
            mapped.append((best, row["ifmap_zeros_pct"] / 100))
            ours = whole(mapped[-1:])

        rows.append(
            {
                "layer": row["layer"],
                "latency_ms": ours["latency_ms"],
                "chip_ms": row["processing_latency_ms"],
                "latency_ratio": ours["latency_ms"] / row["processing_latency_ms"],
                "power_mw": ours["power_mw"],
                "chip_mw": row["power_mW"],
                "power_ratio": ours["power_mw"] / row["power_mW"],
                "gated_ratio": ours["gated_mw"] / row["power_mW"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    options = parser.parse_args()
    reference = json.loads(options.reference.read_text(encoding="utf-8"))
    publish(
        "accelerator_eyeriss_bars",
        bars(reference["eyeriss_isca16_energy"]),
        unit="1e9 MAC energies, batch 16",
    )
    vgg16 = batched(NETWORKS["vgg-16"](), 3)
    for name, layers in (("alexnet", alexnet(4).layers), ("vgg16", vgg16.layers)):
        publish(
            f"accelerator_eyeriss_{name}",
            chip_rows(layers, reference["eyeriss_chip"][name]),
            power="of the chip, without DRAM",
        )


if __name__ == "__main__":
    main()
