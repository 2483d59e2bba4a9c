"""Other tools that prune, on the start of a run: for `photographs.py` and `pruning_tools.py`.

Torch-Pruning: Fang, G. et al., DepGraph: Towards any structural pruning, 2023, arXiv:2301.12900.
FastNAS of NVIDIA's ModelOpt: how much each layer's width matters is measured on validation images,
after BatchNorm calibration; the widths are those whose loss stays below one threshold. It reads a
network with torch.fx, which does not follow the stem and the strided blocks: 12 widths of Lite0 may
change, in multiples of 32 as it does by itself. (Of the class of `lite0.py` none may, and of a
graph of ATen operators one.) Both are needed for this comparison alone, and their own requirements
would replace PyTorch:

    pip install --no-deps torch-pruning
    pip install --no-deps nvidia-modelopt nvidia-ml-py omegaconf pulp regex torchprofile==0.0.4

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
from pliant.accuracy.evaluation import pixels, top1
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
FASTNAS = "FastNAS"
FASTNAS_IMAGES = 256
"""Validation images by which FastNAS scores a width, and training images for its calibration."""
CHANNELS = 8
"""Numbers of channels are multiples of it, as in Pliant's spaces."""
HALVINGS = 7
"""Of the interval of the pruning ratio, 0 to 1."""
TEACHER_SHARE = (SHARES["head"] + SHARES["teacher"]) / sum(SHARES.values())
"""Of the time, for the full network."""
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
        blocks = list(model.blocks.children())
        new = {id(parameter) for parameter in blocks[-1].classifier.parameters()}
        decayed, groups = decayed_weights(model), []
        for distance, block in enumerate(reversed(blocks)):
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


def fastnas(run, network, most_macs, folder):
    """A copy of a number of MACs, by FastNAS of ModelOpt.

    Its search is kept in a file of the folder, so that it resumes.
    """
    from modelopt.torch import prune as modelopt

    size, validation = run.data.image_size, run.data.validation
    rng = np.random.default_rng(run.recipe.seed)
    rows = rng.permutation(len(validation))[:FASTNAS_IMAGES]
    scored, batch = validation.subset(rows), run.recipe.train.batch_size
    rows = rng.permutation(len(run.data.train))[:FASTNAS_IMAGES]
    batches = [
        pixels(run.data.train.batch(rows[start : start + batch])[0])
        for start in range(0, len(rows), batch)
    ]
    whole = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    share = most_macs / macs(network, size)
    for _ in range(HALVINGS):  # it counts other operators as well, and would end above
        found, _ = modelopt.prune(
            copy.deepcopy(whole),
            mode="fastnas",
            constraints={"flops": f"{100 * share:.2f}%"},
            dummy_input=torch.zeros(1, 3, size, size),
            config={
                "data_loader": batches,
                "max_iter_data_loader": len(batches),
                "collect_func": lambda images: images,
                "score_func": lambda model: top1(model, scored).top1,
                "checkpoint": str(folder / "fastnas.pth"),
            },
        )
        if macs(found, size) <= most_macs:
            return found
        share *= 0.97
    raise SystemExit(f"FastNAS finds no network of {most_macs} MACs")


def full_network(run, seconds):
    """The start of a run, fine-tuned in its share of the time, and the epochs.

    Args:
        run: trained, with published weights as its start.
        seconds: in which its supernet was trained.
    """
    torch.manual_seed(run.recipe.seed)
    network = linear_start(run).requires_grad_(True)
    strategy = FineTunePlain(LR_FACTORS["teacher"], run.recipe.train.label_smoothing)
    return network, fine_tune(run, network, strategy, TEACHER_SHARE * seconds)


def pruned_network(run, full, tool, most_macs, seconds, folder):
    """The network of a tool, trained in the time that is left after it was found, and the epochs.

    Args:
        run: whose images it learns.
        full: the fine-tuned full network, which is its teacher.
        tool: one of `IMPORTANCES`, or `FASTNAS`.
        most_macs: of one image.
        seconds: in which the run's supernet was trained.
        folder: for what a tool keeps.
    """
    started = time.perf_counter()
    if tool == FASTNAS:
        network = fastnas(run, full, most_macs, folder)
    else:
        network = prune(full, run.data.image_size, tool, most_macs)
    left = (1 - TEACHER_SHARE) * seconds - (time.perf_counter() - started)
    teacher = copy.deepcopy(full).requires_grad_(False).eval()
    smoothing = run.recipe.train.label_smoothing
    strategy = FineTunePlain(LR_FACTORS["sub-networks"], smoothing, teacher)
    network.requires_grad_(True)
    return network, fine_tune(run, network, strategy, left)


def pruned_networks(run, seconds, limits):
    """Networks of Torch-Pruning, each trained as long as the run's supernet.

    Args:
        run: trained, with published weights as its start.
        seconds: in which its supernet was trained.
        limits: MACs.

    Yields:
        Name, network, and what is known of it.
    """
    full, epochs = full_network(run, seconds)
    yield "fine-tuned alone, full network", full, {"epochs": epochs}
    before = macs(full, run.data.image_size)
    for most in limits:
        for tool in IMPORTANCES:
            if before > most:
                network, epochs = pruned_network(run, full, tool, most, seconds, run.folder)
                name = f"Torch-Pruning, {tool}, macs={most / 1e6:g}M"
                yield name, network, {"epochs": epochs}
