"""The one training loop, and the strategies that say which networks a step trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.training.checkpoint import Checkpoints as Checkpoints
    from pliant.training.checkpoint import load_tensors as load_tensors
    from pliant.training.checkpoint import save_tensors as save_tensors
    from pliant.training.finetune import FineTune as FineTune
    from pliant.training.loop import StepLog as StepLog
    from pliant.training.loop import make_accelerator as make_accelerator
    from pliant.training.loop import train as train
    from pliant.training.progressive import ProgressiveShrinking as ProgressiveShrinking
    from pliant.training.registry import STRATEGIES as STRATEGIES
    from pliant.training.registry import StrategyOptions as StrategyOptions
    from pliant.training.registry import make_strategy as make_strategy
    from pliant.training.sandwich import Sandwich as Sandwich
    from pliant.training.schedule import Phase as Phase
    from pliant.training.schedule import Precision as Precision
    from pliant.training.schedule import TrainingRecipe as TrainingRecipe
    from pliant.training.scratch import FromScratch as FromScratch
    from pliant.training.start import Start as Start
    from pliant.training.start import make_start as make_start
    from pliant.training.strategy import TrainingStrategy as TrainingStrategy
    from pliant.training.strategy import Turn as Turn
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "checkpoint": ["Checkpoints", "load_tensors", "save_tensors"],
            "finetune": ["FineTune"],
            "loop": ["StepLog", "make_accelerator", "train"],
            "progressive": ["ProgressiveShrinking"],
            "registry": ["STRATEGIES", "StrategyOptions", "make_strategy"],
            "sandwich": ["Sandwich"],
            "schedule": ["Phase", "Precision", "TrainingRecipe"],
            "scratch": ["FromScratch"],
            "start": ["Start", "make_start"],
            "strategy": ["TrainingStrategy", "Turn"],
        },
    )
