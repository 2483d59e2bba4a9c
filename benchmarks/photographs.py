"""Photographs: accuracy within a half and a quarter of EfficientNet-Lite0's MACs, in a given time.

    python benchmarks/photographs.py --data ../shared/data/clothing --minutes 60 --seeds 0 1 2

For each seed, a supernet is fine-tuned from EfficientNet-Lite0 and searched within the time, as
`pliant run` does it, with MACs as the only cost. Rows: a linear classifier on the frozen Lite0 at
224 pixels, the full network, the best ones within 192 M and 96 M MACs; with `--from-nothing` the
best ones of a supernet that is trained from nothing in the same time; with `--pruning` networks of
Torch-Pruning with the same MACs, time and fine-tuning (`pip install --no-deps torch-pruning`).

Networks are chosen by the validation images; `test_top1` is of images that chose nothing. Images of
the source's training split become test images where it has no test split. Start the same command
again to resume: rows that are finished are read from `--run-dir`, runs resume where they were
stopped. So the time is of an uninterrupted run; it needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from pruning import macs, pruned_networks
from result import publish, screen

from pliant.accuracy.evaluation import top1
from pliant.files import write_atomically
from pliant.objective import Limit
from pliant.progress import shown
from pliant.runs.automatic import automatic_recipe
from pliant.runs.baselines import linear_start
from pliant.runs.recipe import load_recipe
from pliant.runs.run import Run
from pliant.runs.search import search_front
from pliant.runs.session import Session
from pliant.runs.specialize import specialize
from pliant.targets import Arithmetic
from pliant.training.allocator import keep_freed_memory

LINEAR_SIZE = 224
"""Of the images for the linear classifier, in pixels."""
FROM_NOTHING = {
    "data": {"pad": 0, "flip": True, "min_crop_area": 0.35, "colour_jitter": 0.2},
    "train": {"strategy": "sandwich", "start": "patch-pca", "batch_size": 64},
}


def recipe_of(arguments, seed, *, nothing, image_size):
    """The recipe of a run of a seed."""
    changes = {
        "data.source": arguments.data,
        "data.image_size": image_size,
        "time": f"{arguments.minutes:g}min",
        "limits": arguments.limits[:1],
        "seed": seed,
    }
    if arguments.epochs:
        changes["train.epochs"] = arguments.epochs
    if nothing:
        for table, values in FROM_NOTHING.items():
            changes |= {f"{table}.{key}": value for key, value in values.items()}
        changes |= {"train.learning_rate": 0.375, "train.weight_decay": 1.3e-3}
    return automatic_recipe(changes).recipe


def open_run(arguments, name, seed, *, nothing=False, image_size=None):
    """The run of a seed, begun or resumed."""
    folder = arguments.run_dir / f"{name}-{seed}"
    path = folder / "recipe.toml"
    if path.is_file():
        return Run(folder, load_recipe(str(path)))
    size = image_size or arguments.image_size
    return Run(folder, recipe_of(arguments, seed, nothing=nothing, image_size=size))


def kept(path, make):
    """Rows of a file, or made now and kept there."""
    if not path.is_file():
        write_atomically(path, json.dumps(make(), indent=1))
    return json.loads(path.read_text("utf-8"))


def measured(session, network, name, seed):
    """A row of a network of the shortlist."""
    run = session.run
    test = run.data.test.open(f"benchmark: {name}")
    return {
        "network": name,
        "seed": seed,
        "million_macs": run.space.cost(network).macs / 1e6,
        "validation_top1": session.validate(network).top1,
        "test_top1": top1(session.network(network), test).top1,
        "architecture": str(network),
    }


def linear_row(arguments, seed):
    """The linear classifier on the frozen start."""
    with open_run(arguments, "linear", seed, image_size=LINEAR_SIZE) as run:
        network = linear_start(run)
        test = run.data.test.open("benchmark: linear classifier")
        return {
            "network": f"linear classifier, {LINEAR_SIZE} pixels",
            "seed": seed,
            "million_macs": run.space.cost(run.space.largest()).macs / 1e6,
            "validation_top1": top1(network, run.data.validation).top1,
            "test_top1": top1(network, test).top1,
        }


def searched_rows(arguments, seed, name, *, nothing):
    """The whole job of one run: train and search it once, then choose within each limit."""
    prefix = "from nothing, " if nothing else ""
    with open_run(arguments, name, seed, nothing=nothing) as run, shown(screen) as progress:
        target = Arithmetic(run.space)
        session = Session(run, target=target, limits=arguments.limits[:1], progress=progress)
        if not nothing:
            _ = session.baselines  # as in a user's run, it takes its share of the time
        found = search_front(session)
        rows = [measured(session, run.space.largest(), f"{prefix}full network", seed)]
        rows.append(
            measured(session, found.chosen.architecture, prefix + arguments.limits[0], seed)
        )
        for limit in arguments.limits[1:]:
            other = Session(run, target=target, limits=[limit], progress=progress)
            rows.append(measured(other, specialize(other).architecture, prefix + limit, seed))
        metadata = run.record.metadata
        facts = {f"{step}_s": metadata(f"{step}_seconds") for step in ("training", "search")}
        facts |= {"epochs": session.plan.epochs, "images": len(run.data.train)}
        return [row | facts for row in rows]


def pruned_rows(arguments, seed):
    """Networks of Torch-Pruning, each trained as long as the supernet of the seed."""
    with open_run(arguments, "lite0", seed) as run:
        seconds = run.record.metadata("training_seconds")
        test = run.data.test.open("benchmark: Torch-Pruning")
        rows = []
        limits = [Limit.parse(limit).bound for limit in arguments.limits]
        for name, network, facts in pruned_networks(run, seconds, limits):
            row = {
                "network": name,
                "seed": seed,
                "million_macs": macs(network, run.data.image_size) / 1e6,
                "validation_top1": top1(network, run.data.validation).top1,
                "test_top1": top1(network, test).top1,
            }
            rows.append(row | facts)
            screen.print(row)
        return rows


def rows_of(arguments, seed):
    """All rows of a seed, one part after the other."""
    parts = {"linear": lambda: [linear_row(arguments, seed)]}
    parts["lite0"] = lambda: searched_rows(arguments, seed, "lite0", nothing=False)
    if arguments.pruning:
        parts["pruned"] = lambda: pruned_rows(arguments, seed)
    if arguments.from_nothing:
        parts["nothing"] = lambda: searched_rows(arguments, seed, "nothing", nothing=True)
    rows = []
    for name, make in parts.items():
        rows += kept(arguments.run_dir / f"rows-{name}-{seed}.json", make)
    return rows


def means(rows):
    """A row per network over its seeds: mean and standard deviation of the accuracies."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        row = {"network": name, "seeds": len(own)}
        for split in ("validation", "test"):
            values = [row[f"{split}_top1"] for row in own]
            row[f"{split}_mean"] = statistics.mean(values)
            row[f"{split}_std"] = statistics.stdev(values) if len(values) > 1 else None
        found.append(row)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--epochs", type=int, help="at most; as many as fit where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--limits", nargs="+", default=["macs=192M", "macs=96M"])
    parser.add_argument("--from-nothing", action="store_true")
    parser.add_argument("--pruning", action="store_true", help="with Torch-Pruning")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/photographs"))
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = []
    for seed in arguments.seeds:
        rows += rows_of(arguments, seed)
        publish(
            f"photographs-{Path(arguments.data).resolve().name}",
            rows,
            minutes=arguments.minutes,
            means=means(rows),
        )


if __name__ == "__main__":
    main()
