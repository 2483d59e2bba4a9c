"""Network, hardware and mapping together: a co-design over the supernet of a trained run.

    with Run.reopen("runs/cifar10") as run:
        codesign_supernet(Session(run), load_chip("eyeriss"), Path("designs"), options, floor=0.9)

The steps for one network of the supernet come first, as for any network; then the search over the
hardware goes on with the best network for each design, by the run's accuracy predictor under a
floor of the accuracy. The network of the best design is validated on all validation images: where
it is below the floor, the next ones are, and then those that are predicted to be better by what the
predictor missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pliant.accelerator.chip import Chip
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.network_mapping import deciding_fields, digest
from pliant.errors import InfeasibleError, RecipeError, RunConflictError
from pliant.progress import Progress, given_or_shown
from pliant.record import Record
from pliant.report.codesign_page import CodesignResult, SearchedNetwork, Stage
from pliant.runs.codesign import (
    CodesignOptions,
    bound_of_all,
    chosen_dataflow,
    decomposed,
    hardware_space,
    write_result,
)
from pliant.runs.codesign_front import found_front
from pliant.runs.design_record import RecordedDesigns
from pliant.runs.search import estimate_context
from pliant.runs.session import Session
from pliant.runs.specialize import accuracy_estimator
from pliant.search.codesign import search_hardware
from pliant.search.codesign_front import JointNetworks
from pliant.search.mapped_designs import Design, MappedNetworks
from pliant.search.searched_networks import NETWORK, NetworkAccuracies, SearchedNetworks
from pliant.spaces.architecture import Architecture

STAGE = "network, hardware and mapping"
VALIDATED = 3
"""Networks of the best design that are validated before better predictions are asked for."""
TIGHTENINGS = 3
"""Times that they are."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The network of the best design, as validated."""

    design: Design
    top1: float
    history: tuple[Design, ...]
    """The networks that were mapped on its chip, in the order of the search."""


def codesign_supernet(
    session: Session,
    within: Chip,
    folder: Path,
    options: CodesignOptions,
    *,
    floor: float | None = None,
    baseline: Architecture | None = None,
    progress: Progress | None = None,
) -> CodesignResult:
    """Search for accelerator and network within a chip's resources, and say what gained what.

    Args:
        session: of a trained and searched run.
        within: the chip.
        folder: of record, result and page; the same call resumes there.
        options: of the search.
        floor: least top-1 of the network, 0 to 1; that of the baseline, validated, where None. A
            front has no floor where None.
        baseline: the network of the first steps; the largest of the space where None.
        progress: told of every design; shown where None.

    Raises:
        InfeasibleError: no network reaches the floor, with the accuracies that are reached.
        RecipeError: a floor that is no share, or a folder of another co-design.
        RunConflictError: the run was not trained or not searched yet.
    """
    if floor is not None and not 0 < floor <= 1:
        raise RecipeError(f"an accuracy is above 0 and at most 1, received {floor:g}.")
    if not session.run.weights.is_file():
        raise RunConflictError(
            "a co-design chooses among the networks of a trained and searched supernet; "
            f"{session.run.folder} has no weights. Run pliant run on it first."
        )
    space = session.run.space
    first = baseline or space.largest()
    accuracies = NetworkAccuracies(space, accuracy_estimator(session))
    top1 = session.validate(first).top1
    asked_floor, floor = floor, top1 if floor is None else floor
    context = digest(session.weights_digest, estimate_context(session), accuracies_of(session))
    judge = SearchedNetworks(
        accuracies,
        floor,
        networks=options.networks,
        seed=options.seed,
        mapper=options.layer_mapper(),
        context=context,
    )
    given = MappedNetworks({NETWORK: space.lower(first)}, options.layer_mapper())
    identity = digest(given.identity, judge.identity, deciding_fields(within), *options.decisive)[
        :16
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        given_or_shown(progress) as told,
        Record.open(folder / "record.sqlite", recipe_digest=identity) as record,
    ):
        memory = RecordedDesigns(record)
        stages = decomposed(given, within, options, memory, told)
        hardware = hardware_space(within, options)
        found = _searched(hardware, judge, stages, options, memory, told)
        front = None
        if options.objectives is not None:
            joint = JointNetworks(accuracies, options.layer_mapper(), context, asked_floor or 0.0)
            front = found_front(
                hardware,
                joint,
                options.objectives,
                options.designs,
                options.seed,
                record,
                told,
                validate=lambda text: session.validate(space.parse(text)).top1,
            )
        chosen = _validated(session, judge, min(found, key=lambda one: one.edp), told)
    stages.append(Stage(STAGE, tuple(found), chosen.design))
    result = CodesignResult(
        within=within,
        networks=(NETWORK,),
        dataflow=chosen_dataflow(within, options),
        designs=options.designs,
        seed=options.seed,
        gap=options.gap,
        mapper=options.mapper,
        loops_per_axis=hardware.loops_per_axis,
        stages=tuple(stages),
        bound=bound_of_all(given.workloads, within),
        front=front,
        searched=SearchedNetwork(
            floor=floor,
            baseline=str(first),
            baseline_top1=top1,
            network=str(chosen.design.network),
            predicted_top1=float(chosen.design.accuracy or 0.0),
            top1=chosen.top1,
            history=chosen.history,
        ),
    )
    write_result(result, folder)
    return result


def accuracies_of(session: Session) -> int:
    """How many evaluations are behind the run's accuracy predictor."""
    return len(session.run.record.evaluations("estimate"))


def _searched(
    hardware: HardwareSpace,
    judge: SearchedNetworks,
    stages: Sequence[Stage],
    options: CodesignOptions,
    memory: RecordedDesigns,
    told: Progress,
) -> list[Design]:
    """Designs with the best network for each, beginning at the best hardware of one network.

    Args:
        hardware: to draw from.
        judge: of the designs.
        stages: before.
        options: of the search.
        memory: of designs.
        told: of every design.
    """
    start = min((stage.best for stage in stages), key=lambda one: one.edp).chip
    found: list[Design] = []
    for design in search_hardware(
        hardware,
        judge,
        designs=options.designs,
        seed=options.seed,
        start=start,
        memory=memory,
        threads=options.threads,
    ):
        found.append(design)
        told(STAGE, len(found), options.designs, "designs with the best network for each")
    return found


def _validated(session: Session, judge: SearchedNetworks, best: Design, told: Progress) -> _Chosen:
    """The least energy-delay product on the best chip, of networks that are validated.

    Args:
        session: that validates.
        judge: of the networks.
        best: the design whose chip it is.
        told: of every validation.

    Raises:
        InfeasibleError: none of those validated reaches the floor; with the nearest.
    """
    floor, reached = judge.floor, 0.0
    for _ in range(TIGHTENINGS + 1):
        ranked = judge.ranked(best.chip)
        missed = 0.0
        shortlist = sorted(ranked, key=lambda one: one.edp)[:VALIDATED]
        for number, design in enumerate(shortlist, 1):
            top1 = session.validate(session.run.space.parse(str(design.network))).top1
            told("validation", number, len(shortlist), f"top-1 {top1:.2%}")
            if top1 >= floor:
                vector = best.vector
                return _Chosen(replace(design, vector=vector), top1, tuple(ranked))
            reached = max(reached, top1)
            missed = max(missed, (design.accuracy or 0.0) - top1, floor - top1)
        try:
            judge = judge.with_floor(min(1.0, judge.floor + missed))
        except InfeasibleError:  # nothing is predicted to be so good
            break
    raise InfeasibleError(
        f"the network of a co-design reaches its floor as validated; of the best on the best design"
        f" none reaches {floor:.2%}, the nearest has {reached:.2%}. Lower --min-accuracy to that."
    )
