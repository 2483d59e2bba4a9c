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
    from pliant.accelerator.energy import EnergyTable as EnergyTable
    from pliant.accelerator.mapper.search import BestMapping as BestMapping
    from pliant.accelerator.mapper.search import Certificate as Certificate
    from pliant.accelerator.mapper.search import optimal_mapping as optimal_mapping
    from pliant.accelerator.mapping import Mapping as Mapping
    from pliant.accelerator.model.cost import MappingCost as MappingCost
    from pliant.accelerator.model.cost import MappingCosts as MappingCosts
    from pliant.accelerator.model.cost import evaluate as evaluate
    from pliant.accelerator.model.cost import evaluate_many as evaluate_many
    from pliant.accelerator.network import NetworkMapping as NetworkMapping
    from pliant.accelerator.network import map_workload as map_workload
    from pliant.accelerator.target import ChipTarget as ChipTarget
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
            "mapper.search": ["BestMapping", "Certificate", "optimal_mapping"],
            "mapping": ["Mapping"],
            "model.cost": ["MappingCost", "MappingCosts", "evaluate", "evaluate_many"],
            "network": ["NetworkMapping", "map_workload"],
            "target": ["ChipTarget"],
        },
    )
