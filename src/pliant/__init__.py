"""Pliant: hardware-aware neural architecture search, from labelled images to a measured network.

    from pliant import Run, run_all

    with Run.create("digits", limits=["latency_ms=0.1"]) as run:
        result = run_all(run)

The names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Run": "pliant.runs.run",
    "run_all": "pliant.runs.workflow",
    "load": "pliant.data",
    "preset": "pliant.spaces.presets",
    "Limit": "pliant.objective",
    "Record": "pliant.record",
}

__all__ = ["Limit", "Record", "Run", "load", "preset", "run_all"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pliant' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
