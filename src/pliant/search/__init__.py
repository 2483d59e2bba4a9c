"""Which architecture to evaluate next: searchers, their loop, and whether limits are feasible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.search.ask_tell import Evaluate as Evaluate
    from pliant.search.ask_tell import Searcher as Searcher
    from pliant.search.ask_tell import combined as combined
    from pliant.search.ask_tell import memoized as memoized
    from pliant.search.ask_tell import run_search as run_search
    from pliant.search.evolution import EvolutionSearch as EvolutionSearch
    from pliant.search.feasible import FeasibleRange as FeasibleRange
    from pliant.search.feasible import check_feasible as check_feasible
    from pliant.search.linas import LinasSearch as LinasSearch
    from pliant.search.linas import select_diverse as select_diverse
    from pliant.search.nsga2 import ParetoSearch as ParetoSearch
    from pliant.search.random import RandomSearch as RandomSearch
    from pliant.search.random import within_limits as within_limits
    from pliant.search.registry import SEARCHERS as SEARCHERS
    from pliant.search.registry import SearchOptions as SearchOptions
    from pliant.search.registry import make_searcher as make_searcher
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "ask_tell": ["Evaluate", "Searcher", "combined", "memoized", "run_search"],
            "evolution": ["EvolutionSearch"],
            "feasible": ["FeasibleRange", "check_feasible"],
            "linas": ["LinasSearch", "select_diverse"],
            "nsga2": ["ParetoSearch"],
            "random": ["RandomSearch", "within_limits"],
            "registry": ["SEARCHERS", "SearchOptions", "make_searcher"],
        },
    )
