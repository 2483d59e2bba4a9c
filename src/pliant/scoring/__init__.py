"""Networks that nobody trains: their scores, how well those rank them, and a search by one.

The names load on first use, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.scoring.ground_truth import TableCorrelations as TableCorrelations
    from pliant.scoring.ground_truth import table_correlations as table_correlations
    from pliant.scoring.images import Batch as Batch
    from pliant.scoring.images import Shape as Shape
    from pliant.scoring.images import as_batch as as_batch
    from pliant.scoring.images import noise_batch as noise_batch
    from pliant.scoring.images import training_batch as training_batch
    from pliant.scoring.process_pool import ScoreRow as ScoreRow
    from pliant.scoring.score import score_networks as score_networks
    from pliant.scoring.score_tables import read_rows as read_rows
    from pliant.scoring.score_tables import write_rows as write_rows
    from pliant.scoring.zero_shot_result import RankedNetwork as RankedNetwork
    from pliant.scoring.zero_shot_result import ZeroShotSearchResult as ZeroShotSearchResult
    from pliant.scoring.zero_shot_search import search_by_score as search_by_score
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "ground_truth": ["TableCorrelations", "table_correlations"],
            "images": ["Batch", "Shape", "as_batch", "noise_batch", "training_batch"],
            "process_pool": ["ScoreRow"],
            "score": ["score_networks"],
            "score_tables": ["read_rows", "write_rows"],
            "zero_shot_result": ["RankedNetwork", "ZeroShotSearchResult"],
            "zero_shot_search": ["search_by_score"],
        },
    )
