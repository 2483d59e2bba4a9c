"""What does each part of the training recipe contribute?

A network with a quarter of plain-32's MACs is trained from scratch on CIFAR-10 for a few epochs.

    python benchmarks/training_recipe.py --data ../shared/data/cifar10 [--epochs 6] [--seeds 1]

Each row leaves one part of the recipe out. Accuracy is on the validation split, since the recipe is
chosen by it. Finished rows are kept under benchmarks/work, so a run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from result import publish, screen
from torch import nn

from pliant.accuracy.calibration import calibrate
from pliant.accuracy.evaluation import pixels, top1
from pliant.data import load
from pliant.data.augment import Augmentation
from pliant.files import write_atomically
from pliant.networks.initialization import patch_pca_stem
from pliant.networks.supernet import build
from pliant.spaces.presets import preset
from pliant.training.allocator import keep_freed_memory
from pliant.training.loop import make_accelerator, train
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch

IMAGES = 2000

VARIANTS = {
    "the recipe": {},
    "first filters random": {"patch_pca": False},
    "convolutions start by He's rule": {"he": True},
    "biases at the common rate": {"bias_rate": 1.0},
    "rate 0.15, decay 5e-4, momentum 0.9": {
        "learning_rate": 0.15,
        "weight_decay": 5e-4,
        "momentum": 0.9,
    },
    "shift 4, cutout 8": {"pad": 4, "cutout": 8},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "decay 5e-4": {"weight_decay": 5e-4},
    "rate 0.75": {"learning_rate": 0.75},
}


def quarter(space):
    """A network near a quarter of the largest's MACs, with full resolution and depth."""
    rng = np.random.default_rng(3)
    wanted, largest = space.cost(space.largest()).macs / 4, space.largest().mapping
    fixed = {name: option for name, option in largest.items() if name == "r" or name.endswith("d")}
    drawn = (space.sample_choices(rng) for _ in range(3000))
    fitting = [
        one for one in drawn if all(one.mapping[name] == option for name, option in fixed.items())
    ]
    return min(fitting, key=lambda one: abs(space.cost(one).macs - wanted))


def start_by_he(network):
    """Normal weights by fan-out, as before."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def validated(data, space, architecture, epochs, seed, variant):
    """Train one variant; validation accuracy and CPU seconds."""
    pad, cutout = variant.get("pad", 2), variant.get("cutout", 0)
    augmentation = Augmentation(pad=pad, flip=True, cutout=cutout, fill=data.mean)
    own = ("pad", "cutout", "patch_pca", "he")
    changes = {key: value for key, value in variant.items() if key not in own}
    recipe = TrainingRecipe(
        epochs=epochs, seed=seed, **({"precision": "bf16", "label_smoothing": 0.2} | changes)
    )
    torch.manual_seed(seed)
    network = build(space, architecture, mean=data.mean, std=data.std)
    images = pixels(data.train.batch(np.arange(IMAGES))[0])
    if variant.get("he"):
        start_by_he(network)
    if variant.get("patch_pca", True):
        patch_pca_stem(network, images)
    started = time.process_time()
    train(
        network,
        data.train,
        augmentation,
        recipe,
        FromScratch(recipe.label_smoothing),
        accelerator=make_accelerator("bf16", "cpu"),
    )
    seconds = time.process_time() - started
    calibrate(network, images)
    return top1(network, data.validation).top1, seconds, dataclasses.asdict(recipe)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    arguments = parser.parse_args()
    keep_freed_memory()
    data = load(arguments.data, seed=0)
    space = preset(
        "plain-32", channels=data.channels, image_size=data.image_size, classes=len(data.classes)
    )
    architecture = quarter(space)
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / f"training-recipe-{arguments.epochs}.json"
    done = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            if f"{name}, seed {seed}" in done:
                continue
            accuracy, seconds, recipe = validated(
                data, space, architecture, arguments.epochs, seed, VARIANTS[name]
            )
            done[f"{name}, seed {seed}"] = {
                "variant": name,
                "seed": seed,
                "validation_top1": accuracy,
                "cpu_s": seconds,
                "recipe": recipe,
            }
            write_atomically(path, json.dumps(done, indent=2))
            screen.print(f"{name}, seed {seed}: {accuracy:.2%}, {seconds:.0f} CPU s")
    rows = []
    for name in VARIANTS:
        found = [row["validation_top1"] for row in done.values() if row["variant"] == name]
        if found:
            spread = statistics.stdev(found) if len(found) > 1 else None
            rows.append(
                {
                    "variant": name,
                    "seeds": len(found),
                    "validation_top1": statistics.mean(found),
                    "standard_deviation": spread,
                }
            )
    publish(
        "training_recipe",
        rows,
        epochs=arguments.epochs,
        architecture=str(architecture),
        macs=space.cost(architecture).macs,
    )


if __name__ == "__main__":
    main()
