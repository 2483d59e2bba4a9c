"""Accelerators on paper: what a network costs on a chip that does not exist yet, best mapped.

`evaluate` counts exactly what one mapping of a layer moves and how long it takes; `optimal_mapping`
finds the best mapping of a stated space and proves it; `ChipTarget` costs the networks of a search
space. Names are loaded on first use, so importing the package compiles nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pliant.accelerator.chip import (
        Axis,
        Chip,
        Memory,
        WordWidths,
        load_chip,
        parse_chip,
        shipped_chips,
    )
    from pliant.accelerator.energy import EnergyTable
    from pliant.accelerator.mapper.search import BestMapping, Certificate, optimal_mapping
    from pliant.accelerator.mapping import Mapping
    from pliant.accelerator.model.cost import MappingCost, MappingCosts, evaluate, evaluate_many
    from pliant.accelerator.network import NetworkMapping, map_workload
    from pliant.accelerator.target import ChipTarget

_MODULES = {
    "Axis": "chip",
    "BestMapping": "mapper.search",
    "Certificate": "mapper.search",
    "Chip": "chip",
    "ChipTarget": "target",
    "EnergyTable": "energy",
    "Mapping": "mapping",
    "MappingCost": "model.cost",
    "MappingCosts": "model.cost",
    "Memory": "chip",
    "NetworkMapping": "network",
    "WordWidths": "chip",
    "evaluate": "model.cost",
    "evaluate_many": "model.cost",
    "load_chip": "chip",
    "map_workload": "network",
    "optimal_mapping": "mapper.search",
    "parse_chip": "chip",
    "shipped_chips": "chip",
}
__all__ = [
    "Axis",
    "BestMapping",
    "Certificate",
    "Chip",
    "ChipTarget",
    "EnergyTable",
    "Mapping",
    "MappingCost",
    "MappingCosts",
    "Memory",
    "NetworkMapping",
    "WordWidths",
    "evaluate",
    "evaluate_many",
    "load_chip",
    "map_workload",
    "optimal_mapping",
    "parse_chip",
    "shipped_chips",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
