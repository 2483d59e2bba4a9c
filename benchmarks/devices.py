"""Predicted against measured latency of 40 unseen networks, per space, runtime and precision.

python benchmarks/devices.py --out DIR [--space mobile-32] [--runtime openvino] [--precision int8]
    [--threads 1 2]

The profile of each space, runtime and precision is measured into DIR by `pliant device measure`'s
own code, the time of which is a column; then networks that no profile has are measured, with other
weights. A profile is measured in a process of its own: memory that other models have left makes a
later one slower. Each network is measured alone, as one is that is delivered, by the
median of three processes: where its memory lies changes it, and a burst of other work may spoil it.
All is kept in DIR: a run that was interrupted goes on. A row that the machine is too
busy for is named and left out; the next start tries it again. Needs a machine with nothing else to
do: other work on another core makes networks of PyTorch slower.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from result import publish
from scipy.stats import spearmanr

from pliant.devices.measure import measure_in_subprocess
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import load_profile, profile_device, random_network_model
from pliant.devices.profile_folder import profile_file
from pliant.devices.runtimes import RUNTIMES
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError
from pliant.files import write_atomically
from pliant.spaces.presets import preset

SPACES = {"digits": (1, 8), "mobile-32": (3, 32), "photos": (3, 224), "ofa-mobilenetv3": (3, 224)}
RUNS = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("pytorch", "fp32"))

PROCESSES = 3
"""That measure a network, each alone."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that is kept")
    parser.add_argument("--space", choices=SPACES, action="append")
    parser.add_argument("--runtime", choices=RUNTIMES, action="append")
    parser.add_argument("--precision", choices=("fp32", "int8"), action="append")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="few rounds, to try the program")
    arguments = parser.parse_args()
    rows, busy = [], []
    for name in arguments.space or ("mobile-32", "ofa-mobilenetv3"):
        channels, size = SPACES[name]
        space = preset(name, channels=channels, image_size=size, classes=10)
        for (runtime, precision), threads in product(RUNS, arguments.threads):
            if runtime not in (arguments.runtime or [runtime]):
                continue
            if precision not in (arguments.precision or [precision]):
                continue
            try:
                rows.append(compared(space, runtime, precision, threads, arguments))
                print(json.dumps(rows[-1]), flush=True)
            except MeasurementError as error:
                busy.append(f"{name}, {runtime}, {precision}, {threads} thread(s): {error}")
                print(busy[-1], flush=True)
    publish("-".join(["devices", *(arguments.runtime or [])]), rows, too_busy=busy)
    return int(bool(busy))


def compared(space, runtime, precision, threads, arguments):
    """One row; what is in the folder is not measured again."""
    settings = Settings(threads=threads, runtime=runtime)
    if arguments.quick:
        settings = replace(
            settings, min_rounds=2, rounds=3, samples=2, sample_us=300, noise_limit=100
        )
    profile, seconds = profiled(space, settings, precision, arguments.out)
    target = MeasuredTarget(profile, space)
    rng = np.random.default_rng(99)
    known = {row.architecture for row in profile.networks}
    drawn = list(dict.fromkeys(space.sample_choices(rng) for _ in range(2 * arguments.networks)))
    unseen = [one for one in drawn if str(one) not in known][: arguments.networks]
    measured = unseen_ms(space, unseen, settings, precision, arguments.out, rng)
    predicted = np.array([cost.latency_ms for cost in target.predict(unseen)])
    return {
        "space": space.name,
        "runtime": runtime,
        "version": profile.runtime_version,
        "precision": precision,
        "threads": threads,
        "networks": len(unseen),
        "blocks": len(profile.blocks),
        "seconds_to_measure": seconds,
        "model": target.predictor.rung,
        "cross_validated_mape_percent": target.predictor.mape_percent,
        "mape_percent": float(100 * np.abs(predicted / measured - 1).mean()),
        "within_10_percent": float((np.abs(predicted / measured - 1) <= 0.1).mean()),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "fastest_ms": float(measured.min()),
        "slowest_ms": float(measured.max()),
        "split_half_error": profile.split_half_error,
        "preempted_share": profile.preempted_share,
    }


def profiled(space, settings, precision, folder):
    """The profile of a folder and the seconds that measuring it took; measured where missing."""
    path = profile_file(folder, space.name, settings, precision)
    timing = path.with_suffix(".seconds")
    if not path.is_file():
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            pool.submit(make_profile, path, timing, space, settings, precision).result()
    return load_profile(path), float(timing.read_text())


def make_profile(path, timing, space, settings, precision):
    """Measure a profile into its file, and the seconds that it took into another."""
    start = time.perf_counter()
    made = patient(lambda: profile_device(space, settings, seed=0, precision=precision))
    write_atomically(timing, f"{time.perf_counter() - start:.1f}\n")
    made.save(path)


def unseen_ms(space, networks, settings, precision, folder, rng):
    """Measured latencies of networks, from the folder where they are there."""
    path = profile_file(folder, space.name, settings, precision)
    path = path.with_name(f"unseen-{path.name}")
    names = [str(one) for one in networks]
    if path.is_file():
        kept = json.loads(path.read_text())
        if list(kept) == names:
            return np.array(list(kept.values()))
    latencies = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        for name, one in zip(names, networks, strict=True):
            file.write_bytes(random_network_model(space.blocks(one), rng, precision))
            latencies[name] = statistics.median(
                patient(lambda: measure_in_subprocess(file, settings)).latency_ms
                for _ in range(PROCESSES)
            )
    write_atomically(path, json.dumps(latencies, indent=1))
    return np.array(list(latencies.values()))


def patient(measured, tries=3):
    """What a measurement returns, tried again where the machine was too busy."""
    try:
        return measured()
    except MeasurementError as error:
        if tries == 1:
            raise
        print(error, flush=True)
    return patient(measured, tries - 1)


if __name__ == "__main__":
    sys.exit(main())
