"""Are two Ray workers twice as fast as one, and is nothing lost where one of them is killed?

    python benchmarks/workers.py --data ../shared/data/cifar10 --evaluations 48

Networks of a space are trained from scratch by a short schedule, each evaluation on one thread:
by one actor of a local Ray, by two, and by two of which one is killed (SIGKILL) after a third of
the evaluations. The time counts from the first job, after every actor has evaluated a network, so
that starting Ray is not measured. The ratio needs two idle cores.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
from result import minutes, publish, screen

from pliant.estimation import EstimatorSettings
from pliant.estimation.estimators import Estimators, Job, make_worker
from pliant.estimation.spread import spread_over_macs
from pliant.metrics import Failed
from pliant.workers import RayWorkers


def kill_one_actor():
    """SIGKILL for one of the processes in which Ray runs an actor of ours."""
    for process in psutil.process_iter(["cmdline", "ppid"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::_Actor") and process.uids().real == os.getuid():
            process.send_signal(signal.SIGKILL)
            return
    raise SystemExit("no actor was found to kill")


def measured(settings, jobs, warm, size, *, killed=False):
    """All results by job, seconds, and workers that were lost."""
    results = {}
    with RayWorkers(partial(make_worker, settings, {}), size=size) as pool:
        list(pool.run([warm] * size))
        began = time.monotonic()
        for job, found in pool.run(jobs):
            results[job] = found
            if killed and len(results) == len(jobs) // 3:
                kill_one_actor()
        seconds = time.monotonic() - began
    return results, seconds, pool.losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--space", default="mobile-32")
    parser.add_argument("--share", type=float, default=0.05, help="of the training images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, default=500, help="of the validation split")
    parser.add_argument("--evaluations", type=int, default=48)
    parser.add_argument("--budget", type=minutes, help="for all three; fewer evaluations if needed")
    arguments = parser.parse_args()
    settings = EstimatorSettings(
        arguments.space,
        str(Path(arguments.data).resolve()) if Path(arguments.data).exists() else arguments.data,
        train_share=arguments.share,
        images=arguments.images,
        epochs=arguments.epochs,
    )
    space = Estimators(settings).space
    number = arguments.evaluations
    networks = spread_over_macs(space, number + 1, 0)
    if arguments.budget:
        began = time.monotonic()
        make_worker(settings, {})(Job("scratch", str(networks[number // 2])))
        each = time.monotonic() - began
        number = max(3, min(number, int(arguments.budget / (each * 2.2))))
        screen.print(f"{each:.1f} s per evaluation: {number} evaluations")
    # Alternating cheap and dear ones, so that the last ones are not the longest.
    jobs = [Job("scratch", str(one)) for one in networks[:number]]
    jobs = jobs[::2] + jobs[1::2][::-1]
    warm = Job("scratch", str(networks[-1]))
    runs = {
        "one worker": measured(settings, jobs, warm, 1),
        "two workers": measured(settings, jobs, warm, 2),
        "two, one killed": measured(settings, jobs, warm, 2, killed=True),
    }
    alone = runs["one worker"]
    rows = []
    for name, (results, seconds, losses) in runs.items():
        lost = [job for job in jobs if isinstance(results[job], Failed)]
        same = not lost and all(results[job].quality == alone[0][job].quality for job in jobs)
        rows.append(
            {
                "workers": name,
                "evaluations": len(results),
                "seconds": seconds,
                "speedup": alone[1] / seconds,
                "workers_lost": losses,
                "evaluations_lost": len(lost),
                "same_results": same,
            }
        )
    publish("workers", rows, target_speedup=1.8, cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
