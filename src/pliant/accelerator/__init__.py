"""Accelerators on paper: what a network costs on a chip that does not exist yet, best mapped.

`evaluate` counts exactly what one mapping of a layer moves and how long it takes; `optimal_mapping`
finds the best mapping of a stated space and proves it; `ChipTarget` costs the networks of a search
space. Names are loaded on first use, so importing the package compiles nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.accelerator.chip import Axis as Axis
    from pliant.accelerator.chip import Chip as Chip
    from pliant.accelerator.chip import Memory as Memory
    from pliant.accelerator.chip import WordWidths as WordWidths
    from pliant.accelerator.chip import load_chip as load_chip
    from pliant.accelerator.chip import parse_chip as parse_chip
    from pliant.accelerator.chip import shipped_chips as shipped_chips
    from pliant.accelerator.chip_target import ChipTarget as ChipTarget
    from pliant.accelerator.energy import EnergyTable as EnergyTable
    from pliant.accelerator.mapper.optimal import BestMapping as BestMapping
    from pliant.accelerator.mapper.optimal import Certificate as Certificate
    from pliant.accelerator.mapper.optimal import optimal_mapping as optimal_mapping
    from pliant.accelerator.mapping import Mapping as Mapping
    from pliant.accelerator.model.cost import MappingCost as MappingCost
    from pliant.accelerator.model.cost import MappingCosts as MappingCosts
    from pliant.accelerator.model.cost import evaluate as evaluate
    from pliant.accelerator.model.cost import evaluate_many as evaluate_many
    from pliant.accelerator.network_mapping import NetworkMapping as NetworkMapping
    from pliant.accelerator.network_mapping import map_workload as map_workload
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "chip": [
                "Axis",
                "Chip",
                "Memory",
                "WordWidths",
                "load_chip",
                "parse_chip",
                "shipped_chips",
            ],
            "energy": ["EnergyTable"],
            "mapper.optimal": ["BestMapping", "Certificate", "optimal_mapping"],
            "mapping": ["Mapping"],
            "model.cost": ["MappingCost", "MappingCosts", "evaluate", "evaluate_many"],
            "network_mapping": ["NetworkMapping", "map_workload"],
            "chip_target": ["ChipTarget"],
        },
    )
