"""Is evolution with inherited weights better than from scratch at equal total epochs?

    python benchmarks/inherited_evolution.py --data ../shared/data/cifar10
    python benchmarks/inherited_evolution.py --data ../shared/data/cifar10 --budget 90min

The same evolution within the same limit of MACs, once with children that inherit and once with
training from scratch, until the same number of epochs is spent in all. The best networks of both
are then trained from scratch by a longer schedule with another seed; `retrained_best` and
`retrained_mean` are what counts, and `gap_points` how much better inherited weights made them look.

`--budget` spends fewer epochs in each evolution: a timed epoch of a middle network says how many.
Start the same command again to resume: trainings resume from checkpoints in `--run-dir`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from result import epoch_seconds, kept, minutes, publish, screen

from pliant.accuracy.estimator import digest_of
from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.inherit import InheritWeights, inheritance_gaps
from pliant.accuracy.scratch import TrainFromScratch
from pliant.estimation import EstimatorSettings
from pliant.estimation.estimators import Estimators
from pliant.metrics import Accuracy
from pliant.objective import Candidate, Limit, Objective
from pliant.search.evolution import EvolutionSearch
from pliant.training.allocator import keep_freed_memory

TIMED_SHARE = 0.1
"""Of the training images, when an epoch is timed."""


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
        "gap_points": None,
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
    settings = digest_of(
        sorted((key, str(value)) for key, value in vars(arguments).items() if key != "budget")
    )
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
        f"inherited-evolution-{Path(arguments.data).name}",
        rows,
        points_better=statistics.fmean(differences),
        better_by_seed=differences,
        total_epochs=arguments.total_epochs,
        spread_points=statistics.stdev(differences) if len(differences) > 1 else None,
        training_images=len(data.train),
    )


def affordable_epochs(arguments, space, data):
    """Epochs of one evolution for which the budget is enough, with its retrained finalists."""
    middle = sorted(
        (space.sample_choices(np.random.default_rng(seed)) for seed in range(9)),
        key=lambda one: space.cost(one).macs,
    )[4]
    few = fewer_images(data, TIMED_SHARE)
    epoch = epoch_seconds(
        lambda epochs: TrainFromScratch(space, few, epochs=epochs, images=100).estimate([middle])
    )
    epoch /= TIMED_SHARE
    evolutions = 2 * len(arguments.seeds)
    # Finalists: by the long schedule, and with inheritance by that of the search for the gap.
    own = arguments.finalists * (2 * arguments.final_epochs + arguments.search_epochs) / 2
    found = int(arguments.budget / epoch / evolutions - own)
    screen.print(f"{epoch:.1f} s per epoch: {found} of {arguments.total_epochs} epochs affordable")
    return max(8 * arguments.search_epochs, min(found, arguments.total_epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--search-epochs", type=int, default=8, help="of a network from scratch")
    parser.add_argument("--child-epochs", type=int, default=2, help="of a child that inherits")
    parser.add_argument("--total-epochs", type=int, default=160, help="of one evolution")
    parser.add_argument("--final-epochs", type=int, default=16, help="of retrained finalists")
    parser.add_argument("--finalists", type=int, default=3)
    parser.add_argument("--macs-share", type=float, default=0.5, help="limit, of the largest's")
    parser.add_argument("--budget", type=minutes, help="such as 90min")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/benchmark-inherited-evolution"))
    arguments = parser.parse_args()
    keep_freed_memory()
    settings = EstimatorSettings(arguments.space, arguments.data, train_share=arguments.share)
    subject = Estimators(settings)
    data, space = subject.data, subject.space
    if arguments.budget:
        plan = arguments.run_dir / f"plan-{arguments.budget:.0f}.json"
        arguments.total_epochs = kept(plan, lambda: affordable_epochs(arguments, space, data))
    evolution(arguments, space, data)


if __name__ == "__main__":
    main()
