"""Several accuracy estimators on the same networks: evaluated, recorded and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.estimation.comparison import Comparison as Comparison
    from pliant.estimation.comparison import compare as compare
    from pliant.estimation.estimators import ESTIMATORS as ESTIMATORS
    from pliant.estimation.estimators import EstimatorSettings as EstimatorSettings
    from pliant.estimation.run import EstimationResult as EstimationResult
    from pliant.estimation.run import estimate_networks as estimate_networks
    from pliant.estimation.search import search_by_estimator as search_by_estimator
    from pliant.estimation.search_result import EstimatorSearchResult as EstimatorSearchResult
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "comparison": ["Comparison", "compare"],
            "estimators": ["ESTIMATORS", "EstimatorSettings"],
            "run": ["EstimationResult", "estimate_networks"],
            "search": ["search_by_estimator"],
            "search_result": ["EstimatorSearchResult"],
        },
    )
