"""ProxylessNAS under limits on the latency: is the limit held, and is the network a good one?

    python benchmarks/proxyless.py --data ../shared/data/cifar10 --epochs 40 --seeds 0 1 2
    python benchmarks/proxyless.py --share 0.1 --epochs 16 --seeds 0 1 2

For a fast, a middle and a slow limit (1/6, 1/2 and 5/6 of the latencies of random networks of
`proxyless-32` on this machine), and each seed:

- the strategy, searched and trained within the epochs;
- the strategy without the cost in its loss, at the middle limit;
- the best of random networks that use the same limit and are trained alone, at the same total cost:
  the search trains its network for half of the epochs, so two of them;
- the Once-for-All way: a supernet of the same space by the sandwich rule, searched under the same
  limit, in the same time.

Each network is chosen on validation images, and its test accuracy is stated. Also the peak memory
of a search against training the largest path alone. Every finished part is kept in `--work`; the
same command goes on after a stop. `--share` trains on a share of the training images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from result import publish

from pliant.accuracy.calibration import calibrate
from pliant.accuracy.evaluation import pixels, top1
from pliant.accuracy.fitting import fewer_images
from pliant.data.loading import load
from pliant.networks.initialization import patch_pca_stem
from pliant.networks.supernet import build
from pliant.report.summary import read_summary_file
from pliant.runs.automatic import automatic_recipe
from pliant.runs.run import Run
from pliant.runs.session import Session
from pliant.runs.train import augmentation, first_images, training_recipe
from pliant.training.loop import make_accelerator, train
from pliant.training.proxyless import SHARES, ArchitectureSettings, Proxyless
from pliant.training.scratch import FromScratch

SPACE = "proxyless-32"
LIMITS = {"fast": 1 / 6, "middle": 1 / 2, "slow": 5 / 6}
RANDOM_NETWORKS = round(1 / SHARES["train"])
UNUSED = 0.05


def run_command(folder, *words):
    """One run in a process of its own; its summary and its seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pliant", "run", "--run-dir", str(folder), *map(str, words)]
    subprocess.run(command, check=True)
    return read_summary_file(folder / "summary.json"), time.monotonic() - started


def row_of(summary, seconds, limit):
    """What counts of a run."""
    cost = (summary.chosen.measured_apart or summary.chosen.measured).cost
    return {
        "architecture": summary.chosen.architecture,
        "predicted_ms": summary.chosen.predicted.latency_ms,
        "latency_ms": cost.latency_ms,
        "share_of_limit": cost.latency_ms / limit,
        "validation": summary.chosen.validated.top1,
        "test": summary.chosen.test.top1,
        "minutes": seconds / 60,
    }


def random_networks(run, limit, seed):
    """The best of random networks near the limit, each trained alone for the same epochs."""
    session, rng = Session(run), np.random.default_rng((seed, 11))
    near = []
    while len(near) < RANDOM_NETWORKS:
        architecture = run.space.sample_choices(rng)
        [cost] = session.target.predict([architecture])
        if limit * (1 - UNUSED) <= cost.latency_ms <= limit:
            near.append(architecture)
    found, started = [], time.monotonic()
    precision = run.record.metadata("precision") or "fp32"
    for architecture in near:
        torch.manual_seed(seed)
        network = build(run.space, architecture, mean=run.data.mean, std=run.data.std)
        patch_pca_stem(network, first_images(run))
        recipe = training_recipe(run, precision, round(run.recipe.train.epochs * SHARES["train"]))
        train(
            network,
            run.data.train,
            augmentation(run),
            recipe,
            FromScratch(recipe.label_smoothing),
            accelerator=make_accelerator(precision, "cpu"),
        )
        calibrate(network, pixels(run.data.train.batch(np.arange(2000))[0]))
        accuracy = top1(network, run.data.validation).top1
        found.append((accuracy, architecture, network))
    accuracy, architecture, network = max(found, key=lambda one: one[0])
    [cost] = session.target.predict([architecture])
    test = run.data.test.open("the best of random networks, for the benchmark of ProxylessNAS")
    return {
        "architecture": str(architecture),
        "predicted_ms": cost.latency_ms,
        "validation": accuracy,
        "test": top1(network, test).top1,
        "minutes": (time.monotonic() - started) / 60,
    }


class SearchedError(Exception):
    """The search is over; the rest of the training is not wanted."""


def without_cost(run, limit, seed):
    """Where the search goes with the cost left out of its loss: expected latency over the limit."""
    strategy = Proxyless(
        run.space,
        Session(run).target,
        {"latency_ms": limit},
        settings=ArchitectureSettings(penalty="none"),
    )
    torch.manual_seed(seed)
    model = strategy.make_supernet(run.space, mean=run.data.mean, std=run.data.std)
    patch_pca_stem(model, first_images(run))
    last = {}

    def on_step(log):
        if log.phase == "train":
            raise SearchedError
        last.update(log.measures)

    precision = run.record.metadata("precision") or "fp32"
    with contextlib.suppress(SearchedError):
        train(
            model,
            {"train": run.data.train, "validation": run.data.validation},
            augmentation(run),
            training_recipe(run, precision, run.recipe.train.epochs),
            strategy,
            accelerator=make_accelerator(precision, "cpu"),
            on_step=on_step,
        )
    return {"expected_ms": last["expected latency_ms"], "entropy": last["entropy"]}


def peak_memory_mb(run_folder, what):
    """Peak resident memory of 30 steps, in a process of its own."""
    command = [sys.executable, __file__, "--memory", what, "--data", str(run_folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def memory_of(what, run_folder):
    """Take 30 steps of a search, or of the largest path, and print the peak memory in MB."""
    with Run.reopen(Path(run_folder)) as run:
        limits = {"macs": 0.5 * run.space.cost(run.space.largest()).macs}
        gradient = "all-path" if what == "all-path" else "two-path"
        session = Session(run)
        strategy = Proxyless(
            run.space, session.target, limits, settings=ArchitectureSettings(gradient=gradient)
        )
        model = strategy.make_supernet(run.space, mean=run.data.mean, std=run.data.std)
        recipe = training_recipe(run, "fp32", 1)
        few = run.data.train.subset(np.arange(30 * recipe.batch_size))
        if what == "largest":
            model = build(run.space, run.space.largest(), mean=run.data.mean, std=run.data.std)
            strategy = FromScratch()
        splits = {"train": few, "validation": few}
        accelerator = make_accelerator("fp32", "cpu")
        train(model, splits, augmentation(run), recipe, strategy, accelerator=accelerator)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def fewer(source, share, path):
    """A share of the training images of a source, and all of its test images, as an .npz file."""
    if share >= 1:
        return source
    if not path.is_file():
        data = fewer_images(load(source, seed=0), share)
        arrays = {}
        test = data.test.open("images for the benchmark of ProxylessNAS")
        for name, split in (("train", data.train), ("test", test)):
            images, labels = split.batch(np.arange(len(split)))
            arrays |= {f"x_{name}": images.permute(0, 2, 3, 1).numpy(), f"y_{name}": labels.numpy()}
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.rename(path)
    return path


class Kept:
    """Finished parts by name."""

    def __init__(self, path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, name, make):
        """The part of a name, made now where it is not there."""
        if name not in self.rows:
            self.rows[name] = make()
            self.path.write_text(json.dumps(self.rows, indent=1, default=float))
        return self.rows[name]


def limits_of(run):
    """Latencies of random networks at the shares of `LIMITS`, in ms."""
    rng = np.random.default_rng(5)
    networks = [run.space.sample_choices(rng) for _ in range(500)]
    latencies = [cost.latency_ms for cost in Session(run).target.predict(networks)]
    return {name: float(np.quantile(latencies, share)) for name, share in LIMITS.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--share", type=float, default=1.0, help="of the training images")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limits", nargs="+", default=list(LIMITS), choices=list(LIMITS))
    parser.add_argument("--no-supernet", action="store_true", help="leave Once-for-All's way out")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/proxyless"))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory_of(options.memory, options.data)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.work / "parts.json")
    source = str(fewer(options.data, options.share, options.work / "images.npz"))
    words = ["--data", source, "--space", SPACE, "--epochs", options.epochs]
    profile = options.work / "profile"
    base = ["--strategy", "proxyless", *words]

    # This machine is measured once; all runs take its profile.
    def first():
        changes = {"data.source": source, "space": SPACE, "train.epochs": options.epochs}
        with Run(profile, automatic_recipe(changes).recipe) as run:
            return limits_of(run)

    limits = kept.get("limits", first)
    target = ["--target", profile / "device.json"]
    rows = []
    for name in options.limits:
        limit = limits[name]
        for seed in options.seeds:
            bound = ["--limit", f"latency_ms={limit:.4f}", "--seed", seed, *target]
            folder = options.work / f"{name}-{seed}"
            ours = kept.get(
                folder.name,
                lambda: row_of(*run_command(folder, *base, *bound), limit),  # noqa: B023
            )
            rows.append({"limit": name, "ms": limit, "seed": seed, "by": "proxyless"} | ours)

            def at_random():
                with Run.reopen(folder) as run:  # noqa: B023
                    return random_networks(run, limit, seed)  # noqa: B023

            best = kept.get(f"{folder.name}-random", at_random)
            by = f"best of {RANDOM_NETWORKS} random networks"
            rows.append({"limit": name, "ms": limit, "seed": seed, "by": by} | best)
            if not options.no_supernet:
                seconds = round(60 * ours["minutes"])
                supernet = ["--strategy", "sandwich", "--time", f"{seconds}s", *words[:4]]
                other = options.work / f"{name}-{seed}-supernet"
                found = kept.get(
                    other.name,
                    lambda: row_of(*run_command(other, *supernet, *bound), limit),  # noqa: B023
                )
                rows.append({"limit": name, "ms": limit, "seed": seed, "by": "supernet"} | found)
    middle = options.limits[len(options.limits) // 2]
    folder = options.work / f"{middle}-{options.seeds[0]}"

    def off():
        with Run.reopen(folder) as run:
            return without_cost(run, limits[middle], options.seeds[0])

    found = kept.get("without-cost", off)
    rows.append({"limit": middle, "ms": limits[middle], "by": "cost left out of the loss"} | found)
    memory = {
        f"peak_memory_mb_{what.replace('-', '_')}": kept.get(
            f"memory-{what}",
            lambda what=what: peak_memory_mb(folder, what),
        )
        for what in ("largest", "two-path", "all-path")
    }
    facts = {"share_of_images": options.share, "epochs": options.epochs}
    publish("proxyless", rows, **facts, limits_ms=limits, **memory, **gains(rows))


def gains(rows):
    """Test accuracy of the strategy less that of each alternative, over limits and seeds."""
    by = {}
    for row in rows:
        if "test" in row:
            by.setdefault(row["by"], {})[row["limit"], row["seed"]] = row["test"]
    found = {}
    for name, tests in by.items():
        if name == "proxyless":
            continue
        gaps = [100 * (by["proxyless"][key] - test) for key, test in tests.items()]
        spread = stdev(gaps) if len(gaps) > 1 else float("nan")
        found[f"points above {name}"] = f"{mean(gaps):.2f}, standard deviation {spread:.2f}"
    return found


if __name__ == "__main__":
    main()
