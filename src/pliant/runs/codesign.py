"""A co-design from start to end: the gain taken apart, in a folder that resumes.

    result = codesign({"resnet-50": network("resnet-50")}, load_chip("eyeriss"), Path("designs"))

What a better accelerator gains is easily confused with what a better mapping gains. So the same
networks are costed on the given chip with a fixed dataflow, as published comparisons do, and with
the best mapping of every layer; then the sizes alone are searched, then all of the hardware, and
the latter by random draws of equal number.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pliant.accelerator.chip import Chip, chip_toml
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.mapper.baselines import fixed_dataflow
from pliant.accelerator.mapper.optimal import BestMapping, check_gap
from pliant.accelerator.network_mapping import deciding_fields, digest, map_layer
from pliant.errors import RecipeError
from pliant.files import write_atomically
from pliant.metrics import Failed
from pliant.progress import Progress, given_or_shown
from pliant.record import Record
from pliant.report.codesign_page import CodesignResult, Stage, write_codesign_page
from pliant.search.codesign import (
    Algorithm,
    Design,
    MappedNetworks,
    NetworkCost,
    search_hardware,
)
from pliant.workload import Layer, Workload

STAGE = "design"
"""Of the evaluations in the record."""
DATAFLOWS = {
    "eyeriss": "row-stationary",
    "shidiannao-like": "output-stationary",
}
"""That the shipped chips were built for; weight-stationary where none is named."""


def codesign(
    workloads: Mapping[str, Workload],
    within: Chip,
    folder: Path,
    *,
    designs: int = 200,
    seed: int = 0,
    dataflow: str | None = None,
    gap: float = 0.0,
    threads: int = 1,
    progress: Progress | None = None,
) -> CodesignResult:
    """Search for an accelerator within the resources of a chip, and say what gained what.

    Args:
        workloads: the networks, by name; the geometric mean of their energy-delay products counts.
        within: the chip.
        folder: of record, result and page; the same call resumes there.
        designs: of each of the three searches.
        seed: of all draws.
        dataflow: of the first step, a key of `DATAFLOWS` of the mapper; that of the chip where
            None.
        gap: by which share of its energy-delay product a layer's mapping may miss the best one.
        threads: that evaluate designs side by side.
        progress: told of every design; shown where None.

    Raises:
        RecipeError: the folder is of another co-design, or the chip has memories without end.
        InfeasibleError: no design can run the networks.
    """
    check_gap(gap)
    networks = MappedNetworks(workloads, functools.partial(map_layer, gap=gap))
    spaces: dict[str, tuple[HardwareSpace, Algorithm]] = {
        "best sizes": (HardwareSpace(within, sizing_only=True), "cma-es"),
        "best hardware": (HardwareSpace(within), "cma-es"),
        "random hardware": (HardwareSpace(within), "random"),
    }
    dataflow = dataflow or DATAFLOWS.get(within.name, "weight-stationary")
    identity = digest(networks.identity, deciding_fields(within), seed, gap)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        given_or_shown(progress) as told,
        Record.open(folder / "record.sqlite", recipe_digest=identity) as record,
    ):
        memory = _Memory(record)

        def by_dataflow(layer: Layer, chip: Chip) -> BestMapping:
            # A dataflow is of products with weights; pooling and sums are mapped in the best way.
            return (
                fixed_dataflow(layer, chip, dataflow) if layer.weighted else map_layer(layer, chip)
            )

        told("baselines", 0, 2, f"{dataflow} on {within.name}")
        fixed = MappedNetworks(workloads, by_dataflow).design(within)
        told("baselines", 1, 2, f"best mappings on {within.name}")
        mapped = networks.design(within)
        told("baselines", 2, 2, "")
        stages = [
            Stage(f"{dataflow} on {within.name}", (fixed,)),
            Stage(f"best mappings on {within.name}", (mapped,)),
        ]
        for name, (space, algorithm) in spaces.items():
            found: list[Design] = []
            for design in search_hardware(
                space,
                networks,
                designs=designs,
                seed=seed,
                algorithm=algorithm,
                memory=memory,
                threads=threads,
            ):
                found.append(design)
                told(name, len(found), designs, "designs with best mappings")
            stages.append(Stage(name, tuple(found)))
        result = CodesignResult(
            within, tuple(workloads), dataflow, designs, seed, gap, tuple(stages)
        )
    write_atomically(folder / "best.toml", chip_toml(result.best.chip))
    write_codesign_page(result, folder / "report.html")
    return result


class _Memory:
    """Designs in the record of the folder."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def get(self, key: str) -> Mapping[str, NetworkCost] | str | None:
        row = self.record.evaluation(STAGE, key)
        if row is None:
            return None
        if isinstance(row.cost, Failed):
            return row.cost.reason
        costs: Mapping[str, Sequence[Any]] = row.measures["costs"]
        return {name: NetworkCost(*values) for name, values in costs.items()}

    def put(self, key: str, design: Design) -> None:
        costs = {
            name: [cost.cycles, cost.energy, cost.proven] for name, cost in design.costs.items()
        }
        self.record.add_evaluation(
            STAGE,
            key,
            cost=None if design.failure is None else Failed(design.failure),
            measures={"costs": costs, "vector": list(design.vector)},
        )


def parse_workloads(text: str) -> dict[str, Workload]:
    """Networks from a list with commas: names of shipped ones, and ONNX files.

    Raises:
        RecipeError: there is no such network, or one is named twice.
    """
    from pliant.workload.networks import network
    from pliant.workload.onnx_reader import onnx_workload

    found: dict[str, Workload] = {}
    for word in filter(None, (one.strip() for one in text.split(","))):
        is_file = word.endswith(".onnx")
        name = Path(word).stem if is_file else word
        if name in found:
            raise RecipeError(f"a network is named once, received {word!r} again.")
        found[name] = onnx_workload(Path(word)) if is_file else network(word)
    if not found:
        raise RecipeError(
            "a co-design is for networks: name shipped ones or ONNX files, as "
            "--workload mobilenet-v2,mine.onnx."
        )
    return found
