"""Split-half error of a measurement while another process keeps one core busy: at most 3 %.

python benchmarks/noise.py [--networks 12] [--threads 1]

Networks of mobile-32 are measured alone, then beside a process that computes without pause. The
split-half error is that of the estimates from even and from odd rounds; the shift is the median
change of a latency from the first measurement to the second.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from result import publish

from pliant.devices.profile import measure_networks, random_network_model
from pliant.devices.timings import Settings
from pliant.errors import MeasurementError
from pliant.spaces.presets import preset

BUSY = """
import numpy as np
x = np.random.default_rng(0).random((512, 512))
while True:
    x = np.tanh(x @ x / 512)
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", default="onnxruntime")
    arguments = parser.parse_args()
    settings = Settings(threads=arguments.threads, runtime=arguments.runtime)
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    rng = np.random.default_rng(5)
    networks = [space.sample_choices(rng) for _ in range(arguments.networks)]
    models = {str(one): random_network_model(space.blocks(one), rng) for one in networks}
    rows, before = [], None
    for busy in (False, True):
        found = measured(models, settings, busy)
        latencies = np.array([one.latency_ms for one in found.values()])
        errors = [one.split_half_error for one in found.values()]
        walls = [one.wall_ms / one.latency_ms for one in found.values()]
        rows.append(
            {
                "other_process": busy,
                "threads": settings.threads,
                "runtime": settings.runtime,
                "networks": len(found),
                "split_half_error": float(np.mean(errors)),
                "split_half_error_90": float(np.quantile(errors, 0.9)),
                "preempted_share": float(np.mean([one.preempted_share for one in found.values()])),
                "wall_over_latency": float(np.median(walls)),
                "shift": 0.0 if before is None else float(np.median(latencies / before) - 1),
            }
        )
        before = latencies
        print(rows[-1], flush=True)
    publish("noise", rows)


def measured(models, settings, busy):
    """Latencies by name, with or without the other process, which is ended in any case."""
    if not busy:
        return measure_networks(models, settings, seed=0)
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(1)
        return measure_networks(models, settings, seed=0)
    except MeasurementError as error:
        raise SystemExit(f"refused beside a busy process: {error}") from None
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()
