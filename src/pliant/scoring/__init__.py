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
    from pliant.scoring.zero_shot_result import RankedNetwork, ZeroShotSearchResult
    from pliant.scoring.zero_shot_search import search_by_score

_MODULES = {
    "Batch": "images",
    "RankedNetwork": "zero_shot_result",
    "ScoreRow": "process_pool",
    "Shape": "images",
    "TableCorrelations": "ground_truth",
    "ZeroShotSearchResult": "zero_shot_result",
    "noise_batch": "images",
    "read_rows": "tables",
    "score_networks": "score",
    "search_by_score": "zero_shot_search",
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
    "ZeroShotSearchResult",
    "noise_batch",
    "read_rows",
    "score_networks",
    "search_by_score",
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
