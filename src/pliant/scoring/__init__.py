"""Networks that nobody trains: their scores, how well those rank them, and a search by one.

The names load on first use, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pliant.scoring.ground_truth import TableCorrelations, table_correlations
    from pliant.scoring.images import Batch, Shape, noise_batch, training_batch
    from pliant.scoring.process_pool import ScoreRow
    from pliant.scoring.score import score_networks
    from pliant.scoring.tables import read_rows, write_rows
    from pliant.scoring.zero_shot_search import (
        RankedNetwork,
        ZeroShotSearchConfiguration,
        ZeroShotSearchResult,
        search_without_training,
    )

_MODULES = {
    "Batch": "images",
    "RankedNetwork": "zero_shot_search",
    "ScoreRow": "process_pool",
    "Shape": "images",
    "TableCorrelations": "ground_truth",
    "ZeroShotSearchConfiguration": "zero_shot_search",
    "ZeroShotSearchResult": "zero_shot_search",
    "noise_batch": "images",
    "read_rows": "tables",
    "score_networks": "score",
    "search_without_training": "zero_shot_search",
    "table_correlations": "ground_truth",
    "training_batch": "images",
    "write_rows": "tables",
}

__all__ = [
    "Batch",
    "RankedNetwork",
    "ScoreRow",
    "Shape",
    "TableCorrelations",
    "ZeroShotSearchConfiguration",
    "ZeroShotSearchResult",
    "noise_batch",
    "read_rows",
    "score_networks",
    "search_without_training",
    "table_correlations",
    "training_batch",
    "write_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pliant.scoring' has no attribute {name!r}")
    return getattr(import_module(f"pliant.scoring.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
