"""Designs in the record of a folder: what makes a co-design resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pliant.accelerator.chip import Chip
from pliant.metrics import Failed
from pliant.record import Record
from pliant.search.mapped_designs import Design, NetworkCost

STAGE = "design"
"""Of the evaluations in the record."""
REJECTED = "rejected by a bound before it was mapped"


class RecordedDesigns:
    """The memory of searches for hardware, in a record.

    Args:
        record: of the folder, open.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def get(self, key: str, chip: Chip, vector: Sequence[float]) -> Design | None:
        """The design as it was evaluated; None where it is unknown.

        Args:
            key: digest of the chip and of what it was judged by.
            chip: of the design.
            vector: of the design.
        """
        row = self.record.evaluation(STAGE, key)
        if row is None:
            return None
        point, bound = tuple(vector), row.measures.get("bound")
        if bound is not None:
            return Design(chip, point, {}, bound=bound)
        if isinstance(row.cost, Failed):
            return Design(chip, point, {}, row.cost.reason)
        costs: Mapping[str, Sequence[Any]] = row.measures["costs"]
        return Design(
            chip,
            point,
            {name: NetworkCost(*values) for name, values in costs.items()},
            network=row.measures.get("network"),
            accuracy=row.measures.get("accuracy"),
        )

    def put(self, key: str, design: Design) -> None:
        """Keep a design; one that was rejected or failed is replaced where it is judged again."""
        costs = {
            name: [cost.cycles, cost.energy, cost.proven] for name, cost in design.costs.items()
        }
        reason = design.failure if design.bound is None else REJECTED
        measures = {
            "costs": costs,
            "vector": list(design.vector),
            "bound": design.bound,
            "network": design.network,
            "accuracy": design.accuracy,
            "edp": design.edp if costs else None,
            "area_mm2": design.chip.area_mm2,
        }
        self.record.add_evaluation(
            STAGE,
            key,
            cost=None if reason is None else Failed(reason),
            measures={name: value for name, value in measures.items() if value is not None},
        )
