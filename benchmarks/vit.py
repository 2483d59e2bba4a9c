"""One supernet of vision transformers against the same five networks trained alone.

    python benchmarks/vit.py                              # Fashion-MNIST, 12 epochs each
    python benchmarks/vit.py --epochs 2 --data few.npz    # a proof that it runs

Space `vit-32`, sandwich rule, AdamW. The five are the largest, the smallest, and the best by
validation accuracy of 16 random ones near 75, 50 and 25 % of the largest's MACs. Each is also
trained alone by the same recipe for as many epochs. The test split is opened once, at the end.
Asked: a mean gap of at most 0.5 points. Everything resumes where it was stopped; `--minutes` stops
it by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from result import publish, screen
from supernet import chosen_architectures, train_alone

from pliant.accuracy.evaluation import top1
from pliant.accuracy.supernet import SupernetEstimator
from pliant.runs.run import Run
from pliant.runs.train import train_supernet
from pliant.training.allocator import keep_freed_memory


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--strategy", default="sandwich")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    arguments = parser.parse_args()
    keep_freed_memory()
    began = time.monotonic()

    def check_time(*_):
        if time.monotonic() - began > 60 * arguments.minutes:
            raise SystemExit("The time is over; the same command goes on.")

    def report(log):
        check_time()
        screen.print(f"step {log.step}/{log.steps} loss {log.losses[0]:.3f}")

    def progress(step, done, total, note):
        check_time()
        if done % 50 == 0:
            screen.print(f"{step} {done}/{total} {note}")

    changes = {
        "space": "vit-32",
        "data__source": arguments.data,
        "train__epochs": arguments.epochs,
        "train__batch_size": arguments.batch,
        "train__strategy": arguments.strategy,
    }
    data = Path(arguments.data).stem
    name = f"vit-{data}-{arguments.strategy}-{arguments.epochs}"
    with Run.create("fashion-mnist", folder=arguments.work / name, **changes) as run:
        supernet = train_supernet(run, device="cpu", progress=progress)
        estimator = SupernetEstimator(supernet, run.data.train, run.data.validation, images=5000)
        known = run.record.metadata("benchmark_networks")
        if known is None:
            chosen = chosen_architectures(run, estimator)
            known = {label: str(architecture) for label, architecture in chosen.items()}
            run.record.set_metadata("benchmark_networks", known)
        precision = run.record.metadata("precision")
        pairs = {}
        for label, text in known.items():
            architecture, folder = run.space.parse(text), run.folder / "alone" / label.split()[0]
            alone = train_alone(run, architecture, folder, precision, on_step=report)
            pairs[label] = (architecture, estimator.network(architecture), alone.eval())
            screen.print(f"trained alone: {label}")
        test = run.data.test.open("benchmark: five sub-networks")
        rows = []
        for label, (architecture, shared, alone) in pairs.items():
            row = {"network": label, "architecture": str(architecture)}
            row["macs"] = run.space.cost(architecture).macs
            row |= {"test_top1": top1(shared, test).top1, "alone_test_top1": top1(alone, test).top1}
            row["gap_points"] = 100 * (row["alone_test_top1"] - row["test_top1"])
            rows.append(row)
        publish(
            "vit" if data == "fashion-mnist" else f"vit-{data}",
            rows,
            mean_gap_points=statistics.mean(row["gap_points"] for row in rows),
            asked="at most 0.5",
            epochs=arguments.epochs,
            precision=precision,
            supernet_minutes=run.record.metadata("training_seconds") / 60,
        )


if __name__ == "__main__":
    main()
