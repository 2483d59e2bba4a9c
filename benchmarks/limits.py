"""Measured latency of delivered networks over their limit, each in a subprocess.

python benchmarks/limits.py RUN
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from result import publish

from pliant.deploy.package import write_model
from pliant.objective import Limit
from pliant.runs.run import Run
from pliant.runs.session import Session
from pliant.runs.specialize import specialize

LIMITS = 6


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    rows = []
    with Run.reopen(arguments.run) as run:
        session = Session(run, limits=())
        ends = session.target.predict([run.space.smallest(), run.space.largest()])
        fastest, slowest = (cost.latency_ms for cost in ends)
        for bound in np.geomspace(fastest * 1.15, slowest * 0.95, LIMITS):
            started = time.perf_counter()
            limit = Limit("latency_ms", float(f"{bound:.3g}"))
            session = Session(run, limits=[limit])
            chosen = specialize(session)
            folder = run.folder / "limits" / f"{limit.bound:g}ms"
            write_model(
                folder,
                session.network(chosen.architecture),
                run.space.blocks(chosen.architecture),
                classes=run.data.classes,
            )
            measured = session.target.measure_file(folder / "model.onnx").cost.latency_ms
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
