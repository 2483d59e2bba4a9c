"""Which accuracy estimator ranks networks as training from scratch does, and for how many seconds?

    python benchmarks/estimators.py --data ../shared/data/cifar10
    python benchmarks/estimators.py --data ../shared/data/cifar10 --budget 40min

Networks of a space, spread over its range of MACs, are trained from scratch with two seeds: their
mean is the ground truth, and how well the seeds agree its reliability. Every estimator and every
zero-shot score is compared with it by Kendall's tau with a 95 % bootstrap interval, as
`pliant estimate` does. The predictor learns from supernet evaluations of other networks.

`--budget` plans fewer epochs, in the same proportion for all: an epoch of a middle network and one
of the supernet are timed on a tenth of the images. Start the same command again to resume.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

from result import epoch_seconds, kept, minutes, publish, screen

from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.scratch import TrainFromScratch
from pliant.accuracy.shared_weights import train_shared_weights
from pliant.estimation import EstimatorSettings, estimate_networks
from pliant.estimation.estimators import Estimators
from pliant.estimation.spread import spread_over_macs
from pliant.progress import shown
from pliant.training.allocator import keep_freed_memory

ALL = "scratch,supernet,hypernetwork,inherit,predictor,zero-shot"
TIMED_SHARE = 0.1
"""Of the training images, when an epoch is timed."""
HYPERNETWORK_EPOCH = 0.6
"""Of the time of a supernet's epoch: one network per step in place of four, and its generator."""
EVALUATION_SECONDS = 1.0
"""Calibration and validation of a sub-network, and all scores of a network are a few of these."""


def planned(arguments, settings):
    """Epochs of training from scratch and of shared weights for which the budget is enough."""
    estimators = Estimators(settings)
    space, data = estimators.space, fewer_images(estimators.data, TIMED_SHARE)
    middle = spread_over_macs(space, 9, settings.seed)[4]
    epoch = epoch_seconds(
        lambda epochs: TrainFromScratch(space, data, epochs=epochs, images=100).estimate([middle])
    )
    shared_epoch = epoch_seconds(
        lambda epochs: train_shared_weights(space, data, strategy=settings.strategy, epochs=epochs)
    )
    epoch, shared_epoch = epoch / TIMED_SHARE, shared_epoch / TIMED_SHARE
    runs = arguments.networks * (arguments.seeds + 1 / 4)  # a child that inherits: a quarter
    side_by_side = arguments.workers or 1
    training = runs * settings.epochs * epoch / side_by_side
    training += settings.shared_epochs * shared_epoch * (1 + HYPERNETWORK_EPOCH)
    fixed = EVALUATION_SECONDS * (arguments.predictor_evaluations + 10 * arguments.networks)
    share = min(1.0, max(0.0, arguments.budget - fixed / side_by_side) / training)
    screen.print(
        f"an epoch takes {epoch:.0f} s, of the supernet {shared_epoch:.0f} s: {share:.0%} of the "
        "epochs are affordable"
    )
    return {
        "epochs": max(1, round(share * settings.epochs)),
        "shared_epochs": max(1, round(share * settings.shared_epochs)),
    }


def table(result):
    """One row per estimator and baseline, the highest tau first."""
    costs = {one.name: one for one in result.evaluated}
    rows = []
    for one in result.comparison.rows:
        found, tau = costs.get(one.name), one.kendall
        rows.append(
            {
                "estimator": one.name,
                "tau": tau and tau.value,
                "low": tau and tau.low,
                "high": tau and tau.high,
                "equal_size_tau": one.equal_size and one.equal_size.value,
                "over_parameters": one.over_parameters and str(one.over_parameters),
                "regret_points": 100 * one.regret,
                "failed": one.failed,
                "once_cpu_seconds": found and found.setup_seconds,
                "each_cpu_seconds": found and found.seconds,
                "amortised_cpu_seconds": found and found.amortised_seconds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the training images")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--shared-epochs", type=int, default=24)
    parser.add_argument("--strategy", default="sandwich")
    parser.add_argument("--estimators", default=ALL)
    parser.add_argument("--scores", default="all")
    parser.add_argument("--predictor-evaluations", type=int, default=250)
    parser.add_argument("--images", type=int, default=2500, help="of the validation split")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--budget", type=minutes, help="such as 40min")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/benchmark-estimators"))
    arguments = parser.parse_args()
    keep_freed_memory()
    settings = EstimatorSettings(
        arguments.space,
        arguments.data,
        train_share=arguments.share,
        images=arguments.images,
        epochs=arguments.epochs,
        shared_epochs=arguments.shared_epochs,
        strategy=arguments.strategy,
        predictor_evaluations=arguments.predictor_evaluations,
    )
    folder = arguments.run_dir / f"{arguments.space}-{Path(arguments.data).name}"
    if arguments.budget:
        plan = folder / f"plan-{arguments.budget:.0f}.json"
        settings = replace(settings, **kept(plan, lambda: planned(arguments, settings)))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with shown(screen) as progress:
        result = estimate_networks(
            settings,
            arguments.estimators,
            folder / "estimates.parquet",
            architectures=arguments.networks,
            seeds=arguments.seeds,
            scores=arguments.scores,
            workers=arguments.workers,
            progress=progress,
        )
    comparison, quality = result.comparison, result.predictor
    publish(
        f"estimators-{arguments.space}-{Path(arguments.data).name}",
        table(result),
        reliability_seed_against_seed=comparison.reliability and str(comparison.reliability),
        networks=comparison.networks,
        without_truth=comparison.without_truth,
        advice=comparison.advice,
        epochs=settings.epochs,
        shared_epochs=settings.shared_epochs,
        train_share=settings.train_share,
        predictor_tau_on_held_out_networks=quality and quality.kendall_tau,
        predictor_evaluations=quality and quality.rows,
        scratch_cpu_seconds=result.evaluated[0].seconds,
        minutes_of_this_start=(time.monotonic() - began) / 60,
    )


if __name__ == "__main__":
    main()
