"""What do tiles that need not divide gain, and what does their certificate cost?

python benchmarks/accelerator_ragged.py

The layers of a ViT-B/16 block (197 tokens), two longer sequences, and ResNet-50: energy-delay
product with tiles that divide, with ragged tiles, and CPU seconds of the proof. Rows are published
one by one; a run that was stopped goes on after its last row, a finished one begins again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from accelerator_networks import BLOCK, NETWORKS, dense
from result import RESULTS, publish

from pliant.accelerator.chip import Chip, load_chip
from pliant.accelerator.mapper.mapspace import spatial_splits
from pliant.accelerator.mapper.optimal import (
    POWERS,
    DataflowConstraint,
    MappingSearch,
    optimal_mapping,
)
from pliant.accelerator.mapping_store import MODEL_VERSION
from pliant.accelerator.model.counts import layer_key
from pliant.workload import Layer

NAME = "accelerator_ragged"
CHIPS = ("nvdla-256", "nvdla-1024", "eyeriss")


LONGER = (dense("577 tokens", 577, 3072, 768), dense("1009 tokens", 1009, 1024, 1024))


def best_that_divides(layer: Layer, chip: Chip) -> float:
    """The least energy-delay product of tiles that divide the rounds of the array."""
    splits = spatial_splits(layer, chip)
    search = MappingSearch(layer, chip, POWERS["edp"], DataflowConstraint(), splits)
    while search.bound < search.best * search.problem.below:
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


def cases() -> Iterator[tuple[str, tuple[Layer, ...], str]]:
    """Network, layers and chip of every row."""
    for chip in CHIPS:
        yield "ViT-B/16 block", BLOCK, chip
        for layer in LONGER:
            yield layer.name, (layer,), chip
        yield "ResNet-50", tuple(NETWORKS["resnet-50"]().layers), chip


def published() -> list[dict[str, Any]]:
    """Rows of a run that was stopped; none of a finished one, or of other code."""
    file = RESULTS / f"{NAME}.json"
    if not file.exists():
        return []
    stored = json.loads(file.read_text(encoding="utf-8"))
    unfinished = stored.get("model_version") == MODEL_VERSION and not stored["finished"]
    return list(stored["rows"]) if unfinished else []


def main() -> None:
    optimal_mapping(Layer("first", "matmul", ("x",)), load_chip("eyeriss"))  # compiles
    rows, every_case = published(), list(cases())
    for name, layers, chip in every_case[len(rows) :]:
        rows.append(compare(name, layers, load_chip(chip)))
        finished = len(rows) == len(every_case)
        publish(NAME, rows, model_version=MODEL_VERSION, finished=finished)


if __name__ == "__main__":
    main()
