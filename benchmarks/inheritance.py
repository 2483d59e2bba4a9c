"""What are inherited weights worth? Children against training from scratch, and two evolutions.

    python benchmarks/inheritance.py children --data ../shared/data/cifar10
    python benchmarks/inheritance.py evolution --data ../shared/data/cifar10

children: one parent is trained from scratch. Each of its children (mutants) is trained from scratch
by the whole schedule, and with inherited weights by a schedule of half the epochs. After every
epoch it is calibrated and evaluated on the validation images. `epochs_to_reach` is the first epoch
in which the child that inherits is as accurate as the other one is at its end; where it never is,
all epochs of the schedule from scratch count in the mean.

evolution: the same evolution within the same limit of MACs, once with children that inherit and
once with training from scratch, until the same number of epochs is spent in all. The best networks
of both are then trained from scratch by a longer schedule with another seed; `retrained` is what
counts, and `gap` how much better inherited weights made them look.

Start the same command again to resume: trainings resume from checkpoints in `--run-dir`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from result import publish, screen

from pliant.accuracy.estimator import digest_of
from pliant.accuracy.fitting import fewer_images, fit
from pliant.accuracy.inherit import ContinueFrom, InheritWeights, inheritance_gaps
from pliant.accuracy.scratch import TrainFromScratch
from pliant.data import load
from pliant.files import write_atomically
from pliant.metrics import Accuracy
from pliant.objective import Candidate, Limit, Objective
from pliant.search.evolution import EvolutionSearch
from pliant.spaces.presets import preset
from pliant.training.allocator import keep_freed_memory
from pliant.training.scratch import FromScratch


def kept(path, make):
    """Rows of a file, or made now and kept there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(make(), indent=1))
    return json.loads(path.read_text("utf-8"))


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
    rng = np.random.default_rng(arguments.seeds[0])
    parent = space.sample_choices(rng)
    estimator = InheritWeights(
        space,
        data,
        epochs=max(1, arguments.epochs // 2),
        root_epochs=arguments.epochs,
        parent_of=lambda architecture: None if architecture == parent else parent,
        seed=arguments.seeds[0],
        folder=arguments.run_dir / "parent",
    )
    drawn = []
    while len(drawn) < arguments.children:
        mutant = space.mutate(parent, rng, 0.25)
        if mutant != parent and mutant not in drawn:
            drawn.append(mutant)
    rows = []
    for child in drawn:
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
        never_reached=sum(row["epochs_to_reach"] is None for row in rows),
        training_images=len(data.train),
    )


def evolve(arguments, space, data, seed, *, inherits):
    """One evolution until its epochs are spent: best of the search, and retrained."""
    limit = arguments.macs_share * space.cost(space.largest()).macs
    objective = Objective(("macs",), (Limit("macs", float(round(limit))),))

    def costs(found):
        return [space.cost(one) for one in found]

    searcher = EvolutionSearch(space, objective, costs, population=8, batch=4, seed=seed)
    folder = arguments.run_dir / f"evolution-{seed}"
    if inherits:
        estimator = InheritWeights(
            space,
            data,
            epochs=arguments.child_epochs,
            root_epochs=arguments.search_epochs,
            parent_of=searcher.parents.get,
            seed=seed,
            folder=folder / "inherit",
        )
    else:
        estimator = TrainFromScratch(
            space, data, epochs=arguments.search_epochs, seed=seed, folder=folder / "scratch"
        )
    history, spent, anytime = [], 0, []
    while spent < arguments.total_epochs:
        asked = searcher.ask(4)
        if not asked:
            break
        told = [Candidate(one, estimator.estimate([one])[0], space.cost(one)) for one in asked]
        searcher.tell(told)
        for one in told:
            own = arguments.search_epochs
            if inherits:
                own = estimator.lineage(one.architecture).epochs
            spent += own
            history.append(one)
            known = [row.value for row in history if isinstance(row.quality, Accuracy)]
            anytime.append((spent, max(known, default=0.0)))
    best = sorted((one for one in history if one.failure is None), key=lambda one: -one.value)
    finalists = [one.architecture for one in best[: arguments.finalists]]
    truth = TrainFromScratch(
        space,
        data,
        epochs=arguments.final_epochs,
        seed=seed + 1000,
        folder=folder / "final",
    )
    retrained = [one.value for one in truth.estimate(finalists)]
    row = {
        "seed": seed,
        "start": "inherited" if inherits else "scratch",
        "evaluations": len(history),
        "epochs": spent,
        "best_in_search": best[0].value,
        "retrained_best": max(retrained),
        "retrained_mean": statistics.fmean(retrained),
        "finalists": [str(one) for one in finalists],
        "anytime": anytime,
    }
    if inherits:
        same = TrainFromScratch(
            space, data, epochs=arguments.search_epochs, seed=seed, folder=folder / "scratch"
        )
        gaps = inheritance_gaps(estimator, same, finalists)
        row["gap_points"] = statistics.fmean(gap.points for gap in gaps)
        row["lineage_epochs"] = [gap.lineage_epochs for gap in gaps]
    return row


def evolution(arguments, space, data):
    rows = []
    settings = digest_of(sorted((key, str(value)) for key, value in vars(arguments).items()))
    for seed in arguments.seeds:
        for inherits in (True, False):
            name = f"evolution-{seed}-{'inherit' if inherits else 'scratch'}-{settings}.json"

            def make(seed=seed, inherits=inherits):
                return evolve(arguments, space, data, seed, inherits=inherits)

            rows.append(kept(arguments.run_dir / name, make))
            screen.print({k: v for k, v in rows[-1].items() if k != "anytime"})
    differences = [
        100 * (one["retrained_best"] - other["retrained_best"])
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]
    publish(
        f"inheritance-evolution-{Path(arguments.data).name}",
        rows,
        points_better=statistics.fmean(differences),
        spread_points=statistics.stdev(differences) if len(differences) > 1 else None,
        training_images=len(data.train),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("children", "evolution"))
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--children", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12, help="of a child from scratch")
    parser.add_argument("--search-epochs", type=int, default=8, help="of a network from scratch")
    parser.add_argument("--child-epochs", type=int, default=2, help="of a child that inherits")
    parser.add_argument("--total-epochs", type=int, default=160, help="of one evolution")
    parser.add_argument("--final-epochs", type=int, default=16, help="of retrained finalists")
    parser.add_argument("--finalists", type=int, default=3)
    parser.add_argument("--macs-share", type=float, default=0.5, help="limit, of the largest's")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/benchmark-inheritance"))
    arguments = parser.parse_args()
    keep_freed_memory()
    data = fewer_images(load(arguments.data, seed=0), arguments.share)
    space = preset(
        arguments.space,
        channels=data.channels,
        image_size=data.image_size,
        classes=len(data.classes),
    ).trainable_space()
    {"children": children, "evolution": evolution}[arguments.part](arguments, space, data)


if __name__ == "__main__":
    main()
