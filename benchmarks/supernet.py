"""Test accuracy, MACs and latency of five sub-networks of a supernet that is trained by a recipe.

    python benchmarks/supernet.py cifar10 --data ../shared/data/cifar10
    python benchmarks/supernet.py cifar10 --data ../shared/data/cifar10 --search
    python benchmarks/supernet.py fashion-mnist --alone    # also trains the five from scratch

The five are the largest, the smallest, and three in between: of 16 random networks near three
quarters, a half and a quarter of the largest's MACs, the ones with the best validation accuracy.
With `--search`, these are the best that Pliant's search finds within the same MACs. If the space
has flip test-time augmentation, the largest network without it is added. Training resumes where it
was stopped. The test split is opened once, at the end. Latency needs a quiet machine;
`--only-latency` measures it again for an existing result.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from result import RESULTS, publish, screen

from pliant.accuracy.calibration import calibrate
from pliant.accuracy.evaluation import top1
from pliant.accuracy.predictor import AccuracyPredictor
from pliant.accuracy.supernet import SupernetEstimator
from pliant.deploy.package import onnx_bytes
from pliant.devices.profile import measure_networks
from pliant.devices.timings import Settings
from pliant.networks.initialization import patch_pca_stem
from pliant.networks.supernet import build
from pliant.objective import Objective
from pliant.runs.run import Run
from pliant.runs.session import Session
from pliant.runs.train import augmentation, first_images, train_supernet, training_recipe
from pliant.search.ask_tell import combined, memoized, run_search
from pliant.search.linas import LinasSearch
from pliant.training.allocator import keep_freed_memory
from pliant.training.checkpoint import Checkpoints
from pliant.training.loop import make_accelerator, train
from pliant.training.scratch import FromScratch

SHARES = (0.75, 0.5, 0.25)
CANDIDATES = 16
FINALISTS = 4
"""Best estimates within a share that are validated on all images."""


def chosen_architectures(run, estimator):
    """Label to architecture, the largest first."""
    space, rng = run.space, run.rng(7)
    largest = space.cost(space.largest()).macs
    found = {"largest": space.largest()}
    for share in SHARES:
        near = []
        for _ in range(20_000):
            architecture = space.sample_choices(rng)
            if (
                abs(space.cost(architecture).macs / largest - share) < 0.02 * share + 0.005
                and architecture not in near
            ):
                near.append(architecture)
            if len(near) == CANDIDATES:
                break
        scores = [result.top1 for result in estimator.estimate(near)]
        found[f"{share:.0%} of its MACs"] = near[int(np.argmax(scores))]
    return found | ends(space)


def ends(space):
    """The smallest network, and the largest without flip test-time augmentation if that differs."""
    alone = space.trainable_space().largest()
    return ({"largest, one view": alone} if alone != space.largest() else {}) | {
        "smallest": space.smallest()
    }


def searched_architectures(run, estimator):
    """Label to architecture: the most accurate network of one search within each share of MACs."""
    space, options = run.space, run.recipe.search
    costs = lambda architectures: [space.cost(one) for one in architectures]  # noqa: E731
    search = LinasSearch(
        space,
        Objective(("macs",)),
        costs,
        fit=lambda architectures, top1: AccuracyPredictor(
            space, architectures, top1, seed=run.recipe.seed
        ),
        batch=options.estimates // options.rounds,
        candidates=options.candidates,
        seed=run.recipe.seed,
    )
    session = Session(run, limits=())
    evaluate = memoized(
        combined(session.estimator, costs),
        run.record,
        stage="benchmark search",
        context=session.weights_digest,
        split="validation",
    )
    sound = [one for one in run_search(search, evaluate, options.estimates) if one.failure is None]
    history = sorted(sound, key=lambda one: -one.value)
    largest = space.cost(space.largest()).macs
    found = {"largest": space.largest()}
    for share in SHARES:
        within = [one.architecture for one in history if one.cost.macs <= share * largest][
            :FINALISTS
        ]
        found[f"{share:.0%} of its MACs"] = max(
            within, key=lambda one: estimator.validate(one).top1
        )
    return found | ends(space)


def train_alone(run, architecture, folder, precision, on_step=lambda log: None):
    """The same architecture from scratch by the same recipe: same epochs, same batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        network = build(run.space, architecture, mean=run.data.mean, std=run.data.std)
    patch_pca_stem(network, first_images(run))
    recipe = training_recipe(run, precision, run.recipe.train.epochs)
    train(
        network,
        run.data.train,
        augmentation(run),
        recipe,
        FromScratch(recipe.label_smoothing),
        accelerator=make_accelerator(precision, "cpu"),
        checkpoints=Checkpoints(folder),
        on_step=on_step,
    )
    return network


def with_latency(run, estimator, rows):
    """Adds the latency in ONNX Runtime, with the threads and the batch size of the recipe."""
    architectures = {row["network"]: run.space.parse(row["architecture"]) for row in rows}
    models = {
        label: onnx_bytes(estimator.network(one), run.space.blocks(one))
        for label, one in architectures.items()
    }
    target = run.recipe.target
    settings = Settings(target.threads, target.batch, target.optimisation)
    found = measure_networks(models, settings, seed=0)
    return [row | {"latency_ms": found[row["network"]].latency_ms} for row in rows]


def measure_again(run, estimator, name):
    """Replace the latencies of a result that is there."""
    known = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    facts = {
        key: value for key, value in known.items() if key not in ("benchmark", "machine", "rows")
    }
    publish(name, with_latency(run, estimator, known["rows"]), **facts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data")
    parser.add_argument("--space")
    parser.add_argument("--strategy")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--alone", action="store_true", help="train the five alone as well")
    parser.add_argument(
        "--search",
        action="store_true",
        help="choose the networks between the ends by search, not the best of 16",
    )
    parser.add_argument(
        "--only-latency", action="store_true", help="of the networks of a result that is there"
    )
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    arguments = parser.parse_args()
    keep_freed_memory()
    changes = {
        "data__source": arguments.data,
        "space": arguments.space,
        "train__strategy": arguments.strategy,
        "train__epochs": arguments.epochs,
    }
    name = "-".join(
        str(part)
        for part in (arguments.recipe, arguments.space, arguments.strategy, arguments.epochs)
        if part
    )
    result = f"{name}-searched" if arguments.search else name
    with Run.create(arguments.recipe, folder=arguments.work / name, **changes) as run:
        cpu_before = run.record.metadata("cpu_seconds") or 0.0

        def progress(step, done, total, note):
            run.record.set_metadata("cpu_seconds", cpu_before + time.process_time())
            if done % 50 == 0:
                screen.print(f"{step} {done}/{total} {note}")

        supernet = train_supernet(run, device="cpu", progress=progress)
        estimator = SupernetEstimator(supernet, run.data.train, run.data.validation, images=5000)
        if arguments.only_latency:
            measure_again(run, estimator, f"supernet-{result}")
            return
        choose = searched_architectures if arguments.search else chosen_architectures
        networks = {label: (a, estimator.network(a)) for label, a in choose(run, estimator).items()}
        validated = {label: estimator.validate(a).top1 for label, (a, _) in networks.items()}
        alone = {}
        if arguments.alone:
            images = estimator.calibration_images
            for label, (architecture, _) in networks.items():
                network = train_alone(
                    run,
                    architecture,
                    run.folder / "alone" / label.replace(" ", "-"),
                    run.record.metadata("precision"),
                )
                alone[label] = calibrate(network, images)
                screen.print(f"trained alone: {label}")
        test = run.data.test.open("benchmark: five sub-networks")
        rows = []
        for label, (architecture, network) in networks.items():
            cost = run.space.cost(architecture)
            row = {
                "network": label,
                "architecture": str(architecture),
                "macs": cost.macs,
                "parameters": cost.parameters,
            }
            row |= {"validation_top1": validated[label], "test_top1": top1(network, test).top1}
            if alone:
                row["alone_test_top1"] = top1(alone[label], test).top1
                row["gap_points"] = 100 * (row["alone_test_top1"] - row["test_top1"])
            rows.append(row)
        publish(
            f"supernet-{result}",
            with_latency(run, estimator, rows),
            recipe=run.recipe.model_dump(mode="json"),
            precision=run.record.metadata("precision"),
            training_wall_minutes=run.record.metadata("training_seconds") / 60,
            training_cpu_minutes=run.record.metadata("cpu_seconds") / 60,
            test_openings=[
                dataclasses.asdict(event) for event in run.record.events("test split opened")
            ],
        )


if __name__ == "__main__":
    main()
