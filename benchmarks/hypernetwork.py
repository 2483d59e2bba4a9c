"""How accurate are generated weights without any training of the child, and how do they rank?

    python benchmarks/hypernetwork.py --data ../shared/data/cifar10 --budget 30min
    python benchmarks/hypernetwork.py --data ../shared/data/cifar10 --budget 10min \
        --truth runs/benchmark-estimators/mobile-32-cifar10/estimates.parquet

A hypernetwork, with each of its encoders, and free shared weights (one random network per step, by
the same slices) are each trained for the time of `--budget`: epochs follow from a timed one. Then
networks spread over the range of MACs are calibrated and evaluated with the weights of each. With
`--truth`, those of a table of `benchmarks/estimators.py`, and their rank correlations with training
from scratch.

Start the same command again to resume.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pyarrow.parquet as pq
from result import epoch_seconds, kept, minutes, publish, screen

from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.hypernetwork import HyperNetwork
from pliant.accuracy.ranking import BASELINES, rank_correlations
from pliant.accuracy.shared_weights import SharedWeights, train_shared_weights
from pliant.estimation import EstimatorSettings
from pliant.estimation.estimators import Estimators
from pliant.estimation.spread import spread_over_macs
from pliant.metrics import Accuracy
from pliant.training.allocator import keep_freed_memory

KINDS = ("hypernetwork graph", "hypernetwork code", "weight sharing")
TIMED_SHARE = 0.1
"""Of the training images, when an epoch is timed."""


def estimator_of(kind, space, data, epochs, arguments, folder=None):
    """Trained weights of a kind, behind one interface."""
    if kind == "weight sharing":
        supernet = train_shared_weights(
            space, data, strategy="single-path", epochs=epochs, seed=arguments.seed, folder=folder
        )
        return SharedWeights(supernet, images=arguments.images)
    made = HyperNetwork(
        space,
        data,
        encoder=kind.split()[1],
        epochs=epochs,
        seed=arguments.seed,
        images=arguments.images,
        folder=folder,
    )
    made.prepare()
    return made


def planned_epochs(kind, space, data, arguments):
    """Epochs for which the budget is enough, by the wall time of one on fewer images."""
    few = fewer_images(data, TIMED_SHARE)
    seconds = epoch_seconds(lambda epochs: estimator_of(kind, space, few, epochs, arguments))
    return max(1, int(arguments.budget * TIMED_SHARE / seconds))


def truth_of(path, space):
    """Mean accuracy over the seeds of training from scratch, by network."""
    found = {}
    for row in pq.read_table(path).to_pylist():
        if row["estimator"].startswith("scratch") and row["top1"] is not None:
            found.setdefault(space.parse(row["architecture"]), []).append(row["top1"])
    return {one: statistics.fmean(values) for one, values in found.items()}


def row_of(kind, space, data, networks, arguments):
    epochs = planned_epochs(kind, space, data, arguments)
    screen.print(f"{kind}: {epochs} epochs")
    began = time.monotonic()
    estimator = estimator_of(kind, space, data, epochs, arguments, arguments.run_dir / "weights")
    trained = time.monotonic() - began
    estimates = estimator.evaluate(networks)
    return {
        "weights": kind,
        "epochs": epochs,
        "training_minutes": trained / 60,
        "training_cpu_minutes": estimator.setup_seconds / 60,
        "top1": [
            found.quality.top1 if isinstance(found.quality, Accuracy) else None
            for found in estimates
        ],
        "seconds_per_network": statistics.median(found.seconds for found in estimates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=1.0, help="of the training images")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--images", type=int, default=2500, help="of the validation split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--truth", type=Path, help="a table of benchmarks/estimators.py")
    parser.add_argument("--budget", type=minutes, default=1800.0, help="of each, such as 30min")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/benchmark-hypernetwork"))
    arguments = parser.parse_args()
    keep_freed_memory()
    settings = EstimatorSettings(arguments.space, arguments.data, train_share=arguments.share)
    subject = Estimators(settings)
    data, space = subject.data, subject.space
    truth = truth_of(arguments.truth, space) if arguments.truth else {}
    networks = list(truth) or spread_over_macs(space, arguments.networks, arguments.seed)
    found = []
    for kind in arguments.kinds:
        name = f"{kind}-{arguments.space}-{arguments.budget:.0f}-{arguments.share:.3g}"
        name += f"-{len(networks)}-{arguments.seed}.json"

        def make(kind=kind):
            return row_of(kind, space, data, networks, arguments)

        found.append(kept(arguments.run_dir / name.replace(" ", "-"), make))
    taus = {}
    if truth:
        scores = {one["weights"]: one["top1"] for one in found}
        for name in BASELINES:
            scores[name] = [space.cost(one).metric(name) for one in networks]
        rows = rank_correlations(list(truth.values()), scores)
        taus = {row.name: row.kendall and str(row.kendall) for row in rows}
    rows = []
    for one in found:
        top1 = [value for value in one.pop("top1") if value is not None]
        rows.append(
            one
            | {
                "mean": statistics.fmean(top1),
                "best": max(top1),
                "worst": min(top1),
                "tau_with_scratch": taus.get(one["weights"]),
            }
        )
    publish(
        f"hypernetwork-{arguments.space}-{Path(arguments.data).name}",
        rows,
        networks=len(networks),
        target_top1=0.6,
        training_images=len(data.train),
        tau_of_parameters=taus.get("parameters"),
    )


if __name__ == "__main__":
    main()
