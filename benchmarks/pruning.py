"""Torch-Pruning on the start of a run: the comparison of `photographs.py`.

Fang, G. et al., DepGraph: Towards any structural pruning, 2023, arXiv:2301.12900. It is needed for
this comparison alone, and its own requirements would replace PyTorch:

    pip install --no-deps torch-pruning

The full network begins where Pliant's fine-tuning begins, with the linear classifier on published
weights. It is fine-tuned, pruned to a number of MACs at once, and fine-tuned again from labels and
from the full network's answers, with the run's images, augmentation, batch, rates, weight averaging
and precision. Shares of the time are those of the run's phases. So each pruned network gets the
time in which Pliant trains one supernet for all limits.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pliant.accuracy.calibration import calibrate, calibration_images
from pliant.accuracy.evaluation import pixels
from pliant.networks.trace import module_workload
from pliant.runs.baselines import linear_start
from pliant.runs.train import augmentation, training_recipe
from pliant.training.finetune import (
    AVERAGED_SHARE,
    CLASSIFIER_RATE,
    DEPTH_DECAY,
    LR_FACTORS,
    SHARES,
    classifier,
)
from pliant.training.loop import make_accelerator, train
from pliant.training.schedule import Phase
from pliant.training.strategy import TrainingStrategy, decayed_weights

IMPORTANCES = ("magnitude", "group norm")
CHANNELS = 8
"""Numbers of channels are multiples of it, as in Pliant's spaces."""
HALVINGS = 7
"""Of the interval of the pruning ratio, 0 to 1."""
LABEL_SHARE = 0.4
TIMED_STEPS = 6


class FineTunePlain(TrainingStrategy):
    """Fine-tuning of one network: the rates and the averaging of `FineTune`.

    Args:
        peak: learning rate over the recipe's.
        label_smoothing: for the labels.
        teacher: gives answers beside the labels, where there is one.
    """

    def __init__(self, peak, label_smoothing, teacher=None):
        self.peak, self.label_smoothing, self.teacher = peak, label_smoothing, teacher
        self.average = None

    def phases(self, epochs):
        """One phase."""
        return (Phase("fine-tune", epochs, self.peak),)

    def optimizers(self, model, recipe):
        """AdamW; rates fall with the distance from the classifier."""
        new = {id(parameter) for parameter in classifier(model).parameters()}
        decayed, groups = decayed_weights(model), []
        for distance, block in enumerate(reversed(list(model.blocks.values()))):
            for parameter in block.parameters():
                rate = CLASSIFIER_RATE if id(parameter) in new else DEPTH_DECAY**distance
                decay = recipe.weight_decay if id(parameter) in decayed else 0.0
                groups.append({"params": [parameter], "weight_decay": decay, "rate": rate})
        return {"weights": torch.optim.AdamW(groups, lr=0.0)}

    def on_step_start(self, phase, model, step, steps):
        """Begin the average."""
        if step == 0:
            decay = 1 - 1 / max(1.0, AVERAGED_SHARE * steps)
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def losses(self, phase, model, images, labels, rng):
        """On the labels, and on the teacher's answers."""
        logits = model(images)
        hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if self.teacher is None:
            yield hard
            return
        with torch.no_grad():
            target = self.teacher(images).float().softmax(-1)
        yield LABEL_SHARE * hard + (1 - LABEL_SHARE) * F.cross_entropy(logits, target)

    def on_step_end(self, phase, model, step):
        """Average the weights."""
        self.average.update_parameters(model)

    def on_phase_end(self, phase, model):
        """Take the average."""
        model.load_state_dict(self.average.module.state_dict())


def fine_tune(run, network, strategy, seconds):
    """Train a network for a time, then calibrate it; as many epochs as fit, but one.

    Returns:
        The epochs.
    """
    precision = run.record.metadata("precision") or "fp32"
    accelerator = make_accelerator(precision, "cpu")
    data, recipe = run.data, training_recipe(run, precision, 1)
    few = data.train.subset(np.arange(min(len(data.train), TIMED_STEPS * recipe.batch_size)))
    timed, tried = copy.deepcopy(network), copy.copy(strategy)
    train(timed, few, augmentation(run), recipe, tried, accelerator=accelerator)  # allocates memory
    started = time.perf_counter()
    train(timed, few, augmentation(run), recipe, tried, accelerator=accelerator)
    step = (time.perf_counter() - started) / (len(few) // recipe.batch_size)
    epochs = max(1, int(seconds / (step * max(1, len(data.train) // recipe.batch_size))))
    recipe = training_recipe(run, precision, epochs)
    train(network, data.train, augmentation(run), recipe, strategy, accelerator=accelerator)
    rows = run.rng(2).permutation(len(data.train))[: calibration_images(data.image_size)]
    calibrate(network, pixels(data.train.batch(rows)[0]))
    return epochs


def macs(network, size):
    """Of one image."""
    return module_workload(network, torch.zeros(1, 3, size, size), way="watch").macs


def prune(network, size, name, most_macs):
    """A copy with the largest share of channels that fits into a number of MACs."""
    import torch_pruning

    reduction = {"magnitude": "first", "group norm": "mean"}[name]
    low, high, found = 0.0, 1.0, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        pruned = copy.deepcopy(network).to(memory_format=torch.contiguous_format).train()
        kind = torch_pruning.importance
        magnitude = kind.MagnitudeImportance(p=2, group_reduction=reduction)
        grouped = kind.GroupMagnitudeImportance(p=2, group_reduction=reduction)
        torch_pruning.pruner.BasePruner(
            pruned,
            torch.zeros(2, 3, size, size),
            importance=magnitude if name == "magnitude" else grouped,
            pruning_ratio=ratio,
            ignored_layers=[classifier(pruned)],
            round_to=CHANNELS,
        ).step()
        if macs(pruned, size) > most_macs:
            low = ratio
        else:
            high, found = ratio, pruned
    if found is None:
        raise SystemExit(f"no pruning ratio gives {most_macs} MACs")
    return found


def pruned_networks(run, seconds, limits):
    """Networks of Torch-Pruning, each trained as long as the run's supernet.

    Args:
        run: trained, with published weights as its start.
        seconds: in which its supernet was trained.
        limits: MACs.

    Yields:
        Name, network, and what is known of it.
    """
    size, table = run.data.image_size, run.recipe.train
    torch.manual_seed(run.recipe.seed)
    full = linear_start(run).requires_grad_(True)
    before = macs(full, size)
    share = (SHARES["head"] + SHARES["teacher"]) / sum(SHARES.values())
    strategy = FineTunePlain(LR_FACTORS["teacher"], table.label_smoothing)
    epochs = fine_tune(run, full, strategy, share * seconds)
    yield "fine-tuned alone, full network", full, {"epochs": epochs}
    teacher = copy.deepcopy(full).requires_grad_(False).eval()
    for most in limits:
        for name in IMPORTANCES:
            if before <= most:
                continue
            network = prune(full, size, name, most).requires_grad_(True)
            strategy = FineTunePlain(LR_FACTORS["sub-networks"], table.label_smoothing, teacher)
            epochs = fine_tune(run, network, strategy, (1 - share) * seconds)
            yield f"Torch-Pruning, {name}, macs={most / 1e6:g}M", network, {"epochs": epochs}
