"""Measured latency of delivered networks over their limit: several limits on one finished run, each network in a fresh process.

python benchmarks/limits.py RUN
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from result import publish

from pliant.deploy.package import write_model
from pliant.deploy.verify import measure_in_fresh_process
from pliant.objective import Limit
from pliant.runs.profile import device_profile, settings
from pliant.runs.run import Run
from pliant.runs.search import make_estimator
from pliant.runs.specialize import another_network
from pliant.runs.train import train_supernet

LIMITS = 6


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    rows = []
    with Run.reopen(arguments.run) as run:
        profile, supernet = device_profile(run), train_supernet(run)
        table = profile.table(run.space)
        ends = [cost.latency_ms for cost in table([run.space.smallest(), run.space.largest()])]
        for at_most in np.geomspace(ends[0] * 1.15, ends[1] * 0.95, LIMITS):
            started = time.perf_counter()
            limit = Limit("latency_ms", float(f"{at_most:.3g}"))
            chosen = another_network(run, supernet, profile, [limit])
            folder = run.folder / "limits" / f"{limit.bound:g}ms"
            network = make_estimator(run, supernet).network(chosen.architecture)
            write_model(
                folder, network, run.space.blocks(chosen.architecture), classes=run.data.classes
            )
            measured = measure_in_fresh_process(folder / "model.onnx", settings(run))
            rows.append(
                {
                    "limit_ms": limit.bound,
                    "measured_ms": measured,
                    "over_percent": 100 * (measured / limit.bound - 1),
                    "predicted_ms": chosen.predicted.latency_ms,
                    "validation_top1": chosen.validated.top1,
                    "seconds": time.perf_counter() - started,
                }
            )
        publish(f"limits-{run.recipe.name}", rows)


if __name__ == "__main__":
    main()
