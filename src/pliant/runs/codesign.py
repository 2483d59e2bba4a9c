"""A co-design from start to end: the gain taken apart, in a folder that resumes.

    result = codesign({"resnet-50": network("resnet-50")}, load_chip("eyeriss"), Path("designs"))

What a better accelerator gains is easily confused with what a better mapping gains. So the same
networks are costed on the given chip with a fixed dataflow, as published comparisons do, and with
the best mapping of every layer; then the sizes alone are searched, then all of the hardware, and
the latter by random draws of equal number. Beside them stands what no design within the resources
can exceed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pliant.accelerator.chip import Chip, chip_toml
from pliant.accelerator.hardware_space import ENCODINGS, HardwareSpace
from pliant.accelerator.mapper.baselines import DATAFLOWS, fixed_dataflow
from pliant.accelerator.mapper.evolved import evolved_mapping
from pliant.accelerator.mapper.optimal import BestMapping, check_gap
from pliant.accelerator.network_mapping import deciding_fields, digest
from pliant.accelerator.resource_bound import resource_bound
from pliant.errors import InfeasibleError, RecipeError, nearest
from pliant.files import write_atomically
from pliant.progress import Progress, given_or_shown
from pliant.record import Record
from pliant.report.codesign_page import CodesignResult, Stage, write_codesign_page
from pliant.runs.codesign_front import found_front
from pliant.runs.design_record import RecordedDesigns
from pliant.search.codesign import Algorithm, search_hardware
from pliant.search.codesign_front import FrontObjectives, GivenNetworks
from pliant.search.mapped_designs import (
    Design,
    LayerMapper,
    MappedNetworks,
    best_layer,
    geometric_mean,
    may_bypass,
)
from pliant.workload import Layer, Workload

CHIP_DATAFLOWS = {
    "eyeriss": "row-stationary",
    "shidiannao-like": "output-stationary",
}
"""That the shipped chips were built for; weight-stationary where none is named."""

MAPPERS = ("certified", "evolution")


@dataclass(frozen=True, slots=True)
class CodesignOptions:
    """How a co-design searches."""

    designs: int = 200
    """Of each search; those that a bound rejects count."""
    seed: int = 0
    """Of all draws."""
    dataflow: str | None = None
    """Of the first step, a key of `DATAFLOWS` of the mapper; that of the chip where None."""
    gap: float = 0.0
    """By which share of its energy-delay product a layer's mapping may miss the best one."""
    mapper: str = "certified"
    """How layers are mapped: certified, or by the evolution of the paper."""
    mappings: int = 200
    """That the evolution evaluates of each layer."""
    encoding: str = "importance"
    """Of the parallel loops."""
    loops_per_axis: int | None = None
    """That an axis chooses among; as many as the chip's own where None, 1 in the paper."""
    networks: int = 40
    """Of a supernet, that are evaluated for each design; those that a bound rejects count."""
    objectives: FrontObjectives | None = None
    """Of a front that is searched too; none where None."""
    threads: int = 1
    """That evaluate designs side by side."""

    def __post_init__(self) -> None:
        check_gap(self.gap)
        for name in ("designs", "mappings", "networks", "threads"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} are at least 1, received {getattr(self, name)}.")
        for name, known in (("mapper", MAPPERS), ("encoding", ENCODINGS)):
            if getattr(self, name) not in known:
                raise RecipeError(
                    f"the {name} is {' or '.join(known)}, received {getattr(self, name)!r}."
                )
        if self.dataflow is not None and self.dataflow not in DATAFLOWS:
            raise RecipeError(
                f"no dataflow is called {self.dataflow!r}. {nearest(self.dataflow, DATAFLOWS)}"
            )

    @property
    def decisive(self) -> tuple[object, ...]:
        """What decides the designs of a search but their number; a folder holds one of it."""
        evaluations = self.mappings if self.mapper == "evolution" else 0
        mapping = (self.gap, self.mapper, evaluations)
        return (self.seed, *mapping, self.encoding, self.loops_per_axis)

    def layer_mapper(self) -> LayerMapper:
        """Maps one layer on one chip."""
        if self.mapper == "certified":
            return functools.partial(best_layer, gap=self.gap)

        def evolved(layer: Layer, chip: Chip, limit: float = math.inf) -> BestMapping:
            bypass = may_bypass(chip)
            return evolved_mapping(layer, chip, self.mappings, seed=self.seed, bypass=bypass)

        return evolved


def codesign(
    workloads: Mapping[str, Workload],
    within: Chip,
    folder: Path,
    options: CodesignOptions | None = None,
    *,
    progress: Progress | None = None,
) -> CodesignResult:
    """Search for an accelerator within the resources of a chip, and say what gained what.

    Args:
        workloads: the networks, by name; the geometric mean of their energy-delay products counts.
        within: the chip.
        folder: of record, result and page; the same call resumes there.
        options: of the search.
        progress: told of every design; shown where None.

    Raises:
        RecipeError: the folder is of another co-design, the chip has memories without end, or a
            front of accuracies, which needs a supernet.
        InfeasibleError: the chip or no design can run the networks.
    """
    options = options or CodesignOptions()
    objectives = options.objectives
    if objectives is not None and objectives.maximise:
        raise RecipeError(
            "accuracy is that of a searched network; it is maximised over the supernet of a run. "
            "Name the run by --supernet, or minimise only."
        )
    networks = MappedNetworks(workloads, options.layer_mapper())
    space = hardware_space(within, options)
    identity = digest(networks.identity, deciding_fields(within), *options.decisive)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        given_or_shown(progress) as told,
        Record.open(folder / "record.sqlite", recipe_digest=identity) as record,
    ):
        stages = decomposed(networks, within, options, RecordedDesigns(record), told)
        front = None
        if objectives is not None:
            judge = GivenNetworks(networks)
            front = found_front(
                space, judge, objectives, options.designs, options.seed, record, told
            )
    result = CodesignResult(
        within=within,
        networks=tuple(workloads),
        dataflow=chosen_dataflow(within, options),
        designs=options.designs,
        seed=options.seed,
        gap=options.gap,
        mapper=options.mapper,
        loops_per_axis=space.loops_per_axis,
        stages=tuple(stages),
        bound=bound_of_all(workloads, within),
        front=front,
    )
    write_result(result, folder)
    return result


def write_result(result: CodesignResult, folder: Path) -> None:
    """The best design as a chip file, and the page."""
    write_atomically(folder / "best.toml", chip_toml(result.best.chip))
    write_codesign_page(result, folder / "report.html")


def chosen_dataflow(within: Chip, options: CodesignOptions) -> str:
    """The dataflow of the first step."""
    return options.dataflow or CHIP_DATAFLOWS.get(within.name, "weight-stationary")


def bound_of_all(workloads: Mapping[str, Workload], within: Chip) -> float:
    """What no design makes the geometric mean of the energy-delay products smaller than."""
    bounds = [
        resource_bound(workload, within, bypass=may_bypass(within)).edp
        for workload in workloads.values()
    ]
    return geometric_mean(bounds)


def decomposed(
    networks: MappedNetworks,
    within: Chip,
    options: CodesignOptions,
    memory: RecordedDesigns,
    told: Progress,
) -> list[Stage]:
    """The steps for given networks: two of the chip, then three searches.

    Args:
        networks: that judge.
        within: the chip.
        options: of the searches.
        memory: of designs.
        told: of every design.

    Raises:
        InfeasibleError: the chip cannot run a layer, which is named.
    """
    told("baselines", 0, 2, f"mappings on {within.name}")
    stages = given_stages(networks, within, options)
    told("baselines", 2, 2, "")
    sizes = HardwareSpace(within, sizing_only=True)
    space = hardware_space(within, options)
    searches: list[tuple[str, HardwareSpace, Algorithm]] = [
        ("best sizes", sizes, "cma-es"),
        ("best hardware", space, "cma-es"),
        ("random hardware", space, "random"),
    ]
    start = within
    for name, searched, algorithm in searches:
        found: list[Design] = []
        for design in search_hardware(
            searched,
            networks,
            designs=options.designs,
            seed=options.seed,
            algorithm=algorithm,
            start=start,
            memory=memory,
            threads=options.threads,
        ):
            found.append(design)
            told(name, len(found), options.designs, "designs, mapped or rejected by a bound")
        stages.append(Stage(name, tuple(found)))
        if name == "best sizes" and math.isfinite(stages[-1].best.edp):
            start = stages[-1].best.chip
    return stages


def given_stages(networks: MappedNetworks, within: Chip, options: CodesignOptions) -> list[Stage]:
    """The steps that search no hardware: the fixed dataflow, and best mappings.

    Args:
        networks: that judge.
        within: the chip.
        options: the dataflow.

    Raises:
        InfeasibleError: the chip cannot run a layer, which is named.
    """
    dataflow = chosen_dataflow(within, options)

    def by_dataflow(layer: Layer, chip: Chip, limit: float = math.inf) -> BestMapping | None:
        # A dataflow is of products with weights; pooling and sums are mapped in the best way.
        return fixed_dataflow(layer, chip, dataflow) if layer.weighted else best_layer(layer, chip)

    fixed = MappedNetworks(networks.workloads, by_dataflow).design(within)
    mapped = networks.design(within)
    if mapped.failure is not None:
        raise InfeasibleError(
            f"the chip that the designs are compared with runs the networks; {within.name!r} "
            f"cannot: {mapped.failure} Choose another chip, or other networks."
        )
    found = "best" if options.mapper == "certified" else "evolved"
    return [
        Stage(f"{dataflow} on {within.name}", (fixed,)),
        Stage(f"{found} mappings on {within.name}", (mapped,)),
    ]


def hardware_space(within: Chip, options: CodesignOptions) -> HardwareSpace:
    """The designs within the resources of a chip.

    Raises:
        RecipeError: the chip has memories without end, or no room for a design.
    """
    return HardwareSpace(within, encoding=options.encoding, loops_per_axis=options.loops_per_axis)


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
