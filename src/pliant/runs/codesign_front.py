"""The front of a co-design: searched by NSGA-II, kept in the record, its networks validated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pliant.accelerator.hardware_space import HardwareSpace
from pliant.progress import Progress
from pliant.record import Record
from pliant.report.codesign_page import DesignFront
from pliant.runs.design_record import RecordedDesigns
from pliant.search.codesign_front import FrontJudge, FrontObjectives, metric, search_designs
from pliant.search.mapped_designs import Design

VALIDATED = 8
"""Networks of a front that are validated, evenly spaced along it."""
FRONT = "front"
"""Key of the front among the metadata of the record."""


def found_front(
    space: HardwareSpace,
    judge: FrontJudge,
    objectives: FrontObjectives,
    designs: int,
    seed: int,
    record: Record,
    told: Progress,
    *,
    validate: Callable[[str], float] | None = None,
) -> DesignFront:
    """The designs that no other one beats.

    Args:
        space: of the hardware.
        judge: of the designs.
        objectives: what they are compared by.
        designs: to evaluate.
        seed: of all draws.
        record: of the folder, open.
        told: of every design.
        validate: top-1 of a network by its text, on all validation images; None for given networks.

    Raises:
        InfeasibleError: no design can run the networks.
    """
    found: list[Design] = []
    memory = RecordedDesigns(record)
    searched = search_designs(space, judge, objectives, designs=designs, seed=seed, memory=memory)
    for design in searched:
        found.append(design)
        told("front", len(found), designs, f"designs by {', '.join(objectives.names)}")
    front = objectives.front(found)
    top1 = {} if validate is None else _validated(front, validate, told)
    record.set_metadata(
        FRONT,
        [
            {name: metric(one, name) for name in objectives.names}
            | {"vector": list(one.vector), "network": one.network}
            for one in front
        ],
    )
    return DesignFront(objectives, tuple(found), tuple(front), top1)


def _validated(
    front: Sequence[Design], validate: Callable[[str], float], told: Progress
) -> dict[str, float]:
    """Top-1 of networks along the front."""
    places = np.unique(np.linspace(0, len(front) - 1, min(VALIDATED, len(front))).round())
    names = list(dict.fromkeys(str(front[int(place)].network) for place in places))
    found = {}
    for number, name in enumerate(names, 1):
        found[name] = validate(name)
        told("validation", number, len(names), "networks of the front, on all images")
    return found
