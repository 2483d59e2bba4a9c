"""What are inherited weights worth? Children that inherit against training from scratch.

    python benchmarks/inheritance.py --data ../shared/data/cifar10
    python benchmarks/inheritance.py --data ../shared/data/cifar10 --budget 40min

One parent is trained from scratch. Each of its children (mutants) is trained from scratch by the
whole schedule, and with inherited weights by a schedule of half the epochs. After every epoch it is
calibrated and evaluated on the validation images. `epochs_to_reach` is the first epoch in which the
child that inherits is as accurate as the other one is at its end; where it never is, all epochs of
the schedule from scratch count in the mean.

`--budget` stops before the child that would not be finished in time; the number of children stands
in the result. Start the same command again to resume: trainings resume from checkpoints in
`--run-dir`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from result import kept, minutes, publish, screen

from pliant.accuracy.estimator import digest_of
from pliant.accuracy.fitting import fit
from pliant.accuracy.inherit import ContinueFrom, InheritWeights
from pliant.estimation import EstimatorSettings
from pliant.estimation.estimators import Estimators
from pliant.training.allocator import keep_freed_memory
from pliant.training.scratch import FromScratch


def curve(estimator, architecture, recipe, strategy, folder):
    """Validation accuracy after each epoch of a schedule, 0 to 1."""
    found = []
    for epoch in range(1, recipe.epochs + 1):
        network, fitted = fit(
            lambda: estimator.build(architecture),
            estimator.data,
            recipe,
            strategy,
            augmentation=estimator.augmentation,
            folder=folder,
            until_epoch=epoch,
        )
        if fitted.failure is not None:
            return found
        found.append(estimator.validation(network).top1)
    return found


def child_row(estimator, parent, child, folder):
    """Both curves of one child."""
    recipe, scratch = estimator.recipe, estimator.root_recipe
    start = estimator.start(child, parent, estimator.network(parent))
    begun = estimator.validation(start.network).top1
    weights = ContinueFrom(recipe.label_smoothing, start.network.state_dict())
    alone = FromScratch(scratch.label_smoothing)
    inherited = curve(estimator, child, recipe, weights, folder / "inherited")
    fresh = curve(estimator, child, scratch, alone, folder / "scratch")
    reached = [epoch for epoch, value in enumerate(inherited, 1) if value >= fresh[-1]]
    return {
        "child": str(child),
        "only_grows": not start.approximations,
        "parameters_over_parents": estimator.space.cost(child).parameters
        / estimator.space.cost(parent).parameters,
        "at_start": begun,
        "scratch_final": fresh[-1],
        "inherited_final": inherited[-1],
        "epochs_to_reach": 0 if begun >= fresh[-1] else reached[0] if reached else None,
        "inherited_curve": inherited,
        "scratch_curve": fresh,
    }


def children(arguments, space, data):
    began = time.monotonic()
    rng = np.random.default_rng(arguments.seed)
    parent = space.sample_choices(rng)
    estimator = InheritWeights(
        space,
        data,
        epochs=max(1, arguments.epochs // 2),
        root_epochs=arguments.epochs,
        parent_of=lambda architecture: None if architecture == parent else parent,
        seed=arguments.seed,
        folder=arguments.run_dir / "parent",
    )
    drawn = []
    while len(drawn) < arguments.children:
        mutant = space.mutate(parent, rng, 0.25)
        if mutant != parent and mutant not in drawn:
            drawn.append(mutant)
    rows = []
    for child in drawn:
        each = (time.monotonic() - began) / max(1, len(rows))
        if rows and arguments.budget and time.monotonic() - began + each > arguments.budget:
            break
        folder = arguments.run_dir / "children" / digest_of(estimator.identity, parent, child)

        def make(child=child, folder=folder):
            return child_row(estimator, parent, child, folder)

        rows.append(kept(folder / "row.json", make))
        screen.print({key: value for key, value in rows[-1].items() if "curve" not in key})
    counted = [
        arguments.epochs if row["epochs_to_reach"] is None else row["epochs_to_reach"]
        for row in rows
    ]
    publish(
        f"inheritance-children-{Path(arguments.data).name}",
        rows,
        parent=str(parent),
        epochs_from_scratch=arguments.epochs,
        mean_share_of_epochs=statistics.fmean(counted) / arguments.epochs,
        children=len(rows),
        children_asked=arguments.children,
        never_reached=sum(row["epochs_to_reach"] is None for row in rows),
        training_images=len(data.train),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12, help="of a child from scratch")
    parser.add_argument("--budget", type=minutes, help="such as 40min")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/benchmark-inheritance"))
    arguments = parser.parse_args()
    keep_freed_memory()
    settings = EstimatorSettings(arguments.space, arguments.data, train_share=arguments.share)
    subject = Estimators(settings)
    data, space = subject.data, subject.space
    children(arguments, space, data)


if __name__ == "__main__":
    main()
