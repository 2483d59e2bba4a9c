"""One run, from its recipe to its report: the directory, the session, and the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.runs.deliver import Delivered as Delivered
    from pliant.runs.deliver import deliver_result as deliver_result
    from pliant.runs.recipe import Recipe as Recipe
    from pliant.runs.recipe import builtin_recipes as builtin_recipes
    from pliant.runs.recipe import load_recipe as load_recipe
    from pliant.runs.recipe import parse_recipe as parse_recipe
    from pliant.runs.run import Run as Run
    from pliant.runs.search import SearchResult as SearchResult
    from pliant.runs.search import search_front as search_front
    from pliant.runs.session import Session as Session
    from pliant.runs.shortlist import Shortlist as Shortlist
    from pliant.runs.shortlist import ShortlistedNetwork as ShortlistedNetwork
    from pliant.runs.specialize import named_network as named_network
    from pliant.runs.summarize import write_summary as write_summary
    from pliant.runs.train import new_supernet as new_supernet
    from pliant.runs.train import train_supernet as train_supernet
    from pliant.runs.workflow import Result as Result
    from pliant.runs.workflow import run_all as run_all
    from pliant.runs.workflow import run_steps as run_steps
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "deliver": ["Delivered", "deliver_result"],
            "recipe": ["Recipe", "builtin_recipes", "load_recipe", "parse_recipe"],
            "run": ["Run"],
            "search": ["SearchResult", "search_front"],
            "session": ["Session"],
            "shortlist": ["Shortlist", "ShortlistedNetwork"],
            "specialize": ["named_network"],
            "summarize": ["write_summary"],
            "train": ["new_supernet", "train_supernet"],
            "workflow": ["Result", "run_all", "run_steps"],
        },
    )
