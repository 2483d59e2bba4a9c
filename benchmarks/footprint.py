"""Seconds of `import pliant`; seconds and peak memory of a whole `pliant run`, in new processes.

    python benchmarks/footprint.py [--run fashion-mnist --epochs 1]

Peak memory does not grow with the epochs, so few are enough for it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

import psutil
from result import publish


def seconds_of(command):
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def peak_memory_bytes(command):
    """Largest resident set of a process and its children, looked at ten times a second."""
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return peak


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--run-dir", help="keep the run in this directory")
    arguments = parser.parse_args()
    bare = statistics.median(seconds_of([sys.executable, "-c", "pass"]) for _ in range(9))
    imported = statistics.median(
        seconds_of([sys.executable, "-c", "import pliant"]) for _ in range(9)
    )
    rows = [{"what": "import pliant", "seconds": imported, "of_which_python_s": bare}]
    if arguments.run:
        with tempfile.TemporaryDirectory() as folder:
            run_dir = str(arguments.run_dir or f"{folder}/run")
            command = [
                sys.executable,
                "-m",
                "pliant",
                "run",
                arguments.run,
                "--epochs",
                str(arguments.epochs),
                "--run-dir",
                run_dir,
            ]
            started = time.perf_counter()
            peak = peak_memory_bytes(command)
            rows.append(
                {
                    "what": f"pliant run {arguments.run} --epochs {arguments.epochs}",
                    "seconds": time.perf_counter() - started,
                    "peak_memory_gb": peak / 1e9,
                }
            )
    publish("footprint", rows)


if __name__ == "__main__":
    main()
