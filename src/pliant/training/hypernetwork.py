"""Training a hypernetwork: the loss of a sampled child trains what generates its weights.

Brock, A. et al., SMASH: one-shot model architecture search through hypernetworks, 2017,
arXiv:1708.05344, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from pliant.training.schedule import TrainingRecipe
from pliant.training.single_path import SinglePath

LEARNING_RATE = 2e-3
"""Peak of AdamW; a transformer does not learn at the rates of SGD."""
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class HyperNetworkTraining(SinglePath):
    """Single-path sampling with AdamW on free tensors and generator alike."""

    def optimizers(self, model: nn.Module, recipe: TrainingRecipe) -> Mapping[str, Optimizer]:
        """AdamW, whose rate follows the recipe's warm-up and decay."""
        rate = LEARNING_RATE / recipe.peak_rate
        groups = [
            {"params": group["params"], "rate": rate, "weight_decay": decay}
            for group in self.parameter_groups(model, recipe)
            for decay in [WEIGHT_DECAY if group["weight_decay"] else 0.0]
        ]
        return {"weights": torch.optim.AdamW(groups, lr=0.0)}
