"""A few photographs of each class: what `pliant run` makes of them in a short time.

    python benchmarks/few_photographs.py --data ../shared/data/clothing --seeds 0 1 2
    python benchmarks/few_photographs.py --data cifar10-original.npz --per-class 100 --seeds 0 1 2

Of every class so many training images are drawn, by the seed; the others of the source are for
testing alone. A run without a recipe gets the drawn images, a limit and a time, and splits off its
validation images itself, as a user's run does. Rows: the linear classifier on the frozen start, the
full network, and the delivered one. The standard error of a test accuracy is that of one seed.

Seeds that were finished are read from `--run-dir`, others resume where they were stopped. The time
is of an uninterrupted run; it needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image
from result import publish, screen

from pliant.accuracy.evaluation import top1
from pliant.data.loading import read_source
from pliant.data.pictures import ArrayPictures
from pliant.files import write_atomically
from pliant.objective import Limit
from pliant.progress import shown
from pliant.runs.automatic import automatic_recipe
from pliant.runs.baselines import linear_start
from pliant.runs.recipe import load_recipe
from pliant.runs.run import Run
from pliant.runs.session import Session
from pliant.runs.workflow import run_steps
from pliant.targets import Arithmetic
from pliant.training.allocator import keep_freed_memory


def draw_images(arguments, seed):
    """The folder of a seed's images, for training and for testing, as a user would have them."""
    folder = arguments.run_dir / f"images-{seed}"
    if folder.is_dir():
        return folder
    source = read_source(arguments.data)
    part, test = source.parts["train"], source.parts.get("test")
    rng = np.random.default_rng(seed)
    train_rows, test_rows = [], []
    for label in range(len(source.classes)):
        rows = rng.permutation(np.flatnonzero(part.labels == label))
        train_rows += rows[: arguments.per_class].tolist()
        if test is None:
            others = rows[arguments.per_class :]
        else:
            others = np.random.default_rng(0).permutation(np.flatnonzero(test.labels == label))
        test_rows += others[: arguments.tested_per_class].tolist()
    partial = folder.with_suffix(".partial")
    write_pictures(part, train_rows, source.classes, partial / "train")
    write_pictures(test or part, test_rows, source.classes, partial / "test")
    partial.rename(folder)
    return folder


def write_pictures(part, rows, classes, folder):
    """Some pictures of a source, in a folder for each class; arrays become PNG files."""
    wanted = set(rows)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    if isinstance(part.pictures, ArrayPictures):
        for row in rows:
            pixels = part.pictures.pixels[row].squeeze()
            Image.fromarray(pixels).save(folder / classes[part.labels[row]] / f"{row}.png")
        return
    for row, picture in enumerate(part.pictures.items()):
        if row in wanted:
            path = folder / classes[part.labels[row]] / f"{row}.jpg"
            path.write_bytes(picture.read())


def rows_of(arguments, seed, progress):
    """Accuracies of one seed; kept in its run directory once they are known."""
    folder = arguments.run_dir / f"run-{seed}"
    known = folder / "benchmark.json"
    if known.is_file():
        return json.loads(known.read_text("utf-8"))
    started = time.perf_counter()
    changes = {
        "data.source": str(draw_images(arguments, seed)),
        "data.image_size": arguments.image_size,
        "train.epochs": arguments.epochs,
        "time": f"{arguments.minutes:g}min",
        "limits": [arguments.limit],
        "seed": seed,
    }
    path = folder / "recipe.toml"
    given = {key: value for key, value in changes.items() if value is not None}
    recipe = load_recipe(str(path)) if path.is_file() else automatic_recipe(given).recipe
    with Run(folder, recipe) as run:
        metric = Limit.parse(arguments.limit).metric
        target = None if metric == "latency_ms" else Arithmetic(run.space)
        session = Session(run, target=target, progress=progress)
        result = run_steps(session)
        minutes = (time.perf_counter() - started) / 60
        test = run.data.test.open("benchmark: few photographs")
        networks = {
            "full network": run.space.largest(),
            "delivered network": result.found.chosen.architecture,
        }
        common = {"seed": seed, "epochs": session.plan.epochs, "minutes": minutes}
        rows = [
            {
                "network": f"linear classifier, {session.baselines.features}",
                "validation_top1": session.baselines.linear.top1,
                "test_top1": top1(linear_start(run), test).top1,
                **common,
            }
        ]
        for name, architecture in networks.items():
            rows.append(
                {
                    "network": name,
                    "validation_top1": session.validate(architecture).top1,
                    "test_top1": top1(session.network(architecture), test).top1,
                    **common,
                    "million_macs": run.space.cost(architecture).macs / 1e6,
                    "architecture": str(architecture),
                }
            )
        for row in rows:
            row |= {"chance": session.baselines.chance, "tested": len(test)}
    write_atomically(known, json.dumps(rows, indent=1))
    return rows


def means(rows):
    """Per network over the seeds: mean test accuracy, its deviation, and a seed's standard error.

    `over_linear` is the mean difference to the linear classifier of the same seed.
    """
    linear = {row["seed"]: row["test_top1"] for row in rows if row["network"].startswith("linear")}
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        values = [row["test_top1"] for row in own]
        mean = statistics.mean(values)
        differences = [row["test_top1"] - linear[row["seed"]] for row in own]
        found.append(
            {
                "network": name,
                "seeds": len(own),
                "test_mean": mean,
                "test_std": statistics.stdev(values) if len(values) > 1 else None,
                "standard_error_of_a_seed": math.sqrt(mean * (1 - mean) / own[0]["tested"]),
                "over_linear": statistics.mean(differences),
                "over_linear_least": min(differences),
                "validation_mean": statistics.mean(row["validation_top1"] for row in own),
            }
        )
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--tested-per-class", type=int, default=80)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--epochs", type=int, help="at most; as many as fit where not given")
    parser.add_argument("--image-size", type=int, help="follows from images and limit if not given")
    parser.add_argument("--limit", default="latency_ms=5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/few_photographs"))
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = []
    for seed in arguments.seeds:
        with shown(screen) as progress:
            rows += rows_of(arguments, seed, progress)
        publish(
            f"few_photographs-{Path(arguments.data).stem}",
            rows,
            images_per_class=arguments.per_class,
            time_minutes=arguments.minutes,
            limit=arguments.limit,
            means=means(rows),
        )


if __name__ == "__main__":
    main()
