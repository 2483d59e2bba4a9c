"""What do tiles that need not divide gain, and what does their certificate cost?

python benchmarks/accelerator_ragged.py

The layers of a ViT-B/16 block (197 tokens), two longer sequences, and ResNet-50: energy-delay
product with tiles that divide, with ragged tiles, and CPU seconds of the proof.
"""

from __future__ import annotations

import time
from typing import Any

from accelerator_networks import NETWORKS
from result import publish

from pliant.accelerator.chip import Chip, load_chip
from pliant.accelerator.mapper.mapspace import spatial_splits
from pliant.accelerator.mapper.optimal import (
    POWERS,
    DataflowConstraint,
    MappingSearch,
    optimal_mapping,
)
from pliant.accelerator.model.counts import layer_key
from pliant.workload import Layer

CHIPS = ("nvdla-256", "nvdla-1024", "eyeriss")


def dense(name: str, rows: int, outputs: int, inputs: int, groups: int = 1) -> Layer:
    """A matrix product."""
    return Layer(name, "matmul", ("x",), G=groups, N=rows, K=outputs, C=inputs)


BLOCK = (
    dense("query, key, value", 197, 2304, 768),
    dense("scores", 197, 197, 64, groups=12),
    dense("mix", 197, 64, 197, groups=12),
    dense("projection", 197, 768, 768),
    dense("expand", 197, 3072, 768),
    dense("contract", 197, 768, 3072),
)
LONGER = (dense("577 tokens", 577, 3072, 768), dense("1009 tokens", 1009, 1024, 1024))


def best_that_divides(layer: Layer, chip: Chip) -> float:
    """The least energy-delay product of tiles that divide the rounds of the array."""
    splits = spatial_splits(layer, chip)
    search = MappingSearch(layer, chip, POWERS["edp"], DataflowConstraint(), splits)
    while search.bound < search.best:
        search.advance(64)
    return search.best


def compare(name: str, layers: tuple[Layer, ...], chip: Chip) -> dict[str, Any]:
    """Sums over the layers; equal ones are searched once."""
    shapes = {layer_key(layer): layer for layer in layers}.values()
    started = time.process_time()
    found = [optimal_mapping(layer, chip) for layer in shapes]
    seconds = time.process_time() - started
    divide = sum(best_that_divides(layer, chip) for layer in shapes)
    ragged = sum(best.value for best in found)
    return {
        "network": name,
        "chip": chip.name,
        "shapes": len(found),
        "edp_divide": divide,
        "edp_ragged": ragged,
        "ratio": ragged / divide,
        "cpu_s": seconds,
        "proven": all(best.certificate.proven for best in found),
    }


def main() -> None:
    optimal_mapping(Layer("first", "matmul", ("x",)), load_chip("eyeriss"))  # compiles
    rows = []
    for chip_name in CHIPS:
        chip = load_chip(chip_name)
        rows.append(compare("ViT-B/16 block", BLOCK, chip))
        rows += [compare(layer.name, (layer,), chip) for layer in LONGER]
        rows.append(compare("ResNet-50", tuple(NETWORKS["resnet50"]().layers), chip))
    publish("accelerator_ragged", rows)


if __name__ == "__main__":
    main()
