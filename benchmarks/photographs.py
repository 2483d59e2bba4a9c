"""Photographs: accuracy within a half and a quarter of EfficientNet-Lite0's MACs, in a given time.

    python benchmarks/photographs.py --data ../shared/data/clothing --minutes 60 --seeds 0 1 2

For each seed, a supernet is fine-tuned from EfficientNet-Lite0 and searched within the time, as
`pliant run` does it, with MACs as the only cost. Rows: the full network; the best ones within 192 M
and 96 M MACs; a linear classifier on the frozen Lite0; and, with `--from-nothing`, the best ones of
a supernet that is trained from nothing in the same time.

Networks are chosen by the validation images; `test_top1` is of images that chose nothing. Images of
the source's training split become test images where it has no test split. Runs resume where they
were stopped, so the time is of an uninterrupted run; it needs a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from result import publish, screen

from pliant.accuracy.evaluation import top1
from pliant.progress import shown
from pliant.runs.automatic import automatic_recipe
from pliant.runs.recipe import load_recipe
from pliant.runs.run import Run
from pliant.runs.search import search_front
from pliant.runs.session import Session
from pliant.runs.specialize import specialize
from pliant.targets import Arithmetic
from pliant.training.allocator import keep_freed_memory

LIMITS = ("macs=192M", "macs=96M")
FROM_NOTHING = {
    "data": {"pad": 0, "flip": True, "min_crop_area": 0.35, "colour_jitter": 0.2},
    "train": {"strategy": "sandwich", "start": "patch-pca", "batch_size": 64},
}


def open_run(arguments, seed, *, nothing):
    """The run of a seed, begun or resumed."""
    folder = arguments.run_dir / f"{'nothing' if nothing else 'lite0'}-{seed}"
    changes = {
        "data.source": arguments.data,
        "data.image_size": arguments.image_size,
        "time": f"{arguments.minutes:g}min",
        "limits": list(LIMITS[:1]),
        "seed": seed,
    }
    if nothing:
        for table, values in FROM_NOTHING.items():
            changes |= {f"{table}.{key}": value for key, value in values.items()}
        changes |= {"train.learning_rate": 0.375, "train.weight_decay": 1.3e-3}
    path = folder / "recipe.toml"
    recipe = load_recipe(str(path)) if path.is_file() else automatic_recipe(changes).recipe
    return Run(folder, recipe)


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


def rows_of(run, seed, *, nothing, progress):
    """The whole job of one run: train and search it once, then choose within each limit."""
    prefix = "from nothing, " if nothing else ""
    target = Arithmetic(run.space)
    rows = []
    session = Session(run, target=target, limits=LIMITS[:1], progress=progress)
    if not nothing:
        linear = session.baselines
        rows.append(
            {"network": f"linear classifier, {linear.features}", "seed": seed}
            | {"validation_top1": linear.linear.top1}
        )
    found = search_front(session)
    rows.append(measured(session, run.space.largest(), f"{prefix}full network", seed))
    rows.append(measured(session, found.chosen.architecture, prefix + LIMITS[0], seed))
    other = Session(run, target=target, limits=LIMITS[1:], progress=progress)
    chosen = specialize(other).architecture
    rows.append(measured(other, chosen, prefix + LIMITS[1], seed))
    metadata = run.record.metadata
    seconds = {f"{name}_s": metadata(f"{name}_seconds") for name in ("training", "search")}
    return [row | seconds for row in rows]


def means(rows):
    """A row per network over its seeds: mean and standard deviation of the validation accuracy."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        values = [row["validation_top1"] for row in rows if row["network"] == name]
        spread = statistics.stdev(values) if len(values) > 1 else None
        found.append(
            {"network": name, "seeds": len(values), "mean": statistics.mean(values), "std": spread}
        )
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--from-nothing", action="store_true")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/photographs"))
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = []
    for seed in arguments.seeds:
        for nothing in (False, True)[: 1 + arguments.from_nothing]:
            with open_run(arguments, seed, nothing=nothing) as run, shown(screen) as progress:
                rows += rows_of(run, seed, nothing=nothing, progress=progress)
                facts = {"epochs": run.recipe.resolved.epochs, "images": len(run.data.train)}
            publish(
                f"photographs-{Path(arguments.data).resolve().name}",
                rows,
                minutes=arguments.minutes,
                means=means(rows),
                **facts,
            )


if __name__ == "__main__":
    main()
