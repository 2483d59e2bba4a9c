"""CPU seconds to search 20,000 candidates with predictor and latency table, and time of the front.

OMP_NUM_THREADS=1 python benchmarks/search_speed.py [--candidates 20000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from result import publish

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.devices.measure import Settings
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import profile_device
from pliant.objective import Limit, Objective
from pliant.search.ask_tell import combined, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.spaces.presets import preset

FITTED = 300


def front_ms(objective, history):
    """The front of the whole history, the median of nine times in milliseconds."""
    taken = []
    for _ in range(9):
        started = time.perf_counter()
        objective.front(history)
        taken.append(1e3 * (time.perf_counter() - started))
    return float(np.median(taken))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=20_000, help="networks to search")
    arguments = parser.parse_args()
    rows = []
    for name, channels, size in (("mobile-32", 3, 32), ("plain-32", 3, 32)):
        space = preset(name, channels=channels, image_size=size, classes=10)
        profile = profile_device(space, Settings(rounds=3), seed=0)
        rng = np.random.default_rng(0)
        seen = [space.sample_choices(rng) for _ in range(FITTED)]
        # Made-up accuracies: only the time of the search is measured here.
        top1 = np.array([np.log(space.cost(one).macs) / 25 for one in seen]) + rng.normal(
            0, 0.005, FITTED
        )
        latencies = [cost.latency_ms for cost in MeasuredTarget(profile, space).predict(seen)]
        limit = Limit("latency_ms", float(np.median(latencies)))
        fresh = preset(name, channels=channels, image_size=size, classes=10)  # without cached costs
        started = time.process_time()
        predictor = AccuracyPredictor(fresh, seen, top1, seed=0)
        fitted = time.process_time()
        objective = Objective(("latency_ms",), (limit,))
        searcher = ParetoSearch(fresh, objective, seed=0)
        evaluate = combined(predictor, MeasuredTarget(profile, fresh).predict)
        history = run_search(searcher, evaluate, arguments.candidates)
        rows.append(
            {
                "preset": name,
                "candidates": len(history),
                "fit_cpu_s": fitted - started,
                "search_cpu_s": time.process_time() - fitted,
                "front": len(objective.front(history)),
                "front_ms": front_ms(objective, history),
            }
        )
    publish("search_speed", rows)


if __name__ == "__main__":
    main()
