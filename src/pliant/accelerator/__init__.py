"""Accelerators on paper: what a network costs on a chip that does not exist yet, and the best way to run it there.

`evaluate` counts what a mapping of a layer moves and takes, exactly; `optimal_mapping` finds the best mapping of a
stated space and proves it. Names are loaded on first use, so importing the package compiles nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Axis": "chip",
    "Chip": "chip",
    "Memory": "chip",
    "Words": "chip",
    "load_chip": "chip",
    "parse_chip": "chip",
    "shipped_chips": "chip",
    "EnergyTable": "energy",
    "Mapping": "mapping",
    "evaluate": "cost",
    "evaluate_many": "cost",
    "MappingCost": "cost",
    "MappingCosts": "cost",
    "optimal_mapping": "mapper",
    "BestMapping": "mapper",
    "Certificate": "mapper",
    "map_workload": "network",
    "NetworkMapping": "network",
    "onnx_workload": "onnx_import",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
