"""Pliant: hardware-aware neural architecture search, from labelled images to a measured network.

    from pliant.runs import Run, run_all

    with Run.create("digits", limits=["latency_ms=0.1"]) as run:
        result = run_all(run)

The names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pliant import accelerator as accelerator
    from pliant import accuracy as accuracy
    from pliant import data as data
    from pliant import deploy as deploy
    from pliant import devices as devices
    from pliant import errors as errors
    from pliant import metrics as metrics
    from pliant import networks as networks
    from pliant import objective as objective
    from pliant import progress as progress
    from pliant import report as report
    from pliant import runs as runs
    from pliant import scoring as scoring
    from pliant import search as search
    from pliant import spaces as spaces
    from pliant import targets as targets
    from pliant import training as training
    from pliant import workload as workload
    from pliant.accuracy.zero_shot import score as score
    from pliant.data.loading import load as load
    from pliant.errors import PliantError as PliantError
    from pliant.networks.foreign.supernet import make_elastic as make_elastic
    from pliant.networks.supernet import Supernet as Supernet
    from pliant.objective import Limit as Limit
    from pliant.objective import Objective as Objective
    from pliant.record import Record as Record
    from pliant.runs.run import Run as Run
    from pliant.runs.workflow import run_all as run_all
    from pliant.scoring.score import score_networks as score_networks
    from pliant.scoring.zero_shot_search import search_by_score as search_by_score
    from pliant.spaces.presets import preset as preset
    from pliant.targets import open_target as open_target
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "accuracy.zero_shot": ["score"],
            "data.loading": ["load"],
            "errors": ["PliantError"],
            "networks.foreign.supernet": ["make_elastic"],
            "networks.supernet": ["Supernet"],
            "objective": ["Limit", "Objective"],
            "record": ["Record"],
            "runs.run": ["Run"],
            "runs.workflow": ["run_all"],
            "scoring.score": ["score_networks"],
            "scoring.zero_shot_search": ["search_by_score"],
            "spaces.presets": ["preset"],
            "targets": ["open_target"],
        },
        modules=[
            "accelerator",
            "accuracy",
            "data",
            "deploy",
            "devices",
            "errors",
            "metrics",
            "networks",
            "objective",
            "progress",
            "report",
            "runs",
            "scoring",
            "search",
            "spaces",
            "targets",
            "training",
            "workload",
        ],
    )
